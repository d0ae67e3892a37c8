"""The windows of a packed file that a step trains on, drawn as `ClipDataset` draws a dataset's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from musicgen_lora.dataset.bar_lines import nearest_bar_line
from musicgen_lora.dataset.batches import WindowSampler, epoch_order
from musicgen_lora.dataset.packed import PackedTokens
from musicgen_lora.runtime.seeds import seed_of

LOOP_BARS = (1, 2, 4)
"""Possible lengths of a loop, in bars."""
CUT_SHARE = 1 / 6
"""Share of a window that may be missing at its end so that it can begin on a bar line of a clip
that is hardly longer than the window."""
NULL_CAPTION = 0
"""The row of the text states that holds the null condition."""


class DrawnBatch(NamedTuple):
    """The windows of a batch.

    Args:
        starts: first frames in the codes of all clips, `[B]` int64.
        n_frames: lengths of the windows, `[B]` int64.
        captions: rows of the table of text states, `[B]` int64.
        periods: frames after which a window repeats, `[B]` float64; the window's length if it
            doesn't.
        seeds: for anything else drawn for each window, `[B]` int64.
    """

    starts: torch.Tensor
    n_frames: torch.Tensor
    captions: torch.Tensor
    periods: torch.Tensor
    seeds: torch.Tensor

    def to(self, device: torch.device) -> DrawnBatch:
        """The same on another device."""
        return DrawnBatch(*(part.to(device) for part in self))


class Draws:
    """Windows of a packed file's clips.

    Args:
        captions: of each clip, rows of the table of text states.
        sampler: draws the training windows; held-out windows have the same length.
        bar_start_share: share of training windows that begin on a bar line, if the file has the
            clip's; the others begin anywhere.
        loop_share: share of those that repeat their first one, two or four bars, so that the same
            tokens come again bars later.
    """

    def __init__(
        self,
        tokens: PackedTokens,
        captions: Sequence[Sequence[int]],
        sampler: WindowSampler,
        *,
        bar_start_share: float = 0.0,
        loop_share: float = 0.0,
    ) -> None:
        self._tokens, self._captions, self._offsets = tokens, captions, tokens.offsets
        self._sampler, self._n_frames, self._seed = sampler, sampler.n_frames, sampler.seed
        self._bar_start_share, self._loop_share = bar_start_share, loop_share
        self._train = np.flatnonzero(~tokens.held_out)
        self._epoch, self._order = -1, self._train

    def step(self, step: int, batch_size: int, n_batches: int) -> list[DrawnBatch]:
        """The batches of a step, a function of (seed, step): each epoch goes through the clips in
        an order of its own."""
        per_step = batch_size * n_batches
        places = [
            (place // len(self._train), self._clip(*divmod(place, len(self._train))))
            for place in range(step * per_step, (step + 1) * per_step)
        ]
        return [self.batch(places[at : at + batch_size]) for at in range(0, per_step, batch_size)]

    def batch(self, places: Sequence[tuple[int, int]]) -> DrawnBatch:
        """Random windows.

        Args:
            places: epoch and clip of each; clips are numbered among those trained on.
        """
        rows = self._train[[clip for _, clip in places]]
        starts, captions = self._offsets[rows], np.empty(len(rows), dtype=np.int64)
        whole, periods = self._n_frames, np.empty(len(rows))
        lengths = self._tokens.n_frames[rows]
        for at, ((epoch, clip), row) in enumerate(zip(places, rows.tolist(), strict=True)):
            n_clip = int(lengths[at])
            draw = self._sampler.draw(
                epoch, clip, spare_frames=n_clip - whole, n_captions=len(self._captions[row])
            )
            start, periods[at] = self._on_bar((epoch, clip), row, n_clip) or (draw.start, whole)
            starts[at] += start
            # A loop has full length, however little is left of its clip.
            lengths[at] = whole if periods[at] < whole else min(n_clip - start, whole)
            is_null = draw.caption is None
            captions[at] = NULL_CAPTION if is_null else self._captions[row][draw.caption]
        return DrawnBatch(
            torch.from_numpy(starts),
            torch.from_numpy(lengths),
            torch.from_numpy(captions),
            torch.from_numpy(periods),
            torch.tensor([seed_of("wrong", self._seed, *place) for place in places]),
        )

    def _on_bar(self, place: tuple[int, int], row: int, n_clip: int) -> tuple[int, float] | None:
        """The frame nearest to one of the clip's bar lines, and the frames after which the window
        repeats, for the share of windows that begin there; None for the others, and if every bar
        line would cost the window more than `CUT_SHARE`.

        Args:
            n_clip: frames of the clip.
        """
        bars = self._tokens.bars
        if bars is None or not self._bar_start_share:
            return None
        rng = np.random.default_rng(seed_of("bar", self._seed, *place))
        lines = bars[row].tolist()
        first, length = lines
        spare = max(n_clip - self._n_frames, int(CUT_SHARE * min(n_clip, self._n_frames)))
        if rng.random() >= self._bar_start_share or not first <= spare:
            return None
        start = nearest_bar_line(int(rng.integers(spare + 1)), spare, lines)
        period = length * int(rng.choice(LOOP_BARS))
        loops = rng.random() < self._loop_share and 2 * period <= min(
            n_clip - start, self._n_frames
        )
        return start, period if loops else self._n_frames

    def held_out(self, limit: int, batch_size: int) -> list[DrawnBatch]:
        """The first window of each of up to `limit` held-out clips, with its first caption."""
        rows = np.flatnonzero(self._tokens.held_out)
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(limit, len(rows))).astype(int))]
        return [
            DrawnBatch(
                torch.from_numpy(self._offsets[part]),
                torch.from_numpy(np.minimum(self._tokens.n_frames[part], self._n_frames)),
                torch.tensor([self._captions[row][0] for row in part]),
                torch.full((len(part),), float(self._n_frames), dtype=torch.float64),
                torch.zeros(len(part), dtype=torch.int64),
            )
            for part in (rows[at : at + batch_size] for at in range(0, len(rows), batch_size))
        ]

    def _clip(self, epoch: int, place: int) -> int:
        """The clip at a position in an epoch, numbered among those trained on."""
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = epoch_order(len(self._train), self._seed, epoch)
        return int(self._order[place])
