"""EnCodec's layers against transformers' own."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from transformers import EncodecConfig, EncodecModel

from musicgen_lora.model.cpu.codec_layers import PIECE, run_layers, suits

KINDS: dict[str, dict[str, Any]] = {
    "as musicgen's": {},
    "other ratios": {"upsampling_ratios": [3, 2], "num_lstm_layers": 2},
    "dilated, with a convolution beside": {
        "num_residual_layers": 2,
        "use_conv_shortcut": True,
        "last_kernel_size": 5,
    },
    "silence around it": {"pad_mode": "constant"},
}


def codec(**changes: Any) -> EncodecModel:
    values: dict[str, Any] = {
        "num_filters": 4,
        "hidden_size": 8,
        "codebook_size": 16,
        "codebook_dim": 8,
        "target_bandwidths": [3.0],
        "upsampling_ratios": [4, 5],
        "use_causal_conv": False,
        "use_conv_shortcut": False,
        "norm_type": "weight_norm",
        "pad_mode": "reflect",
    }
    torch.manual_seed(0)
    return EncodecModel(EncodecConfig(**(values | changes))).eval()


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_they_compute_what_transformers_does(kind: str) -> None:
    model = codec(**KINDS[kind])
    assert suits(model)
    # Of every rest against the hop, and shorter than what is reflected.
    for n_samples in (1, 2, 7, 19, 20, 21, 163, 640):
        samples = torch.randn(1, 1, n_samples)
        latents = model.encoder(samples)
        torch.testing.assert_close(
            run_layers(model.encoder.layers, samples), latents, atol=1e-5, rtol=1e-5
        )
        torch.testing.assert_close(
            run_layers(model.decoder.layers, latents), model.decoder(latents), atol=1e-5, rtol=1e-5
        )


@pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN"
)
@torch.inference_mode()
def test_no_kernel_is_compiled_for_the_length_of_a_long_clip(
    capfd: pytest.CaptureFixture[str],
) -> None:
    model, mkldnn = codec(num_filters=16), torch.backends.mkldnn
    with mkldnn.verbose(mkldnn.VERBOSE_ON_CREATION):
        run_layers(model.encoder.layers, torch.randn(1, 1, 160_001))
    compiled = re.findall(
        r"create:cache_\w+,cpu,convolution,.*_ic(\d+)oc.*ow(\d+)", capfd.readouterr().out
    )
    assert compiled
    for n_channels, length in compiled:
        assert int(n_channels) > 1
        assert int(length) <= PIECE


@pytest.mark.parametrize(
    "changes",
    [
        {"use_causal_conv": True},
        {"norm_type": "time_group_norm"},
        {"chunk_length_s": 1},
        {"normalize": True},
    ],
)
def test_codecs_of_other_kinds_are_left_to_transformers(changes: dict[str, Any]) -> None:
    assert not suits(codec(**changes))
