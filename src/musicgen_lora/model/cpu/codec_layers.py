"""EnCodec's convolutions in a channels-last layout.

transformers keeps each channel's samples together, which suits a GPU. On a CPU, a codec with few
channels then copies more than it computes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.encodec.modeling_encodec import (
    EncodecConv1d,
    EncodecConvTranspose1d,
    EncodecLSTM,
    EncodecResnetBlock,
)

PIECE = 1 << 15
"""Samples of a layer that are computed at once. oneDNN compiles and keeps a kernel for each length
that it encounters, of up to 20 MB for long ones, and so for every length that a clip may have."""


def suits(codec: Any) -> bool:
    """Whether a codec is of the kind supported here: MusicGen's, on a CPU."""
    config = codec.config
    is_whole = config.norm_type == "weight_norm" and config.chunk_length_s is None
    is_plain = not (config.use_causal_conv or config.normalize)
    return codec.device.type == "cpu" and is_whole and is_plain


def through_layers(codec: Any, layers: Sequence[nn.Module], hidden: Tensor) -> Tensor:
    """Runs layers of a codec on clips: `[B, D, T]` to `[B, D', T']`. If the codec suits, they are
    computed here, one clip at a time."""
    if suits(codec):
        return torch.cat([run_layers(layers, clip[None]) for clip in hidden])
    for layer in layers:
        hidden = layer(hidden)
    return hidden


def run_layers(layers: Iterable[nn.Module], hidden: Tensor) -> Tensor:
    """Runs layers of a codec that suits on one clip: `[1, D, T]` to `[1, D', T']`. Equal to
    transformers up to rounding."""
    rows = hidden[0].T.contiguous()  # [T, D]
    for layer in layers:
        rows = _run(layer, rows)
    return rows.T[None]


def _run(layer: Any, rows: Tensor) -> Tensor:
    """Runs a layer on `[T, D]`."""
    if isinstance(layer, EncodecConv1d):
        return _convolved(layer, rows)
    if isinstance(layer, EncodecConvTranspose1d):
        return _transposed(layer, rows)
    if isinstance(layer, EncodecResnetBlock):
        hidden = rows
        for own in layer.block:
            hidden = _run(own, hidden)
        return hidden + _run(layer.shortcut, rows)
    if isinstance(layer, EncodecLSTM):
        return (layer.lstm(rows[:, None])[0])[:, 0] + rows
    return layer(rows)  # Elementwise.


def _convolved(layer: Any, rows: Tensor) -> Tensor:
    conv = layer.conv
    size, stride, step = conv.kernel_size[0], conv.stride[0], conv.dilation[0]
    total = (size - 1) * step + 1 - stride
    right = total // 2 - len(rows) // -stride * stride - len(rows)
    if len(rows) <= max(total - total // 2, right):
        # Shorter than its reflected padding.
        return layer(rows.T[None])[0].T.contiguous()
    padded = _reflected(rows, total - total // 2, right, layer.pad_mode)
    weight, bias = conv.weight, conv.bias  # [O, D, k]
    if len(bias) == 1 and stride == 1:
        taps = weight[0].T @ padded.T  # [k, N]
        n_out = len(padded) - (size - 1) * step
        found = taps[0, :n_out] + bias
        for place in range(1, size):
            found += taps[place, place * step : place * step + n_out]
        return found[:, None]
    if weight.shape[1] == 1:
        # With a single channel, oneDNN takes longer to compile its kernel for one length than to
        # encode a clip.
        n_out = (len(padded) - (size - 1) * step - 1) // stride + 1
        seen = padded[:, 0].as_strided((n_out, size), (stride, step))  # [T', k]
        return torch.addmm(bias, seen, weight[:, 0].T)
    return _image_convolved(padded, weight, bias, stride, step)


def _image_convolved(
    rows: Tensor, weight: Tensor, bias: Tensor, stride: int = 1, step: int = 1
) -> Tensor:
    """Convolves `[T, D]` with `[O, D, k]` as an image of height 1, since oneDNN supports
    channels-last only for images."""
    reach = (weight.shape[2] - 1) * step + 1
    n_out = (len(rows) - reach) // stride + 1
    found = rows.new_empty(n_out, len(weight))
    for at in range(0, n_out, PIECE):
        end = min(at + PIECE, n_out)
        piece = rows[at * stride : (end - 1) * stride + reach]
        image = piece[None, None].permute(0, 3, 1, 2)  # [1, D, 1, T]
        made = F.conv2d(image, weight[:, :, None], bias, stride=(1, stride), dilation=(1, step))
        found[at:end] = made[0, :, 0].T
    return found


def _reflected(rows: Tensor, left: int, right: int, mode: str) -> Tensor:
    """`[T, D]` padded at both ends by reflection, or else by zeros."""
    if mode != "reflect":
        return F.pad(rows, (0, 0, left, right))
    before = rows[1 : left + 1].flip(0)
    after = rows[len(rows) - 1 - right : len(rows) - 1].flip(0)
    return torch.cat([before, rows, after]) if left + right else rows


def _transposed(layer: Any, rows: Tensor) -> Tensor:
    conv = layer.conv
    size, stride = conv.kernel_size[0], conv.stride[0]
    if size != 2 * stride:
        return layer(rows.T[None])[0].T.contiguous()
    # The kernel's first half falls on a sample's own outputs, the second on those of the next one:
    # this is a convolution over two samples that gives s samples at once.
    halves = conv.weight.unflatten(2, (2, stride)).flip(2)  # [D, O, 2, s]
    weight = halves.permute(3, 1, 0, 2).flatten(0, 1)  # [s O, D, 2]
    found = _image_convolved(F.pad(rows, (0, 0, 1, 1)), weight, conv.bias.repeat(stride))
    samples = found.view(-1, len(conv.bias))
    right = stride // 2
    return samples[stride - right : len(samples) - right]
