"""Whether clips are as varied as the reference, and whether they are close to it.

Precision and recall with a nearest-neighbour manifold (Kynkaanniemi et al., Improved Precision and
Recall Metric for Assessing Generative Models, 2019): a clip is plausible if it is within the radius
of a reference clip, and a reference clip is covered if it is within the radius of a clip.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist, pdist

NEIGHBOURS = 3
"""A clip's radius is the distance to its k-th nearest neighbour; k as in the paper."""
COLLAPSED_BELOW = 0.25
"""Spread of the clips, relative to the reference, below which they all sound alike."""


@dataclass(frozen=True)
class Diversity:
    """Diversity of a set of clips against a reference."""

    n: int
    precision: float
    """Share of the clips within the radius of a reference clip."""
    recall: float
    """Share of the reference clips within the radius of a clip."""
    spread: float
    """Median distance between clips over that between reference clips; 1: as varied."""

    @property
    def collapsed(self) -> bool:
        """Whether the clips all sound alike."""
        return self.spread < COLLAPSED_BELOW


def measure_diversity(reference: np.ndarray, rows: np.ndarray) -> Diversity:
    """Diversity of embeddings `[N, D]` against a reference `[R, D]`.

    Raises:
        ValueError: a set has no more than `NEIGHBOURS` rows, or the reference's are all equal.
    """
    if min(len(reference), len(rows)) <= NEIGHBOURS:
        raise ValueError(f"needs more than {NEIGHBOURS} clips in each set")
    among_reference = float(np.median(pdist(reference)))
    if not among_reference > 0.0:
        raise ValueError("the held-out clips all sound the same to this embedding")
    return Diversity(
        n=len(rows),
        precision=_covered(rows, reference),
        recall=_covered(reference, rows),
        spread=float(np.median(pdist(rows))) / among_reference,
    )


def _covered(points: np.ndarray, manifold: np.ndarray) -> float:
    """Share of the points `[N, D]` within the radius of any row of the manifold `[M, D]`, which is
    the row's distance to its k-th nearest neighbour."""
    # Index 0 is the row itself.
    reach = np.sort(cdist(manifold, manifold), axis=1)[:, NEIGHBOURS]  # [M]
    return float((cdist(points, manifold) <= reach).any(axis=1).mean())
