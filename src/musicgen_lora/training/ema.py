"""A running average of the trained weights, which often predicts better than the last ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


def start_average(parameters: Sequence[nn.Parameter]) -> list[torch.Tensor]:
    """The average before the first step: the weights themselves, in fp32."""
    return [parameter.detach().float().clone() for parameter in parameters]


@torch.no_grad()
def update_average(
    average: Sequence[torch.Tensor], parameters: Sequence[nn.Parameter], decay: float, step: int
) -> None:
    """Moves the average towards the weights, in place.

    Args:
        average: from `start_average`.
        parameters: after the step.
        decay: a step's weights count this much less after each further step.
        step: steps done. The average is of those alone: the weights before the first are no part of
            it, as in Adam's bias correction, so that they don't weigh on a short run.
    """
    kept = (decay - decay**step) / (1.0 - decay**step)
    for mean, parameter in zip(average, parameters, strict=True):
        mean.lerp_(parameter.float(), 1.0 - kept)


@contextmanager
@torch.no_grad()
def averaged(
    average: Sequence[torch.Tensor] | None, parameters: Sequence[nn.Parameter]
) -> Iterator[None]:
    """The model with the average for its weights; with None, as it is."""
    if average is None:
        yield
        return
    own = [parameter.detach().clone() for parameter in parameters]
    try:
        for parameter, mean in zip(parameters, average, strict=True):
            parameter.copy_(mean)
        yield
    finally:
        for parameter, value in zip(parameters, own, strict=True):
            parameter.copy_(value)
