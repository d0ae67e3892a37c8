"""A codec of MusicGen's size, for benchmarks."""

from __future__ import annotations

from transformers import EncodecModel

from musicgen_lora.model.configs import codec_config


def full_size_codec(n_filters: int = 64) -> EncodecModel:
    """A codec of musicgen-small's size with random weights; fewer filters make a toy."""
    return EncodecModel(codec_config(num_filters=n_filters)).eval().requires_grad_(False)
