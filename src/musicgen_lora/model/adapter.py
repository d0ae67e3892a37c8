"""LoRA on MusicGen by PEFT: adding, saving, loading, and the facts kept beside the weights.

An adapter folder is what PEFT writes (`adapter_config.json`, `adapter_model.safetensors`), so
that bare PEFT on bare transformers loads it, plus `musicgen_lora.json` (base, data, settings,
figures) and a model card.
"""

from __future__ import annotations

import contextlib
import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils.integrations import dequantize_module_weight
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn
from transformers import MusicgenForConditionalGeneration

from musicgen_lora.errors import UserError
from musicgen_lora.model import start
from musicgen_lora.model.lora_linear import use_few_products
from musicgen_lora.model.musicgen import base_fingerprint
from musicgen_lora.model.targets import matching, target_pattern

FACTS_FILE = "musicgen_lora.json"
FACTS_VERSION = 1
WEIGHTS_FILE = "adapter_model.safetensors"

INITIALISATIONS = {
    "default": True,
    "gaussian": "gaussian",
    "orthogonal": "orthogonal",
    # The randomised decomposition: of the exact one in all but time, by the paper's own figures.
    "pissa": "pissa_niter_16",
    "olora": "olora",
}
"""Names of `lora_init`, and PEFT's for them."""


def check_initialisation(
    model: MusicgenForConditionalGeneration, pattern: str, *, rank: int, init: str
) -> None:
    """Raises a UserError where an initialisation cannot make an adapter of this rank."""
    if init == "orthogonal" and rank % 2:
        raise UserError(f"lora_init orthogonal needs an even lora_rank, not {rank}.")
    if init in ("default", "gaussian"):
        return
    for name, module in matching(model, pattern).items():
        if isinstance(module, nn.Embedding):
            raise UserError(f"lora_init {init} is for linear layers alone, and {name} is none.")
        assert isinstance(module, nn.Linear)
        if init in start.FROM_BASE and rank > min(module.in_features, module.out_features):
            raise UserError(
                f"lora_init {init}: lora_rank {rank} is more than the rank of {name}, "
                f"{min(module.in_features, module.out_features)}."
            )


def without_direction(model: MusicgenForConditionalGeneration, pattern: str) -> list[str]:
    """The layers that `pattern` names in which an output's weights are all zero. DoRA scales each
    output by its weights' length, and PEFT divides by it."""
    return [
        name
        for name, module in matching(model, pattern).items()
        if isinstance(module, nn.Linear)
        and bool((dequantize_module_weight(module) == 0).all(dim=1).any())
    ]


def add_lora(
    model: MusicgenForConditionalGeneration,
    *,
    base_name: str,
    rank: int,
    alpha: float,
    dropout: float = 0.0,
    pattern: str | None = None,
    kind: str = "lora",
    init: str = "default",
) -> PeftModel:
    """Injects fresh LoRA layers (Hu et al., 2021) that change no prediction yet.

    Args:
        model: changed in place; its own weights stay frozen. PiSSA and OLoRA move a part of
            them into the adapter, see `start`.
        base_name: what the adapter's config will name as its base.
        rank: r of the low-rank product.
        alpha: the product is scaled by alpha / rank; with "rslora" by alpha / sqrt(rank).
        dropout: on the adapter's input while training.
        pattern: of the modules' names, from `target_pattern`; None for the default targets.
        kind: "lora", "rslora" (Kalajdzievski, 2023) or "dora" (Liu et al., 2024). DoRA leaves out
            layers that it cannot adapt, see `without_direction`; the adapter's config names them.
        init: a name of `INITIALISATIONS`.

    Raises:
        UserError: `init` cannot make this adapter, or DoRA adapts none of the layers.
    """
    pattern = target_pattern(model) if pattern is None else pattern
    check_initialisation(model, pattern, rank=rank, init=init)
    left_out = without_direction(model, pattern) if kind == "dora" else []
    if left_out and len(left_out) == len(matching(model, pattern)):
        raise UserError(
            "adapter dora: each of the layers, as "
            f"{left_out[0]}, has rows of zeros, which have no direction; give --adapter rslora."
        )
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # pyright: ignore[reportArgumentType]
        lora_dropout=dropout,
        target_modules=pattern,
        exclude_modules=left_out or None,
        use_rslora=kind == "rslora",
        use_dora=kind == "dora",
        init_lora_weights=INITIALISATIONS[init],  # pyright: ignore[reportArgumentType]
        bias="none",
    )
    adapted = get_peft_model(model, config)  # pyright: ignore[reportArgumentType]
    adapted.peft_config["default"].base_model_name_or_path = base_name
    assert isinstance(adapted, PeftModel)
    use_few_products(adapted)
    return adapted


