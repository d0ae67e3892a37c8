"""EnCodec's convolutions with the channels of a sample side by side in memory.

transformers keeps each channel's samples together, as a GPU likes it. On a CPU a codec with few
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
"""Samples of a layer that are made at once. oneDNN compiles a kernel for each length that it comes
across and keeps it: for long ones up to 20 MB, for each length that a clip may have."""


def suits(codec: Any) -> bool:
    """Whether a codec is of the kind that is computed here: MusicGen's, on a CPU."""
    config = codec.config
    is_whole = config.norm_type == "weight_norm" and config.chunk_length_s is None
    is_plain = not (config.use_causal_conv or config.normalize)
    return codec.device.type == "cpu" and is_whole and is_plain


def through_layers(codec: Any, layers: Sequence[nn.Module], hidden: Tensor) -> Tensor:
    """What layers of a codec make of clips `[B, D, T]`: `[B, D', T']`. Where it suits they are
    computed here, a clip at a time."""
    if suits(codec):
        return torch.cat([run_layers(layers, clip[None]) for clip in hidden])
    for layer in layers:
        hidden = layer(hidden)
    return hidden


def run_layers(layers: Iterable[nn.Module], hidden: Tensor) -> Tensor:
    """What layers of a codec that suits make of one clip, up to rounding: `[1, D, T]` to
    `[1, D', T']`."""
    rows = hidden[0].T.contiguous()  # [T, D]
    for layer in layers:
        rows = _run(layer, rows)
    return rows.T[None]


def _run(layer: Any, rows: Tensor) -> Tensor:
    """What a layer makes of `[T, D]`."""
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
    return layer(rows)  # Of each number on its own.


def _convolved(layer: Any, rows: Tensor) -> Tensor:
    conv = layer.conv
    size, stride, step = conv.kernel_size[0], conv.stride[0], conv.dilation[0]
    total = (size - 1) * step + 1 - stride
    right = total // 2 - len(rows) // -stride * stride - len(rows)
    if len(rows) <= max(total - total // 2, right):
        # Shorter than what is reflected at its ends.
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
        # Of a single channel oneDNN's kernel for one length takes longer to compile than a clip to
        # encode.
        n_out = (len(padded) - (size - 1) * step - 1) // stride + 1
        seen = padded[:, 0].as_strided((n_out, size), (stride, step))  # [T', k]
        return torch.addmm(bias, seen, weight[:, 0].T)
    return _image_convolved(padded, weight, bias, stride, step)


def _image_convolved(
    rows: Tensor, weight: Tensor, bias: Tensor, stride: int = 1, step: int = 1
) -> Tensor:
    """A convolution `[O, D, k]` of `[T, D]`, as one of a picture of a single line: of pictures
    oneDNN takes channels that lie together."""
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
    """`[T, D]` with its beginning and end mirrored, or silence, around it."""
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
    # A sample's first half of the kernel falls on its own samples, the second on the next one's:
    # a convolution over two samples that makes s samples at once.
    halves = conv.weight.unflatten(2, (2, stride)).flip(2)  # [D, O, 2, s]
    weight = halves.permute(3, 1, 0, 2).flatten(0, 1)  # [s O, D, 2]
    found = _image_convolved(F.pad(rows, (0, 0, 1, 1)), weight, conv.bias.repeat(stride))
    samples = found.view(-1, len(conv.bias))
    right = stride // 2
    return samples[stride - right : len(samples) - right]
