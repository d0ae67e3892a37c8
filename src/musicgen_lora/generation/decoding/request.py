"""What is asked of the decode loop: conditions, length, seeds, and how tokens are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from musicgen_lora.dataset.bar_lines import UNKNOWN, Lines
from musicgen_lora.generation.decoding.sampling import Sampling
from musicgen_lora.model.text.states import EncodedText


@dataclass(frozen=True)
class Conditions:
    """The conditions of B clips.

    Args:
        text: a clip with an empty text is unconditional.
        melodies: `[B, L]` pitch classes for a melody model, which reads M of them; `shifted` cuts
            longer ones. None is no melody.
        negative: what guidance leads away from, instead of from no text; None, or an empty text of
            a clip, is no negative prompt.
        bars: bar lines of each clip, in frames of the clip; empty means all `UNKNOWN`.
    """

    text: EncodedText
    melodies: torch.Tensor | None = None
    negative: EncodedText | None = None
    bars: Sequence[Lines] = ()

    def melody_of(self, clip: int) -> torch.Tensor | None:
        """The melody of a clip, `[1, L]`."""
        return None if self.melodies is None else self.melodies[clip : clip + 1]

    def negative_of(self, clip: int) -> EncodedText | None:
        """The negative prompt of a clip, if it has one."""
        if self.negative is None or not self.negative.mask[clip].any():
            return None
        return self.negative.alone(clip)

    def bars_of(self, clip: int) -> Lines:
        """The bar lines of a clip."""
        return self.bars[clip] if self.bars else UNKNOWN

    def rows(self, clips: Sequence[int]) -> Conditions:
        """The conditions of some of the clips."""
        rows = torch.as_tensor(clips)
        return Conditions(
            self.text.rows(rows),
            None if self.melodies is None else self.melodies[rows],
            None if self.negative is None else self.negative.rows(rows),
            [self.bars_of(clip) for clip in clips],
        )

    def shifted(self, shares: Sequence[float], n_read: int | None = None) -> Conditions:
        """Move each melody on with the music; after its end it begins again, as in audiocraft.

        Args:
            shares: how far each clip has advanced, in windows.
            n_read: M, how much of a melody the model reads in a window; None is all of it.
        """
        if self.melodies is None:
            return self
        n_read = n_read or self.melodies.shape[1]
        turned = [
            melody.roll(-round(share * n_read))[:n_read]
            for melody, share in zip(self.melodies, shares, strict=True)
        ]
        return replace(self, melodies=torch.stack(turned))


Scenes = Sequence[tuple[int, Conditions]]
"""Conditions that change: each with the frame at which it begins, the first with 0."""


@dataclass(frozen=True)
class Request:
    """A request for B clips.

    Args:
        conditions: constant, or changing.
        n_frames: T, codec frames of each clip; more than a window's continue in windows.
        seeds: B of them.
        prompt_codes: `[B, K, P]` with P < T, codes that the clips begin with; None is none.
    """

    conditions: Conditions | Scenes
    n_frames: int
    seeds: Sequence[int]
    sampling: Sampling = Sampling()  # noqa: RUF009
    prompt_codes: torch.Tensor | None = None

    def scene_at(self, frame: int) -> tuple[Conditions, int]:
        """The conditions at a frame, and the frame at which they end."""
        if isinstance(self.conditions, Conditions):
            return self.conditions, self.n_frames
        scenes = self.conditions
        at = max(index for index, (begin, _) in enumerate(scenes) if begin <= frame)
        until = scenes[at + 1][0] if at + 1 < len(scenes) else self.n_frames
        return scenes[at][1], min(until, self.n_frames)


@dataclass(frozen=True)
class Passage:
    """The part of a clip in a window.

    Args:
        given: `[K, P]`, the codes that it begins with.
        n_frames: T > P, its frames including those.
        begin: frames of the clip before it.
    """

    given: torch.Tensor
    n_frames: int
    begin: int = 0

    @property
    def n_known(self) -> int:
        """Frames of the clip that exist before the window plays."""
        return self.begin + self.given.shape[-1]

    @property
    def end(self) -> int:
        """Frames of the clip that exist afterwards."""
        return self.begin + self.n_frames


@dataclass(frozen=True)
class WindowRequest:
    """A request for a window of B clips.

    Args:
        n_whole: frames of the whole clips, over which guidance changes.
    """

    conditions: Conditions
    passages: Sequence[Passage]
    sampling: Sampling
    n_whole: int
