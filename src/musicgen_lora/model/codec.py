"""The EnCodec inside MusicGen: waveforms to codes and back, mono and stereo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import MusicgenForConditionalGeneration

from musicgen_lora.errors import UserError
from musicgen_lora.model.cpu.codec_layers import suits, through_layers
from musicgen_lora.model.fingerprint import fingerprint
from musicgen_lora.model.shape import Shape

FORMAT_VERSION = 1
"""Version of the tokens, raised whenever the same audio would give other codes."""
WINDOW_S = 30.0
CONTEXT_S = 1.0
"""Audio longer than a window is encoded in pieces, each with this much context on both sides, which
is trimmed from the codes: memory stays constant and the seams are inaudible."""


class Codec:
    """The codec of a MusicGen. It works on the device of `model.audio_encoder`, in float32.

    Args:
        model: the MusicGen, in eval mode.
    """

    def __init__(self, model: MusicgenForConditionalGeneration) -> None:
        self._model = model
        self._shape = Shape.of(model.config)

    @property
    def module(self) -> Any:
        """transformers' EncodecModel, which is typed as any pretrained model."""
        return self._model.audio_encoder

    @property
    def fingerprint(self) -> str:
        """The identity of the tokens that it makes."""
        shape = self._shape
        further = (FORMAT_VERSION, shape.sample_rate, shape.n_codebooks, shape.n_channels)
        return fingerprint(self.module, further)

    @torch.inference_mode()
    def encode(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Encodes clips. Channels of equal length go through the codec together on a GPU, but one
        by one on a CPU, whose caches hold only one. Ragged lengths can't be batched, since padding
        would change the last codes.

        Args:
            waveforms: each `[C, N]` float32 at the codec's rate. A mono model gets the mean of the
                channels; a stereo model gets a mono clip on both sides.

        Returns:
            For each clip `[K, T]` uint16, T = N / hop, rounded up. Stereo codes are interleaved:
            left 0, right 0, left 1, ...

        Raises:
            UserError: codec and decoder don't belong together.
        """
        n_channels = self._shape.n_channels
        clips = [_channels(waveform, n_channels) for waveform in waveforms]
        rows = [row for clip in clips for row in clip]
        equal: dict[int, list[int]] = {}
        for index, row in enumerate(rows):
            equal.setdefault(len(row), []).append(index)
        codes: dict[int, np.ndarray] = {}
        for indices in equal.values():
            step = len(indices) if self.module.device.type != "cpu" else 1
            for at in range(0, len(indices), step):
                batch = indices[at : at + step]
                found = self.encode_rows(np.stack([rows[index] for index in batch]))
                codes |= dict(zip(batch, found, strict=True))
        ordered = [codes[index] for index in range(len(rows))]
        starts = range(0, len(ordered), n_channels)
        return [self._interleaved(ordered[at : at + n_channels]) for at in starts]

    def _interleaved(self, channels: Sequence[np.ndarray]) -> np.ndarray:
        """Interleaves the codes of C channels: C times `[K', T]` to `[K, T]` uint16."""
        clip = np.stack(channels, axis=1)  # [K', C, T]
        clip = clip.reshape(-1, clip.shape[-1])  # [K, T]
        if len(clip) != self._shape.n_codebooks:
            raise UserError(
                f"The model's codec has {len(clip)} codebooks, but its decoder reads "
                f"{self._shape.n_codebooks}: the two do not belong together."
            )
        return clip.astype(np.uint16)

    @torch.inference_mode()
    def encode_rows(self, rows: np.ndarray) -> np.ndarray:
        """Encodes channels `[B, N]` to codes `[B, K', T]`, with K' codebooks per channel."""
        codec = self.module
        hop = codec.config.hop_length
        window = int(WINDOW_S * codec.config.sampling_rate / hop) * hop
        context = int(CONTEXT_S * codec.config.sampling_rate / hop) * hop
        n_samples = rows.shape[1]
        pieces = []
        start = 0
        # A last piece shorter than a second is joined to the window before it.
        while start < n_samples:
            stop = start + window
            if n_samples - stop < context:
                stop = n_samples
            first = max(0, start - context)
            piece = torch.from_numpy(np.ascontiguousarray(rows[:, first : stop + context]))
            codes = self._encode_mono(piece[:, None].to(codec.device))  # [B, K', frames]
            skipped = (start - first) // hop
            pieces.append(codes[..., skipped : skipped - (start - stop) // hop].cpu().numpy())
            start = stop
        return np.concatenate(pieces, axis=-1)

    def _encode_mono(self, samples: torch.Tensor) -> torch.Tensor:
        """Encodes a channel `[B, 1, N]` to codes `[B, K', T]`."""
        codec = self.module
        if not suits(codec):
            return codec.encode(samples).audio_codes[0]
        hidden = through_layers(codec, codec.encoder.layers, samples)
        return codec.quantizer.encode(hidden, codec.config.target_bandwidths[0]).transpose(0, 1)

    @torch.inference_mode()
    def decode(self, codes: torch.Tensor) -> np.ndarray:
        """Turns codes `[B, K, T]` into audio `[B, C, N]` float32."""
        codec, n_channels = self.module, self._shape.n_channels
        codes = codes.to(codec.device).long()
        # [B, 1, N] each.
        channels = [
            self._decode_mono(codes[:, channel::n_channels]) for channel in range(n_channels)
        ]
        return torch.cat(channels, dim=1).float().cpu().numpy()

    def _decode_mono(self, codes: torch.Tensor) -> torch.Tensor:
        """Decodes codes `[B, K', T]` of a channel to `[B, 1, N]`."""
        codec = self.module
        if not suits(codec):
            return codec.decode(codes[None], [None]).audio_values
        # As in streaming: transformers computes the recurrent layer, which has few frames.
        first, recurrent, *rest = codec.decoder.layers
        hidden = recurrent(first(codec.quantizer.decode(codes.transpose(0, 1))))
        return through_layers(codec, rest, hidden)

    @torch.inference_mode()
    def latents(self, samples: torch.Tensor) -> torch.Tensor:
        """The encoder's output for a channel `[1, 1, N]` before quantisation, up to rounding:
        `[D, T]`."""
        codec = self.module
        return through_layers(codec, codec.encoder.layers, samples.to(codec.device))[0]


def _channels(waveform: np.ndarray, n_channels: int) -> np.ndarray:
    """A clip `[C, N]` with as many channels as the model has."""
    if n_channels == 1:
        return waveform.mean(axis=0, keepdims=True)
    return waveform[:2] if len(waveform) > 1 else np.repeat(waveform, 2, axis=0)
