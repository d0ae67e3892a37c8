"""A codec in MusicGen's shapes, for benchmarks."""

from __future__ import annotations

from transformers import EncodecConfig, EncodecModel


def full_size_codec(n_filters: int = 64) -> EncodecModel:
    """A codec in the shapes of musicgen-small's, its weights random; fewer filters are a toy."""
    config = EncodecConfig(
        target_bandwidths=[2.2],
        sampling_rate=32_000,
        audio_channels=1,
        num_filters=n_filters,
        hidden_size=128,
        codebook_size=2048,
        codebook_dim=128,
        upsampling_ratios=[8, 5, 4, 4],
        num_lstm_layers=2,
        norm_type="weight_norm",
        use_causal_conv=False,
        use_conv_shortcut=False,
    )
    return EncodecModel(config).eval().requires_grad_(False)
