"""Turns a take into a loop: exactly so many bars at a tempo, whose end leads into its beginning.

A take is near the tempo, and begins and ends anywhere in a bar. If little is needed, it is
stretched onto the tempo and straightened; then it is cut at a bar line, and joined: what comes
before the cut is faded in at the end, so that the last sample leads into the first. If nothing
comes before it, what rings on after the end is mixed over the beginning. Other faults are reported.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.signal import butter, sosfilt

from musicgen_lora.audio.crossfade import pass_into
from musicgen_lora.audio.stretch import stretch
from musicgen_lora.generation.clips.course import find_course
from musicgen_lora.generation.wanted import STRETCH_MOST, LoopRequest
from musicgen_lora.listening.rhythm.asked_tempo import KeptTempo, kept_tempo
from musicgen_lora.listening.rhythm.loops import weighted_onsets
from musicgen_lora.listening.rhythm.metre import (
    FASTEST_BPM,
    SLOWEST_BPM,
    find_hypotheses,
    find_tempi,
    onset_strengths,
)
from musicgen_lora.listening.rhythm.tempo import BAR_START_BONUS
from musicgen_lora.listening.seam import Seam, measure_seam

DRIFT_MOST_S = 0.02
FADE_S = 0.01
JOIN_WITHIN_S = 0.06
"""The end is crossfaded, within this long, into what comes before the beginning."""
CUT_FADE_S = 0.005
FADE_COST = 6.0
"""A loop with a faded end has lost what rang there: other beginnings are preferred."""
QUIET_DB = -40.0
"""Sound before the beginning counts as silence if it is this far below the loop."""
LEAD_S = 0.002
"""A loop begins this long before its first bar line or attack."""
NEAR_LINE_S = 0.008
ONSET_LATE_S = 0.003
"""How late onsets are detected, measured on 808 beats."""
ATTACK_HZ, ATTACK_DB = 150.0, 12.0
LINE_SLACK_S = 0.02
N_STARTS = 4

Joined = Literal["crossfade", "tail", "fade"]


@dataclass(frozen=True)
class Loop:
    """A loop and how it came about.

    Args:
        waveform: `[C, n_samples]`.
        take: how the take keeps the tempo.
        drift_s: largest distance of the loop's onsets from the requested grid.
        speed: speed of the take; 1 is unchanged.
        straightened_s: largest correction of timing besides that.
        start_s: where it begins in the stretched take.
        faded_in: whether its first milliseconds are faded in, because the take begins there in the
            middle of a sound.
        faults: what is wrong with it, each as a verb phrase; empty for a loop that fits.
    """

    waveform: np.ndarray
    take: KeptTempo
    drift_s: float
    speed: float
    straightened_s: float
    start_s: float
    faded_in: bool
    joined: Joined
    seam: Seam
    faults: tuple[str, ...]


def cut_loop(take: np.ndarray, request: LoopRequest) -> Loop:
    """Cuts the best-fitting loop out of a take `[C, N]` of finite samples."""
    rate = request.sample_rate
    strengths = onset_strengths(take, rate)
    kept = kept_tempo(strengths, request.bpm)
    onsets_s, _ = weighted_onsets(strengths)
    course = find_course(strengths, kept, request)
    is_near = course.is_near(request.bpm)
    late_s = course.late_s
    played = stretch(take, rate, course.speed, onsets_s.tolist(), late_s)
    onsets_s = (onsets_s - late_s(onsets_s)) / course.speed
    lines_s: list[float] = []
    if kept.is_steady and is_near:
        first_s = _first_line_s(strengths, kept) * kept.bpm / request.bpm + course.began_late_s
        lines_s = _lines_s(first_s, played.shape[1] / rate, request)
    joins = []
    for line_s in lines_s[:N_STARTS] or [0.0]:
        start = _attack_near(played, round(line_s * rate), rate)
        # A take may begin in the middle of a sound, but an attack is faded in only if it has to be.
        for softly in (False, True):
            waveform, joined = _joined(
                played, start, request.n_samples, onsets_s, rate, softly=softly
            )
            seam = measure_seam(waveform, rate, request.n_bars)
            if joined == "crossfade" or not seam.clicks:
                break
        cost = _seam_cost(seam) + (FADE_COST if joined == "fade" else 0.0)
        joins.append((cost, start, waveform, joined, seam, softly))
    _, start, waveform, joined, seam, softly = min(joins, key=lambda join: join[:2])
    drift_s = kept_tempo(onset_strengths(waveform, rate), request.bpm, reach=0.0).drift_s
    return Loop(
        waveform=waveform,
        take=dataclasses.replace(kept, bpm=course.bpm),
        drift_s=drift_s,
        speed=course.speed,
        straightened_s=course.straightened_s,
        start_s=start / rate,
        faded_in=softly and joined != "crossfade",
        joined=joined,
        seam=seam,
        faults=tuple(
            _faults(kept, drift_s, seam, request, is_near=is_near, has_line=bool(lines_s))
        ),
    )


def _faults(
    kept: KeptTempo,
    drift_s: float,
    seam: Seam,
    request: LoopRequest,
    *,
    is_near: bool,
    has_line: bool,
) -> list[str]:
    if not kept.is_steady:
        return ["has no steady beat", *(["clicks at the seam"] if seam.clicks else [])]
    faults = []
    if not is_near:
        off = 100.0 * (kept.bpm / request.bpm - 1.0)
        most = 100.0 * STRETCH_MOST
        faults.append(
            f"is {off:+.1f} % off the tempo, beyond the {most:.0f} % that stretching can fix "
            f"({kept.bpm:.1f} bpm)"
        )
    elif not has_line:
        faults.append("begins off the one (it is too short from any bar line on)")
    elif drift_s > DRIFT_MOST_S:
        faults.append(f"drifts from the grid by {1000.0 * drift_s:.0f} ms")
    if seam.clicks:
        faults.append("clicks at the seam")
    return faults


def _first_line_s(strengths: np.ndarray, kept: KeptTempo) -> float:
    """Time of the first bar line of a recording of known tempo, on the grid fitted to all its
    onsets; it may be a hair before the recording."""
    # The user asked for this tempo, so its octave is settled, but a model may play a slow one twice
    # as fast: the bars of that are found first, then which of them begins a slow bar.
    bpm, n_halves = kept.bpm, 1
    while bpm < SLOWEST_BPM or (n_halves == 1 and 2.0 * bpm <= FASTEST_BPM):
        bpm, n_halves = 2.0 * bpm, 2 * n_halves
    _, correlation = find_tempi(strengths)
    heard = _line_odds(strengths, bpm, correlation)
    if heard is None:
        return 0.0
    late_s, odds = heard
    line_s = float(late_s[odds.argmax()])
    slow = _line_odds(strengths, kept.bpm, correlation) if n_halves > 1 else None
    if slow is not None:
        lines_s = line_s + 240.0 / bpm * np.arange(n_halves)
        bar_s = 240.0 / kept.bpm
        apart_s = (lines_s[:, None] - slow[0] + 0.5 * bar_s) % bar_s - 0.5 * bar_s
        line_s = float(lines_s[slow[1][np.abs(apart_s).argmin(axis=1)].argmax()])
    step_s = 15.0 / bpm
    n_steps = round((line_s - kept.offset_s) / step_s)
    return kept.offset_s + n_steps * step_s - ONSET_LATE_S


def _line_odds(
    strengths: np.ndarray, bpm: float, correlation: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Times of possible first bar lines at a tempo and their log odds, `[16]` each; None if no bar
    fits into the recording."""
    hypotheses = find_hypotheses(strengths, np.array([bpm]), correlation)
    if hypotheses is None:
        return None
    bar_s = 240.0 / bpm
    late_s = (hypotheses.first_bar_s + 0.5 * bar_s) % bar_s - 0.5 * bar_s
    return late_s, hypotheses.odds + BAR_START_BONUS * (np.abs(late_s) < LINE_SLACK_S)


