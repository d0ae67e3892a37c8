"""From token shards to training batches: windows, captions, condition dropout, order.

Every draw (order, window, caption variant, dropped condition) depends only on (seed, epoch, clip).
So resuming needs one integer, the step, and any number of processes sees the same samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from musicgen_lora.dataset.bar_lines import bar_lines, nearest_bar_line
from musicgen_lora.runtime.seeds import seed_of

if TYPE_CHECKING:
    from musicgen_lora.dataset.melodies import Melodies
    from musicgen_lora.dataset.metadata import Clip
    from musicgen_lora.dataset.tokens import TokenStore

DRAWS_VERSION = 3
"""Version of how order, windows and dropout follow from the seed: a run that began with another
version can't be resumed as if uninterrupted."""
GROUPED_STEPS = 16
"""Number of steps whose clips are sorted by length together."""
GOLDEN_RATIO = (math.sqrt(5.0) - 1.0) / 2.0


@dataclass(frozen=True)
class Batch:
    """Clips padded to the longest.

    Args:
        codes: `[B, K, T]` int64, zero past a clip's end.
        n_frames: `[B]` true lengths.
        captions: B of them; None is the null condition.
        melodies: `[B, M]` pitch classes, zero for the null condition; None if all are null or the
            model takes no melody.
    """

    codes: torch.Tensor
    n_frames: torch.Tensor
    captions: list[str | None]
    melodies: torch.Tensor | None = None


class Window(NamedTuple):
    """A stretch of a clip: a sample for training or validation.

    Args:
        codes: `[T, K]`.
        caption: of the clip; None is the null condition.
        melody: `[M]` pitch classes of this stretch, zero for the null condition; None if the model
            takes no melody.
    """

    codes: np.ndarray
    caption: str | None
    source: str = ""
    melody: np.ndarray | None = None


class WindowDraw(NamedTuple):
    """The random choices for a sample.

    Args:
        start: the window's first frame in the clip.
        caption: index of its caption among the clip's; None for the null condition.
        drops_melody: whether its melody is dropped, independently of the caption.
    """

    start: int
    caption: int | None
    drops_melody: bool


@dataclass(frozen=True)
class WindowSampler:
    """How training windows are drawn.

    Args:
        n_frames: of a window, cut in token space at a random place; shorter clips are used whole.
        condition_dropout: share of samples whose caption is dropped, which guidance requires.
        melody_dropout: share of samples whose melody is dropped, whether or not the caption is.
    """

    n_frames: int
    seed: int = 0
    condition_dropout: float = 0.0
    melody_dropout: float = 0.0

    def draw(self, epoch: int, clip: int, *, spare_frames: int, n_captions: int) -> WindowDraw:
        """Draws a clip's window for an epoch.

        Args:
            epoch: decides the draw, together with the seed and the clip.
            clip: its row among the training clips.
            spare_frames: how many frames longer the clip is than the window.
        """
        rng = np.random.default_rng(seed_of("window", self.seed, epoch, clip))
        start = int(rng.integers(max(0, spare_frames) + 1))
        caption = int(rng.integers(n_captions))
        is_null = rng.random() < self.condition_dropout
        return WindowDraw(start, None if is_null else caption, rng.random() < self.melody_dropout)


class ClipDataset(Dataset[Window]):
    """Training windows of a dataset.

    Args:
        frame_rate: codec frames per second; with it, windows of clips whose tempo is known begin on
            a bar line. None lets all begin anywhere.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        codes: TokenStore,
        sampler: WindowSampler,
        *,
        frame_rate: float | None = None,
        melodies: Melodies | None = None,
    ) -> None:
        self._clips, self._codes, self._sampler = clips, codes, sampler
        self._frame_rate, self._melodies = frame_rate, melodies
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch whose draws decide the samples."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: int) -> Window:
        clip, n_frames = self._clips[index], self._sampler.n_frames
        spare_frames = int(self._codes.n_frames[index]) - n_frames
        draw = self._sampler.draw(
            self._epoch, index, spare_frames=spare_frames, n_captions=len(clip.texts)
        )
        start = draw.start
        if self._frame_rate is not None and spare_frames > 0:
            start = nearest_bar_line(start, spare_frames, bar_lines(clip, self._frame_rate))
        codes = self._codes[index][start : start + n_frames]
        melody = None
        if self._melodies is not None:
            melody = self._melodies.window(clip, start, len(codes))
            if draw.drops_melody:
                melody = np.zeros_like(melody)
        caption = None if draw.caption is None else clip.texts[draw.caption]
        return Window(codes, caption, clip.source, melody)

    def n_frames(self) -> np.ndarray:
        """The length of each clip's windows in frames, `[clips]`."""
        return np.minimum(self._codes.n_frames, self._sampler.n_frames)

    def names(self, indices: Sequence[int]) -> list[str]:
        """The names of clips, for messages."""
        return [self._clips[index].name for index in indices]


