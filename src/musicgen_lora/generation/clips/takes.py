"""Draws several takes of a prompt and ranks them by measurements.

A model plays a prompt differently with each seed, and some takes are off the tempo, damaged or
silent. Takes with fewer faults come first; among equals the smaller penalty wins, a sum of
measures, each divided by what is just acceptable.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from musicgen_lora.generation.clips.course import LATE_MOST_S
from musicgen_lora.generation.clips.loop import DRIFT_MOST_S, Loop, LoopRequest, cut_loop
from musicgen_lora.listening.quality import count_clipped, find_silences
from musicgen_lora.listening.rhythm.asked_tempo import (
    REACH,
    STEADY_DEVIATIONS,
    KeptTempo,
    kept_tempo,
)
from musicgen_lora.listening.rhythm.metre import onset_strengths
from musicgen_lora.listening.seam import BREAK_DB
from musicgen_lora.runtime.seeds import seed_of

TEMPO_MOST = 0.02
LEVEL_MOST_DB, SPECTRUM_MOST_DB, PHASE_MOST_DEG = 6.0, 12.0, 90.0
SILENT_MOST, CLIPPED_MOST, DC_MOST = 0.25, 0.001, 0.01
DC_HZ = (5.0, 15.0)
"""A loop's DC filter passes nothing below the first and everything above the second."""

Draw = Callable[[Sequence[int]], Sequence[np.ndarray]]
"""Plays a prompt with each of the seeds: waveforms `[C, N]`."""


@dataclass(frozen=True)
class JudgedTake:
    """A take with its verdict.

    Args:
        seed: its own seed.
        waveform: `[C, N]`, cut if it is a loop.
        faults: what is wrong with it, each as a verb phrase.
        penalty: smaller is better.
        figures: what was measured, for the JSON.
        loop: how the loop was cut; None for a clip.
    """

    seed: int
    waveform: np.ndarray
    faults: tuple[str, ...]
    penalty: float
    figures: Mapping[str, Any]
    loop: Loop | None = None

    @property
    def rank(self) -> tuple[int, float]:
        """Smaller is better."""
        return len(self.faults), self.penalty


Judge = Callable[[int, np.ndarray], JudgedTake]


def take_seeds(seed: int) -> Iterator[int]:
    """Endless seeds of a clip's takes: its own first, so that a single take is the clip."""
    yield seed
    yield from (seed_of("take", seed, number) for number in itertools.count(1))


def draw_takes(
    draw: Draw, judge: Judge, seed: int, *, at_least: int, at_most: int, batch_size: int
) -> list[JudgedTake]:
    """Draw takes of a prompt, best first.

    Args:
        draw: plays takes, up to `batch_size` at a time.
        seed: of the clip, see `take_seeds`.
        at_least: how many takes are drawn in any case ...
        at_most: ... and at most, if none so far is without fault.
    """
    seeds, judged = take_seeds(seed), list[JudgedTake]()
    while len(judged) < at_most:
        if len(judged) >= at_least and not all(take.faults for take in judged):
            break
        wanted = at_least if len(judged) < at_least else at_most
        now = list(itertools.islice(seeds, min(batch_size, wanted - len(judged))))
        judged += [judge(*pair) for pair in zip(now, draw(now), strict=True)]
    return sorted(judged, key=lambda take: take.rank)


def judge_clip(
    seed: int, waveform: np.ndarray, sample_rate: int, bpm: float | None = None
) -> JudgedTake:
    """Judges a take `[C, N]` as a clip: its damage, and its tempo if one was requested."""
    sound, faults, penalty, figures = _damage(waveform, sample_rate)
    offset = figures["damage"]["dc_offset"]
    penalty += offset / DC_MOST
    if offset > DC_MOST:
        faults.append(f"has a DC offset of {offset:.3f}")
    if bpm is not None:
        kept = kept_tempo(onset_strengths(sound, sample_rate), bpm)
        figures["tempo"] = _tempo_figures(bpm, kept)
        penalty += _tempo_penalty(bpm, kept)
        if not kept.is_steady:
            faults.append("has no steady beat")
        elif abs(kept.bpm / bpm - 1.0) > TEMPO_MOST:
            faults.append(f"is off the tempo ({kept.bpm:.1f})")
    return JudgedTake(seed, sound, tuple(faults), penalty, figures)


