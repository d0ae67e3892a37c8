"""musicnn: a small convolutional network that gives fifty tags and an embedding of a recording.

MSD_musicnn of J. Pons and X. Serra, musicnn: pre-trained convolutional neural networks for music
audio tagging (2019), trained on the tags of the Million Song Dataset; its weights (ISC) come with
this package. It hears 0 to 8 kHz, three seconds at a time, so it knows little of an 808's lowest
octave. `pretraining/convert_musicnn.py` made the weights file.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import soxr
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers.audio_utils import mel_filter_bank

WEIGHTS = Path(__file__).resolve().parents[1] / "assets" / "musicnn" / "musicnn.safetensors"
MUSICNN_RATE = 16_000
N_FFT, HOP, N_MELS = 512, 256, 96
N_FRAMES = 187
"""Frames of a window of three seconds."""
BATCH = 16
EPSILON = 1e-3
TAGS = (
    *("rock", "pop", "alternative", "indie", "electronic", "female vocalists", "dance", "00s"),
    *("alternative rock", "jazz", "beautiful", "metal", "chillout", "male vocalists"),
    *("classic rock", "soul", "indie rock", "Mellow", "electronica", "80s", "folk", "90s"),
    *("chill", "instrumental", "punk", "oldies", "blues", "hard rock", "ambient", "acoustic"),
    *("experimental", "female vocalist", "guitar", "Hip-Hop", "70s", "party", "country"),
    *("easy listening", "sexy", "catchy", "funk", "electro", "heavy metal", "Progressive rock"),
    *("60s", "rnb", "indie pop", "sad", "House", "happy"),
)


@cache
def _weights() -> dict[str, torch.Tensor]:
    return load_file(WEIGHTS)


@torch.inference_mode()
def tag_waveform(waveform: np.ndarray, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Tags and embeddings of a recording, window by window.

    Args:
        waveform: `[C, N]` float32.

    Returns:
        Probabilities `[W, 50]` of `TAGS` and embeddings `[W, 200]`, float32, a row for each whole
        window of three seconds; a shorter recording is repeated to fill one window.

    Raises:
        ValueError: no samples.
    """
    windows = mel_windows(waveform, sample_rate)
    parts = [_network(windows[at : at + BATCH]) for at in range(0, len(windows), BATCH)]
    tags, embeddings = (torch.cat(rows).numpy() for rows in zip(*parts, strict=True))
    return tags, embeddings


def mel_windows(waveform: np.ndarray, sample_rate: int) -> torch.Tensor:
    """The network's input `[W, 187, 96]`: log10(10000 x mel power + 1), like librosa's mel
    spectrogram, in float32 (upstream's float16 overflows on loud audio)."""
    mono = np.asarray(waveform, dtype=np.float32).mean(axis=0)
    if not len(mono):
        raise ValueError("No samples to tag.")
    mono = soxr.resample(mono, sample_rate, MUSICNN_RATE, "HQ")
    n_least = (N_FRAMES - 1) * HOP
    if len(mono) < n_least:
        mono = np.resize(mono, n_least)
    filters = mel_filters(N_FFT, N_MELS, 0.0, MUSICNN_RATE, norm="slaney", scale="slaney")
    mel = power_spectrum(mono, N_FFT, HOP).T @ filters
    frames = torch.log10(10_000.0 * mel + 1.0)
    return frames[: len(frames) // N_FRAMES * N_FRAMES].reshape(-1, N_FRAMES, N_MELS)


def power_spectrum(mono: np.ndarray, n_fft: int, hop: int) -> torch.Tensor:
    """Power spectrum `[F, T]` of samples `[N]` in Hann windows, padded with silence."""
    spectrum = torch.stft(
        torch.from_numpy(np.ascontiguousarray(mono)),
        n_fft,
        hop,
        window=torch.hann_window(n_fft),
        center=True,
        pad_mode="constant",
        return_complex=True,
    )
    return spectrum.abs().square()


@cache
def mel_filters(
    n_fft: int, n_mels: int, low_hz: float, rate: int, *, norm: str | None, scale: str
) -> torch.Tensor:
    """`[n_fft / 2 + 1, n_mels]`, up to half the rate."""
    filters = mel_filter_bank(n_fft // 2 + 1, n_mels, low_hz, rate / 2, rate, norm, scale)
    return torch.from_numpy(filters).float()


def _network(windows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Tags `[B, 50]` and embeddings `[B, 200]` of windows `[B, 187, 96]`."""
    image = _norm(windows[:, None], 0)
    front = torch.cat(list(_front(image)), dim=1)
    middle = [_middle(front, 5)]
    for layer in (6, 7):
        middle.append(middle[-1] + _middle(middle[-1], layer))
    features = torch.cat([front, *middle], dim=1)
    # For each channel the maximum, then the mean.
    pooled = torch.stack([features.amax(dim=2), features.mean(dim=2)], dim=2).flatten(1)
    hidden = F.relu(_dense(_norm(pooled, 9), 0))
    embeddings = _norm(hidden, 10)
    return torch.sigmoid(_dense(embeddings, 1)), embeddings


def _front(image: torch.Tensor) -> Iterator[torch.Tensor]:
    """Two "timbre" and three "temporal" convolutions of `[B, 1, T, 96]`, each to `[B, C, T]`."""
    for layer, (kernel, bias, sign) in enumerate(_front_layers()):
        length = kernel.shape[2]
        # Padded as in TensorFlow: for an even kernel the smaller half comes first.
        left = (length - 1) // 2
        padded = F.pad(image, (0, 0, left, length - 1 - left))
        found = F.conv2d(padded, kernel, bias).amax(dim=3)
        yield _norm(F.relu(sign[:, None] * found), layer + 1)


@cache
def _front_layers() -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Kernel, bias and sign of each of the front's convolutions. The network normalises and then
    takes the maximum over pitch; here the maximum comes first and only it is normalised, so
    channels whose sign the normalisation flips are flipped before the maximum, and back after."""
    weights, layers = _weights(), []
    for layer in range(5):
        sign = torch.where(weights[f"norm{layer + 1}.weight"] < 0.0, -1.0, 1.0)
        kernel, bias = weights[f"conv{layer}.weight"], weights[f"conv{layer}.bias"]
        layers.append((sign[:, None, None, None] * kernel, sign * bias, sign))
    return layers


def _middle(features: torch.Tensor, layer: int) -> torch.Tensor:
    """A convolution over seven frames, `[B, C, T]` to `[B, 64, T]`."""
    weights = _weights()
    found = F.conv1d(
        features, weights[f"conv{layer}.weight"], weights[f"conv{layer}.bias"], padding=3
    )
    return _norm(F.relu(found), layer + 1)


def _norm(features: torch.Tensor, layer: int) -> torch.Tensor:
    weights = _weights()
    mean, variance, gamma, beta = (
        weights[f"norm{layer}.{name}"] for name in ("mean", "variance", "weight", "bias")
    )
    return F.batch_norm(features, mean, variance, gamma, beta, eps=EPSILON)


def _dense(features: torch.Tensor, layer: int) -> torch.Tensor:
    weights = _weights()
    return F.linear(features, weights[f"dense{layer}.weight"], weights[f"dense{layer}.bias"])
