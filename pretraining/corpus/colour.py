"""Makes many kits from few: the same recordings tuned, shortened, filtered, driven and crushed.

Each clip colours its drums and its melodic parts differently, so that the model learns what a snare
is instead of twenty particular ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.signal import butter, sosfilt, sosfiltfilt

from pretraining.corpus.soundfont import SAMPLE_RATE

NEUTRAL_SHARE = 0.2


@dataclass(frozen=True)
class Colour:
    """Processing of a sound, in this order.

    Args:
        semitones: tuning, by resampling.
        decay_s: time constant of an added decay; 0 for none.
        low_hz: high-pass cutoff; 0 for none.
        high_hz: low-pass cutoff; 0 for none.
        peak_hz: centre of an octave-wide boost; 0 for none.
        peak_db: gain of the boost.
        drive: into a tanh; 0 is clean.
        n_bits: of a coarse quantiser; 0 for none.
    """

    semitones: float = 0.0
    decay_s: float = 0.0
    low_hz: float = 0.0
    high_hz: float = 0.0
    peak_hz: float = 0.0
    peak_db: float = 0.0
    drive: float = 0.0
    n_bits: int = 0

    def __call__(self, sound: np.ndarray) -> np.ndarray:
        """The coloured sound `[M]`, with the same peak as `sound [N]`."""
        peak = float(np.abs(sound).max(initial=0.0))
        if peak == 0.0:
            return sound
        result = sound.astype(np.float64)
        if self.semitones:
            places = np.arange(0.0, len(result) - 1, 2.0 ** (self.semitones / 12.0))
            result = np.interp(places, np.arange(len(result)), result)
        if self.decay_s:
            result = result * np.exp(-np.arange(len(result)) / (self.decay_s * SAMPLE_RATE))
        for hz, kind in ((self.low_hz, "highpass"), (self.high_hz, "lowpass")):
            if hz:
                sections = butter(2, hz, kind, fs=SAMPLE_RATE, output="sos")
                result = np.asarray(sosfilt(sections, result))
        if self.peak_hz:
            band = [self.peak_hz / 1.41, min(self.peak_hz * 1.41, 0.45 * SAMPLE_RATE)]
            # Forwards and backwards: the band adds to the sound in phase.
            added = sosfiltfilt(butter(1, band, "bandpass", fs=SAMPLE_RATE, output="sos"), result)
            result = result + (10.0 ** (self.peak_db / 20.0) - 1.0) * added
        if self.drive:
            level = np.abs(result).max() + 1e-9
            result = np.tanh(result / level * (1.0 + self.drive))
        level = float(np.abs(result).max()) + 1e-9
        if self.n_bits:
            n_steps = 2.0 ** (self.n_bits - 1)
            result = np.round(result / level * n_steps) * (level / n_steps)
        return (result * (peak / level)).astype(np.float32)


def drum_colours(rng: np.random.Generator, tracks: list[str]) -> dict[str, Colour]:
    """A colour for each drum; in a fifth of the clips none is changed."""
    if rng.random() < NEUTRAL_SHARE:
        return dict.fromkeys(tracks, Colour())
    # Shared by the whole kit, as if it had gone through one machine.
    n_bits = int(rng.integers(6, 10)) if rng.random() < 0.12 else 0
    drive = float(rng.uniform(0.3, 3.0)) if rng.random() < 0.25 else 0.0
    return {track: _drum_colour(rng, track, n_bits, drive) for track in tracks}


def _drum_colour(rng: np.random.Generator, track: str, n_bits: int, drive: float) -> Colour:
    is_kick = track == "kick"
    lowest_peak = 80.0 if is_kick else 200.0
    semitones = float(rng.normal(0.0, 1.5))
    # A kick tuned down and left to ring would be the 808 that fine-tuning is to add.
    semitones = float(np.clip(semitones, -0.7 if is_kick else -4.0, 4.0))
    return Colour(
        semitones=semitones,
        decay_s=float(rng.uniform(0.05, 0.4)) if rng.random() < 0.35 else 0.0,
        low_hz=_log_uniform(rng, 30.0, 45.0 if is_kick else 300.0) if rng.random() < 0.3 else 0.0,
        high_hz=_log_uniform(rng, 3000.0, 12000.0) if rng.random() < 0.25 else 0.0,
        peak_hz=_log_uniform(rng, lowest_peak, 8000.0) if rng.random() < 0.5 else 0.0,
        peak_db=float(rng.uniform(-9.0, 7.0)),
        drive=drive if rng.random() < 0.8 else 0.0,
        n_bits=n_bits,
    )


def colour_808(rng: np.random.Generator, track: str) -> Colour:
    """A colour for a sound of the 808 kit, for the codec only: other machines, other recordings.
    Unlike a drum of the corpus, a kick may be tuned down here."""
    if rng.random() < NEUTRAL_SHARE:
        return Colour()
    drive = float(rng.uniform(0.3, 3.0)) if rng.random() < 0.3 else 0.0
    plain = _drum_colour(rng, "kick" if track in ("kick", "kick_long", "sub") else track, 0, drive)
    return replace(plain, semitones=float(rng.uniform(-5.0, 4.0)))


def melodic_colour(rng: np.random.Generator, part: str) -> Colour:
    """A colour for a bass, chord or lead instrument; the notes determine the pitch."""
    if rng.random() < 2 * NEUTRAL_SHARE:
        return Colour()
    lowest, highest = (500.0, 4000.0) if part == "bass" else (1200.0, 10000.0)
    return Colour(
        decay_s=float(rng.uniform(0.15, 1.2)) if rng.random() < 0.25 else 0.0,
        high_hz=_log_uniform(rng, lowest, highest) if rng.random() < 0.5 else 0.0,
        peak_hz=_log_uniform(rng, 150.0, 5000.0) if rng.random() < 0.5 else 0.0,
        peak_db=float(rng.uniform(-8.0, 6.0)),
        drive=float(rng.uniform(0.3, 2.0)) if rng.random() < 0.2 else 0.0,
    )


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
