"""A running average of the trained weights, which often predicts better than the last ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


class EMA:
    """Exponential moving average of parameters, in fp32.

    Args:
        parameters: before the first step.
        decay: factor by which a step's weights count less after each further step.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self._parameters, self._decay = parameters, decay
        self.means = [parameter.detach().float().clone() for parameter in parameters]
        """One tensor per parameter, to be saved and restored in place."""

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Moves the average towards the parameters.

        Args:
            step: steps done. As in Adam's bias correction, the average leaves out the weights
                before the first step, which would otherwise dominate a short run.
        """
        kept = (self._decay - self._decay**step) / (1.0 - self._decay**step)
        for mean, parameter in zip(self.means, self._parameters, strict=True):
            mean.lerp_(parameter.float(), 1.0 - kept)

    @contextmanager
    @torch.no_grad()
    def applied(self) -> Iterator[None]:
        """A context in which the parameters hold the average."""
        own = [parameter.detach().clone() for parameter in self._parameters]
        try:
            self.apply()
            yield
        finally:
            for parameter, value in zip(self._parameters, own, strict=True):
                parameter.copy_(value)

    @torch.no_grad()
    def apply(self) -> None:
        """Replaces the parameters by their average."""
        for parameter, mean in zip(self._parameters, self.means, strict=True):
            parameter.copy_(mean)
