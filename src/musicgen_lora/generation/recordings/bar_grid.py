"""Where the bars of a recording begin: from its JSON, from a given tempo, or measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from musicgen_lora.dataset.caption_words import normalise_bpm
from musicgen_lora.errors import UserError
from musicgen_lora.listening.rhythm.bars import SURE
from musicgen_lora.listening.rhythm.tempo import estimate_tempo

SLACK = 0.02
"""Share of a bar that may be missing from the last one."""
GridSource = Literal["its JSON", "--bpm", "measured"]


@dataclass(frozen=True)
class BarGrid:
    """Bars of 4/4.

    Args:
        first_s: where bar 1 begins.
        n_bars: whole bars from there on.
        is_loop: the recording is exactly these bars, and its end leads into its beginning.
    """

    bpm: float
    first_s: float
    n_bars: int
    source: GridSource
    is_loop: bool = False

    @property
    def told_bpm(self) -> str:
        """The tempo as text for people."""
        return f"{round(self.bpm, 2):g}"

    def span(self, from_bar: int, to_bar: int, sample_rate: int) -> tuple[int, int]:
        """First and end sample of bars `from_bar` to `to_bar`, counted from 1, both included."""
        bar_s = 240.0 / self.bpm
        begin, end = (self.first_s + bar_s * bar for bar in (from_bar - 1, to_bar))
        return round(begin * sample_rate), round(end * sample_rate)


def find_grid(
    path: Path,
    waveform: np.ndarray,
    sample_rate: int,
    facts: Mapping[str, Any],
    bpm: float | None = None,
) -> BarGrid:
    """Find the bars of a recording `[C, N]`.

    Args:
        path: its file.
        facts: what the JSON beside it says, which is trusted; empty if there is none.
        bpm: given tempo: bar 1 then begins where the recording does.

    Raises:
        UserError: its bars can't be measured reliably.
    """
    duration_s = waveform.shape[1] / sample_rate
    told, n_bars = normalise_bpm(facts.get("bpm")), facts.get("bars")
    if bpm is None and told is not None and isinstance(n_bars, int) and n_bars > 0:
        n_samples = n_bars * 240.0 / told * sample_rate
        if abs(waveform.shape[1] - n_samples) <= 1.0:
            return BarGrid(told, 0.0, n_bars, "its JSON", is_loop=True)
    if bpm is not None:
        return BarGrid(bpm, 0.0, _whole_bars(duration_s, bpm), "--bpm")
    tempo = estimate_tempo(waveform, sample_rate)
    if not tempo.confidence >= SURE or not tempo.is_steady or not len(tempo.downbeats_s):
        raise UserError(f"{path}: its bars can't be found reliably; give its tempo with --bpm.")
    if tempo.loop_bars is not None:
        exact = 240.0 * tempo.loop_bars / duration_s
        return BarGrid(exact, 0.0, tempo.loop_bars, "measured", is_loop=True)
    first_s = float(tempo.downbeats_s[0])
    return BarGrid(tempo.bpm, first_s, _whole_bars(duration_s - first_s, tempo.bpm), "measured")


def _whole_bars(duration_s: float, bpm: float) -> int:
    return int(duration_s * bpm / 240.0 + SLACK)
