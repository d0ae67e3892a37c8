"""The steps of a window: read a column of the delayed sequence, draw the next, write it down.

`Window` does so in plain steps, for CPUs. `FixedWindow` does the same with tensors alone, whose
shapes and addresses stay, and without a word from the host: on a card its step is captured as a
graph, one for each bucket of the cache, so that a step costs one launch.
"""

from __future__ import annotations

import torch

from musicgen_lora.generation.decoding.caches import BatchCache
from musicgen_lora.generation.decoding.decoder import Decoder, Playing
from musicgen_lora.generation.decoding.request import WindowRequest
from musicgen_lora.generation.decoding.sampling import Noise, sample


class Window:
    """Clips that are being decoded, with what they begin with.

    Args:
        decoder: the weights.
        request: what is asked for.
        noise: decides the draws.
    """

    batched = False

    def __init__(self, decoder: Decoder, request: WindowRequest, noise: Noise) -> None:
        shape, given, n_frames = decoder.shape, request.given, request.n_frames
        self._sampling, self._noise = request.sampling, noise
        self._delays, self.n_frames, self.n_given = shape.delays, n_frames, given.shape[-1]
        self.n_steps = shape.delays.n_steps(n_frames)
        tokens = shape.delays.delay(given, shape.special, self.n_steps + 1)
        self.playing = Playing(
            decoder,
            request.conditions,
            tokens[:, :, : self.n_given],
            self.n_steps,
            guided=request.sampling.is_guided,
            batched=self.batched,
        )
        self.tokens = tokens.to(decoder.device)
        # Where a codebook's frame is before the first or past the last, its token stays as it is.
        frames = torch.stack([shape.delays.frames_at(step) for step in range(self.n_steps)])
        self._spoken = (frames >= self.n_given) & (frames < n_frames)
        self._all_spoken = self._spoken.all(dim=1).tolist()
        self._step = self.n_given
        begin, n_whole = request.place or (0, n_frames)
        self._scales = request.sampling.scales(begin, self.n_steps, n_whole)
        self._make_ready()

    def _make_ready(self) -> None:
        """What a kind of window needs besides."""

    @property
    def n_ready(self) -> int:
        """Frames all of whose codebooks are there."""
        return max(self.n_given, min(self.n_frames, self._step - max(self._delays)))

    @property
    def step(self) -> int:
        """How many of `n_steps` are done or were given."""
        return self._step

    def frames(self, begin: int, end: int) -> torch.Tensor:
        """Codes `[B, K, end - begin]` on the CPU."""
        return self._delays.undelay(self.tokens[..., begin:], end - begin).cpu()

    def advance(self) -> None:
        """One step."""
        step = self._step
        scale = self._sampling.guidance_scale if self._scales is None else self._scales[step]
        logits = self.playing.step(self.tokens[:, :, step], scale)
        noise = None if self._sampling.is_greedy else self._noise.next()
        drawn = sample(logits, self._sampling, noise)
        if not self._all_spoken[step]:
            drawn = torch.where(self._spoken[step], drawn, self.tokens[:, :, step + 1])
        self.tokens[:, :, step + 1] = drawn
        self._step += 1


class FixedWindow(Window):
    """The same, on any device; on CUDA as captured graphs."""

    batched = True
    captured = True
    """Whether steps are captured graphs, on CUDA."""

    def _make_ready(self) -> None:
        device = self.tokens.device
        self._scales = None if self._scales is None else self._scales.to(device)
        self._on_device = self._spoken.to(device)
        self._at = torch.tensor([self._step], device=device)
        self._of_block = torch.zeros(1, dtype=torch.long, device=device)
        self._block: torch.Tensor | None = None
        self._n_drawn = 0
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}

    def advance(self) -> None:
        if not self._sampling.is_greedy and self._n_drawn % Noise.STEPS == 0:
            block = self._noise.block().to(self.tokens.device)
            if self._block is None:
                self._block = block
            else:
                self._block.copy_(block)
            self._of_block.zero_()
        self._n_drawn += 1
        cache = self.playing.cache
        assert isinstance(cache, BatchCache)
        if self.captured and self.tokens.device.type == "cuda":
            self._graph(cache.bucket).replay()
            cache.count()
        else:
            self._advance()
        self._step += 1

    def _graph(self, bucket: int) -> torch.cuda.CUDAGraph:
        """The graph of a step that reads so far. The first step of a bucket runs to warm up, on
        what it is then put back to."""
        if bucket in self._graphs:
            return self._graphs[bucket]
        cache = self.playing.cache
        kept = [self.tokens, self._at, self._of_block, cache.positions]
        before = [tensor.clone() for tensor in kept if isinstance(tensor, torch.Tensor)]
        lengths = list(cache.lengths)

        def put_back() -> None:
            for tensor, was in zip(kept, before, strict=True):
                assert isinstance(tensor, torch.Tensor)
                tensor.copy_(was)
            cache.lengths = list(lengths)

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                self._advance()
                put_back()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._advance()
        # Captured, not run: but the host has counted.
        cache.lengths = list(lengths)
        # Graphs of earlier buckets are not needed any more.
        self._graphs = {bucket: graph}
        return graph

    def _advance(self) -> None:
        columns = self.tokens.index_select(2, self._at).squeeze(2)
        scale = self._sampling.guidance_scale
        if self._scales is not None:
            scale = self._scales.index_select(0, self._at)
        logits = self.playing.step(columns, scale)
        noise = None
        if self._block is not None:
            noise = self._block.index_select(1, self._of_block).squeeze(1)
            self._of_block += 1
        drawn = sample(logits, self._sampling, noise)
        spoken = self._on_device.index_select(0, self._at)
        self._at += 1
        kept = self.tokens.index_select(2, self._at).squeeze(2)
        self.tokens.index_copy_(2, self._at, torch.where(spoken, drawn, kept)[..., None])


def window_kind(decoder: Decoder) -> type[Window]:
    """The kind of window that suits the decoder's device."""
    return Window if decoder.on_cpu else FixedWindow
