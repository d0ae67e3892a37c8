"""Whether generated clips are beats at the requested tempo, measured as any audio is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from musicgen_lora.listening.rhythm.metre import FRAME_RATE, onset_strengths
from musicgen_lora.listening.rhythm.tempo import Tempo, estimate_tempo

TEMPO_TOLERANCE = 0.04


def beat_figures(
    played: Sequence[np.ndarray],
    recorded: Sequence[np.ndarray],
    rate: int,
    wanted: Sequence[float],
) -> dict[str, Any]:
    """Tempo, steadiness and sharpness of generations `[C, N]`, with recordings at the same tempos
    (the ceiling) and each other's tempos (chance) for comparison."""
    heard, real = ([estimate_tempo(s, rate) for s in sounds] for sounds in (played, recorded))
    found = [tempo.bpm for tempo in heard]
    others = [np.roll(wanted, shift).tolist() for shift in range(1, len(wanted))]
    return {
        "within_4_percent": tempo_share(found, wanted),
        "recordings": tempo_share([tempo.bpm for tempo in real], wanted),
        "shuffled": float(np.mean([tempo_share(found, other) for other in others])),
        "steadiness": {
            "played": mean_steadiness(heard),
            "recordings": mean_steadiness(real),
        },
        "sharpness": {
            "played": mean_sharpness(played, rate, wanted),
            "recordings": mean_sharpness(recorded, rate, wanted),
        },
        "measured": [round(bpm, 2) if np.isfinite(bpm) else None for bpm in found],
    }


def bar_repetition(codes: Sequence[np.ndarray], bpm: Sequence[float], rate: float) -> list[float]:
    """The share of tokens that equal those a bar of four beats earlier, by codebook.

    Args:
        codes: of clips, `[K, T]` each.
        bpm: the clips' tempos.
        rate: frames per second.
    """
    bars = [round(240.0 * rate / tempo) for tempo in bpm]
    equal = [c[:, n:] == c[:, : c.shape[1] - n] for c, n in zip(codes, bars, strict=True)]
    return np.concatenate(equal, axis=1).mean(axis=1).tolist()


def octave_error(measured: float, wanted: float) -> float:
    """The relative error of a tempo; half and double the wanted one count as right too."""
    if not np.isfinite(measured):
        return float("inf")
    return min(abs(measured / (wanted * factor) - 1.0) for factor in (0.5, 1.0, 2.0))


def tempos(sounds: Iterable[np.ndarray], rate: int) -> list[float]:
    """Measured tempos of waveforms `[C, N]`; NaN where there is none."""
    return [estimate_tempo(sound, rate).bpm for sound in sounds]


def tempo_share(measured: Sequence[float], prompts: Sequence[float]) -> float:
    """The share of tempos that are right within `TEMPO_TOLERANCE`."""
    errors = [octave_error(m, w) for m, w in zip(measured, prompts, strict=True)]
    return float(np.mean([error <= TEMPO_TOLERANCE for error in errors]))


def mean_steadiness(heard: Iterable[Tempo]) -> float:
    """The mean of `metre.repetition`, 0 to 1, as in `evaluate`; 0 without a tempo."""
    return float(np.nan_to_num([tempo.repetition for tempo in heard]).mean())


def mean_sharpness(
    sounds: Sequence[np.ndarray], rate: int, bpm: Sequence[float]
) -> dict[str, float]:
    """How precisely onsets fall on eighths of the clips' own tempos, and of each other's (chance):
    means of `sharpness`."""
    strengths = [onset_strengths(sound, rate).sum(axis=0) for sound in sounds]
    each = np.array([[sharpness(s, tempo) for tempo in bpm] for s in strengths])
    others = ~np.eye(len(bpm), dtype=bool)
    return {
        "asked_tempo": float(each.diagonal().mean()),
        "other_tempos": float(each[others].mean()),
    }


def sharpness(strengths: np.ndarray, bpm: float) -> float:
    """The length of the mean vector of onset strength `[F]` at its phase within eighths, from 0 to
    1 (vector strength; Goldberg and Brown, 1969): 1 if all onsets fall on the same position in an
    eighth."""
    phases = np.arange(len(strengths)) / FRAME_RATE * (bpm / 30.0)
    total = float(strengths.sum())
    return abs(complex((strengths * np.exp(2j * np.pi * phases)).sum())) / total if total else 0.0
