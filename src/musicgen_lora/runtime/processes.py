"""Several processes that train one set of weights: the same draws, sums and decisions in each.

Under `torchrun` or `accelerate launch` each process takes its share of a step's clips, and their
gradients add up to that of the step. Only the process of rank 0 writes. With one process, all of
this does nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from torch import distributed, nn

from musicgen_lora.errors import RunError

CHUNK = 16_000_000
"""Gradient values that are reduced together."""
LONGEST_WAIT = timedelta(days=7)
"""The others wait while the first one tokenises a dataset, for which the usual timeouts of 10 to 30
minutes are too short. A process that has ended is still noticed at once."""

LOST_PEER = "Another process of this run has ended or can't be reached; its message says why."


@cache
def _state() -> PartialState:
    # By default accelerate looks for other processes only if there is an accelerator: on a CPU,
    # each of several would train alone.
    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    return PartialState(cpu=cpu, timeout=LONGEST_WAIT)


def device() -> torch.device:
    """This process's accelerator, or the CPU where there is none."""
    found = _state().device
    assert found is not None
    return found


def rank() -> int:
    """This process's number, from 0."""
    return _state().process_index


def world_size() -> int:
    """How many processes there are."""
    return _state().num_processes


def first_to_fail() -> bool:
    """Whether no other process has asked this before, so that what stops all is reported once."""
    if world_size() == 1:
        return True
    try:
        return distributed.distributed_c10d._get_default_store().add("failed", 1) == 1
    except RuntimeError:
        # The store is gone with the process that held it; better to report twice than never.
        return True


@contextmanager
def as_lost_peer() -> Iterator[None]:
    """Turns the libraries' many errors for a lost peer into one."""
    try:
        yield
    except RuntimeError as error:
        raise RunError(LOST_PEER) from error


def lost_peer(error: RuntimeError) -> bool:
    """Whether torch itself has found another process gone."""
    return isinstance(error, distributed.DistError) or "gloo" in str(error)


def all_reduce_sum(values: torch.Tensor) -> torch.Tensor:
    """The sum over all processes of a tensor that has the same shape in each."""
    if world_size() == 1:
        return values
    total = values.to(device())
    with as_lost_peer():
        distributed.all_reduce(total)
    return total.to(values.device)


def all_reduce_max(value: int) -> int:
    """The largest of all processes' values."""
    if world_size() == 1:
        return value
    found = torch.tensor(value, device=device())
    with as_lost_peer():
        distributed.all_reduce(found, op=distributed.ReduceOp.MAX)
    return int(found)


def barrier() -> None:
    """Waits until all processes have reached this."""
    all_reduce_max(0)


def all_reduce_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replaces each gradient by its sum over all processes; a missing one counts as zero."""
    if world_size() == 1:
        return
    chunk: list[nn.Parameter] = []
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        chunk.append(parameter)
        if sum(p.numel() for p in chunk) >= CHUNK or parameter is parameters[-1]:
            gradients = [p.grad for p in chunk if p.grad is not None]
            total = all_reduce_sum(torch.cat([gradient.flatten() for gradient in gradients]))
            parts = total.split([gradient.numel() for gradient in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))
            chunk = []
