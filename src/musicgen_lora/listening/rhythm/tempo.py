"""Estimates tempo, beats and bar lines of a recording, including the octave of the tempo.

`metre` gives candidates. Here their odds become a choice with a confidence (a softmax over all
hypotheses), and the choice a grid: a line through the onsets gives the period to a few parts in
100,000, so that the bar lines still hold minutes later. A recording whose tempo changes is followed
from beat to beat instead: Ellis, Beat Tracking by Dynamic Programming (2007).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from musicgen_lora.listening.rhythm.loops import agreed_tempi, whole_tempi
from musicgen_lora.listening.rhythm.metre import (
    BASS,
    FRAME_RATE,
    HATS,
    SNAP,
    Hypotheses,
    find_hypotheses,
    find_tempi,
    onset_strengths,
    repetition,
)

SHORTEST_S = 1.2
"""A recording shorter than a bar of the fastest tempo has no tempo."""
LOOP_S = 12.0
"""Shorter recordings may be loops, whose length hints at their tempo."""
LOOP_DRIFT_S = 0.03
"""The onsets of a loop drift at most this far from its grid between start and end."""
BAR_START_BONUS = 1.0
"""Log odds for a bar line at the start of the recording, where most loops are cut."""
PULSE_FROM, PULSE_TO = 0.05, 0.2
"""Noise repeats with its best beat by up to the first of these, music by at least the second."""
GRID_REACH = 0.3
"""Share of a sixteenth within which an onset belongs to the grid."""
STRETCH_S = 5.0
STEADY, CLEAR = 0.2, 0.15
"""On a straight grid the onsets of each `STRETCH_S` are off by at most the share `STEADY` of a
sixteenth; stretches count if at least the share `CLEAR` of the onsets agrees."""
UNCLEAR, MOVING = 0.75, 0.5
"""Factors on the confidence if the onsets hardly keep to the grid, or don't at all."""
BEAT_TIGHTNESS = 100.0
"""Weight of the squared log of a beat's length against the onset strength at it."""


@dataclass(frozen=True)
class Tempo:
    """Tempo and grid of a recording.

    Args:
        bpm: quarter notes per minute as a sequencer shows it (trap in half time is 140, not 70);
            NaN if nothing repeats.
        alternative_bpm: the likelier of half and double of it; NaN if nothing repeats.
        confidence: 0 to 1, that `bpm` is right, including its octave.
        beats_s: times of the beats in seconds `[M]`, within the recording.
        downbeats_s: times of the bar lines `[K]`, a subset of `beats_s`.
        downbeat_confidence: 0 to 1, that the bar lines are right as well.
        is_steady: whether the beats lie on one straight grid; otherwise they follow the playing.
        loop_bars: length in bars of a loop: a recording whose onsets agree with the tempo that its
            length implies. None for anything else.
        repetition: 0 to 1, see `metre.repetition`; NaN without a tempo.
    """

    bpm: float
    alternative_bpm: float
    confidence: float
    beats_s: np.ndarray
    downbeats_s: np.ndarray
    downbeat_confidence: float
    is_steady: bool
    loop_bars: int | None = None
    repetition: float = float("nan")


def estimate_tempo(waveform: np.ndarray, sample_rate: int) -> Tempo:
    """Tempo, beats and bar lines of a recording `[C, N]` at `sample_rate` Hz, in 4/4.

    It needs at least 1.2 s of audio, and some bars for confidence.

    Raises:
        ValueError: not `[C, N]`, or NaN or infinite samples.
    """
    strengths = onset_strengths(waveform, sample_rate)
    return tempo_of_strengths(strengths, waveform.shape[1] / sample_rate)


