"""Where the bars of a clip begin, in codec frames, according to its metadata.

Music begins on a bar line. Training windows that begin anywhere in a bar teach that the beginning
means nothing, and a model that can place its hits relative to it unlearns that.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from musicgen_lora.dataset.caption_words import stated_bpm
from musicgen_lora.formats.kinds import is_number
from musicgen_lora.model.text.wording import english_of

if TYPE_CHECKING:
    from musicgen_lora.dataset.metadata import Clip

Lines = tuple[float, float]
"""The frame of the first bar line, and the frames per bar."""
UNKNOWN: Lines = (math.nan, math.nan)


def bar_lines(clip: Clip, frame_rate: float) -> Lines:
    """The frame of a clip's first bar line and the frames of a bar of four beats; `UNKNOWN` without
    `bpm`. A clip without `first_bar_s` is assumed to begin on a bar line; if it doesn't, the lines
    are whole bars after its beginning, where the same position in the bar recurs."""
    fields = clip.fields
    first_s, bpm = _number(fields.get("first_bar_s", 0.0)), _number(fields.get("bpm"))
    if not (first_s >= 0.0 and bpm > 0.0):
        return UNKNOWN
    return first_s * frame_rate, 240.0 / bpm * frame_rate


def stated_bar_lines(text: str | None, frame_rate: float) -> Lines:
    """The bar lines of music that begins with a bar, in the tempo that its text states, as the
    model reads it; `UNKNOWN` if it states none."""
    bpm = None if text is None else stated_bpm(english_of(text))
    return UNKNOWN if bpm is None else (0.0, 240.0 / bpm * frame_rate)


def nearest_bar_line(start: int, spare: int, lines: Lines) -> int:
    """The frame of the bar line nearest to `start` between 0 and `spare`; `start` itself if there
    is none.

    Args:
        start: a frame from 0 to `spare`.
        spare: the last frame at which a window may begin.
        lines: from `bar_lines`.
    """
    first, length = lines
    if not (math.isfinite(length) and round(first) <= spare):
        return start
    nearest = max(0, round((start - first) / length))
    while round(first + nearest * length) > spare:
        nearest -= 1
    return round(first + nearest * length)


def _number(value: Any) -> float:
    return float(value) if is_number(value) else math.nan
