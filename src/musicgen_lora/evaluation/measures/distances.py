"""Distance between a set of clips and a reference set in an embedding space.

A row is a clip: windows of one clip are not independent, so a clip's embedding is their mean. KAD
is the distance to go by; FAD is here because papers report it, with an estimate of its bias.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist, pdist

SCALE = 100.0
"""The scale of KAD in its paper."""
FEWEST_ROWS = 2
"""An unbiased estimate needs pairs of different clips."""
FEWEST_PROMPTS = 8
"""Fewest prompts for an interval and a test."""
N_RESAMPLES = 4_999
"""Resamples for the test and the interval of paired distances."""
BIAS_DRAWS = 20
"""Random splits of the reference over which its bias is averaged."""


def reference_bandwidth(reference: np.ndarray) -> float:
    """Median pairwise distance of the reference's rows `[R, D]`: the bandwidth of the kernel.

    It comes from the reference, not from the evaluated set, so that all sets use the same scale.

    Raises:
        ValueError: half of the rows or more are equal, so the bandwidth is zero.
    """
    width = float(np.median(pdist(np.asarray(reference, np.float64))))
    if not width > 0.0:
        raise ValueError("the held-out clips all sound the same to this embedding")
    return width


def kernel(left: np.ndarray, right: np.ndarray, bandwidth: float) -> np.ndarray:
    """Gaussian kernel matrix `[N, M]` of rows `[N, D]` and `[M, D]`."""
    return np.exp(-cdist(left, right, "sqeuclidean") / (2.0 * bandwidth**2))


def kernel_distance(reference: np.ndarray, rows: np.ndarray, bandwidth: float) -> float:
    """KAD: 100 times the unbiased squared maximum mean discrepancy under a Gaussian kernel (Chung
    et al., KAD: No More FAD!, 2025; Gretton et al., A Kernel Two-Sample Test, 2012, eq. 3).

    Args:
        reference: `[R, D]`.
        rows: `[N, D]`.
        bandwidth: from `reference_bandwidth`.

    Returns:
        About 0 for two sets of the same kind, below it as often as above.

    Raises:
        ValueError: fewer than two rows in a set.
    """
    _check_sizes(reference, rows)
    within_reference = mean_of_pairs(kernel(reference, reference, bandwidth))
    within_rows = mean_of_pairs(kernel(rows, rows, bandwidth))
    between = float(kernel(reference, rows, bandwidth).mean())
    return SCALE * (within_reference + within_rows - 2.0 * between)


def mean_of_pairs(gram: np.ndarray) -> float:
    """Mean of a kernel matrix `[N, N]` off its diagonal."""
    n = len(gram)
    return float((gram.sum() - np.trace(gram)) / (n * (n - 1)))


def frechet_distance(reference: np.ndarray, rows: np.ndarray) -> float:
    """FAD: the Frechet distance between Gaussians with the sets' means and covariances (Kilgour et
    al., 2019).

    The trace of the square root of the covariances' product is the nuclear norm of the product of
    the centred sets, so no matrix root is needed, and fewer rows than dimensions are no problem.

    Args:
        reference: `[R, D]`.
        rows: `[N, D]`.
    """
    _check_sizes(reference, rows)
    reference, rows = np.asarray(reference, np.float64), np.asarray(rows, np.float64)
    shift = reference.mean(axis=0) - rows.mean(axis=0)
    left, right = (
        (side - side.mean(axis=0)) / np.sqrt(len(side) - 1) for side in (reference, rows)
    )  # [R, D], [N, D]
    root = float(np.linalg.norm(left @ right.T, "nuc"))
    spread = float(np.square(left).sum() + np.square(right).sum())
    return float(shift @ shift) + spread - 2.0 * root


def frechet_bias(reference: np.ndarray, n_rows: int, *, seed: int = 0) -> float | None:
    """FAD between two sets of the same kind at this size: the part of a FAD that is bias.

    Args:
        reference: `[R, D]`.
        n_rows: size of the evaluated set.
        seed: seed for drawing disjoint parts of the reference.

    Returns:
        The mean over draws; None if the reference is too small to split. Parts are at most half of
        the reference, and smaller sets have more bias.
    """
    n_part = min(n_rows, len(reference) // 2)
    if n_part < FEWEST_ROWS:
        return None
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(BIAS_DRAWS):
        order = rng.permutation(len(reference))
        rest = order[n_part:]
        found.append(frechet_distance(reference[rest], reference[order[:n_part]]))
    return float(np.mean(found))


def _check_sizes(reference: np.ndarray, rows: np.ndarray) -> None:
    if min(len(reference), len(rows)) < FEWEST_ROWS:
        raise ValueError("a distance between sets needs two clips in each")
    if not (np.isfinite(reference).all() and np.isfinite(rows).all()):
        raise ValueError("an embedding has non-finite values")


@dataclass(frozen=True)
class PairedDistance:
    """Distances of base and adapter to a reference, and the uncertainty of their difference."""

    n: int
    """Prompts."""
    n_reference: int
    base: float
    adapter: float
    difference: float
    """Adapter minus base: below 0 the adapter is nearer."""
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    note: str
    """Why there is no interval; empty if there is one."""


def paired_kernel_distance(
    reference: np.ndarray,
    base: np.ndarray,
    adapter: np.ndarray,
    *,
    seed: int = 0,
) -> PairedDistance:
    """KAD of base and adapter, whose rows are the same prompts.

    The p-value is from a permutation test: under the null hypothesis the labels of each prompt's
    two clips are exchangeable. The interval is from subsampling prompts without replacement
    (Politis, Romano and Wolf, Subsampling, 1999), half of them at a time: drawing with replacement
    would put copies of a clip into the pairs and bias the distance.

    Args:
        reference: `[R, D]`.
        base: `[N, D]`.
        adapter: `[N, D]`.

    Raises:
        ValueError: fewer than two rows in a set, unequal numbers of prompts, or a reference without
            a bandwidth.
    """
    if base.shape != adapter.shape:
        raise ValueError(f"unequal numbers of prompts: {base.shape}, {adapter.shape}")
    bandwidth = reference_bandwidth(reference)
    before, after = (kernel_distance(reference, rows, bandwidth) for rows in (base, adapter))
    n = len(base)
    low = high = p_value = None
    if n >= FEWEST_PROMPTS:
        rng = np.random.default_rng(seed)
        compare = _Differences(reference, base, adapter, bandwidth)
        p_value = _label_p(compare, after - before, rng)
        low, high = _subsampled_interval(compare, after - before, rng)
    return PairedDistance(
        n=n,
        n_reference=len(reference),
        base=before,
        adapter=after,
        difference=after - before,
        ci_low=low,
        ci_high=high,
        p_value=p_value,
        note="" if n >= FEWEST_PROMPTS else f"too few prompts: a test needs {FEWEST_PROMPTS}",
    )


def prompt_differences(
    reference: np.ndarray, base: np.ndarray, adapter: np.ndarray, bandwidth: float
) -> np.ndarray:
    """Each prompt's contribution to KAD(adapter) - KAD(base), `[N]`; their mean is the difference.

    A clip contributes its mean similarity to the other clips of its side, minus twice that to the
    reference.
    """

    def added(rows: np.ndarray) -> np.ndarray:
        gram = kernel(rows, rows, bandwidth)
        others = (gram.sum(axis=1) - np.diag(gram)) / (len(rows) - 1)
        return SCALE * (others - 2.0 * kernel(rows, reference, bandwidth).mean(axis=1))

    return added(adapter) - added(base)


class _Differences:
    """KAD(adapter) - KAD(base) for many labellings of the clips at once; the term within the
    reference cancels.

    A labelling is a 0/1 row `[2N]` over the base's clips, then the adapter's, for each side.
    """

    def __init__(
        self, reference: np.ndarray, base: np.ndarray, adapter: np.ndarray, bandwidth: float
    ) -> None:
        clips = np.concatenate([base, adapter])  # [2N, D]
        self.n = len(base)
        self.gram = kernel(clips, clips, bandwidth)  # [2N, 2N]
        self.to_reference = kernel(clips, reference, bandwidth).mean(axis=1)  # [2N]

    def __call__(self, as_base: np.ndarray, as_adapter: np.ndarray) -> np.ndarray:
        """Differences `[P]` of labellings `[P, 2N]`."""
        return SCALE * (self._side(as_adapter) - self._side(as_base))

    def _side(self, chosen: np.ndarray) -> np.ndarray:
        n = chosen.sum(axis=1)  # [P]
        # The kernel of a clip with itself is 1.
        pairs = (np.einsum("pi,pi->p", chosen @ self.gram, chosen) - n) / (n * (n - 1))
        return pairs - 2.0 * (chosen @ self.to_reference) / n


def _label_p(compare: _Differences, found: float, rng: np.random.Generator) -> float:
    swapped = rng.integers(2, size=(N_RESAMPLES, compare.n)).astype(np.float64)
    as_base = np.concatenate([1.0 - swapped, swapped], axis=1)
    differences = compare(as_base, 1.0 - as_base)
    # The actual labelling is one of the possible ones.
    return float((1 + (np.abs(differences) >= abs(found) - 1e-12).sum()) / (N_RESAMPLES + 1))


def _subsampled_interval(
    compare: _Differences, found: float, rng: np.random.Generator
) -> tuple[float, float]:
    n, n_part = compare.n, compare.n // 2
    picked = rng.random((N_RESAMPLES, n)).argsort(axis=1)[:, :n_part]
    chosen = np.zeros((N_RESAMPLES, n))
    np.put_along_axis(chosen, picked, 1.0, axis=1)
    nothing = np.zeros_like(chosen)
    differences = compare(
        np.concatenate([chosen, nothing], axis=1), np.concatenate([nothing, chosen], axis=1)
    )
    # Finite population correction: parts of a finite set have (n - part) / n of the variance.
    errors = (differences - found) * np.sqrt(n_part / (n - n_part))
    low, high = np.quantile(errors, [0.025, 0.975])
    return float(found - high), float(found - low)