def judge_loop(seed: int, waveform: np.ndarray, request: LoopRequest) -> JudgedTake:
    """Cuts the loop out of a take `[C, N]` and judges it: tempo, drift, seam and damage.

    A DC offset is removed, which can't click: a loop has neither a beginning nor an end.
    """
    sound, faults, penalty, figures = _damage(waveform, request.sample_rate)
    loop = cut_loop(sound, request)
    seam = loop.seam
    is_off = _offset(loop.waveform) > DC_MOST
    figures["damage"]["dc_removed"] = is_off
    if is_off:
        loop = dataclasses.replace(loop, waveform=_without_dc(loop.waveform, request.sample_rate))
    figures["tempo"] = _tempo_figures(request.bpm, loop.take) | {
        "speed": round(loop.speed, 5),
        "straightened_ms": round(1000.0 * loop.straightened_s, 1),
        "drift_ms": round(1000.0 * loop.drift_s, 1),
    }
    figures["seam"] = {
        "joined": loop.joined,
        "starts_at_s": round(loop.start_s, 4),
        "faded_in": loop.faded_in,
        "step_db": round(seam.step_db, 1),
        "hits_db": round(seam.hits_db, 1),
        "level_db": _rounded(seam.level_db),
        "spectrum_db": _rounded(seam.spectrum_db),
        "phase_deg": _rounded(seam.phase_deg),
    }
    penalty += _tempo_penalty(request.bpm, loop.take) + loop.drift_s / DRIFT_MOST_S
    penalty += loop.straightened_s / LATE_MOST_S
    penalty += max(0.0, seam.step_db / BREAK_DB) + (seam.level_db or 0.0) / LEVEL_MOST_DB
    penalty += (seam.spectrum_db or 0.0) / SPECTRUM_MOST_DB
    penalty += abs(seam.phase_deg or 0.0) / PHASE_MOST_DEG
    return JudgedTake(seed, loop.waveform, (*faults, *loop.faults), penalty, figures, loop)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _tempo_figures(bpm: float, kept: KeptTempo) -> dict[str, Any]:
    return {
        "asked_bpm": bpm,
        "measured_bpm": round(kept.bpm, 2) if kept.is_steady else None,
        "agreement": round(kept.agreement, 2),
    }


def _tempo_penalty(bpm: float, kept: KeptTempo) -> float:
    if not kept.is_steady:
        # As bad as a tempo at the end of the searched range, and worse the less the onsets agree.
        return REACH / TEMPO_MOST + STEADY_DEVIATIONS - kept.agreement
    return abs(kept.bpm / bpm - 1.0) / TEMPO_MOST


def _offset(sound: np.ndarray) -> float:
    return float(np.abs(sound.mean(axis=1)).max(initial=0.0))


def _without_dc(loop: np.ndarray, sample_rate: int) -> np.ndarray:
    """A loop `[C, N]` without what nobody hears below 5 Hz. Filtered as the period that it is, so
    that its end still leads into its beginning; its mean alone would shift silence, too."""
    hertz = np.fft.rfftfreq(loop.shape[1], 1.0 / sample_rate)
    rise = np.clip((hertz - DC_HZ[0]) / (DC_HZ[1] - DC_HZ[0]), 0.0, 1.0)
    gain = 0.5 - 0.5 * np.cos(np.pi * rise)
    return np.fft.irfft(np.fft.rfft(loop) * gain, loop.shape[1]).astype(np.float32)


def _damage(
    waveform: np.ndarray, sample_rate: int
) -> tuple[np.ndarray, list[str], float, dict[str, Any]]:
    """The take made finite, the faults of its damage, a penalty, and figures."""
    n_bad = waveform.size - int(np.count_nonzero(np.isfinite(waveform)))
    sound = np.nan_to_num(waveform, nan=0.0, posinf=0.0, neginf=0.0) if n_bad else waveform
    # Flat tops at the take's own peak are clipping, wherever full scale is.
    peak = float(np.abs(sound).max(initial=0.0))
    n_clipped = count_clipped(sound / peak) if peak > 0.0 else 0
    silent_s = sum(stop - start for start, stop in find_silences(sound, sample_rate))
    silent = min(1.0, silent_s * sample_rate / max(1, sound.shape[1]))
    clipped = n_clipped / max(1, sound.size)
    offset = _offset(sound)
    faults = [f"has {n_bad} samples that are not finite"] if n_bad else []
    if silent > SILENT_MOST:
        faults.append(f"is silent for {100.0 * silent:.0f} % of its length")
    if clipped > CLIPPED_MOST:
        faults.append(f"is clipped at {n_clipped} samples")
    penalty = silent / SILENT_MOST + clipped / CLIPPED_MOST
    figures: dict[str, Any] = {
        "damage": {
            "bad_samples": n_bad,
            "silent_share": round(silent, 3),
            "clipped_samples": n_clipped,
            "dc_offset": round(offset, 5),
        }
    }
    return sound, faults, penalty + (10.0 if n_bad else 0.0), figures


def takes_figures(takes: Sequence[JudgedTake]) -> list[dict[str, Any]]:
    """Each take as it stands in the JSON, the kept one first."""
    return [
        {
            "seed": take.seed,
            "penalty": round(take.penalty, 3) if math.isfinite(take.penalty) else None,
            "faults": list(take.faults),
            **take.figures,
        }
        for take in takes
    ]