def tempo_of_strengths(strengths: np.ndarray, duration_s: float) -> Tempo:
    """`estimate_tempo` from existing onset strengths `[4, F]`, see `onset_strengths`."""
    hypotheses, loops = None, []
    bpms, correlation = np.zeros(0), np.zeros((len(strengths), 0))
    if duration_s >= SHORTEST_S and strengths.any():
        bpms, correlation = find_tempi(strengths)
        hypotheses = find_hypotheses(strengths, bpms, correlation)
        loops = agreed_tempi(strengths, duration_s)
        if loops or duration_s < LOOP_S:
            looped = _loop_hypotheses(
                strengths, duration_s, hypotheses, correlation, is_agreed=bool(loops)
            )
            hypotheses = looped or hypotheses
    if hypotheses is None:
        nan, nothing = float("nan"), np.zeros(0)
        return Tempo(nan, nan, 0.0, nothing, nothing, 0.0, False)
    shares = _shares(hypotheses)
    bpms, rows = np.unique(hypotheses.bpm, return_inverse=True)
    share_of_bpm = np.bincount(rows, shares)
    bpm = float(bpms[share_of_bpm.argmax()])
    best = int(np.where(hypotheses.bpm == bpm, shares, -1.0).argmax())
    octave = _other_octave(bpm, bpms, share_of_bpm)
    # Odds are relative: even in noise one bar is the likeliest.
    evidence = (float(hypotheses.pulse[best]) - PULSE_FROM) / (PULSE_TO - PULSE_FROM)
    evidence = float(np.clip(evidence, 0.0, 1.0))
    loop = max(loops, key=lambda loop: loop.agreement, default=None)
    start_s, step_s, is_steady, is_clear = _fit_grid(
        strengths, float(hypotheses.first_bar_s[best]), 15.0 / bpm
    )
    if abs(step_s * bpm / 15.0 - 1.0) * duration_s > LOOP_DRIFT_S:
        loop = None
    if loop is not None:
        # The length is exact, unlike a line through a bar's onsets.
        step_s, is_steady = 15.0 / bpm, True
    if is_steady:
        beats, downbeats = _straight_grid(start_s, 4.0 * step_s, duration_s)
    else:
        beats, downbeats = _follow_beats(strengths, 15.0 / bpm * 4.0)
        if len(beats) > 2:
            step_s = float(np.median(np.diff(beats))) / 4.0
    evidence *= 1.0 if is_clear else UNCLEAR if is_steady else MOVING
    sure = float(share_of_bpm.max())
    if loop is not None:
        evidence = max(evidence, loop.evidence)
        # In one or two bars little distinguishes halves and doubles, however clear it looks.
        softened = share_of_bpm ** min(1.0, duration_s / LOOP_S)
        sure = float(softened.max() / softened.sum())
    return Tempo(
        bpm=15.0 / step_s,
        alternative_bpm=15.0 / step_s * octave,
        confidence=evidence * sure,
        beats_s=beats,
        downbeats_s=downbeats,
        downbeat_confidence=evidence * float(shares[best]),
        is_steady=is_steady,
        loop_bars=None if loop is None else round(duration_s * bpm / 240.0),
        repetition=repetition(strengths, correlation, bpm),
    )


def _loop_hypotheses(
    strengths: np.ndarray,
    duration_s: float,
    once: Hypotheses | None,
    correlation: np.ndarray,
    *,
    is_agreed: bool,
) -> Hypotheses | None:
    """Hypotheses for a short recording as a repeated loop, at the tempos that make it 1, 2, 4 or 8
    whole bars. None if the onsets agree with none of them (`is_agreed`) and the likeliest tempo of
    a single round isn't one of them or an octave of it. The correlation is that of a single round:
    a repeated loop always correlates."""
    whole = whole_tempi(duration_s)
    if not is_agreed and once is not None:
        octaves = np.log2(whole / once.bpm[once.odds.argmax()])
        if not (np.abs(octaves - np.round(octaves)) < np.log2(1.01)).any():
            return None
    # On a time axis in which a round has its true length, not a whole number of frames.
    n_rounds = int(np.ceil(2.0 * LOOP_S / duration_s))
    times = np.arange(int(n_rounds * duration_s * FRAME_RATE)) / FRAME_RATE % duration_s
    frames = np.minimum(np.round(times * FRAME_RATE).astype(int), strengths.shape[1] - 1)
    return find_hypotheses(strengths[:, frames], whole, correlation)


def _shares(hypotheses: Hypotheses) -> np.ndarray:
    """Probability of each hypothesis `[H]`."""
    bar_s = 240.0 / hypotheses.bpm
    late_s = (hypotheses.first_bar_s + 0.5 * bar_s) % bar_s - 0.5 * bar_s
    odds = hypotheses.odds + BAR_START_BONUS * (np.abs(late_s) < 0.02)
    shares = np.exp(odds - odds.max())
    return shares / shares.sum()


def _other_octave(bpm: float, bpms: np.ndarray, share_of_bpm: np.ndarray) -> float:
    """2 or 1/2, whichever the hypotheses favour; if neither, the one away from the extremes."""
    shares = [
        float(share_of_bpm[np.abs(bpms / (factor * bpm) - 1.0) < 0.03].sum())
        for factor in (2.0, 0.5)
    ]
    if shares[0] == shares[1]:
        return 0.5 if bpm > 110.0 else 2.0
    return 2.0 if shares[0] > shares[1] else 0.5


