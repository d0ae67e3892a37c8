"""LoRA on MusicGen by PEFT: adding, saving, loading, and the facts kept beside the weights.

An adapter folder is what PEFT writes (`adapter_config.json`, `adapter_model.safetensors`), so
that bare PEFT on bare transformers loads it, plus `musicgen_lora.json` (base, data, settings,
figures) and a model card.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from transformers import MusicgenForConditionalGeneration

from musicgen_lora.errors import UserError
from musicgen_lora.model.musicgen import base_fingerprint

FACTS_FILE = "musicgen_lora.json"
FACTS_VERSION = 1

TARGETS = {
    "attention": r"decoder\.model\.decoder\.layers\.\d+\.(self_attn|encoder_attn)"
    r"\.(q_proj|k_proj|v_proj|out_proj)",
    "feed_forward": r"decoder\.model\.decoder\.layers\.\d+\.fc[12]",
}
"""Groups of modules that can carry LoRA, as patterns of full module names. They start at the
language model: EnCodec has a `decoder.layers` of its own that must stay untouched."""


def add_lora(
    model: MusicgenForConditionalGeneration,
    *,
    base_name: str,
    rank: int,
    alpha: int,
    dropout: float = 0.0,
    targets: tuple[str, ...] = ("attention", "feed_forward"),
) -> PeftModel:
    """Injects fresh LoRA layers (Hu et al., 2021), B zero, so that nothing changes yet.

    Args:
        model: changed in place; its own weights stay frozen.
        base_name: what the adapter's config will name as its base.
        rank: r of the low-rank product.
        alpha: the product is scaled by alpha / rank.
        dropout: on the adapter's input while training.
        targets: names of `TARGETS`.
    """
    pattern = "|".join(f"({TARGETS[target]})" for target in targets)
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=pattern, bias="none"
    )
    adapted = get_peft_model(model, config)  # pyright: ignore[reportArgumentType]
    adapted.peft_config["default"].base_model_name_or_path = base_name
    assert isinstance(adapted, PeftModel)
    return adapted


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
    if not (folder / "adapter_model.safetensors").is_file():
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
