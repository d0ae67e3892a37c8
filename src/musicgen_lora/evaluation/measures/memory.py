"""Whether an adapter repeats its training data instead of playing in their style.

Two questions, each with the null hypothesis that training on the clips made no difference. Given
the beginning of a training clip, does the adapter continue it as the clip does, more often than
unseen clips, and more often than the base (Carlini et al., Quantifying Memorization Across Neural
Language Models, 2023; Copet et al., Simple and Controllable Music Generation, 2023, appendix)? And
is a generated clip nearer to a training clip than held-out clips are?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.01
"""Significance level: an adapter is only said to memorise on strong evidence."""
LEAST_EXCESS = 0.02
"""Smallest relevant excess in the share of equal codes."""
FEWEST = 4


def share_given_back(codes: np.ndarray, made: np.ndarray, n_given: int) -> float:
    """Share of a clip's codes, over all codebooks, that a continuation reproduces.

    Args:
        codes: `[K, T]` of the clip.
        made: `[K, T]`, the continuation, which begins with the given frames.
        n_given: number of given frames, below T.
    """
    return float((made[:, n_given:] == codes[:, n_given:]).mean())


@dataclass(frozen=True)
class ContinuationShares:
    """Shares of equal codes, and whether the adapter memorised its training clips."""

    n_trained: int
    n_held_out: int
    trained: float
    """The adapter's mean share on training clips; the others are means too."""
    held_out: float
    base_trained: float
    base_held_out: float
    excess: float
    """How much more the share rose on training clips than on held-out ones."""
    p_value: float | None
    """One-sided p-value of the excess; None with fewer than 4 clips on a side."""

    @property
    def flagged(self) -> bool:
        """Whether the adapter repeats its training clips."""
        return self.p_value is not None and self.p_value < LEVEL and self.excess > LEAST_EXCESS


def judge_continuations(
    adapter: tuple[Sequence[float], Sequence[float]],
    base: tuple[Sequence[float], Sequence[float]],
    *,
    seed: int = 0,
) -> ContinuationShares:
    """Judge shares from `share_given_back`.

    Args:
        adapter: shares on training clips, and on held-out clips.
        base: the same for the base.
        seed: seed of the permutations of clips between the two groups.
    """
    trained, held_out = (np.asarray(side, np.float64) for side in adapter)
    base_trained, base_held_out = (np.asarray(side, np.float64) for side in base)
    gained, gained_elsewhere = trained - base_trained, held_out - base_held_out
    p_value = None
    if min(len(gained), len(gained_elsewhere)) >= FEWEST:
        p_value = float(
            stats.permutation_test(
                (gained, gained_elsewhere),
                lambda ours, theirs, axis: ours.mean(axis=axis) - theirs.mean(axis=axis),
                vectorized=True,
                alternative="greater",
                n_resamples=9_999,
                rng=np.random.default_rng(seed),
            ).pvalue
        )
    return ContinuationShares(
        n_trained=len(trained),
        n_held_out=len(held_out),
        trained=_mean(trained),
        held_out=_mean(held_out),
        base_trained=_mean(base_trained),
        base_held_out=_mean(base_held_out),
        excess=_mean(gained) - _mean(gained_elsewhere),
        p_value=p_value,
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def share_in_common(codes: np.ndarray, others: np.ndarray, n_given: int, *, same: bool) -> float:
    """Share of codes that two clips have in common by chance, in the part that is continued.

    Args:
        codes: `[N, K, T]` of clips.
        others: `[M, K, T]` of other clips.
        n_given: number of given frames, below T.
        same: `others` are the same clips, and no clip is compared with itself.

    Returns:
        The mean over pairs; NaN without pairs.
    """
    equal = np.array(
        [[share_given_back(own, other, n_given) for other in others] for own in codes]
    ).reshape(len(codes), len(others))
    return _mean(equal[~np.eye(len(codes), dtype=bool)] if same else equal)


@dataclass(frozen=True)
class Nearest:
    """The training clip most similar to a generated clip."""

    place: int
    """Index among the training clips."""
    similarity: float
    odds: float
    """Share of held-out clips that are at least as similar to a training clip, the generated clip
    included: 1 / (n + 1) if there are none."""


def nearest_trained(made: np.ndarray, held_out: np.ndarray) -> list[Nearest]:
    """Find the nearest training clip of each generated one, and compare it with held-out clips.

    Args:
        made: similarities `[M, R]` of generated clips to training clips.
        held_out: similarities `[H, R]` of held-out clips to them: the null distribution.
    """
    null = held_out.max(axis=1) if held_out.size else np.empty(0)
    found = []
    for row in made:
        place = int(row.argmax())
        odds = (1 + int((null >= row[place]).sum())) / (len(null) + 1)
        found.append(Nearest(place, float(row[place]), odds))
    return found
