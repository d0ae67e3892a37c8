"""From logits to the next tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from musicgen_lora.runtime.seeds import seed_of

TAKEN_WHOLE = 2**32
"""Seeds below it are taken as they are: torch's CPU generator drops the bits above."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Args:
        guidance_scale: how strongly the conditions are followed; 1 switches guidance off and halves
            the work.
        top_k: only the k likeliest are drawn from; 0 takes all, 1 is greedy.
        top_p: of those, only the likeliest that have this share of the probability together; 0
            takes all.
        temperature: divides the logits; 0 is greedy.
    """

    guidance_scale: float = 3.0
    top_k: int = 250
    top_p: float = 0.0
    temperature: float = 1.0

    @property
    def is_guided(self) -> bool:
        """Whether each clip is read twice, with its conditions and without."""
        return self.guidance_scale != 1.0

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is taken each time."""
        return self.top_k == 1 or self.temperature == 0.0


GREEDY = Sampling(top_k=1)
"""With guidance, as transformers' `generate` has it where it doesn't sample."""


def clip_generator(seed: int) -> torch.Generator:
    """The draws of a clip, a function of all of its seed, which may be any whole number."""
    return torch.Generator().manual_seed(seed if 0 <= seed < TAKEN_WHOLE else seed_of("clip", seed))


def guide(logits: torch.Tensor, guidance_scale: float) -> torch.Tensor:
    """Classifier-free guidance (Ho and Salimans, 2022): `[2B, ...]`, conditional half first, to
    `[B, ...]`."""
    conditional, unconditional = logits.chunk(2)
    return unconditional + guidance_scale * (conditional - unconditional)


def sample(
    logits: torch.Tensor,
    sampling: Sampling,
    *,
    generators: Sequence[torch.Generator],
) -> torch.Tensor:
    """Draws tokens.

    Args:
        logits: `[B, K, V]`, on the CPU, guided where they are.
        sampling: how.
        generators: one for each of the B clips, so that a clip's draws do not depend on its
            neighbours in the batch.

    Returns:
        `[B, K]` int64.
    """
    if sampling.is_greedy:
        return logits.argmax(dim=-1)
    logits = logits.float() / sampling.temperature
    # A top_k of 0 takes all; so does one of more than there are.
    n_kept = min(sampling.top_k or logits.shape[-1], logits.shape[-1])
    values, indices = logits.topk(n_kept, dim=-1)
    probabilities = values.softmax(dim=-1)
    if 0.0 < sampling.top_p < 1.0:
        # The one that reaches the share is among them, so the likeliest always is.
        before = probabilities.cumsum(dim=-1) - probabilities
        probabilities = probabilities.masked_fill(before >= sampling.top_p, 0.0)
    drawn = torch.stack(
        [
            torch.multinomial(row, 1, generator=generator)
            for row, generator in zip(probabilities, generators, strict=True)
        ]
    )
    return indices.gather(-1, drawn).squeeze(-1)
