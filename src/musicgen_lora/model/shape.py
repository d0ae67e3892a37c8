"""The dimensions of a MusicGen that data, training and decoding need, from its configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from musicgen_lora.model.delays import Delays


@dataclass(frozen=True)
class Shape:
    """The dimensions of a MusicGen.

    Args:
        n_codebooks: K; 8 for the stereo models.
        n_channels: of the audio, 1 or 2.
        delays: of the codebooks, in steps.
        special: V, the token for start and padding, and the number of codes in a codebook.
        sample_rate: of the codec, in Hz.
        frame_rate: codec frames per second.
    """

    n_codebooks: int
    n_channels: int
    delays: Delays
    special: int
    sample_rate: int
    frame_rate: float

    @classmethod
    def of(cls, config: Any) -> Shape:
        """The dimensions in a configuration of transformers."""
        decoder, codec = config.decoder, config.audio_encoder
        n_channels = getattr(decoder, "audio_channels", 1)
        return cls(
            n_codebooks=decoder.num_codebooks,
            n_channels=n_channels,
            delays=Delays.of(decoder.num_codebooks, n_channels),
            special=decoder.vocab_size,
            sample_rate=codec.sampling_rate,
            frame_rate=codec.sampling_rate / codec.hop_length,
        )

    def frames(self, duration_s: float, least: int = 1) -> int:
        """The number of codec frames in a duration, at least `least`."""
        return max(least, round(duration_s * self.frame_rate))
