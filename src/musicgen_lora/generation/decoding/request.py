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
    """What B clips are to be like.

    Args:
        text: a clip without any text has no condition.
        melodies: `[B, L]` pitch classes for a melody model, which reads M of them, or more that
            `shifted` cuts; None is no melody.
        negative: what guidance leads away from, instead of from no text; None, and a clip without
            any of it, have none.
        bars: where the bars of each clip begin, in frames of the clip; none are all `UNKNOWN`.
    """

    text: EncodedText
    melodies: torch.Tensor | None = None
    negative: EncodedText | None = None
    bars: Sequence[Lines] = ()

    def melody_of(self, clip: int) -> torch.Tensor | None:
        """The melody of a clip, `[1, L]`."""
        return None if self.melodies is None else self.melodies[clip : clip + 1]

    def negative_of(self, clip: int) -> EncodedText | None:
        """What a clip is led away from, if it is."""
        if self.negative is None or not self.negative.mask[clip].any():
            return None
        return self.negative.alone(clip)

    def bars_of(self, clip: int) -> Lines:
        """Where the bars of a clip begin."""
        return self.bars[clip] if self.bars else UNKNOWN

    def rows(self, clips: Sequence[int]) -> Conditions:
        """Those of some clips."""
        rows = torch.as_tensor(clips)
        return Conditions(
            self.text.rows(rows),
            None if self.melodies is None else self.melodies[rows],
            None if self.negative is None else self.negative.rows(rows),
            [self.bars_of(clip) for clip in clips],
        )

    def shifted(self, shares: Sequence[float], n_read: int | None = None) -> Conditions:
        """A melody goes on with the music, and begins again after its end, as in audiocraft.

        Args:
            shares: of a window, by which each clip's has gone on.
            n_read: M, what the model reads of a melody in a window; None is all of it.
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
"""Conditions that change: each with the frame from which on it holds, the first with 0."""


@dataclass(frozen=True)
class Request:
    """B clips that are asked for.

    Args:
        conditions: what they are to be like, or how that changes.
        n_frames: T, codec frames of each clip; more than a window's go on in windows.
        seeds: B of them.
        prompt_codes: `[B, K, P]` with P < T, what the clips begin with; None begins from nothing.
    """

    conditions: Conditions | Scenes
    n_frames: int
    seeds: Sequence[int]
    sampling: Sampling = Sampling()  # noqa: RUF009
    prompt_codes: torch.Tensor | None = None

    def scene_at(self, frame: int) -> tuple[Conditions, int]:
        """The conditions that hold at a frame, and the frame before which they do."""
        if isinstance(self.conditions, Conditions):
            return self.conditions, self.n_frames
        scenes = self.conditions
        at = max(index for index, (begin, _) in enumerate(scenes) if begin <= frame)
        until = scenes[at + 1][0] if at + 1 < len(scenes) else self.n_frames
        return scenes[at][1], min(until, self.n_frames)


@dataclass(frozen=True)
class Passage:
    """What a window plays of a clip.

    Args:
        given: `[K, P]`, the codes that it begins with.
        n_frames: T > P, its frames with those.
        begin: frames of the clip before it.
    """

    given: torch.Tensor
    n_frames: int
    begin: int = 0

    @property
    def n_known(self) -> int:
        """Frames of the clip that are there before the window plays."""
        return self.begin + self.given.shape[-1]

    @property
    def end(self) -> int:
        """Frames of the clip that are there after it has."""
        return self.begin + self.n_frames


@dataclass(frozen=True)
class WindowRequest:
    """A window of B clips that is asked for.

    Args:
        n_whole: frames of the whole clips, by which guidance changes.
    """

    conditions: Conditions
    passages: Sequence[Passage]
    sampling: Sampling
    n_whole: int
