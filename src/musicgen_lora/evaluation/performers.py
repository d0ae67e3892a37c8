"""Who plays: the base, or an adapter on it at a strength. One base is loaded for all of them, and
what one of them has played or scored is kept under its identity."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from musicgen_lora.evaluation.store import Store, key_of
from musicgen_lora.evaluation.variants import Variant
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.cpu.switch import enable
from musicgen_lora.model.fingerprint import fingerprint
from musicgen_lora.model.lora.mixture import Mixture, read_part
from musicgen_lora.model.text.reading import MAX_TEXT_TOKENS
from musicgen_lora.model.text.wording import english_of
from musicgen_lora.runtime import processes

BASE, ADAPTER = "base", "adapter"


@dataclass(frozen=True)
class Performer:
    """A base as it is, or with an adapter.

    Args:
        store: where what it made is kept.
        identity: hash of the weights that it plays with.
        worn: context in which the base has those weights.
        precision: of the weights of decoders that play.
        adapter: folder of the adapter; None is the base.
    """

    model: BaseModel
    store: Store
    identity: str
    worn: Callable[[], AbstractContextManager[Any]]
    precision: str = "fp32"
    adapter: Path | None = None
    strength: float = 1.0

    def key(self, *facts: Any) -> str:
        """The store's key of what this performer makes of these facts."""
        return key_of(self.identity, torch.__version__, self.model.device.type, *facts)

    def reads(self, text: str | None) -> list[int] | None:
        """What it reads of a text, as numbers."""
        if text is None:
            return None
        tokens = self.model.tokenizer(english_of(text), truncation=True, max_length=MAX_TEXT_TOKENS)
        return list(tokens["input_ids"])


Sides = Mapping[str, Performer]
"""`BASE` and `ADAPTER`."""


def place(model: BaseModel) -> torch.device:
    """Readies a base on the device that measures."""
    device = processes.device()
    # Losses are measured in fp32 everywhere: differences of a percent are what is looked for.
    model.to(device, "fp32")
    enable(model.hf, "fp32")
    return device


def base_performer(model: BaseModel, store: Store, precision: str = "fp32") -> Performer:
    # Of all weights, the text encoder's and the codec's too.
    identity = key_of(fingerprint(model.hf), model.facts.window_s)
    return Performer(model, store, identity, partial(_as, model, Mixture(model)), precision)


def variant_performers(base: Performer, variants: Sequence[Variant]) -> list[Performer]:
    """Adapters at strengths on the base. At strength 0 one is the base, whose clips it has.

    Raises:
        UserError: one belongs to another base, or cannot be put on this one.
    """
    model, parts = base.model, {}
    performers = []
    for variant in variants:
        own = variant.files.fingerprint
        if own not in parts:
            parts[own] = read_part(model, variant.files)
        mixture = Mixture(model, [parts[own].at(variant.strength)])
        identity = key_of(base.identity, own, variant.strength)
        performers.append(
            Performer(
                model,
                base.store,
                identity if variant.strength else base.identity,
                partial(_as, model, mixture),
                base.precision,
                variant.files.folder,
                variant.strength,
            )
        )
    return performers


@contextmanager
def _as(model: BaseModel, mixture: Mixture) -> Iterator[None]:
    # An adapter on the text encoder gives captions other states than the base has for them.
    model.text.frozen = not any(name.startswith("text_encoder.") for name in mixture.names)
    try:
        with mixture.on():
            yield
    finally:
        model.text.frozen = True
