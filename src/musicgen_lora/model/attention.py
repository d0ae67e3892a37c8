"""Attention for training in bf16 on a CPU, where torch's own is slow, above all its backward pass.

Causal attention goes through the queries in blocks, each against the keys up to its end, as
matrix products. Attention to the text, whose keys are few, is written out.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    MusicgenForConditionalGeneration,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "musicgen_lora_blocks"
"""Of this attention in transformers' registry."""
BLOCK = 128
"""Queries of a block; 96 to 176 take equally long."""


def use_blocks(model: MusicgenForConditionalGeneration) -> None:
    """Gives a model's decoder this attention."""
    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.decoder.set_attn_implementation(NAME)


def causal_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
) -> torch.Tensor:
    """`softmax(scaling q k^T) v` for each head, each query looking at keys up to its own place.

    All are `[B, heads, T, width]`, and so is the result.
    """
    # Autocast would take the probabilities to float32 and back.
    with torch.autocast(query.device.type, enabled=False):
        found: Any = _Causal.apply(query, key, value, scaling)
    return found


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """As transformers calls it: heads `[B, heads, T, width]` in, `[B, T, heads, width]` out."""
    causal = attention_mask is None and bool(getattr(module, "is_causal", False))
    if dropout or scaling is None or (causal and query.shape[2] != key.shape[2]):
        # Decoding with a cache.
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if causal:
        out = causal_attention(query, key, value, scaling)
    else:
        scores = torch.matmul(query, key.transpose(2, 3)) * scaling
        if attention_mask is not None:
            scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
        out = torch.matmul(scores.softmax(dim=-1), value)
    return out.transpose(1, 2).contiguous(), None


class _Causal(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        # The queries are scaled, since the scores are many more.
        q, k, v = (query * scaling).flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1)
        out = torch.empty_like(k)
        future = torch.full((BLOCK, BLOCK), -torch.inf, dtype=q.dtype, device=q.device).triu_(1)
        probabilities = []
        for begin, end in _blocks(q.shape[1]):
            scores = torch.bmm(q[:, begin:end], k[:, :end].transpose(1, 2))
            scores[:, :, begin:] += future[: end - begin, : end - begin]
            probabilities.append(scores.softmax(dim=-1))
            torch.bmm(probabilities[-1], v[:, :end], out=out[:, begin:end])
        ctx.save_for_backward(q, k, v, *probabilities)
        ctx.scaling = scaling
        return out.view(query.shape)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, *probabilities = ctx.saved_tensors
        shape, grad = grads[0].shape, grads[0].flatten(0, 1)
        grad_q, grad_k, grad_v = torch.empty_like(k), torch.zeros_like(k), torch.zeros_like(v)
        for (begin, end), p in zip(_blocks(q.shape[1]), probabilities, strict=True):
            part = grad[:, begin:end]
            grad_v[:, :end].baddbmm_(p.transpose(1, 2), part)
            grad_p = torch.bmm(part, v[:, :end].transpose(1, 2))
            # Of softmax: p (g - sum of p g).
            grad_scores = torch.ops.aten._softmax_backward_data(grad_p, p, -1, p.dtype)
            torch.bmm(grad_scores, k[:, :end], out=grad_q[:, begin:end])
            grad_k[:, :end].baddbmm_(grad_scores.transpose(1, 2), q[:, begin:end])
        grad_q *= ctx.scaling
        return grad_q.view(shape), grad_k.view(shape), grad_v.view(shape), None


def _blocks(n_steps: int) -> list[tuple[int, int]]:
    """First query and end of each block."""
    return [(at, min(at + BLOCK, n_steps)) for at in range(0, n_steps, BLOCK)]
