"""Configurations of MusicGens built from scratch: the embedded base before its training, the small
ones of the tests, the full-size ones of the benchmarks."""

from __future__ import annotations

from typing import Any

from transformers import (
    EncodecConfig,
    MusicgenConfig,
    MusicgenDecoderConfig,
    MusicgenForConditionalGeneration,
    MusicgenMelodyConfig,
    MusicgenMelodyDecoderConfig,
    T5Config,
)


def codec_config(**changes: Any) -> EncodecConfig:
    """Meta's 32 kHz EnCodec, 50 frames a second of 4 x 11 bits, with `changes`."""
    meta: dict[str, Any] = {
        "sampling_rate": 32_000,
        "audio_channels": 1,
        "target_bandwidths": [2.2],
        "num_filters": 64,
        "hidden_size": 128,
        "codebook_size": 2048,
        "upsampling_ratios": [8, 5, 4, 4],
        "num_lstm_layers": 2,
        "norm_type": "weight_norm",
        "use_causal_conv": False,
        "use_conv_shortcut": False,
    }
    given = meta | changes
    return EncodecConfig(**{"codebook_dim": given["hidden_size"]} | given)


def musicgen_config(
    codec: EncodecConfig, text: T5Config, *, melody: bool = False, **decoder: Any
) -> MusicgenConfig | MusicgenMelodyConfig:
    """A MusicGen's configuration from those of its parts.

    Args:
        codec: the decoder predicts its codebooks.
        decoder: further fields of the decoder's configuration.
    """
    special = codec.codebook_size
    fields = {
        "vocab_size": special,
        "pad_token_id": special,
        "bos_token_id": special,
        "num_codebooks": 4,
        "audio_channels": 1,
        **decoder,
    }
    if melody:
        return MusicgenMelodyConfig(
            text_encoder=text, audio_encoder=codec, decoder=MusicgenMelodyDecoderConfig(**fields)
        )
    return MusicgenConfig(
        text_encoder=text, audio_encoder=codec, decoder=MusicgenDecoderConfig(**fields)
    )


def name_special_token(model: MusicgenForConditionalGeneration) -> None:
    """Tells transformers' `generate` which token is for start and padding."""
    config: Any = model.config
    generation: Any = model.generation_config
    special = config.decoder.vocab_size
    generation.pad_token_id = generation.bos_token_id = special
    generation.decoder_start_token_id = special
