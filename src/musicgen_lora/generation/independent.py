"""Decoding in which no clip depends on the company that it has in its batch.

A matrix product on a CPU may add up in another order when it has more rows, and so may torch's
attention, whose work is shared out by batch, threads and padding. The last bits differ, and one
draw in some hundreds of thousands falls to another token: the rest of the clip is another one.
While a clip is decoded here, every product has a fixed number of rows, and every row attends on its
own, to its own caption alone. Nothing that is computed for a clip then has a shape that the batch
decides.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import nn
from torch.nn import functional
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    MusicgenForConditionalGeneration,
)
from transformers.masking_utils import sdpa_mask

NAME = "musicgen_lora_rows"
"""Of this attention in transformers' registry."""
STEP_ROWS = 8
"""Rows of a product where each clip has one: four guided clips, the default batch."""
SEQUENCE_ROWS = 64
"""Rows of a product over sequences."""
P = ParamSpec("P")
R = TypeVar("R")
Decoding = Callable[Concatenate[MusicgenForConditionalGeneration, P], R]


def clip_by_clip(function: Decoding[P, R]) -> Decoding[P, R]:
    """Decorates a function that decodes with the model that is its first argument: on a CPU its
    clips are the same whatever their batch. A GPU has too much to lose by it, and keeps its own
    products."""

    @functools.wraps(function)
    def decode(
        model: MusicgenForConditionalGeneration, /, *arguments: P.args, **named: P.kwargs
    ) -> R:
        with _independent_rows(model):
            return function(model, *arguments, **named)

    return decode


def depends_on_batch(device: torch.device) -> bool:
    """Whether a clip that is decoded there may differ with the number of clips in its batch."""
    return device.type != "cpu"


@contextmanager
def _independent_rows(model: MusicgenForConditionalGeneration) -> Iterator[None]:
    config: Any = model.decoder.config
    before = config._attn_implementation
    if depends_on_batch(model.decoder.device) or before == NAME:
        yield
        return
    parts = [model.decoder]
    for name in ("enc_to_dec_proj", "audio_enc_to_dec_proj"):
        if hasattr(model, name):
            parts.append(getattr(model, name))
    layers: list[Any] = [
        layer for part in parts for layer in part.modules() if type(layer) is nn.Linear
    ]
    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.decoder.set_attn_implementation(NAME)
    for layer in layers:
        layer.forward = functools.partial(_multiply, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
        model.decoder.set_attn_implementation(before)


def _multiply(layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    """`x W^T + b` of states `[B, T, in]`, so many rows at a time; a weight that is multiplied as a
    matrix (DoRA does it) is no row of a clip."""
    if x.dim() != 3:
        return functional.linear(x, layer.weight, layer.bias)
    n_rows = STEP_ROWS if x.shape[1] == 1 else SEQUENCE_ROWS
    rows = x.flatten(0, 1)
    missing = -len(rows) % n_rows
    if missing:
        rows = functional.pad(rows, (0, 0, 0, missing))
    parts = [functional.linear(part, layer.weight, layer.bias) for part in rows.split(n_rows)]
    out = parts[0] if len(parts) == 1 else torch.cat(parts)
    return out[: len(out) - missing].view(*x.shape[:-1], -1)


def _attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """As transformers calls it: heads `[B, heads, T, width]` in, `[B, T, heads, width]` out."""
    causal = bool(getattr(module, "is_causal", False))
    keys, values = key.split(1), value.split(1)
    masks: list[torch.Tensor | None] = [None] * len(query)
    if attention_mask is not None and causal:
        masks = list(attention_mask.expand(len(query), -1, -1, -1).split(1))
    elif attention_mask is not None:
        # Captions come first and padding last. Of the null condition all keys are alike: one does.
        lengths = [max(1, n) for n in attention_mask[:, 0, 0].sum(-1).tolist()]
        keys = [row[:, :, :n] for row, n in zip(keys, lengths, strict=True)]
        values = [row[:, :, :n] for row, n in zip(values, lengths, strict=True)]
    found = [
        functional.scaled_dot_product_attention(
            *row,
            attn_mask=mask,
            scale=scaling,
            is_causal=causal and mask is None and query.shape[2] > 1,
        )
        for *row, mask in zip(query.split(1), keys, values, masks, strict=True)
    ]
    return torch.cat(found).transpose(1, 2), None