def _lines_s(first_s: float, duration_s: float, request: LoopRequest) -> list[float]:
    """Bar lines from which the take is long enough for the loop."""
    last_s = duration_s - request.n_bars * request.bar_s + LINE_SLACK_S
    first_s = (first_s + LINE_SLACK_S) % request.bar_s - LINE_SLACK_S
    lines_s = np.arange(first_s, last_s + 1e-9, request.bar_s)
    return np.maximum(lines_s[lines_s >= -LINE_SLACK_S], 0.0).tolist()


def _attack_near(played: np.ndarray, line: int, rate: int) -> int:
    """The sample at which to begin for a bar line: a hair before it, or before an early attack
    near it."""
    reach, n_frame = round(NEAR_LINE_S * rate), max(1, rate // 1000)
    lead = round(LEAD_S * rate)
    first = line - reach - 4 * n_frame
    # Silence precedes a recording: sound at its first sample is an attack.
    nearby = played[:, max(0, first) : line + reach + 4 * n_frame]
    nearby = np.pad(nearby, ((0, 0), (max(0, -first), 0)))
    if nearby.shape[1] < 16 * n_frame:
        return max(0, line - lead)
    filters = butter(2, ATTACK_HZ, "highpass", fs=rate, output="sos")
    power = np.square(np.asarray(sosfilt(filters, nearby, axis=1))).mean(axis=0)
    floor = 1e-4 * float(np.square(played).mean()) + 1e-12
    sums = np.concatenate([[0.0], np.cumsum(power)])
    places = np.arange(4 * n_frame, len(power) - 2 * n_frame)
    before = (sums[places] - sums[places - 4 * n_frame]) / (4 * n_frame) + floor
    after = (sums[places + 2 * n_frame] - sums[places]) / (2 * n_frame) + floor
    rises_db = 10.0 * np.log10(after / before)
    if float(rises_db.max(initial=0.0)) < ATTACK_DB:
        return max(0, line - lead)
    return max(0, min(line, int(places[rises_db.argmax()]) + first) - lead)


def _joined(
    played: np.ndarray,
    start: int,
    n_samples: int,
    onsets_s: np.ndarray,
    rate: int,
    *,
    softly: bool,
) -> tuple[np.ndarray, Joined]:
    """The loop `[C, n_samples]` from sample `start` on, and how it was joined. A beginning with
    nothing before it is faded in if `softly`."""
    body = played[:, start : start + n_samples]
    loop = np.pad(body, ((0, 0), (0, n_samples - body.shape[1]))).astype(np.float32)
    lead = min(start, round(JOIN_WITHIN_S * rate))
    before = played[:, start - lead : start]
    level = np.sqrt(np.square(loop).mean()) * 10.0 ** (QUIET_DB / 20.0)
    if lead > 2 * round(FADE_S * rate) and np.sqrt(np.square(before).mean()) > level:
        return pass_into(loop, before, round(FADE_S * rate)), "crossfade"
    n_cut = round(CUT_FADE_S * rate)
    if softly:
        loop[:, :n_cut] *= np.linspace(0.0, 1.0, n_cut, dtype=np.float32)
    end_s = (start + n_samples) / rate
    later_s = onsets_s[onsets_s > end_s - 2.0 * LEAD_S]
    stop = round((float(later_s[0]) - 4.0 * LEAD_S) * rate) if len(later_s) else played.shape[1]
    tail = played[:, start + n_samples : min(stop, start + 2 * n_samples)]
    if tail.shape[1] >= 2 * round(FADE_S * rate):
        # The tail rings out if it can, and is faded where something new begins.
        n_fade = tail.shape[1] // 2
        gain = np.ones(tail.shape[1], dtype=np.float32)
        gain[-n_fade:] = 0.5 + 0.5 * np.cos(np.linspace(0.0, np.pi, n_fade))
        loop[:, : tail.shape[1]] += gain * tail
        return loop, "tail"
    loop[:, -n_cut:] *= np.linspace(1.0, 0.0, n_cut, dtype=np.float32)
    return loop, "fade"


def _seam_cost(seam: Seam) -> float:
    """How bad a seam is: the decibels of a break, of level and of spectrum, plus a twelfth of the
    phase in degrees."""
    phase = abs(seam.phase_deg or 0.0) / 12.0
    broken = max(0.0, seam.step_db, seam.hits_db)
    return broken + (seam.level_db or 0.0) + (seam.spectrum_db or 0.0) + phase
