"""The crops that the codec is trained on, drawn from folders of audio held in memory."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
import soundfile
import soxr

SAMPLE_RATE = 32000
AUDIO_SUFFIXES = (".flac", ".wav")
SPED_SHARE, SPEEDS = 0.4, (0.75, 1.3)
"""Share of crops that are resampled to another speed, and the range of speeds."""
DRIVEN_SHARE = 0.1
"""Share of crops that are overdriven with a tanh."""


def audio_files(folder: Path) -> list[Path]:
    """Audio files in and below a folder; hidden ones, which are half-written, are skipped."""
    paths = folder.rglob("*")
    return sorted(p for p in paths if p.suffix in AUDIO_SUFFIXES and not p.name.startswith("."))


def load_mono(path: Path) -> np.ndarray:
    """Samples `[N]`, float32, at the codec's rate."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = samples.mean(axis=1)
    return mono if rate == SAMPLE_RATE else soxr.resample(mono, rate, SAMPLE_RATE)


def load_clips(folder: Path, n_most: int, rng: np.random.Generator) -> list[np.ndarray]:
    """At most `n_most` clips of the folder, as int16 `[N]`, which takes half of floats' memory."""
    paths = audio_files(folder)
    if len(paths) > n_most:
        paths = [paths[i] for i in np.sort(rng.choice(len(paths), n_most, replace=False))]
    return [np.round(load_mono(path) * 32767).astype(np.int16) for path in paths]


@dataclass(frozen=True)
class CropSource:
    """Draws batches of crops; the same seed and step give the same batch.

    Args:
        beats_808: clips `[N]` of 808 beats.
        others: clips of everything else.
        one_shots: single sounds, placed in silence.
        n_crop: samples in a crop.
        share_808: among the crops that are cut from beats.
        seed: of all draws.
    """

    beats_808: list[np.ndarray]
    others: list[np.ndarray]
    one_shots: list[np.ndarray]
    n_crop: int
    share_808: float
    seed: int

    def batch(self, step: int, n_crops: int) -> np.ndarray:
        """Crops `[n_crops, n_crop]`, float32, of one training step."""
        rng = np.random.default_rng((self.seed, step))
        return np.stack([self._crop(rng) for _ in range(n_crops)])

    def _crop(self, rng: np.random.Generator) -> np.ndarray:
        kind = rng.random()
        if kind < 0.02:
            return np.zeros(self.n_crop, dtype=np.float32)
        crop = self._one_shot(rng) if kind < 0.08 else self._beat(rng)
        if kind > 0.88:
            crop = crop + self._beat(rng) * 10.0 ** (rng.uniform(-12.0, 0.0) / 20.0)
            crop /= max(1.0, float(np.abs(crop).max()))
        # Half of the crops stay as loud as masters, which are what will be encoded.
        gain_db = 0.0 if rng.random() < 0.5 else rng.uniform(-12.0, 0.0)
        return (crop * 10.0 ** (gain_db / 20.0)).astype(np.float32)

    def _beat(self, rng: np.random.Generator) -> np.ndarray:
        clips = self.beats_808 if rng.random() < self.share_808 else self.others
        clip = clips[rng.integers(len(clips))]
        # Speed changes make new sounds: the corpus has few kits, the world many.
        ratio = float(rng.uniform(*SPEEDS)) if rng.random() < SPED_SHARE else 1.0
        n_read = ceil(self.n_crop * ratio) + 8
        if len(clip) <= n_read:
            clip = np.pad(clip, (0, n_read - len(clip) + 1))
        # Beginnings are rare among random crops, but every clip to be encoded has one.
        start = 0 if rng.random() < 0.08 else rng.integers(len(clip) - n_read)
        crop = clip[start : start + n_read].astype(np.float32) / 32767.0
        if ratio != 1.0:
            crop = soxr.resample(crop, ratio * SAMPLE_RATE, SAMPLE_RATE, quality="LQ")
        if rng.random() < DRIVEN_SHARE:
            drive = float(rng.uniform(1.0, 4.0))
            crop = np.tanh(drive * crop) / np.tanh(drive)
        return crop[: self.n_crop]

    def _one_shot(self, rng: np.random.Generator) -> np.ndarray:
        crop = np.zeros(self.n_crop, dtype=np.float32)
        if self.one_shots:
            sound = self.one_shots[rng.integers(len(self.one_shots))]
            start = rng.integers(self.n_crop // 2)
            stop = min(self.n_crop, start + len(sound))
            crop[start:stop] = sound[: stop - start].astype(np.float32) / 32767.0
        return crop
