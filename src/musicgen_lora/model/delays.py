"""The delay pattern: codebook k of a frame is predicted `delays[k]` steps late.

Source: Copet et al., Simple and Controllable Music Generation (2023), section 2.3, and
audiocraft's `DelayedPatternProvider` with `keep_only_valid_steps=True`: only the first T
steps of the delayed sequence after the start column are kept, so codebook k loses its
last `delays[k]` frames.

    frame        0  1  2  3            step        0  1  2  3  4  5  6
    codebook 0   a  b  c  d            codebook 0  .  a  b  c  d  .  .
    codebook 1   e  f  g  h    delayed codebook 1  .  .  e  f  g  h  .
    codebook 2   i  j  k  l            codebook 2  .  .  .  i  j  k  l

At step s the decoder reads column s and predicts frame `s - delays[k]` of codebook k.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Delays(tuple[int, ...]):
    """The delay of each of K codebooks in steps, and the arithmetic that follows from it."""

    __slots__ = ()

    @classmethod
    def of(cls, n_codebooks: int, n_channels: int) -> Delays:
        """The delays of a MusicGen: 0, 1, 2, 3 for mono. Stereo models interleave left and right,
        which share a delay: 0, 0, 1, 1, 2, 2, 3, 3.

        Raises:
            ValueError: a stereo model with an odd number of codebooks.
        """
        if n_channels == 1:
            return cls(range(n_codebooks))
        if n_codebooks % 2:
            raise ValueError(f"A stereo model pairs its codebooks, but this one has {n_codebooks}.")
        return cls(codebook // 2 for codebook in range(n_codebooks))

    @property
    def shortest(self) -> int:
        """Frames of the shortest clip in which every codebook has something to predict."""
        return max(self) + 1

    def n_steps(self, n_frames: int) -> int:
        """Steps until the last codebook of the last frame is predicted."""
        return n_frames + max(self)

    def delay(self, codes: Tensor, special: int, n_columns: int | None = None) -> Tensor:
        """Delays codes: a column of `special`, then the delayed sequence.

        Args:
            codes: `[B, K, T]`, values below `special`.
            special: the token of start and padding.
            n_columns: S, columns to return; None for T, as in teacher forcing; `n_steps(T) + 1`
                for all of them.

        Returns:
            `[B, K, S]`: column s of codebook k holds frame s - 1 - delays[k], or `special` if there
            is no such frame.
        """
        n_frames = codes.shape[-1]
        n_columns = n_frames if n_columns is None else n_columns
        delayed = codes.new_full((*codes.shape[:-1], n_columns), special)
        for codebook, delay in enumerate(self):
            kept = min(n_frames, n_columns - 1 - delay)
            if kept > 0:
                delayed[:, codebook, delay + 1 : delay + 1 + kept] = codes[:, codebook, :kept]
        return delayed

    def undelay(self, delayed: Tensor, n_frames: int) -> Tensor:
        """Undoes `delay`: from `[B, K, S]`, with S at least `n_steps(T) + 1`, to the first T frames
        `[B, K, T]`."""
        rows = [delayed[:, k, 1 + late : 1 + late + n_frames] for k, late in enumerate(self)]
        return torch.stack(rows, dim=1)

    def states(self, hidden: Tensor) -> list[Tensor]:
        """For each codebook, the states that predict its frames 0, 1, ...: from `[B, T, D]` by step
        to K times `[B, T - delays[k], D]`."""
        return [hidden[:, late:] for late in self]

    def targets(self, codes: Tensor) -> list[Tensor]:
        """The codes that those states predict: from `[B, K, T]` to K times `[B, T - delays[k]]`."""
        n_frames = codes.shape[-1]
        return [codes[:, k, : max(n_frames - late, 0)] for k, late in enumerate(self)]

    def n_predicted(self, n_frames: Tensor) -> Tensor:
        """Counts the predicted frames of each codebook: from lengths `[B]` to `[B, K]`."""
        # Delays as plain numbers: a copy from the host would prevent capturing a CUDA graph.
        return torch.stack([n_frames - late for late in self], dim=1).clamp(min=0)

    def frames_at(self, step: int) -> Tensor:
        """The frame of each codebook that a step predicts, `[K]`; it may lie before the first or
        past the last one."""
        return step - torch.tensor(self)
