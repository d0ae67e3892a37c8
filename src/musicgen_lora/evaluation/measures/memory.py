"""Whether an adapter repeats its training data instead of playing in their style.

Two questions, each with the null that training on the clips made no difference. Prompted with the
beginning of a training clip, does the adapter go on as the clip does, more often than on clips that
it never heard, and more often than the base (Carlini et al., Quantifying Memorization Across Neural
Language Models, 2023; Copet et al., Simple and Controllable Music Generation, 2023, appendix)? And
is a clip that it made nearer to a training clip than held-out clips are?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.01
"""Level of the tests: an adapter is said to memorise on strong evidence only."""
LEAST_EXCESS = 0.02
"""Share of equal codes beyond the null that matters."""
FEWEST = 4


def share_given_back(codes: np.ndarray, made: np.ndarray, n_given: int) -> float:
    """Share of a clip's codes that a continuation gives back, in all codebooks.

    Args:
        codes: `[K, T]` of the clip.
        made: `[K, T]`, which begins with what was given.
        n_given: frames that were given, below T.
    """
    return float((made[:, n_given:] == codes[:, n_given:]).mean())


@dataclass(frozen=True)
class ContinuationShares:
    """Shares of equal codes, and whether the adapter knows its training clips by heart."""

    n_trained: int
    n_held_out: int
    trained: float
    """The adapter's share on training clips; the mean, as are the others."""
    held_out: float
    base_trained: float
    base_held_out: float
    excess: float
    """How much more training helped on training clips than on held-out ones."""
    p_value: float | None
    """One-sided, of the excess; None with fewer than 4 clips on a side."""

    @property
    def flagged(self) -> bool:
        """Whether the adapter repeats what it was trained on."""
        return self.p_value is not None and self.p_value < LEVEL and self.excess > LEAST_EXCESS


def judge_continuations(
    adapter: tuple[Sequence[float], Sequence[float]],
    base: tuple[Sequence[float], Sequence[float]],
    *,
    seed: int = 0,
) -> ContinuationShares:
    """Judges shares from `share_given_back`.

    Args:
        adapter: on training clips, and on held-out clips.
        seed: of the permutations, which are of clips between the two sides.
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
    """Share of codes that two clips have in common by chance, where a continuation would be.

    Args:
        codes: `[N, K, T]` of clips.
        others: `[M, K, T]` of other ones.
        n_given: frames that were given, below T.
        same: these are the same clips, and no clip is compared with itself.

    Returns:
        The mean over pairs; NaN without any.
    """
    equal = np.array(
        [[share_given_back(own, other, n_given) for other in others] for own in codes]
    ).reshape(len(codes), len(others))
    return _mean(equal[~np.eye(len(codes), dtype=bool)] if same else equal)


@dataclass(frozen=True)
class Nearest:
    """The training clip that a made clip is most like."""

    place: int
    """Among the training clips."""
    similarity: float
    odds: float
    """Share of held-out clips that are as like to a training clip or more, the made clip counted
    in: 1 / (n + 1) where none is."""


def nearest_trained(made: np.ndarray, held_out: np.ndarray) -> list[Nearest]:
    """The nearest training clip of each made one, beside how near held-out clips come.

    Args:
        made: similarities `[M, R]` of made clips to training clips.
        held_out: similarities `[H, R]` of held-out clips to them: the null.
    """
    null = held_out.max(axis=1) if held_out.size else np.empty(0)
    found = []
    for row in made:
        place = int(row.argmax())
        odds = (1 + int((null >= row[place]).sum())) / (len(null) + 1)
        found.append(Nearest(place, float(row[place]), odds))
    return found
