"""Audio embeddings for distances between sets: one interface for all models and functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import soxr
import torch

from musicgen_lora.listening.musicnn import mel_filters, power_spectrum, tag_waveform
from musicgen_lora.model.codec import Codec

Hear = Callable[[np.ndarray, int], np.ndarray]
"""Maps a waveform `[C, N]` and its sample rate in Hz to a vector `[D]`, the mean over the clip."""

MEL_RATE, MEL_FFT, MEL_HOP, N_MELS = 32_000, 4096, 1024, 128
"""Windows of 128 ms: bins of 7.8 Hz separate an 808 from a kick, which musicnn can't do."""
MEL_FLOOR = 1e-10
"""Power that counts as silence, -100 dB."""


@dataclass(frozen=True)
class Embedding:
    name: str
    """Name in report.json."""
    label: str
    """Display name."""
    hear: Hear


def embed(embedding: Embedding, waveforms: Sequence[np.ndarray], sample_rate: int) -> np.ndarray:
    """Vectors `[N, D]` float64 of waveforms `[C, n]`.

    Raises:
        ValueError: a vector is not finite; the message names the embedding and the clip's number.
    """
    rows = [np.asarray(embedding.hear(w, sample_rate), np.float64) for w in waveforms]
    for place, row in enumerate(rows):
        if not np.isfinite(row).all():
            raise ValueError(f"{embedding.label}: the vector of clip {place + 1} is not finite")
    return np.stack(rows)


def log_mel(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Mean and standard deviation over time of 128 mel bands, 20 Hz to 16 kHz, in dB: `[256]`."""
    mono = mono_at(waveform, sample_rate, MEL_RATE)
    spectrum = power_spectrum(mono, MEL_FFT, MEL_HOP)  # [F, T]
    filters = mel_filters(MEL_FFT, N_MELS, 20.0, MEL_RATE, norm=None, scale="htk")
    power = filters.T @ (spectrum / MEL_FFT)  # [M, T]
    level = 10.0 * torch.log10(power + MEL_FLOOR)
    return torch.cat([level.mean(dim=1), level.std(dim=1, correction=0)]).numpy()


def log_mel_distance(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> float:
    """The distance between two clips by their log-mel vectors, in decibels: the root mean square
    over mel bands of the differences of their means and standard deviations."""
    away = one[LOG_MEL.name] - other[LOG_MEL.name]
    return float(np.sqrt(np.square(away).mean()))


def mono_at(waveform: np.ndarray, sample_rate: int, wanted: int) -> np.ndarray:
    """The mean of the channels `[C, N]`, resampled to another rate, `[N']` float32."""
    mono = np.asarray(waveform, np.float32).mean(axis=0)
    return mono if sample_rate == wanted else soxr.resample(mono, sample_rate, wanted, "HQ")


def codec_latents(codec: Codec) -> Embedding:
    """The latents of a model's own codec before quantisation: mean and standard deviation over time
    of each dimension. Stereo models code left and right separately; here the input is mono."""

    def hear(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
        rate = codec.module.config.sampling_rate
        mono = mono_at(waveform, sample_rate, rate)
        samples = torch.from_numpy(np.ascontiguousarray(mono))[None, None]  # [1, 1, N]
        latents = codec.latents(samples).float().cpu()  # [D, T]
        return torch.cat([latents.mean(dim=1), latents.std(dim=1, correction=0)]).numpy()

    return Embedding("codec", "the model's own codec", hear)


MUSICNN = Embedding(
    "musicnn", "musicnn", lambda wave, sample_rate: tag_waveform(wave, sample_rate)[1].mean(axis=0)
)
LOG_MEL = Embedding("log_mel", "log-mel spectrum", log_mel)
