"""What n pairs can show at all, how large an effect is, and what several tests are worth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import optimize, stats

LEVEL = 0.05
POWER = 0.8


def effect_size(differences: np.ndarray) -> float | None:
    """Cohen's d of paired differences `[n]`: their mean in units of their spread; None where they
    have no spread."""
    spread = float(np.std(differences, ddof=1)) if len(differences) > 1 else 0.0
    if spread <= 1e-12 * max(1.0, float(np.abs(differences).max(initial=0.0))):
        return None
    return float(np.mean(differences)) / spread


def detectable_difference(differences: np.ndarray) -> float | None:
    """The smallest mean of n paired differences that a two-sided sign-flip test at `LEVEL` would
    find in `POWER` of such evaluations, their spread being what it is here.

    Args:
        differences: `[n]`, adapter minus base.

    Returns:
        None without spread, or where so few pairs can't reach the level, see `found_shift`.
    """
    n = len(differences)
    spread = float(np.std(differences, ddof=1)) if n > 1 else 0.0
    shift = found_shift(n)
    return None if shift is None or not spread > 0.0 else shift * spread / math.sqrt(n)


def found_shift(n: int, n_tests: int = 1) -> float | None:
    """The mean in standard errors that a sign-flip test of n normal pairs finds in `POWER` of the
    cases: what the t-test of the same level does.

    Args:
        n: pairs. The p-values that sign flips of them can have are multiples of 2^(1 - n).
        n_tests: of the family; the level is Bonferroni's, below which Holm's never is.

    Returns:
        None where no p-value that it can have is below the level: 5 pairs, or 6 of one of three
        tests.
    """
    # Of more pairs than that the steps don't matter.
    step = 2.0 ** (1 - min(n, 60))
    n_steps = math.floor(LEVEL / max(1, n_tests) / step)
    if n_steps == 0:
        return None
    if n_steps == 1:
        # The least of them comes about where all pairs have one sign, and nowhere else.
        return math.sqrt(n) * float(stats.norm.ppf(POWER ** (1.0 / n)))
    critical = float(stats.t.ppf(1.0 - n_steps * step / 2.0, n - 1))

    def missing(shift: float) -> float:
        # That the other tail is reached instead is next to impossible.
        return float(stats.nct.sf(critical, n - 1, shift)) - POWER

    # In standard errors; four more than the critical value are found nearly always.
    shift: Any = optimize.brentq(missing, 0.0, critical + 4.0)
    return float(shift)


def holm(p_values: Mapping[Any, float]) -> dict[Any, float]:
    """p-values of a family of tests, adjusted so that the odds of any false finding stay at the
    level (Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979)."""
    adjusted: dict[Any, float] = {}
    largest = 0.0
    ordered = sorted(p_values.items(), key=lambda item: item[1])
    for place, (name, p_value) in enumerate(ordered):
        largest = max(largest, min(1.0, (len(ordered) - place) * p_value))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}
