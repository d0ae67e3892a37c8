"""The codec's architecture, its initial weights, and a faster forward pass.

The parameters are always those of transformers' EncodecModel; training only calls its layers
differently.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import EncodecConfig, EncodecModel, MusicgenForConditionalGeneration
from transformers.models.encodec.modeling_encodec import (
    EncodecConv1d,
    EncodecEncoderOutput,
    EncodecResnetBlock,
)

from musicgen_lora.model.configs import codec_config

HOP = 640
"""Samples in a frame."""


def small_codec_config() -> EncodecConfig:
    """MusicGen's 32 kHz EnCodec, smaller."""
    # One LSTM layer instead of two, to stay within 8 MB.
    return codec_config(hidden_size=64, num_filters=16, num_lstm_layers=1)


def load_codec(folder: Path) -> EncodecModel:
    """The codec in a folder, in fp32; the folder may hold a codec or a whole MusicGen."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config["model_type"] == "encodec":
        return EncodecModel.from_pretrained(folder, dtype=torch.float32)
    whole = MusicgenForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    codec = whole.audio_encoder
    assert isinstance(codec, EncodecModel)
    return codec


def codes(model: EncodecModel, samples: np.ndarray) -> np.ndarray:
    """The codes `[K, T]` of `samples [N]`, as any user of the codec gets them."""
    with torch.inference_mode():
        waveform = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))[None, None]
        encoded = model.encode(waveform)
    assert isinstance(encoded, EncodecEncoderOutput)
    assert encoded.audio_codes is not None
    return encoded.audio_codes[0, 0].numpy()


def encode(model: EncodecModel, waveform: Tensor) -> Tensor:
    """States `[B, D, T]` of `waveform [B, N]`; N is a multiple of the hop."""
    return _run(_layers(model.encoder), waveform[:, None]).float()


def decode(model: EncodecModel, states: Tensor) -> Tensor:
    """Waveform `[B, N]` of `states [B, D, T]`."""
    *body, last = _layers(model.decoder)
    assert isinstance(last, EncodecConv1d)
    weight, bias = last.conv.weight, last.conv.bias
    assert isinstance(weight, Tensor)
    assert isinstance(bias, Tensor)
    hidden = _run(body, states)
    with torch.autocast("cpu", enabled=False):
        # Eight bits of mantissa are fine inside, but audible in the samples themselves.
        hidden = F.pad(hidden.float(), (3, 3), mode="reflect")
        # Padded by fifteen outputs of zeros: a convolution to one channel is slower.
        return F.conv1d(hidden, F.pad(weight, (0, 0, 0, 0, 0, 15)))[:, 0] + bias


def _layers(module: nn.Module) -> list[nn.Module]:
    layers = module.layers
    assert isinstance(layers, nn.ModuleList)
    return list(layers)


def _run(layers: list[nn.Module], hidden: Tensor) -> Tensor:
    for layer in layers:
        if isinstance(layer, EncodecConv1d):
            hidden = _conv(layer, hidden)
        elif isinstance(layer, EncodecResnetBlock):
            hidden = hidden + _run(list(layer.block), hidden)
        else:
            hidden = layer(hidden)
    return hidden


def _conv(layer: EncodecConv1d, hidden: Tensor) -> Tensor:
    """EncodecConv1d's forward without its arithmetic on scalar tensors, which costs a third of
    the step; the result is the same if the length is a multiple of the stride."""
    conv = layer.conv
    assert isinstance(conv, nn.Conv1d)
    total = (conv.kernel_size[0] - 1) * conv.dilation[0] + 1 - conv.stride[0]
    if total:
        hidden = F.pad(hidden, (total - total // 2, total // 2), mode="reflect")
    return conv(hidden)


@torch.no_grad()
def initialise(model: EncodecModel) -> None:
    """Initialises weights that preserve a signal's level, without biases.

    transformers' initialisation doesn't reach weights under weight norm, and torch's own
    shrinks a quiet signal from layer to layer until biases drown it: hundreds of steps would
    be lost before the input has any effect on the output.
    """
    for name, module in model.named_modules():
        if not isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
            continue
        kernel, stride = module.kernel_size[0], module.stride[0]
        transposed = isinstance(module, nn.ConvTranspose1d)
        fan_in = module.in_channels * (kernel / stride if transposed else kernel)
        gain = 1.2
        if ".block.3." in name:
            gain = 0.5
        elif name.startswith("encoder.layers.0."):
            # Beats have a root mean square of about 0.1.
            gain = 5.0
        elif name.startswith(f"decoder.layers.{len(model.decoder.layers) - 1}."):
            gain = 0.1
        module.weight = torch.randn_like(module.weight) * (gain / fan_in**0.5)
        if module.bias is not None:
            module.bias.zero_()
