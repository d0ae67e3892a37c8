"""Attention of a step's queries to all that was before, on a CPU.

A step has one query a head, so that its time is that of reading keys and values. torch's kernel
takes each head of each row by itself, in an order that does not depend on the others: a clip has
the same bits in any batch.
"""

from __future__ import annotations

import functools

import torch
from torch.nn import functional

TRIED = (1, 3, 45, 256, 700, 1500)
"""Numbers of positions at which rows are compared with each row alone."""


class Attention:
    """Rows that have read equally much.

    Args:
        own: their part of the cache, `[layers, 2, rows, heads, room, width]`: keys and values,
            filled up to a position.
        at: that position.
    """

    def __init__(self, own: torch.Tensor, at: int) -> None:
        self._layers, self.at = own.unbind(0), at

    def attend(self, layer: int, qkv: torch.Tensor) -> torch.Tensor:
        """Takes the queries, keys and values `[rows, 3, heads, width]` of a step; what the queries
        find, `[rows, heads * width]`."""
        own = self._layers[layer]
        own.select(3, self.at).copy_(qkv.narrow(1, 1, 2).transpose(0, 1))
        keys, values = own.narrow(3, 0, self.at + 1).unbind(0)
        query = qkv.select(1, 0).unsqueeze(2)
        return functional.scaled_dot_product_attention(query, keys, values).flatten(1)


@functools.cache
@torch.inference_mode()
def rows_are_independent(n_heads: int, width: int) -> bool:
    """Whether rows come out the same, to the bit, alone and among others, on this processor."""
    drawn = torch.Generator().manual_seed(0)
    n_rows = 5
    for n in TRIED:
        own = torch.randn(1, 2, n_rows, n_heads, n, width, generator=drawn)
        qkv = torch.randn(n_rows, 3, n_heads, width, generator=drawn)
        together = Attention(own.clone(), n - 1).attend(0, qkv)
        for begin, end in ((0, 1), (1, 3), (3, 5), (4, 5)):
            alone = Attention(own[:, :, begin:end].clone(), n - 1).attend(0, qkv[begin:end])
            if not torch.equal(alone, together[begin:end]):
                return False
    return True
