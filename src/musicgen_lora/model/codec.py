"""EnCodec inside MusicGen: waveform to codes and back, mono and stereo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import MusicgenForConditionalGeneration

from musicgen_lora.errors import UserError
from musicgen_lora.model.musicgen import fingerprint, model_shape

FORMAT_VERSION = 1
"""Of the tokens: raised when the same audio would give other codes."""
WINDOW_S = 30.0
CONTEXT_S = 1.0
"""Audio longer than a window is encoded piece by piece, each with this much context on both
sides, which is trimmed from the codes: memory stays flat and the seams are inaudible."""


def codec_fingerprint(model: MusicgenForConditionalGeneration) -> str:
    """Identity of the tokens that a model's codec makes."""
    shape = model_shape(model)
    facts = (FORMAT_VERSION, shape.sample_rate, shape.n_codebooks, shape.n_channels)
    codec: Any = model.audio_encoder
    return fingerprint(codec, facts)


def encode_waveform(model: MusicgenForConditionalGeneration, waveform: np.ndarray) -> np.ndarray:
    """Codes `[K, T]` of one clip, see `encode_waveforms`."""
    return encode_waveforms(model, [waveform])[0]


@torch.inference_mode()
def encode_waveforms(
    model: MusicgenForConditionalGeneration, waveforms: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Codes of some clips. Channels of equal length go through the codec together on a GPU, one by
    one on a CPU, whose caches hold one and not several (`benchmarks/tokenise_throughput.py`);
    the codec can't be given ragged lengths, since padding would change the last codes.

    Args:
        model: its codec is used, on the codec's device.
        waveforms: each `[C, N]` float32 at the codec's rate. A mono model hears the mean of the
            channels; a stereo model hears a mono clip on both sides.

    Returns:
        For each clip `[K, T]` uint16, T = N / hop, rounded up. Stereo codes are interleaved: left
        0, right 0, left 1, ...

    Raises:
        UserError: codec and decoder don't belong together.
    """
    shape = model_shape(model)
    codec: Any = model.audio_encoder
    clips = [_channels(waveform, shape.n_channels) for waveform in waveforms]
    rows = [row for clip in clips for row in clip]
    equal: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        equal.setdefault(len(row), []).append(index)
    codes: dict[int, np.ndarray] = {}
    for indices in equal.values():
        step = len(indices) if codec.device.type != "cpu" else 1
        for at in range(0, len(indices), step):
            batch = indices[at : at + step]
            found = _encode_rows(model, np.stack([rows[index] for index in batch]))
            codes |= dict(zip(batch, found, strict=True))
    ordered = [codes[index] for index in range(len(rows))]
    results = []
    for at in range(0, len(ordered), shape.n_channels):
        # [K', C, T] to [K, T]: channels alternate.
        clip = np.stack(ordered[at : at + shape.n_channels], axis=1)
        clip = clip.reshape(-1, clip.shape[-1])
        if len(clip) != shape.n_codebooks:
            raise UserError(
                f"The model's codec gives {len(clip)} codebooks, its decoder reads "
                f"{shape.n_codebooks}: the two do not belong together."
            )
        results.append(clip.astype(np.uint16))
    return results


def _channels(waveform: np.ndarray, n_channels: int) -> np.ndarray:
    """A clip `[C, N]` with as many channels as the model hears."""
    if n_channels == 1:
        return waveform.mean(axis=0, keepdims=True)
    return waveform[:2] if len(waveform) > 1 else np.repeat(waveform, 2, axis=0)


def _encode_rows(model: MusicgenForConditionalGeneration, rows: np.ndarray) -> np.ndarray:
    """Codes `[B, K', T]` of `[B, N]`, K' codebooks a channel."""
    codec: Any = model.audio_encoder
    hop = codec.config.hop_length
    window = int(WINDOW_S * codec.config.sampling_rate / hop) * hop
    context = int(CONTEXT_S * codec.config.sampling_rate / hop) * hop
    n_samples = rows.shape[1]
    pieces = []
    start = 0
    # A last piece shorter than a second is no window of its own: it goes with the one before.
    while start < n_samples:
        stop = start + window
        if n_samples - stop < context:
            stop = n_samples
        first = max(0, start - context)
        piece = torch.from_numpy(np.ascontiguousarray(rows[:, first : stop + context]))
        codes = codec.encode(piece[:, None].to(codec.device)).audio_codes[0]
        skipped = (start - first) // hop
        pieces.append(codes[..., skipped : skipped - (start - stop) // hop].cpu().numpy())
        start = stop
    return np.concatenate(pieces, axis=-1)


@torch.inference_mode()
def decode_codes(model: MusicgenForConditionalGeneration, codes: torch.Tensor) -> np.ndarray:
    """Audio of codes: `[B, K, T]` to `[B, C, N]` float32."""
    codec: Any = model.audio_encoder
    codes = codes.to(codec.device).long()
    n_channels = model_shape(model).n_channels
    channels = [
        codec.decode(codes[None, :, channel::n_channels], [None]).audio_values
        for channel in range(n_channels)
    ]
    return torch.cat(channels, dim=1).float().cpu().numpy()
