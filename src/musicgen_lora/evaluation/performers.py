"""Performers: the base, or the base with an adapter at a strength. They all share one loaded base,
and what each has generated or scored is cached under its identity."""

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
    """A base on its own, or with an adapter.

    Args:
        store: the cache for its results.
        identity: hash of its weights.
        worn: context manager that applies those weights to the base.
        precision: of the weights while generating.
        adapter: folder of the adapter; None for the base.
        is_idle: whether it has an adapter that should change weights, and changes none.
    """

    model: BaseModel
    store: Store
    identity: str
    worn: Callable[[], AbstractContextManager[Any]]
    precision: str = "fp32"
    adapter: Path | None = None
    strength: float = 1.0
    is_idle: bool = False

    def key(self, *facts: Any) -> str:
        """The cache key of this performer's result for these facts."""
        return key_of(self.identity, torch.__version__, self.model.device.type, *facts)

    def reads(self, text: str | None) -> list[int] | None:
        """The token ids that it reads for a text."""
        if text is None:
            return None
        tokens = self.model.tokenizer(english_of(text), truncation=True, max_length=MAX_TEXT_TOKENS)
        return list(tokens["input_ids"])


Sides = Mapping[str, Performer]
"""`BASE` and `ADAPTER`."""


def place(model: BaseModel) -> torch.device:
    """Move a base to the device and prepare it for measuring."""
    device = processes.device()
    # Losses are measured in fp32 everywhere: differences of one percent matter here.
    model.to(device, "fp32")
    enable(model.hf, "fp32")
    return device


def base_performer(model: BaseModel, store: Store, precision: str = "fp32") -> Performer:
    # Covers all weights, including those of text encoder and codec.
    identity = key_of(fingerprint(model.hf), model.facts.window_s)
    return Performer(model, store, identity, partial(_as, model, Mixture(model)), precision)


def variant_performers(base: Performer, variants: Sequence[Variant]) -> list[Performer]:
    """Create the performers of adapters at strengths. At strength 0 a performer is the base and
    shares its clips.

    Raises:
        UserError: an adapter belongs to another base, or cannot be applied to this one.
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
                bool(variant.strength) and mixture.is_nothing,
            )
        )
    return performers


@contextmanager
def _as(model: BaseModel, mixture: Mixture) -> Iterator[None]:
    # An adapter on the text encoder changes the captions' states, so the base's can't be reused.
    model.text.frozen = not any(name.startswith("text_encoder.") for name in mixture.names)
    try:
        with mixture.on():
            yield
    finally:
        model.text.frozen = True
