"""Streaming audio: EnCodec's decoder in chunks, equal to decoding the whole clip at once.

The decoder is not causal, and its LSTM reaches back without limit, so chunks that merely overlap
would click. Here the first convolution gets the frames around a chunk that it needs, the LSTM
continues from its own state, and the upsampling layers get as many frames on both sides as they
need. Reflection padding happens only at the true beginning and end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from musicgen_lora.errors import UserError
from musicgen_lora.generation.decoding.decode import play_frames
from musicgen_lora.generation.decoding.decoder import Decoder, threads_for
from musicgen_lora.generation.decoding.request import Request
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.cpu.codec_layers import through_layers

CHUNK_S = 0.5
"""Seconds of audio per chunk."""


def stream_audio(
    model: BaseModel | Decoder, request: Request, chunk_s: float = CHUNK_S
) -> Iterator[np.ndarray]:
    """Generates audio for B clips in chunks.

    Args:
        model: as in `generate_codes`, which gives the same codes.
        request: the clips; the codes that they begin with come first.
        chunk_s: seconds of a chunk; the last one may be shorter.

    Yields:
        `[B, C, n]` float32; it may exceed full scale. Joined, the chunks are the whole clips.

    Raises:
        UserError: the model's codec can't be decoded in chunks.
    """
    decoder = model if isinstance(model, Decoder) else Decoder(model)
    chunks = ChunkDecoder(decoder.base)
    chunk = max(1, round(chunk_s * decoder.shape.frame_rate))
    parts = play_frames(decoder, request, chunk=chunk)
    n_done = 0
    while n_done < request.n_frames:
        # Not around the `yield`, so that the caller's code runs with its own threads.
        with threads_for(decoder.base):
            codes = next(parts)
            n_done += codes.shape[-1]
            sound = chunks.push(codes, last=n_done == request.n_frames)
        if sound.shape[-1]:
            yield sound


def decodes_in_parts(base: BaseModel) -> bool:
    """Whether a model's codec can be decoded in chunks."""
    codec: Any = base.codec.module
    kinds = [type(layer).__name__ for layer in codec.decoder.layers[:2]]
    return codec.config.norm_type == "weight_norm" and kinds == ["EncodecConv1d", "EncodecLSTM"]


class ChunkDecoder:
    """Decodes clips from codes that arrive in chunks.

    Args:
        base: its codec is used, on the codec's device.

    Raises:
        UserError: the codec can't be decoded in chunks.
    """

    def __init__(self, base: BaseModel) -> None:
        self._codec: Any = base.codec.module
        self._n_channels = base.shape.n_channels
        self._hop = int(self._codec.config.hop_length)
        if not decodes_in_parts(base):
            raise UserError(
                "This model's codec needs whole clips and can't be decoded in chunks; generate the "
                "clip as a whole."
            )
        first, recurrent, *rest = self._codec.decoder.layers
        self._first, self._lstm, self._rest = first, recurrent.lstm, rest
        self._around_first = _frames_around([first], 1)
        self._around_rest = _frames_around(rest, self._hop)
        self._codes = _Tail()
        self._hidden = _Tail()
        self._state: tuple[torch.Tensor, torch.Tensor] | None = None
        self._n_hidden = self._n_heard = 0

    @torch.inference_mode()
    def push(self, codes: torch.Tensor, *, last: bool) -> np.ndarray:
        """Takes the next codes `[B, K, n]` and returns the samples that are now final, `[B, C, m]`.

        Args:
            codes: of the same clips each time.
        """
        n_clips = len(codes)
        # [B, K, n] to [B C, K', n]: channels alternate, and each is a clip of its own.
        codes = codes.to(self._codec.device).long().unflatten(1, (-1, self._n_channels))
        codes = codes.transpose(1, 2).flatten(0, 1)
        self._codes.add(self._codec.quantizer.decode(codes.transpose(0, 1)))
        self._read(last=last)
        before, after = self._around_rest
        until = self._hidden.end - (0 if last else after)
        if until <= self._n_heard:
            return np.zeros((n_clips, self._n_channels, 0), dtype=np.float32)
        sound, start = self._hidden.since(self._n_heard - before)
        sound = through_layers(self._codec, self._rest, sound)
        sound = sound[..., (self._n_heard - start) * self._hop : (until - start) * self._hop]
        self._n_heard = until
        return sound.reshape(n_clips, self._n_channels, -1).float().cpu().numpy()

    def _read(self, *, last: bool) -> None:
        """Runs the codes through the LSTM, as many as have all the frames around them."""
        before, after = self._around_first
        until = self._codes.end - (0 if last else after)
        if until <= self._n_hidden or (not last and self._codes.end <= max(before, after)):
            return
        codes, start = self._codes.since(self._n_hidden - before)
        hidden = self._first(codes)[..., self._n_hidden - start : until - start]
        steps = hidden.permute(2, 0, 1)
        found, self._state = self._lstm(steps, self._state)
        self._hidden.add((found + steps).permute(1, 2, 0))
        self._n_hidden = until


class _Tail:
    """The end of a growing sequence `[B, D, n]`: everything before the part last asked for is
    dropped."""

    def __init__(self) -> None:
        self._kept: torch.Tensor | None = None
        self._begin = 0

    @property
    def end(self) -> int:
        """Current length of the sequence."""
        return self._begin + (0 if self._kept is None else self._kept.shape[-1])

    def add(self, more: torch.Tensor) -> None:
        """Appends more of the sequence."""
        self._kept = more if self._kept is None else torch.cat([self._kept, more], dim=-1)

    def since(self, begin: int) -> tuple[torch.Tensor, int]:
        """The sequence from `begin` on, or from its own beginning, and where that part starts."""
        assert self._kept is not None
        begin = max(begin, 0)
        self._kept, self._begin = self._kept[..., begin - self._begin :], begin
        return self._kept, begin


def _frames_around(layers: Sequence[Any], hop: int) -> tuple[int, int]:
    """How many frames before and after a frame affect the samples that the layers make of it."""
    far = 1000
    begin, end = far * hop, (far + 1) * hop
    for layer in reversed(layers):
        begin, end = _looked_at(layer, begin, end)
    return far - begin, end - (far + 1)


def _looked_at(layer: Any, begin: int, end: int) -> tuple[int, int]:
    """The range of inputs that affects a layer's outputs from `begin` up to `end`."""
    kind = type(layer).__name__
    if kind == "EncodecResnetBlock":
        for inner in reversed(layer.block):
            begin, end = _looked_at(inner, begin, end)
    elif kind == "EncodecConv1d":
        reach = (layer.conv.kernel_size[0] - 1) * layer.conv.dilation[0]
        left = reach if layer.causal else reach - reach // 2
        begin, end = begin - left, end + reach - left
    elif kind == "EncodecConvTranspose1d":
        kernel, stride = layer.conv.kernel_size[0], layer.conv.stride[0]
        total = kernel - stride
        right = -int(-total * layer.trim_right_ratio // 1) if layer.causal else total // 2
        left = total - right
        begin, end = -((kernel - 1 - begin - left) // stride), (end - 1 + left) // stride + 1
    return begin, end
