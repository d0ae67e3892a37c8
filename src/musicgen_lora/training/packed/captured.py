"""Gradients of a step from codes and text states on the device, captured as a CUDA graph.

A small model on a fast GPU waits for the host: a step of tiny-beats is some two thousand short
kernels. Here everything that a step reads is on the device, a batch is a few integers, and forward
and backward pass are recorded once and replayed with one call (CUDA graphs; see "Whole-network
capture" in PyTorch's notes on CUDA semantics). On other devices the function is called directly.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch

from musicgen_lora.dataset.packed import PackedTokens
from musicgen_lora.errors import UserError
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.delays import Delays
from musicgen_lora.model.loss import codebook_cross_entropies
from musicgen_lora.model.text.states import EncodedText, TextStates
from musicgen_lora.training.packed.draws import DrawnBatch

LARGEST_TABLE_BYTES = 8 << 30
WARM_UP_STEPS = 3
"""Run before a capture, so that libraries have chosen their kernels and made their workspaces."""


class DeviceData:
    """The codes of all clips and the states of all captions, on the device.

    Args:
        text: encodes the captions now, so that no step runs the text encoder.
        n_frames: T, frames of a batch's windows; shorter ones are masked.

    Raises:
        UserError: the text states take too much memory.
    """

    def __init__(
        self, tokens: PackedTokens, text: TextStates, n_frames: int, device: torch.device
    ) -> None:
        # Windows of the last clips may reach past the end of the codes, where they are masked.
        padded = np.concatenate([tokens.codes, np.zeros((n_frames, tokens.codes.shape[1]))])
        self.codes = torch.from_numpy(padded.astype(np.int16)).to(device)
        self.n_frames = n_frames
        rows: dict[str, int] = {}
        self.captions = [[rows.setdefault(t, len(rows) + 1) for t in ts] for ts in tokens.texts]
        self.text = _table(list(rows), text, device)

    def of_windows(self, n_frames: int) -> DeviceData:
        """The same data for batches of shorter windows."""
        other = copy.copy(self)
        other.n_frames = n_frames
        return other

    def batch(self, draw: DrawnBatch) -> tuple[torch.Tensor, EncodedText]:
        """The codes `[B, K, T]` and texts of a draw."""
        frames = draw.starts[:, None] + within_loop(self.n_frames, draw.periods)
        codes = self.codes[frames].long().transpose(1, 2)
        return codes, self.text.rows(draw.captions)


def within_loop(n_frames: int, periods: torch.Tensor) -> torch.Tensor:
    """Which frame of its loop each of `n_frames` is, `[B, n_frames]`: every round begins at the
    frame nearest to its exact start, so that a loop of 99.6 frames keeps its tempo.

    Args:
        periods: frames of a loop, `[B]`.
    """
    frames = torch.arange(n_frames, device=periods.device)
    rounds = torch.floor((frames + 0.5) / periods[:, None])
    return frames - torch.ceil(rounds * periods[:, None] - 0.5).long()


def _table(captions: Sequence[str], text: TextStates, device: torch.device) -> EncodedText:
    """The null condition and all captions in fp32."""
    text.prepare(captions)
    table = text.batch([None, *captions])
    if table.states.nbytes > LARGEST_TABLE_BYTES:
        raise UserError(
            f"The states of {len(captions):,} captions take {table.states.nbytes / 2**30:.0f} GiB, "
            f"more than {LARGEST_TABLE_BYTES >> 30} GiB; use fewer wordings of each caption."
        )
    return table.to(device)


@torch.no_grad()
def with_wrong_tokens(codes: torch.Tensor, seeds: torch.Tensor, most: float) -> torch.Tensor:
    """Replaces a share of the tokens of codes `[B, K, T]` by those of another moment of the same
    window, to imitate the model's own mistakes when it plays. The share is drawn for each window,
    from 0 to `most`. A function of the windows' seeds `[B]`, computed on the codes' device."""
    n_codebooks, n_frames = codes.shape[1:]
    places = torch.arange(n_codebooks * n_frames, device=codes.device).view(n_codebooks, n_frames)
    share = most * _uniform(seeds)[:, None, None]
    keys = seeds[:, None, None] + 1 + places
    is_wrong = _uniform(keys) < share
    moments = (_uniform(keys + (1 << 40)) * n_frames).long().clamp(max=n_frames - 1)
    return torch.where(is_wrong, codes.gather(2, moments), codes)


def _uniform(keys: torch.Tensor) -> torch.Tensor:
    """Numbers in [0, 1) from int64 keys, mixed like SplitMix64 (Steele et al., 2014)."""
    mixed = keys * -0x61C8864680B583EB
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15), (31, 1)):
        # A logical shift: copies of the sign bit are masked off.
        mixed = (mixed ^ (mixed >> shift & ((1 << (64 - shift)) - 1))) * factor
    return (mixed & ((1 << 24) - 1)).float() / (1 << 24)


class CapturedGradients:
    """Adds the gradient of a batch to the parameters' and returns its part of the loss.

    Args:
        model: on the device; its trained parameters require gradients.
        batch_size: B, of each batch.
        autocast: dtype that fp32 weights are multiplied in, else None.
        capture: whether to record a CUDA graph at the first call.
        wrong_tokens: largest share of a window's input tokens that come from another moment.
    """

    def __init__(
        self,
        model: BaseModel,
        data: DeviceData,
        batch_size: int,
        *,
        autocast: torch.dtype | None,
        capture: bool,
        wrong_tokens: float = 0.0,
    ) -> None:
        self._wrong_tokens = wrong_tokens
        self._model, self._data, self._autocast = model, data, autocast
        self._parameters = [p for p in model.hf.parameters() if p.requires_grad]
        device, shape = model.device, model.shape
        zeros = torch.zeros(batch_size, dtype=torch.long, device=device)
        self._draw = DrawnBatch(
            zeros, zeros + data.n_frames, zeros.clone(), zeros + data.n_frames, zeros.clone()
        )
        self._totals = torch.ones(shape.n_codebooks, device=device)
        self._codebooks = torch.zeros(shape.n_codebooks, device=device)
        self._replay: Callable[[], None] | None = None if capture else self._run
        self.zero_gradients()

    def zero_gradients(self) -> None:
        """Zeroes the gradients in place: a graph writes to the addresses it was recorded with."""
        for parameter in self._parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad.zero_()
        self._codebooks.zero_()

    def add(self, draw: DrawnBatch, totals: torch.Tensor) -> None:
        """Adds one batch of a step.

        Args:
            totals: `[K]`, predicted frames of each codebook in all batches of the step.
        """
        if self._replay is None:
            self._replay = self._captured(draw, totals)
            self.zero_gradients()
        self._set(draw, totals)
        self._replay()

    @property
    def codebooks(self) -> torch.Tensor:
        """`[K]`, loss of each codebook over the batches added since the gradients were zeroed."""
        return self._codebooks

    def _set(self, draw: DrawnBatch, totals: torch.Tensor) -> None:
        for own, given in zip(self._draw, draw, strict=True):
            own.copy_(given, non_blocking=True)
        self._totals.copy_(totals, non_blocking=True)

    def _run(self) -> None:
        codes, text = self._data.batch(self._draw)
        device = codes.device.type
        # A graph replays the casts of the weights; cached casts would be stale.
        with torch.autocast(
            device, dtype=self._autocast, enabled=self._autocast is not None, cache_enabled=False
        ):
            heard = codes
            if self._wrong_tokens:
                heard = with_wrong_tokens(codes, self._draw.seeds, self._wrong_tokens)
            hidden = self._model.states(heard, text)
            sums, _ = codebook_cross_entropies(
                hidden, self._model.heads, codes, self._draw.n_frames, self._model.delays
            )
        codebooks = sums.sum(0) / self._totals
        codebooks.mean().backward()
        self._codebooks.add_(codebooks.detach())

    def _captured(self, draw: DrawnBatch, totals: torch.Tensor) -> Callable[[], None]:
        self._set(draw, totals)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_STEPS):
                self._run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._run()
        return graph.replay


@torch.no_grad()
def held_out_loss(
    model: BaseModel,
    data: DeviceData,
    draws: Sequence[DrawnBatch],
    autocast: torch.dtype | None,
) -> list[float]:
    """The loss of each codebook over fixed windows, in nats per token."""
    device = model.device
    total = torch.zeros(2, model.shape.n_codebooks, dtype=torch.float64, device=device)
    for draw in draws:
        draw = draw.to(device)
        codes, text = data.batch(draw)
        with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
            sums, counts = model.losses(codes, draw.n_frames, text)
        total += torch.stack([sums.sum(0), counts.sum(0)])
    return (total[0] / total[1]).tolist()


def step_totals(draws: Sequence[DrawnBatch], delays: Delays) -> torch.Tensor:
    """`[K]`, predicted frames of each codebook in all batches of a step."""
    return sum((delays.n_predicted(d.n_frames).sum(0) for d in draws), torch.zeros(len(delays)))
