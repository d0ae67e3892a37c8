"""From logits to the next tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from musicgen_lora.runtime.seeds import seed_of

TAKEN_WHOLE = 2**32
"""Seeds below it are taken as they are: torch's CPU generator drops the bits above."""


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
    *,
    top_k: int,
    temperature: float,
    generators: Sequence[torch.Generator],
) -> torch.Tensor:
    """Draws tokens.

    Args:
        logits: `[B, K, V]`, on the CPU.
        top_k: only the k likeliest are drawn from; 0 takes all, 1 is greedy.
        temperature: divides the logits; 0 is greedy.
        generators: one for each of the B clips, so that a clip's draws do not depend on its
            neighbours in the batch.

    Returns:
        `[B, K]` int64.
    """
    if top_k == 1 or temperature == 0.0:
        return logits.argmax(dim=-1)
    logits = logits.float() / temperature
    if 0 < top_k < logits.shape[-1]:
        values, indices = logits.topk(top_k, dim=-1)
    else:
        values, indices = logits, None
    probabilities = values.softmax(dim=-1)
    drawn = torch.stack(
        [
            torch.multinomial(row, 1, generator=generator)
            for row, generator in zip(probabilities, generators, strict=True)
        ]
    )
    return (drawn if indices is None else indices.gather(-1, drawn)).squeeze(-1)