def save_adapter(
    adapted: PeftModel,
    folder: Path,
    *,
    started: start.Tensors | None = None,
    metadata: dict[str, Any] | None = None,
) -> None:
    """Writes an adapter as PEFT does, for the plain base whatever its initialisation was.

    Args:
        adapted: the adapter on its base.
        folder: where `adapter_config.json` and `adapter_model.safetensors` go.
        started: its first tensors, where they were taken out of the base (`start`).
        metadata: goes into the weights' header as JSON, under `musicgen_lora`.
    """
    tensors = start.adapter_tensors(adapted)
    config: Any = copy.deepcopy(adapted.peft_config["default"])
    if started is not None:
        tensors = start.as_plain_lora(tensors, started)
        config.lora_alpha *= 2**0.5 if config.use_rslora else 2
        config.r *= 2
    # PEFT keeps a set, whose order differs from process to process.
    config.exclude_modules = sorted(config.exclude_modules) if config.exclude_modules else None
    # Whoever loads it has the weights: drawing first ones again would be in vain, or harm.
    config.init_lora_weights, config.inference_mode = True, True
    base = type(adapted.get_base_model())
    names = {"base_model_class": base.__name__, "parent_library": base.__module__}
    config.save_pretrained(str(folder), auto_mapping_dict=names)
    # One entry: safetensors writes several in a random order, and files would differ by it.
    header = {"format": "pt"}
    if metadata is not None:
        header = {"musicgen_lora": json.dumps(metadata, sort_keys=True)}
    save_file(tensors, folder / WEIGHTS_FILE, metadata=header)


def has_adapter(part: nn.Module | None) -> bool:
    """Whether a part of the model carries adapter weights."""
    return part is not None and any("lora_" in name for name, _ in part.named_parameters())


@contextlib.contextmanager
def adapter_off(adapted: PeftModel, started: start.Tensors | None = None) -> Iterator[None]:
    """The plain base, for as long as the context lasts.

    Args:
        adapted: the adapter on its base.
        started: its first tensors, where they were taken out of the base: without them it would
            be the residual that speaks.
    """
    if started is None:
        with adapted.disable_adapter():
            yield
        return
    trained = start.adapter_tensors(adapted)
    start.put_tensors(adapted, started)
    try:
        yield
    finally:
        start.put_tensors(adapted, trained)


def read_facts(folder: Path) -> dict[str, Any] | None:
    """Our facts of an adapter; None for one that another tool made.

    Raises:
        UserError: the file is there and is not JSON, or of a later format.
    """
    path = folder / FACTS_FILE
    if not path.is_file():
        return None
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        version = int(facts["format_version"])
        if version <= FACTS_VERSION and not {"path", "fingerprint"} <= set(facts["base"]):
            raise KeyError("base")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not readable as adapter facts: {error}") from error
    if version > FACTS_VERSION:
        raise UserError(f"{path}: format {version} is newer than this release; update it.")
    return facts


def check_adapter_folder(folder: Path) -> None:
    """Raises a UserError unless `folder` holds an adapter with safetensors weights."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such adapter folder; training writes output_dir/best_model.")
    if not (folder / "adapter_config.json").is_file():
        raise UserError(f"{folder}: no adapter_config.json in it; this is not a LoRA adapter.")
    if not (folder / WEIGHTS_FILE).is_file():
        raise UserError(
            f"{folder}: no adapter_model.safetensors in it; pickled adapters are not read."
        )


def load_adapter(model: MusicgenForConditionalGeneration, folder: Path) -> PeftModel:
    """Puts a trained adapter on its base, frozen and in eval mode.

    Raises:
        UserError: no adapter there, a damaged one, or one made for another base.
    """
    check_adapter_folder(folder)
    facts = read_facts(folder)
    if facts is not None and facts["base"]["fingerprint"] != base_fingerprint(model):
        raise UserError(
            f"{folder}: this adapter was trained on another base "
            f"({facts['base']['path']}, fingerprint {facts['base']['fingerprint']}); give that "
            "one as the base model."
        )
    try:
        adapted = PeftModel.from_pretrained(model, str(folder))
    except (RuntimeError, ValueError, TypeError, KeyError, OSError, SafetensorError) as error:
        line = re.sub(r"\s+", " ", str(error))[:200]
        raise UserError(f"{folder}: does not fit this base model: {line}") from error
    assert isinstance(adapted, PeftModel)
    return adapted.eval()
