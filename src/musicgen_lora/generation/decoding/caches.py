"""KV caches of a window: keys and values of the steps so far, and of the texts.

Both caches are allocated once. `ClipCache`, for CPUs, attends clip by clip, over the filled part:
torch's attention splits its work by batch and length, and a clip must come out the same in any
batch. `BatchCache`, for other devices, attends over all rows at once, up to the end of a bucket and
under a mask: shapes are constant within a bucket, so that a step can be captured as a graph.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from musicgen_lora.generation.decoding.choices import fastest, kept_choice
from musicgen_lora.generation.decoding.places import Places

CPU_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""Precisions of a CPU's cache, the one that always works first."""
TIMED_LAYERS, TIMED_POSITIONS = 5, 500
"""Of the attention that is timed: ten seconds."""
TRIED = (1, 3, 45, 256, 700, 1500)
"""Numbers of positions at which rows in a batch are compared with each row alone."""


class Attention:
    """Attention of rows of equal length, on a CPU.

    A step has one query per head, so its time is that of reading keys and values. torch's kernel
    handles each head of each row by itself, in an order that does not depend on the others: a clip
    has the same bits in any batch.

    Args:
        own: their part of the cache, `[layers, 2, rows, heads, capacity, width]`: keys and values,
            filled up to `at`.
        at: the next position.
    """

    def __init__(self, own: torch.Tensor, at: int) -> None:
        self._layers, self.at = own.unbind(0), at

    def attend(self, layer: int, qkv: torch.Tensor) -> torch.Tensor:
        """Stores a step's keys and values and attends with its queries, `[rows, 3, heads, width]`
        together. Returns `[rows, heads * width]`."""
        own = self._layers[layer]
        own.select(3, self.at).copy_(qkv.narrow(1, 1, 2).transpose(0, 1))
        keys, values = own.narrow(3, 0, self.at + 1).unbind(0)
        query = qkv.select(1, 0).unsqueeze(2)
        return attention(query, keys, values).flatten(1)


