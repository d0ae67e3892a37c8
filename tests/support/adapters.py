"""Adapters of every kind for tests, made without training: their tensors are drawn."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from musicgen_lora.given import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from musicgen_lora.model.base.loading import load_base
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.fingerprint import base_fingerprint
from musicgen_lora.model.lora.adapter import load_adapter
from musicgen_lora.model.lora.facts import FACTS_FILE
from musicgen_lora.model.lora.spec import LoraSpec
from musicgen_lora.model.lora.trainable import TrainableLora

ATTENTION = r"decoder\.model\.decoder\.layers\.\d+\.(self_attn|encoder_attn)\.(q|v)_proj"


EVERYWHERE = (
    r"decoder\.model\.decoder\.layers\.\d+\.((self_attn|encoder_attn)\.(q|k|v|out)_proj|fc[12])"
    r"|decoder\.lm_heads\.\d+|decoder\.model\.decoder\.embed_tokens\.\d+|enc_to_dec_proj"
    r"|text_encoder\.encoder\.block\.\d+\.layer\.0\.SelfAttention\.[qkvo]"
)


KINDS: dict[str, dict[str, Any]] = {
    "lora": {"lora_alpha": 12},
    "rslora": {"use_rslora": True, "lora_alpha": 3, "target_modules": EVERYWHERE},
    "dora": {"use_dora": True, "target_modules": EVERYWHERE},
    "patterns": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 20}},
    "bias": {"bias": "all", "target_modules": "enc_to_dec_proj"},
    "lora_bias": {"lora_bias": True, "target_modules": ["enc_to_dec_proj"]},
    "saved": {"modules_to_save": ["lm_heads.1", "enc_to_dec_proj"]},
}


def draw_adapter(
    base: Path | str,
    folder: Path,
    *,
    seed: int = 0,
    save_embeddings: bool = False,
    **changes: Any,
) -> Path:
    """An adapter of rank 4 that moves the predictions, as PEFT saves it, with our facts.

    Args:
        base: that it is for.
        folder: where it goes.
        seed: of its tensors.
        save_embeddings: with the base's own embeddings, as PEFT does unless told not to.
        changes: fields of PEFT's config.
    """
    model = load_base(base)
    fingerprint = base_fingerprint(model)
    config: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": ATTENTION} | changes
    adapted: Any = get_peft_model(model, LoraConfig(**config))
    generator = torch.Generator().manual_seed(seed)
    own = {"lora_", "modules_to_save"} | ({"bias"} if config.get("bias") == "all" else set())
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if any(part in name for part in own):
                noise = torch.randn(parameter.shape, generator=generator)
                is_zero = "lora_B" in name or "embedding_A" in name or "lora_A" in name
                parameter.copy_(0.2 * noise if is_zero else parameter + 0.1 * noise.abs())
    adapted.save_pretrained(str(folder), save_embedding_layers=save_embeddings)
    facts = {"format_version": 1, "base": {"path": str(base), "fingerprint": fingerprint}}
    (folder / FACTS_FILE).write_text(json.dumps(facts))
    return folder


def rewrite(folder: Path, copy: Path, tensors: Mapping[str, torch.Tensor], **changes: Any) -> Path:
    """A copy of an adapter with other tensors and fields of its config; a field of None goes."""
    copy.mkdir()
    config = json.loads((folder / ADAPTER_CONFIG).read_text()) | changes
    kept = {
        name: value for name, value in config.items() if name not in changes or value is not None
    }
    (copy / ADAPTER_CONFIG).write_text(json.dumps(kept))
    save_file(
        {n: t.contiguous() for n, t in tensors.items()}, copy / ADAPTER_WEIGHTS, {"format": "pt"}
    )
    if (folder / FACTS_FILE).is_file():
        (copy / FACTS_FILE).write_bytes((folder / FACTS_FILE).read_bytes())
    return copy


def halves(folder: Path, left: Path, right: Path) -> tuple[Path, Path]:
    """An adapter's rank split in two adapters that add up to it."""
    tensors = load_file(folder / ADAPTER_WEIGHTS)
    config = json.loads((folder / ADAPTER_CONFIG).read_text())
    rank = config["r"] // 2
    parts: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]] = ({}, {})
    for name, tensor in tensors.items():
        axis = 0 if "lora_A" in name or "embedding_A" in name else 1
        for part, half in zip(parts, tensor.chunk(2, dim=axis), strict=True):
            part[name] = half
    changes = {"r": rank, "lora_alpha": config["lora_alpha"] / 2}
    return (
        rewrite(folder, left, parts[0], **changes),
        rewrite(folder, right, parts[1], **changes),
    )


def add_lora(model: Any, *, base_name: str, **fields: Any) -> PeftModel:
    """PEFT's model with a fresh adapter of `LoraSpec(**fields)`, which changes nothing yet."""
    fields["pattern"] = fields.get("pattern") or ""
    base = model if isinstance(model, BaseModel) else BaseModel(model)
    return TrainableLora(base, LoraSpec(**fields), base_name).peft


def write_facts(folder: Path, fingerprint: str) -> None:
    facts = {"format_version": 1, "base": {"path": "somewhere", "fingerprint": fingerprint}}
    (folder / FACTS_FILE).write_text(json.dumps(facts))


def make_adapter(model, folder: Path, *, rank: int = 4) -> Path:
    """An adapter that moves the predictions, saved by PEFT with our facts beside it."""
    adapted = add_lora(model, base_name="somewhere", rank=rank, alpha=2 * rank)
    generator = torch.Generator().manual_seed(5)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            with torch.no_grad():
                parameter.normal_(0.0, 0.3, generator=generator)
    adapted.save_pretrained(str(folder), save_embedding_layers=False)
    write_facts(folder, base_fingerprint(model))
    return folder


def rename_tensors(folder: Path, rename: Callable[[str], str | None]) -> None:
    """Gives an adapter's tensors other names, or takes those named None away."""
    tensors = load_file(folder / ADAPTER_WEIGHTS)
    named = {rename(name): tensor for name, tensor in tensors.items()}
    kept = {name: tensor for name, tensor in named.items() if name is not None}
    save_file(kept, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})


def merged_by_peft(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    """The weights of a base with an adapter, as PEFT merges them."""
    adapted: Any = load_adapter(BaseModel.load(base), adapter)
    return adapted.merge_and_unload().state_dict()
