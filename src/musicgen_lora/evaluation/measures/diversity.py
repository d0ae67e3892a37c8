"""Whether clips are as varied as the reference, and whether they stay where it is.

Precision and recall of a manifold of nearest neighbours (Kynkaanniemi et al., Improved Precision
and Recall Metric for Assessing Generative Models, 2019): a clip is plausible where it lies within
the reach of a reference clip, and a reference clip is covered where it lies within that of a clip.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist, pdist

NEIGHBOURS = 3
"""Nearest neighbours that a clip's reach is told by, as in the paper."""
COLLAPSED_BELOW = 0.25
"""Spread of the clips, in spreads of the reference, below which they sound all alike."""


@dataclass(frozen=True)
class Diversity:
    """Diversity of a set of clips against a reference."""

    n: int
    precision: float
    """Share of the clips within reach of the reference."""
    recall: float
    """Share of the reference within reach of the clips."""
    spread: float
    """Median distance among the clips over that among the reference; 1: as varied."""

    @property
    def collapsed(self) -> bool:
        """Whether the clips sound all alike."""
        return self.spread < COLLAPSED_BELOW


def measure_diversity(reference: np.ndarray, rows: np.ndarray) -> Diversity:
    """Diversity of embeddings `[N, D]` against a reference `[R, D]`.

    Raises:
        ValueError: a set has no more rows than `NEIGHBOURS`, or the reference's are all
            equal.
    """
    if min(len(reference), len(rows)) <= NEIGHBOURS:
        raise ValueError(f"needs more than {NEIGHBOURS} clips in each set")
    among_reference = float(np.median(pdist(reference)))
    if not among_reference > 0.0:
        raise ValueError("the reference's clips sound all the same to this embedding")
    return Diversity(
        n=len(rows),
        precision=_covered(rows, reference),
        recall=_covered(reference, rows),
        spread=float(np.median(pdist(rows))) / among_reference,
    )


def _covered(points: np.ndarray, manifold: np.ndarray) -> float:
    """Share of the points `[N, D]` within the reach of any row of the manifold `[M, D]`: the
    distance to its k-th neighbour there."""
    # The nearest is the row itself.
    reach = np.sort(cdist(manifold, manifold), axis=1)[:, NEIGHBOURS]  # [M]
    return float((cdist(points, manifold) <= reach).any(axis=1).mean())
