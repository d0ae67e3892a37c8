"""Where the bars of a recording begin: from its JSON, from a given tempo, or measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from musicgen_lora.audio.files import probe
from musicgen_lora.config import GenerateSettings
from musicgen_lora.dataset.caption_words import normalise_bpm
from musicgen_lora.errors import UserError
from musicgen_lora.generation.clips.written import read_facts
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
    if (stated := stated_grid(duration_s, sample_rate, facts, bpm)) is not None:
        return stated
    tempo = estimate_tempo(waveform, sample_rate)
    if not tempo.confidence >= SURE or not tempo.is_steady or not len(tempo.downbeats_s):
        raise UserError(f"{path}: its bars can't be found reliably; give its tempo with --bpm.")
    if tempo.loop_bars is not None:
        exact = 240.0 * tempo.loop_bars / duration_s
        return BarGrid(exact, 0.0, tempo.loop_bars, "measured", is_loop=True)
    first_s = float(tempo.downbeats_s[0])
    return BarGrid(tempo.bpm, first_s, _whole_bars(duration_s - first_s, tempo.bpm), "measured")


def stated_grid(
    duration_s: float, sample_rate: int, facts: Mapping[str, Any], bpm: float | None
) -> BarGrid | None:
    """The bars of a recording by a given tempo or its JSON; None if they have to be measured."""
    told, n_bars = normalise_bpm(facts.get("bpm")), facts.get("bars")

    def lasts(n: int, at_bpm: float) -> bool:
        return n > 0 and abs(duration_s - n * 240.0 / at_bpm) * sample_rate <= 1.0

    if bpm is not None:
        n_whole = _whole_bars(duration_s, bpm)
        # A clip of ours says whether it is a loop; other people's are mostly 1, 2, 4, 8 ... bars.
        may_loop = n_bars == n_whole if facts else n_whole.bit_count() == 1
        is_loop = may_loop and lasts(n_whole, bpm)
        return BarGrid(bpm, 0.0, n_whole, "--bpm", is_loop=is_loop)
    if told is None or not isinstance(n_bars, int) or not lasts(n_bars, told):
        return None
    return BarGrid(told, 0.0, n_bars, "its JSON", is_loop=True)


def check_bars(path: Path, grid: BarGrid, first: int, last: int) -> None:
    """Raises a UserError if a recording hasn't the bars to regenerate, or only those."""
    if last > grid.n_bars:
        raise UserError(
            f"--to_bar {last}: {path} has {grid.n_bars} bars at {grid.told_bpm} bpm "
            f"({grid.source}); give bars within it, or its real tempo with --bpm."
        )
    if grid.is_loop and (first, last) == (1, grid.n_bars):
        raise UserError(
            f"--from_bar 1 --to_bar {last}: this is all of {path}; make a new loop with --bars."
        )


def check_asked_bars(settings: GenerateSettings) -> None:
    """`check_bars` before anything is loaded, as far as bars needn't be measured.

    Raises:
        UserError: also if the recording can't be read.
    """
    path = settings.regenerate
    if path is None:
        return
    info, facts = probe(path), read_facts(path.with_suffix(".json"))
    grid = stated_grid(info.duration_s, info.sample_rate, facts, settings.bpm)
    if grid is not None:
        check_bars(path, grid, settings.from_bar or 1, settings.to_bar or 1)


def _whole_bars(duration_s: float, bpm: float) -> int:
    return int(duration_s * bpm / 240.0 + SLACK)