def attention(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention in the precision of keys and values; the result is in the query's."""
    found = functional.scaled_dot_product_attention(
        query.to(keys.dtype), keys, values, attn_mask=mask
    )
    return found.to(query.dtype)


@functools.cache
@torch.inference_mode()
def rows_are_independent(n_heads: int, width: int, dtype: torch.dtype) -> bool:
    """Whether rows are bit-identical alone and in a batch, on this processor."""
    drawn = torch.Generator().manual_seed(0)
    n_rows = 5
    for n in TRIED:
        own = torch.randn(1, 2, n_rows, n_heads, n, width, generator=drawn).to(dtype)
        qkv = torch.randn(n_rows, 3, n_heads, width, generator=drawn)
        together = Attention(own.clone(), n - 1).attend(0, qkv)
        for begin, end in ((0, 1), (1, 3), (3, 5), (4, 5)):
            alone = Attention(own[:, :, begin:end].clone(), n - 1).attend(0, qkv[begin:end])
            if not torch.equal(alone, together[begin:end]):
                return False
    return True


def half_where_faster(n_heads: int, width: int) -> torch.dtype:
    """The precision of a CPU's cache beside weights in less than fp32: bf16 where attention is
    clearly faster in it, as timed once, and fp32 elsewhere.

    A step reads all of its cache: past ten seconds of eight clips that is more than the weights.
    """
    name = kept_choice(
        f"cache of {n_heads} x {width}",
        list(CPU_DTYPES),
        lambda names: _fastest(n_heads, width, names),
        lambda: [
            name
            for name, dtype in CPU_DTYPES.items()
            if dtype == torch.float32 or rows_are_independent(n_heads, width, dtype)
        ],
    )
    return CPU_DTYPES[name]


@torch.inference_mode()
def _fastest(n_heads: int, width: int, names: Sequence[str]) -> str:
    """The precision in which four guided clips attend fastest, half a second in and ten."""
    shape = (TIMED_LAYERS, 2, 8, n_heads, TIMED_POSITIONS, width)
    qkv = torch.randn(8, 3, n_heads, width, generator=torch.Generator().manual_seed(0))
    caches = {name: torch.zeros(shape, dtype=CPU_DTYPES[name]) for name in names}

    def run(name: str) -> None:
        for at in (TIMED_POSITIONS // 20, TIMED_POSITIONS - 1):
            timed = Attention(caches[name], at)
            for layer in range(TIMED_LAYERS):
                timed.attend(layer, qkv)

    return fastest({name: functools.partial(run, name) for name in names})


BUCKET = 256
"""Positions per bucket of a `BatchCache`."""
Text = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of a row's text in a layer, each `[1, heads, L, width]`."""


@dataclass(frozen=True)
class BatchRows:
    """The rows of the clips of a batch: one each, and a second, unconditional one for guidance.

    Args:
        guided: for each clip, whether it has two rows.
        has_text: for each clip, whether its first row attends to a text.
        has_negative: for each clip, whether its second row attends to a negative prompt; empty if
            none does.
    """

    guided: Sequence[bool]
    has_text: Sequence[bool]
    has_negative: Sequence[bool] = ()

    @property
    def begins(self) -> list[int]:
        """The first row of each clip, and finally the number of rows."""
        begins = [0]
        for guided in self.guided:
            begins.append(begins[-1] + 1 + guided)
        return begins

    @property
    def clips(self) -> list[int]:
        """The clip of each row."""
        return [clip for clip, guided in enumerate(self.guided) for _ in range(1 + guided)]

    @property
    def with_text(self) -> list[int]:
        """The rows that attend to a text."""
        first = [row for row, has in zip(self.begins, self.has_text, strict=False) if has]
        second = [row + 1 for row, has in zip(self.begins, self.has_negative, strict=False) if has]
        return sorted(first + second)


class ClipCache:
    """Attention clip by clip.

    Args:
        rows: of the batch.
        shape: layers, heads and head width.
        n_positions: of the longest clip.
        like: a tensor with the dtype and device of the cache.
    """

    def __init__(
        self, rows: BatchRows, shape: tuple[int, int, int], n_positions: int, like: torch.Tensor
    ) -> None:
        n_layers, n_heads, width = shape
        begins = rows.begins
        self._spans = list(itertools.pairwise(begins))
        self._all = torch.arange(begins[-1])
        self._own = like.new_empty(n_layers, 2, begins[-1], n_heads, n_positions, width)
        self._together: list[tuple[int, int, Attention]] = []
        self._independent = functools.partial(rows_are_independent, n_heads, width, like.dtype)
        self._texts: list[dict[int, Text]] = [{} for _ in range(n_layers)]
        self._texts_together: list[list[tuple[Places, Text]]] = []
        self.lengths = [0] * len(self._spans)
        self._positions = torch.zeros(begins[-1], dtype=torch.long)
        self._at: int | None = 0

    def rows_of(self, clip: int) -> range:
        return range(*self._spans[clip])

    def add_text(self, layer: int, row: int, text: Text) -> None:
        """Stores the text of a row; rows come in order."""
        keys, values = text
        self._texts[layer][row] = (keys.to(self._own.dtype), values.to(self._own.dtype))

    def text_of(self, layer: int, row: int) -> Text | None:
        """The text of a row; None if it has none."""
        return self._texts[layer].get(row)

    def add_beginning(self, layer: int, clip: int, kv: torch.Tensor) -> None:
        """Stores the prefix of a clip, `[2, rows of the clip, heads, P, width]`."""
        begin, end = self._spans[clip]
        self._own[layer, :, begin:end, :, : kv.shape[3]] = kv

    def begin_at(self, lengths: Sequence[int]) -> None:
        """Sets how many positions of each clip are filled, once its texts and prefix are stored."""
        self.lengths = list(lengths)
        n_rows = [end - begin for begin, end in self._spans]
        self._positions = torch.tensor(self.lengths).repeat_interleave(torch.tensor(n_rows))
        self._at = self.lengths[0] if len(set(self.lengths)) == 1 else None
        self._make_ready()

    def _make_ready(self) -> None:
        """Attends at once where lengths are equal: the kernels handle each row by itself."""
        one = self._at is not None and self._independent()
        spans = [(0, len(self._positions))] if one else self._spans
        self._together = [
            (begin, end, Attention(self._own[:, :, begin:end], at))
            for (begin, end), at in zip(spans, self.lengths, strict=False)
        ]
        self._texts_together = [_of_one_length(texts, self._all.device) for texts in self._texts]

    @property
    def positions(self) -> int | torch.Tensor:
        """Position of the next step: one for all rows, or `[R]`."""
        return self._positions if self._at is None else self._at

    def advance(self) -> None:
        """Counts a finished step."""
        self.lengths = [length + 1 for length in self.lengths]
        self._positions += 1
        self._at = None if self._at is None else self._at + 1
        for _, _, attention in self._together:
            attention.at += 1

    def attend(self, layer: int, qkv: torch.Tensor) -> torch.Tensor:
        """Stores a step's keys and values and attends with its queries, `[R, 3, heads, width]`
        together. Returns `[R, heads * width]`."""
        if len(self._together) == 1:
            return self._together[0][2].attend(layer, qkv)
        return torch.cat([one.attend(layer, qkv[a:b]) for a, b, one in self._together])

    def attend_to_text(self, layer: int, query: torch.Tensor) -> torch.Tensor:
        """Attends to the texts with the queries `[R', heads, width]` of the rows that have one.
        Returns `[R', heads * width]`."""
        together, query = self._texts_together[layer], query.unsqueeze(2)
        if len(together) == 1:
            return attention(query, *together[0][1]).flatten(1)
        found = torch.zeros_like(query)
        for rows, text in together:
            rows.add(found, attention(rows.of(query), *text))
        return found.flatten(1)


class BatchCache(ClipCache):
    """Attention of all rows at once, with constant shapes and addresses within a bucket.

    Arguments as in `ClipCache`; `n_positions` is rounded up to a whole bucket.
    """

    def __init__(
        self, rows: BatchRows, shape: tuple[int, int, int], n_positions: int, like: torch.Tensor
    ) -> None:
        super().__init__(rows, shape, -(-n_positions // BUCKET) * BUCKET, like)
        # Masked values are still multiplied by 0, and must be finite.
        self._own.zero_()
        self._all, self._positions = self._all.to(like.device), self._positions.to(like.device)
        self._numbers = torch.arange(self._own.shape[4], device=like.device)
        self._padded: list[tuple[Text, torch.Tensor]] = []

    def begin_at(self, lengths: Sequence[int]) -> None:
        super().begin_at(lengths)
        self._positions = self._positions.to(self._all.device)

    def _make_ready(self) -> None:
        self._padded = [_padded(list(texts.values())) for texts in self._texts if texts]

    @property
    def bucket(self) -> int:
        """How far the next step reads."""
        return (max(self.lengths) // BUCKET + 1) * BUCKET

    @property
    def positions(self) -> torch.Tensor:
        return self._positions

    def count(self) -> None:
        """Counts a step run by a graph, which advanced the positions itself."""
        self.lengths = [length + 1 for length in self.lengths]

    def attend(self, layer: int, qkv: torch.Tensor) -> torch.Tensor:
        own = self._own[layer]
        own[:, self._all, :, self._positions] = qkv[:, 1:].to(own.dtype)
        keys, values = own[:, :, :, : self.bucket].unbind(0)
        mask = self._numbers[: self.bucket] <= self._positions[:, None]
        query = qkv[:, 0].unsqueeze(2)
        return attention(query, keys, values, mask[:, None, None]).flatten(1)

    def attend_to_text(self, layer: int, query: torch.Tensor) -> torch.Tensor:
        (keys, values), mask = self._padded[layer]
        return attention(query[:, :, None], keys, values, mask).flatten(1)


def _of_one_length(texts: dict[int, Text], device: torch.device) -> list[tuple[Places, Text]]:
    """Group the texts of a layer by length, each group with its places among the texts."""
    lengths: dict[int, list[int]] = {}
    for place, (keys, _) in enumerate(texts.values()):
        lengths.setdefault(keys.shape[2], []).append(place)
    pairs = list(texts.values())
    return [
        (
            Places(places, len(pairs), device),
            (
                torch.cat([pairs[place][0] for place in places]),
                torch.cat([pairs[place][1] for place in places]),
            ),
        )
        for places in lengths.values()
    ]


def _padded(texts: Sequence[Text]) -> tuple[Text, torch.Tensor]:
    """Texts of a layer as one padded batch, and the mask of their real positions."""
    longest = max(keys.shape[2] for keys, _ in texts)
    lengths = torch.tensor([keys.shape[2] for keys, _ in texts], device=texts[0][0].device)
    mask = torch.arange(longest, device=lengths.device) < lengths[:, None]
    keys, values = (
        torch.cat(
            [functional.pad(pair[i], (0, 0, 0, longest - pair[i].shape[2])) for pair in texts]
        )
        for i in (0, 1)
    )
    return (keys, values), mask[:, None, None]
