"""Which modules of a MusicGen carry the adapter: by name, by layer, or by a pattern."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import nn

from musicgen_lora.errors import UserError

DEFAULT_TARGETS = ("attention", "feed_forward")
PATTERNS = {
    "attention": r"decoder\.model\.decoder\.layers\.{layer}\.(self_attn|encoder_attn)"
    r"\.(q_proj|k_proj|v_proj|out_proj)",
    "feed_forward": r"decoder\.model\.decoder\.layers\.{layer}\.fc[12]",
    "heads": r"decoder\.lm_heads\.\d+",
    "embeddings": r"decoder\.model\.decoder\.embed_tokens\.\d+",
    "text_projection": r"enc_to_dec_proj",
    "melody_projection": r"audio_enc_to_dec_proj",
    "text_encoder": r"text_encoder\.encoder\.block\.\d+\.layer\.0\.SelfAttention\.[qkvo]",
}
"""Groups of modules by their names in `lora_targets`. Patterns start at the model's root, since
EnCodec has a `decoder.layers` of its own that must stay untouched. `{layer}` is a decoder layer."""


def target_pattern(
    model: nn.Module,
    *,
    targets: Sequence[str] = DEFAULT_TARGETS,
    layers: str = "",
    modules: str = "",
) -> str:
    """A regular expression for PEFT that matches the full names of the chosen modules.

    Args:
        model: a MusicGen without an adapter.
        targets: names in `PATTERNS`.
        layers: decoder layers such as "0-11" or "0,4,8-11", for attention and feed_forward;
            empty for all.
        modules: a regular expression that replaces `targets` and `layers`; empty for none.

    Raises:
        UserError: nothing matches, or something that can't carry an adapter does.
    """
    if modules:
        _check_modules(model, modules)
        return modules
    config: Any = model.config
    chosen = parse_layers(layers, config.decoder.num_hidden_layers) if layers else None
    layer = r"\d+" if chosen is None else f"({'|'.join(map(str, chosen))})"
    patterns = {target: PATTERNS[target].replace("{layer}", layer) for target in targets}
    for target, pattern in patterns.items():
        if not matching(model, pattern):
            raise UserError(f"lora_targets: this model has no {target}.")
    return "|".join(f"({pattern})" for pattern in patterns.values())


def matching(model: nn.Module, pattern: str) -> dict[str, nn.Module]:
    """The modules whose full names match."""
    return {name: part for name, part in model.named_modules() if re.fullmatch(pattern, name)}


def adapts_text_encoder(model: nn.Module, pattern: str) -> bool:
    """Whether the text encoder is among the targets, so that its states change in training."""
    return any(name.startswith("text_encoder.") for name in matching(model, pattern))


def parse_layers(layers: str, n_layers: int) -> list[int]:
    """The numbers in "0-11" or "0,4,8-11".

    Raises:
        UserError: not of that form, or a layer that the model lacks.
    """
    chosen: set[int] = set()
    for part in layers.replace(" ", "").split(","):
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if found is None:
            raise UserError(f"lora_layers = {layers!r}: must be like 0-11 or 0,4,8-11.")
        first, last = int(found[1]), int(found[2] or found[1])
        if not first <= last < n_layers:
            raise UserError(
                f"lora_layers = {layers!r}: {part} is not among the model's layers, "
                f"0-{n_layers - 1}."
            )
        chosen.update(range(first, last + 1))
    return sorted(chosen)


def _check_modules(model: nn.Module, pattern: str) -> None:
    found = matching(model, pattern)
    if not found:
        raise UserError(
            f"lora_modules: {pattern!r} matches no module; it must match full names, such as "
            "decoder.model.decoder.layers.0.fc1"
        )
    for name, part in found.items():
        if name.startswith("audio_encoder"):
            raise UserError(
                f"lora_modules: {pattern!r} matches {name} in the codec, which is not trained."
            )
        if not isinstance(part, nn.Linear | nn.Embedding):
            raise UserError(
                f"lora_modules: {pattern!r} matches {name}, a {type(part).__name__}; only Linear "
                "and Embedding can carry an adapter."
            )
