"""The steps of a window: read a column of the delayed sequence, draw the next, store it.

`DecodingWindow` takes plain steps, for CPUs. `FixedWindow` does the same with tensors of constant
shapes and addresses and without host syncs: on CUDA its step is captured as a graph, one for each
bucket of the cache, so that a step costs one launch.
"""

from __future__ import annotations

import torch

from musicgen_lora.generation.decoding.caches import BatchCache
from musicgen_lora.generation.decoding.decoder import Decoder
from musicgen_lora.generation.decoding.playing import Playing
from musicgen_lora.generation.decoding.request import WindowRequest
from musicgen_lora.generation.decoding.sampling import Noise, sample


class DecodingWindow:
    """Clips that are being decoded, each from its given codes.

    Each may have a different number of given and of new frames: columns are aligned so that new
    frames begin at the same step for all; clips that have finished wait.
    """

    batched = False

    def __init__(self, decoder: Decoder, request: WindowRequest, noise: Noise) -> None:
        shape, passages = decoder.shape, request.passages
        self._sampling, self._noise, self._delays = request.sampling, noise, shape.delays
        self.passages = passages
        n_given = [passage.given.shape[-1] for passage in passages]
        self._step = max(n_given)
        # First column of each clip, and the one after its last.
        self._firsts = [self._step - n for n in n_given]
        self._ends = [
            first + shape.delays.n_steps(passage.n_frames)
            for first, passage in zip(self._firsts, passages, strict=True)
        ]
        self.n_steps = max(self._ends)
        tokens = self._columns(shape.special)
        self.playing = Playing(
            decoder,
            request.conditions,
            [own[:, at : self._step] for own, at in zip(tokens, self._firsts, strict=True)],
            self.n_steps,
            guided=request.sampling.is_guided,
            batched=self.batched,
        )
        self.tokens = tokens.to(decoder.device)
        self._all_spoken = self._spoken.all(dim=2).all(dim=0).tolist()
        self._scales = self._scales_of(request.n_whole)
        self._make_ready()

    def _columns(self, special: int) -> torch.Tensor:
        """The delayed sequences `[B, K, S + 1]` as far as they are given; also records which of the
        tokens `[B, S, K]` are to be played."""
        n_clips, n_codebooks = len(self.passages), len(self._delays)
        tokens = torch.full((n_clips, n_codebooks, self.n_steps + 1), special)
        # If a codebook's frame is before the first or past the last, its token stays as it is.
        self._spoken = torch.zeros(n_clips, self.n_steps, n_codebooks, dtype=torch.bool)
        for clip, (passage, first, end) in enumerate(
            zip(self.passages, self._firsts, self._ends, strict=True)
        ):
            delayed = self._delays.delay(passage.given[None], special, end - first + 1)
            tokens[clip, :, first : end + 1] = delayed[0]
            frames = torch.stack([self._delays.frames_at(step) for step in range(end - first)])
            is_new = (frames >= passage.given.shape[-1]) & (frames < passage.n_frames)
            self._spoken[clip, first:end] = is_new
        return tokens

    def _scales_of(self, n_whole: int) -> torch.Tensor | None:
        """Guidance scales `[S, B, 1]` of the steps; None if constant."""
        scales = [
            self._sampling.scales(passage.begin - first, self.n_steps, n_whole)
            for passage, first in zip(self.passages, self._firsts, strict=True)
        ]
        found = [own for own in scales if own is not None]
        return torch.stack(found, dim=1)[..., None] if found else None

    def _make_ready(self) -> None:
        """Further preparation by a kind of window."""

    @property
    def _drawing(self) -> list[bool]:
        """Which clips have not finished."""
        return [self._step < end for end in self._ends]

    @property
    def step(self) -> int:
        """How many of `n_steps` are done or given."""
        return self._step

    @property
    def steps_of_clips(self) -> list[int]:
        """How many steps of each whole clip are done."""
        return [
            passage.begin + min(self._step, end) - first
            for passage, first, end in zip(self.passages, self._firsts, self._ends, strict=True)
        ]

    def n_ready(self, row: int) -> int:
        """Frames of a clip whose codebooks are all there."""
        passage = self.passages[row]
        spoken = passage.begin + self._step - self._firsts[row] - max(self._delays)
        return max(passage.n_known, min(passage.end, spoken))

    def frames(self, row: int, begin: int, end: int) -> torch.Tensor:
        """Codes `[K, end - begin]` of a clip on the CPU, frames that the window has."""
        at = self._firsts[row] + begin - self.passages[row].begin
        return self._delays.undelay(self.tokens[row : row + 1, :, at:], end - begin)[0].cpu()

    def advance(self) -> None:
        """Takes one step."""
        step = self._step
        scale = self._sampling.guidance_scale if self._scales is None else self._scales[step]
        logits = self.playing.step(self.tokens[:, :, step], scale)
        noise = None if self._sampling.is_greedy else self._noise.next(self._drawing)
        drawn = sample(logits, self._sampling, noise)
        if not self._all_spoken[step]:
            drawn = torch.where(self._spoken[:, step], drawn, self.tokens[:, :, step + 1])
        self.tokens[:, :, step + 1] = drawn
        self._step += 1


class FixedWindow(DecodingWindow):
    """The same on any device; on CUDA as captured graphs."""

    batched = True
    captured = True
    """Whether steps are captured as graphs on CUDA."""

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
            block = self._noise.block(self._drawing).to(self.tokens.device)
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
        """The graph of a step that reads up to `bucket`. The first step of a bucket runs twice to
        warm up, and its state is restored each time."""
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
        # Capturing doesn't run the step, but the host has counted it.
        cache.lengths = list(lengths)
        # Graphs of earlier buckets are not needed any more.
        self._graphs = {bucket: graph}
        return graph

    def _advance(self) -> None:
        columns = self.tokens.index_select(2, self._at).squeeze(2)
        scale = self._sampling.guidance_scale
        if self._scales is not None:
            scale = self._scales.index_select(0, self._at).squeeze(0)
        logits = self.playing.step(columns, scale)
        noise = None
        if self._block is not None:
            noise = self._block.index_select(1, self._of_block).squeeze(1)
            self._of_block += 1
        drawn = sample(logits, self._sampling, noise)
        spoken = self._on_device.index_select(1, self._at).squeeze(1)
        self._at += 1
        kept = self.tokens.index_select(2, self._at).squeeze(2)
        self.tokens.index_copy_(2, self._at, torch.where(spoken, drawn, kept)[..., None])


def window_kind(decoder: Decoder) -> type[DecodingWindow]:
    """The kind of window that suits the decoder's device."""
    return DecodingWindow if decoder.on_cpu else FixedWindow
