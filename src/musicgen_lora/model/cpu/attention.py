"""Attention for training in bf16 on a CPU, where torch's own is slow, above all its backward pass.

Causal attention processes the queries in blocks, each against the keys up to its end, as matrix
products. Attention to the text, with its few keys, is computed directly.
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
"""Name of this attention in transformers' registry."""
BLOCK = 128
"""Queries in a block; 96 to 176 are equally fast."""


def use_blocked_attention(model: MusicgenForConditionalGeneration) -> None:
    """Makes a model's decoder use this attention."""
    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.decoder.set_attn_implementation(NAME)


def causal_attention(heads: torch.Tensor, scaling: float) -> torch.Tensor:
    """`softmax(scaling q k^T) v` for each head, each query attending to keys up to its position.

    Args:
        heads: q, k and v, `[3, B, heads, T, width]`.
        scaling: of the scores.

    Returns:
        `[B, heads, T, width]`.
    """
    # Autocast would convert the probabilities to float32 and back.
    with torch.autocast(heads.device.type, enabled=False):
        found: Any = _Causal.apply(heads, scaling)
    return found


def text_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
) -> torch.Tensor:
    """`softmax(scaling q k^T) v` over few keys: queries `[B, heads, T, width]`, keys and values
    `[B, heads, L, width]`, mask `[B, 1, 1 or T, L]`, true for the keys attended to.

    Computed in float32. Probabilities rounded to bf16 don't sum to 1, and where the values of all
    words are alike, that error is all that queries and keys would learn from.
    """
    # BH: batch and heads as one.
    q, k, v = (x.flatten(0, 1).float() for x in (query, key, value))  # [BH, T or L, width]
    bias = q.new_zeros(())
    if mask is not None:
        # As in transformers: a query with all keys masked attends to all of them equally.
        bias = q.new_zeros(mask.shape).masked_fill_(~mask, torch.finfo(q.dtype).min)
        bias = bias.expand(-1, query.shape[1], -1, -1).flatten(0, 1)  # [BH, 1 or T, L]
    # Autocast would multiply in its own precision.
    with torch.autocast(query.device.type, enabled=False):
        scores = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=scaling)  # [BH, T, L]
        return torch.bmm(scores.softmax(dim=-1), v).view(query.shape).to(query.dtype)


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
    """The interface that transformers calls: `[B, heads, T, width]` in, `[B, T, heads, width]`
    out."""
    causal = attention_mask is None and bool(getattr(module, "is_causal", False))
    if dropout or scaling is None or (causal and query.shape[2] != key.shape[2]):
        # Decoding with a cache, or a case that isn't covered here.
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if causal:
        out = causal_attention(torch.stack((query, key, value)), scaling)
    else:
        out = text_attention(query, key, value, attention_mask, scaling)
    return out.transpose(1, 2).contiguous(), None


class _Causal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, heads: torch.Tensor, scaling: float) -> torch.Tensor:
        # For one clip it would be a view, whose parts each product would copy.
        kept = heads.flatten(1, 2).contiguous()  # [3, BH, T, width], BH: batch and heads as one
        q, k, v = kept  # [BH, T, width]
        out = torch.empty_like(v)
        future = torch.full((BLOCK, BLOCK), -torch.inf, dtype=q.dtype, device=q.device).triu_(1)
        probabilities = []
        for begin, end in _blocks(q.shape[1]):
            scores = q.new_empty(len(q), end - begin, end)  # [BH, block, end]
            scores.baddbmm_(q[:, begin:end], k[:, :end].transpose(1, 2), beta=0, alpha=scaling)
            scores[:, :, begin:] += future[: end - begin, : end - begin]
            probabilities.append(scores.softmax(dim=-1))
            torch.bmm(probabilities[-1], v[:, :end], out=out[:, begin:end])
        ctx.save_for_backward(kept, *probabilities)
        ctx.scaling = scaling
        return out.view(heads.shape[1:])

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        kept, *probabilities = ctx.saved_tensors
        (q, k, v), grad = kept, grads[0].flatten(0, 1)  # [BH, T, width]
        grad_heads = torch.empty_like(kept)  # [3, BH, T, width]
        grad_q, grad_k, grad_v = grad_heads
        # Softmax's gradient is blind to what all values have in common, but only where
        # probabilities sum to 1, which those in bf16 don't.
        centred = v - v.mean(dim=1, keepdim=True)
        # The last block sees all keys: it writes their gradients, the others add to them.
        beta = 0
        for (begin, end), p in reversed([*zip(_blocks(q.shape[1]), probabilities, strict=True)]):
            part = grad[:, begin:end]  # [BH, block, width]
            grad_v[:, :end].baddbmm_(p.transpose(1, 2), part, beta=beta)
            grad_p = torch.bmm(part, centred[:, :end].transpose(1, 2))  # [BH, block, end]
            # Gradient of softmax: p (g - sum of p g).
            grad_scores = torch.ops.aten._softmax_backward_data(grad_p, p, -1, p.dtype)
            grad_q[:, begin:end].baddbmm_(grad_scores, k[:, :end], beta=0, alpha=ctx.scaling)
            queries, transposed = q[:, begin:end], grad_scores.transpose(1, 2)
            grad_k[:, :end].baddbmm_(transposed, queries, beta=beta, alpha=ctx.scaling)
            beta = 1
        return grad_heads.view(len(kept), *grads[0].shape), None


def _blocks(n_steps: int) -> list[tuple[int, int]]:
    """First query and end of each block."""
    return [(at, min(at + BLOCK, n_steps)) for at in range(0, n_steps, BLOCK)]
