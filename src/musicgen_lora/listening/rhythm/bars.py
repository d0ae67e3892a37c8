"""Cuts tracks on bar lines, and counts bars.

A clip that starts mid-bar teaches a model that music starts mid-bar. So long tracks are cut where
bars begin, never mid-beat; only if the tempo itself is uncertain, they are cut into equal windows,
and the result says so.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from musicgen_lora.listening.rhythm.tempo import Tempo

SURE = 0.5
"""Confidence from which tempo or bar lines are relied on."""
PHRASE_BARS = 4
HALF_PHRASE_COST, ODD_COST = 1.0, 2.0
"""Cost of windows that aren't phrases of four bars, in bars that could be dropped instead."""
KEPT_BARS = 2
"""A stretch between two pauses with at least this many whole bars is a clip, however short."""
SILENT_BARS_SHARE = 0.5
"""A bar is dropped if a larger share of it is silent."""
LOOP_SLACK = 0.02
"""A loop's length may be off a whole number of bars by this share of a bar."""

Span = tuple[float, float]
"""Start and end of a part of a file, in seconds."""


@dataclass(frozen=True)
class Cuts:
    """Windows of a track.

    Args:
        windows_s: start and stop of each in seconds, in order, without overlap.
        grid: what they start and end on: bar lines; beats, which are probably bar lines; or
            nothing ("time") if the tempo is uncertain.
    """

    windows_s: tuple[Span, ...]
    grid: Literal["bars", "beats", "time"]


def cut_on_bars(
    tempo: Tempo,
    duration_s: float,
    *,
    min_s: float = 15.0,
    max_s: float = 30.0,
    silences_s: Sequence[Span] = (),
) -> Cuts:
    """Cuts a track into windows of `min_s` to `max_s` that start and end on bar lines.

    Windows are phrases of four bars if that drops little. Bars that are more than half silent are
    dropped, and no window spans them. A stretch between such bars that is shorter than `min_s` is
    kept whole if it has `KEPT_BARS`. A track with no stretch of `min_s` gives its longest stretch
    as one shorter window; windows are also shorter if no number of bars fits the limits.

    Args:
        silences_s: silent stretches, see `quality.find_silences`.

    Raises:
        ValueError: not 0 < min_s <= max_s.
    """
    if not 0.0 < min_s <= max_s:
        raise ValueError(f"Windows of {min_s:g} to {max_s:g} s are impossible.")
    is_sure = tempo.confidence >= SURE and len(tempo.downbeats_s) > 1
    if not is_sure or 240.0 / tempo.bpm > max_s:
        windows = _equal_windows(sounding_spans(duration_s, silences_s), min_s, max_s)
        return Cuts(tuple(windows), "time")
    runs = _sounding_runs(tempo.downbeats_s, silences_s)
    windows = [window for run in runs for window in _cut_run(run, min_s, max_s) or _kept_whole(run)]
    if not windows and runs:
        run = max(runs, key=lambda run: run[-1] - run[0])
        windows = [(float(run[0]), float(run[-1]))]
    return Cuts(tuple(windows), "bars" if tempo.downbeat_confidence >= SURE else "beats")


def _sounding_runs(lines: np.ndarray, silences_s: Sequence[Span]) -> list[np.ndarray]:
    """Bar lines of each unbroken run of bars that aren't silent, two lines or more each."""
    runs: list[np.ndarray] = []
    first = 0
    for index, (start_s, stop_s) in enumerate(itertools.pairwise(lines)):
        silent_s = sum(
            max(0.0, min(stop_s, silence[1]) - max(start_s, silence[0])) for silence in silences_s
        )
        if silent_s > SILENT_BARS_SHARE * (stop_s - start_s):
            runs.append(lines[first : index + 1])
            first = index + 1
    runs.append(lines[first:])
    return [run for run in runs if len(run) > 1]


def _cut_run(run: np.ndarray, min_s: float, max_s: float) -> list[Span]:
    """Windows of an unbroken run of bar lines `[M]`; none if it is shorter than `min_s`."""
    n_bars = len(run) - 1
    bar_s = float(run[-1] - run[0]) / n_bars
    # A hair of slack, so that 30 s hold 15 bars of 2 s.
    most = max(1, math.floor(max_s / bar_s + 1e-3))
    fewest = min(most, math.ceil(min_s / bar_s - 1e-3))
    if n_bars < fewest:
        return []
    size = min(
        range(fewest, min(most, n_bars) + 1), key=lambda size: (_cost(n_bars, size, fewest), -size)
    )
    starts = range(0, n_bars - fewest + 1, size)
    return [(float(run[start]), float(run[min(start + size, n_bars)])) for start in starts]


def _kept_whole(run: np.ndarray) -> list[Span]:
    """A run that is too short to cut, if it has enough bars."""
    return [(float(run[0]), float(run[-1]))] if len(run) > KEPT_BARS else []


def _cost(n_bars: int, size: int, fewest: int) -> float:
    """Bars dropped by windows of `size`, plus a cost for odd lengths."""
    rest = n_bars % size
    lost = float(rest) if rest < fewest else 0.0
    if size % PHRASE_BARS == 0:
        return lost
    return lost + (HALF_PHRASE_COST if 2 * size % PHRASE_BARS == 0 else ODD_COST)


def sounding_spans(duration_s: float, silences_s: Sequence[Span]) -> list[Span]:
    """The parts of 0 to `duration_s` outside the silences."""
    spans, start_s = [], 0.0
    for silent_start_s, silent_stop_s in sorted(silences_s):
        if silent_start_s > start_s:
            spans.append((start_s, min(silent_start_s, duration_s)))
        start_s = max(start_s, silent_stop_s)
    if start_s < duration_s:
        spans.append((start_s, duration_s))
    return spans


def _equal_windows(spans: Sequence[Span], min_s: float, max_s: float) -> list[Span]:
    windows: list[Span] = []
    for start_s, stop_s in spans:
        length_s = stop_s - start_s
        if length_s < min_s:
            continue
        # As few windows as cover it all; if that makes them too short, the rest is dropped.
        n_windows = math.ceil(length_s / max_s - 1e-9)
        window_s = length_s / n_windows
        if window_s < min_s:
            n_windows, window_s = n_windows - 1, max_s
        edges = [start_s + index * window_s for index in range(n_windows + 1)]
        windows += itertools.pairwise(edges)
    if not windows and spans:
        start_s, stop_s = max(spans, key=lambda span: span[1] - span[0])
        windows = [(start_s, min(stop_s, start_s + max_s))]
    return windows


def whole_bars(tempo: Tempo, duration_s: float) -> int | None:
    """Length of a recording in whole bars; None if it isn't a loop: no whole number of bars, or an
    uncertain tempo."""
    if tempo.confidence < SURE:
        return None
    n_bars = duration_s * tempo.bpm / 240.0
    nearest = round(n_bars)
    return nearest if nearest >= 1 and abs(n_bars - nearest) < LOOP_SLACK else None


def repeats_to_reach(loop_s: float, target_s: float, max_s: float) -> int:
    """How often to repeat a loop to reach `target_s` without exceeding `max_s`; at least 1."""
    wanted, most = math.ceil(target_s / loop_s - 1e-3), math.floor(max_s / loop_s + 1e-3)
    return max(1, min(wanted, most))