def epoch_order(n_clips: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of the clips that depends only on (seed, epoch)."""
    return np.random.default_rng(seed_of("order", seed, epoch)).permutation(n_clips)


def grouped_order(lengths: np.ndarray, seed: int, epoch: int, per_step: int) -> np.ndarray:
    """A permutation of the clips in which each group of `per_step`, a step's clips, has similar
    lengths.

    The clips of `GROUPED_STEPS` steps at a time are taken from `epoch_order`, sorted by length and
    split into steps, and the steps are shuffled. It depends only on (lengths, seed, epoch,
    per_step).

    Args:
        per_step: clips per step; an epoch's last step may have fewer.
    """
    order = epoch_order(len(lengths), seed, epoch)
    rng = np.random.default_rng(seed_of("groups", seed, epoch, per_step))
    n_whole = len(order) // per_step * per_step
    steps: list[np.ndarray] = []
    for start in range(0, n_whole, per_step * GROUPED_STEPS):
        part = order[start : min(n_whole, start + per_step * GROUPED_STEPS)]
        part = part[np.argsort(lengths[part], kind="stable")]
        steps.extend(part.reshape(-1, per_step))
    drawn = [steps[index] for index in rng.permutation(len(steps))]
    return np.concatenate([*drawn, order[n_whole:]])


def fixed_windows(
    clips: Sequence[Clip],
    codes: TokenStore,
    *,
    max_frames: int,
    min_frames: int,
    max_windows: int | None = None,
    melodies: Melodies | None = None,
) -> list[Window]:
    """Validation windows: each clip is cut from end to end, with nothing random.

    Args:
        min_frames: shorter remainders of clips are left out.
        max_windows: most windows to take, spread over the clips and over each clip; None takes
            all.
    """
    counts = np.maximum(0, (codes.n_frames - min_frames) // max_frames + 1)
    windows: list[Window] = []
    for row, place in _spread(counts, max_windows):
        start = place * max_frames
        clip, window = clips[row], codes[row][start : start + max_frames]
        melody = None if melodies is None else melodies.window(clip, start, len(window))
        windows.append(Window(window, clip.texts[0], clip.source, melody))
    return windows


def _spread(counts: np.ndarray, limit: int | None) -> list[tuple[int, int]]:
    """Picks at most `limit` windows, as `(clip, place in it)`, from clips with `counts` windows
    each, `[clips]`.

    Each clip gets its share of the windows to within one. The golden ratio decides which clips get
    one more and where a clip's windows lie: with evenly spaced steps, clips of regular lengths
    might give only their first windows, or none.
    """
    total = int(counts.sum())
    n_taken = total if limit is None else min(limit, total)
    shuffled = np.argsort(np.arange(len(counts)) * GOLDEN_RATIO % 1.0, kind="stable")
    points = (np.arange(n_taken) + 0.5) * total / max(1, n_taken)
    owners = shuffled[np.searchsorted(np.cumsum(counts[shuffled]), points, side="right")]
    rows, shares = np.unique(owners, return_counts=True)
    spots: list[tuple[int, int]] = []
    for number, (row, share) in enumerate(zip(rows.tolist(), shares.tolist(), strict=True)):
        places = (np.arange(share) + number * GOLDEN_RATIO % 1.0) * int(counts[row]) / share
        spots += [(row, int(place)) for place in places]
    return spots


def collate(windows: Sequence[Window]) -> Batch:
    """Pads windows to a batch. `n_frames` masks the padding in the loss, and it comes last, where
    causal attention from real frames never sees it. All windows have a melody, or none has."""
    lengths = [len(window.codes) for window in windows]
    codes = np.zeros((len(windows), windows[0].codes.shape[1], max(lengths)), dtype=np.int64)
    for row, window in zip(codes, windows, strict=True):
        row[:, : len(window.codes)] = window.codes.T
    melodies = [window.melody for window in windows if window.melody is not None]
    return Batch(
        torch.from_numpy(codes),
        torch.tensor(lengths),
        [window.caption for window in windows],
        torch.from_numpy(np.stack(melodies)) if melodies else None,
    )