def _fit_grid(
    strengths: np.ndarray, start_s: float, step_s: float
) -> tuple[float, float, bool, bool]:
    """Fit a straight grid through the onsets near a rough one.

    Args:
        start_s: time of a bar line.
        step_s: length of a sixteenth.

    Returns:
        The same two, refined; whether the grid holds throughout; and whether that is clear.
    """
    # Drums with a short attack give the best timing; without them the bass has to do.
    attack = strengths[SNAP : HATS + 1].sum(axis=0)
    if not attack.any():
        attack = strengths.sum(axis=0)
    n_frames = len(attack)
    # Eighths: swing moves the sixteenths between.
    numbers = 2.0 * np.arange(int((n_frames / FRAME_RATE - start_s) / (2.0 * step_s)))
    reach = max(2, round(GRID_REACH * step_s * FRAME_RATE))
    offsets = np.arange(-reach, reach + 1)
    for _ in range(3):
        times_s = start_s + step_s * numbers
        centres = np.round(times_s * FRAME_RATE).astype(int)
        frames = np.clip(centres[:, None] + offsets, 0, n_frames - 1)
        nearby = attack[frames]
        peaks = nearby.argmax(axis=1)
        inside = (peaks > 0) & (peaks < 2 * reach)
        weights = np.where(inside, nearby.max(axis=1), 0.0)
        slow_s = (centres + peaks - reach) / FRAME_RATE - times_s
        # Outliers (a flam, a fill off the grid) lose weight.
        middle = float(np.median(slow_s[weights > 0])) if (weights > 0).any() else 0.0
        weights = weights / (1.0 + ((slow_s - middle) / 0.008) ** 2)
        if np.count_nonzero(weights) < 4:
            return start_s, step_s, True, False
        slope, shift = np.polyfit(numbers, slow_s, 1, w=np.sqrt(weights))
        start_s, step_s = start_s + float(shift), step_s + float(slope)
    return start_s, step_s, *_steadiness(attack, start_s, step_s)


def _steadiness(attack: np.ndarray, start_s: float, step_s: float) -> tuple[bool, bool]:
    """Whether the onsets `[F]` keep their position between the sixteenths of a grid throughout (a
    changing tempo moves them across), and whether that is clear in each stretch."""
    times = (np.arange(len(attack)) / FRAME_RATE - start_s) / step_s
    # Rolls and triplets cancel; the rest points to the position within a sixteenth.
    pointers = attack * np.exp(2j * np.pi * times)
    n_stretch = round(STRETCH_S * FRAME_RATE)
    n_stretches = max(1, len(attack) // n_stretch)
    parts = np.array_split(pointers, n_stretches)
    sums = np.array([part.sum() for part in parts])
    loud = np.array([np.abs(part).sum() for part in parts])
    place = np.angle(sums * np.conj(sums.sum())) / (2.0 * np.pi)
    clear = np.abs(sums) > CLEAR * loud
    is_steady = not bool((np.abs(place[clear]) > STEADY).any())
    return is_steady, is_steady and bool((clear | (loud == 0.0)).all())


def _straight_grid(
    start_s: float, beat_s: float, duration_s: float
) -> tuple[np.ndarray, np.ndarray]:
    """Beats and bar lines within the recording; one just before its start is moved to 0."""
    slack_s = 0.02
    first = int(np.ceil((-slack_s - start_s) / beat_s))
    numbers = np.arange(first, int(np.floor((duration_s + slack_s - start_s) / beat_s)) + 1)
    beats = np.clip(start_s + beat_s * numbers, 0.0, duration_s)
    return beats, beats[numbers % 4 == 0]


def _follow_beats(strengths: np.ndarray, beat_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Beats of a changing tempo (Ellis, 2007), and every fourth as a bar line: those with most bass
    and least snare."""
    spread = np.maximum(strengths.std(axis=1, keepdims=True), 1e-9)
    units = gaussian_filter1d(strengths / spread, 1.5, axis=1)
    strength = units.sum(axis=0)
    strength /= max(float(strength.std()), 1e-9)
    period = beat_s * FRAME_RATE
    lags = np.arange(round(0.5 * period), round(2.0 * period) + 1)
    penalty = BEAT_TIGHTNESS * np.log(lags / period) ** 2
    score = strength.copy()
    origin = np.full(len(score), -1)
    for frame in range(int(lags[0]), len(score)):
        near = lags[: np.searchsorted(lags, frame, side="right")]
        past = score[frame - near] - penalty[: len(near)]
        best = int(past.argmax())
        score[frame] += max(float(past[best]), 0.0)
        origin[frame] = frame - near[best] if past[best] > 0.0 else -1
    frame = len(score) - round(period) + int(score[-round(period) :].argmax())
    frames = []
    while frame >= 0:
        frames.append(frame)
        frame = int(origin[frame])
    frames = np.array(frames[::-1])
    accents = units[BASS, frames] - units[SNAP, frames]
    first = int(np.argmax([accents[phase::4].mean() for phase in range(min(4, len(frames)))]))
    return frames / FRAME_RATE, frames[first::4] / FRAME_RATE
