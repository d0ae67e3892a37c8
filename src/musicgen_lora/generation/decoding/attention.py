"""Attention of a step's queries to all that was before, on a CPU, read as memory likes to be read.

A step has one query a head, so that its time is that of reading keys and values, which no cache of
the processor holds between steps. torch's kernel for attention is made for many queries and reads
them at two thirds of the rate of two batched products, where each feature's positions lie side by
side. Those are read by blocks of `BLOCK`: what is not filled yet is zero and masked. So each row of
what is multiplied begins where memory is aligned, and a clip has the same bits in any batch.
"""

from __future__ import annotations

import functools

import torch

BLOCK = 16
"""Positions by which more is read: 64 bytes."""
TRIED_BLOCKS = (1, 3, 9, 16, 94)
"""Numbers of blocks at which rows are compared with each row alone."""


def room_for(n_positions: int) -> int:
    """Positions to allocate."""
    return -(-n_positions // BLOCK) * BLOCK


class Attention:
    """Rows that have read equally much.

    Args:
        own: their part of the cache, `[layers, 2, rows, heads, width, room]`: keys and values. It
            is allocated, and filled up to a position.
        at: that position.
    """

    def __init__(self, own: torch.Tensor, at: int) -> None:
        self._own, self.at = own, at
        self._layers = own.unbind(0)
        self._scale = own.shape[4] ** -0.5
        self._open()

    def _open(self) -> None:
        """Reads as far as the block of the next position."""
        end = room_for(self.at + 1)
        self._own[..., self.at : end] = 0.0
        self._mask = self._own.new_zeros(1, 1, end)
        self._mask[..., self.at + 1 :] = -torch.inf
        self._views = []
        for own in self._layers:
            # Rows and heads lie evenly: a view.
            keys, values = own[..., :end].flatten(1, 2)
            self._views.append((keys, values.transpose(1, 2)))

    def advance(self) -> None:
        """The step is done."""
        self.at += 1
        if self.at % BLOCK == 0 and self.at < self._own.shape[-1]:
            self._open()
        elif self.at % BLOCK:
            self._mask[..., self.at] = 0.0

    def attend(self, layer: int, qkv: torch.Tensor) -> torch.Tensor:
        """Takes the queries, keys and values `[rows, 3, heads, width]` of a step; what the queries
        find, `[rows, heads * width]`."""
        self._layers[layer].select(4, self.at).copy_(qkv.narrow(1, 1, 2).transpose(0, 1))
        keys, values = self._views[layer]
        query = qkv.select(1, 0).reshape(len(keys), 1, -1)
        scores = torch.baddbmm(self._mask, query, keys, alpha=self._scale)
        return torch.bmm(scores.softmax(-1), values).view(len(qkv), -1)


@functools.cache
@torch.inference_mode()
def rows_are_independent(n_heads: int, width: int) -> bool:
    """Whether rows come out the same, to the bit, alone and among others, on this processor."""
    drawn = torch.Generator().manual_seed(0)
    n_rows = 5
    for n_blocks in TRIED_BLOCKS:
        at = n_blocks * BLOCK - 3
        own = torch.randn(1, 2, n_rows, n_heads, width, n_blocks * BLOCK, generator=drawn)
        qkv = torch.randn(n_rows, 3, n_heads, width, generator=drawn)
        together = Attention(own.clone(), at).attend(0, qkv)
        for begin, end in ((0, 1), (1, 3), (3, 5), (4, 5)):
            alone = Attention(own[:, :, begin:end].clone(), at).attend(0, qkv[begin:end])
            if not torch.equal(alone, together[begin:end]):
                return False
    return True
