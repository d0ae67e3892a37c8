"""Joins a continuation by the model to the recording that it continues.

A continuation starts with the codec's version of what the model heard. The recording is kept as it
was; the new music is brought to its level, which codec or model may have changed, and faded in
before the seam, where both have the same music. `hole_db_at` measures any hole that is left there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from musicgen_lora.audio.crossfade import most_alike_at, pass_into
from musicgen_lora.audio.loudness import level_db

LEVEL_S = 2.0
"""The level is compared over this much of the overlap."""
GAIN_MOST_DB = 12.0
PASS_WITHIN_S, FADE_S = 0.06, 0.01
FRAME_S = 0.15
"""Sparse beats are silent between hits; a hole lasts longer."""
AROUND_S = 0.4
BEFORE_S = 4.0
QUIET_SHARE = 0.1
HOLE_DB = -12.0
"""Below it, a seam is quieter than anything in the recording before it."""


@dataclass(frozen=True)
class Continued:
    """A recording with its continuation.

    Args:
        waveform: `[C, M + new samples]`.
        gain_db: gain of the new music.
        fade: first sample of the crossfade, and the one after its last.
    """

    waveform: np.ndarray
    gain_db: float
    fade: tuple[int, int]


def join_continuation(
    given: np.ndarray,
    continued: np.ndarray,
    n_heard: int,
    sample_rate: int,
    *,
    peak_most: float = np.inf,
) -> Continued:
    """Joins a continuation to its recording.

    Args:
        given: `[C, M]`, the recording.
        continued: `[C, N]`: first the codec's version of the recording's last `n_heard` samples,
            then the new music.
        n_heard: at least 1, at most either length.
        peak_most: the new music is turned down if its peak would exceed this.

    Raises:
        ValueError: channels differ, or `n_heard` is out of bounds.
    """
    if len(given) != len(continued) or not 0 < n_heard <= min(given.shape[1], continued.shape[1]):
        raise ValueError(f"{continued.shape} with {n_heard} heard doesn't go on {given.shape}.")
    n_level = min(n_heard, round(LEVEL_S * sample_rate))
    n_pass = min(n_heard, round(PASS_WITHIN_S * sample_rate))
    own, other = given[:, -n_level:], continued[:, n_heard - n_level : n_heard]
    levels = [level_db(sound) for sound in (own, other)]
    gain_db = float(np.clip(levels[0] - levels[1], -GAIN_MOST_DB, GAIN_MOST_DB))
    gain_db = below_peak(gain_db, continued[:, n_heard - n_pass :], peak_most)
    levelled = continued * np.float32(10.0 ** (gain_db / 20.0))
    n_fade = max(1, min(n_pass // 2, round(FADE_S * sample_rate)))
    ending = levelled[:, n_heard - n_pass : n_heard]
    seam = given.shape[1]
    at = seam - n_pass + most_alike_at(given[:, seam - n_pass :], ending, n_fade)
    before = pass_into(given, ending, n_fade)
    waveform = np.concatenate([before, levelled[:, n_heard:]], axis=1)
    return Continued(waveform, gain_db, (at, at + n_fade))


def below_peak(gain_db: float, waveform: np.ndarray, most: float) -> float:
    """The gain, reduced if it would raise the peak of `[C, n]` above `most`."""
    peak = float(np.abs(waveform).max(initial=0.0))
    return min(gain_db, 20.0 * float(np.log10(most / peak))) if peak > 0.0 else gain_db


def hole_db_at(waveform: np.ndarray, seam: int, sample_rate: int) -> float:
    """Level of the quietest frame after a seam relative to the quiet frames before it, in dB; 0 if
    there is too little to compare. Silence before the seam is the recording's own."""
    n_frame, n_around = round(FRAME_S * sample_rate), round(AROUND_S * sample_rate)
    before = _levels_db(waveform[:, max(0, seam - round(BEFORE_S * sample_rate)) : seam], n_frame)
    after = _levels_db(waveform[:, max(0, seam - n_frame // 4) : seam + n_around], n_frame)
    if not len(before) or not len(after):
        return 0.0
    return float(after.min() - np.quantile(before, QUIET_SHARE))


def _levels_db(waveform: np.ndarray, n_frame: int) -> np.ndarray:
    """Levels `[F]` of half-overlapping frames in dB."""
    starts = range(0, waveform.shape[1] - n_frame + 1, max(1, n_frame // 2))
    return np.array([level_db(waveform[:, at : at + n_frame]) for at in starts])
