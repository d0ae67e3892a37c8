"""EnCodec inside MusicGen: waveform to codes and back, mono and stereo."""

from __future__ import annotations

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


@torch.inference_mode()
def encode_waveform(model: MusicgenForConditionalGeneration, waveform: np.ndarray) -> np.ndarray:
    """Codes of one clip.

    Args:
        model: its codec is used, on the codec's device.
        waveform: `[C, N]` float32 at the codec's rate. A mono model hears the mean of the
            channels; a stereo model hears a mono clip on both sides.

    Returns:
        `[K, T]` uint16, T = N / hop, rounded up. Stereo codes are interleaved: left 0, right 0,
        left 1, ...
    """
    shape = model_shape(model)
    if shape.n_channels == 1:
        channels = waveform.mean(axis=0, keepdims=True)
    else:
        channels = waveform[:2] if len(waveform) > 1 else np.repeat(waveform, 2, axis=0)
    codes = np.stack([_encode_channel(model, channel) for channel in channels], axis=1)
    codes = codes.reshape(-1, codes.shape[-1])
    if len(codes) != shape.n_codebooks:
        raise UserError(
            f"The model's codec gives {len(codes)} codebooks, its decoder reads "
            f"{shape.n_codebooks}: the two do not belong together."
        )
    return codes.astype(np.uint16)


def _encode_channel(model: MusicgenForConditionalGeneration, samples: np.ndarray) -> np.ndarray:
    codec: Any = model.audio_encoder
    hop = codec.config.hop_length
    window = int(WINDOW_S * codec.config.sampling_rate / hop) * hop
    context = int(CONTEXT_S * codec.config.sampling_rate / hop) * hop
    pieces = []
    start = 0
    # A last piece shorter than a second is no window of its own: it goes with the one before.
    while start < len(samples):
        stop = start + window
        if len(samples) - stop < context:
            stop = len(samples)
        first = max(0, start - context)
        piece = torch.from_numpy(np.ascontiguousarray(samples[first : stop + context]))
        codes = codec.encode(piece[None, None].to(codec.device)).audio_codes[0, 0]
        skipped = (start - first) // hop
        pieces.append(codes[:, skipped : skipped - (start - stop) // hop].cpu().numpy())
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
