"""A process's share of the clips of a step, in batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from musicgen_lora.dataset.batches import Batch, ClipDataset, collate
from musicgen_lora.runtime import processes


def step_batches(dataset: ClipDataset, chosen: Sequence[int], batch_size: int) -> list[Batch]:
    """This process's share of a step's samples in batches, like lengths together: less padding,
    same gradient.

    Args:
        batch_size: of each batch; the last one may be smaller.
    """
    by_length = np.argsort(dataset.n_frames()[chosen], kind="stable").tolist()
    share = [chosen[place] for place in by_length][processes.rank() :: processes.world_size()]
    return [
        collate([dataset[index] for index in share[start : start + batch_size]])
        for start in range(0, len(share), batch_size)
    ]


def evened_out(
    dataset: ClipDataset, batches: Sequence[Batch], chosen: Sequence[int], batch_size: int
) -> list[Batch]:
    """As many batches as the busiest process has, which sharded weights need. Those added have a
    clip that counts as empty, of which nothing is learned."""
    n_batches = math.ceil(math.ceil(len(chosen) / processes.world_size()) / batch_size)
    spare = collate([dataset[chosen[0]]])
    spare = replace(spare, n_frames=torch.zeros_like(spare.n_frames))
    return [*batches, *[spare] * (n_batches - len(batches))]
