"""Power of n pairs, effect size, and adjustment for multiple tests."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import optimize, stats

LEVEL = 0.05
POWER = 0.8


def effect_size(differences: np.ndarray) -> float | None:
    """Cohen's d of paired differences `[n]`: mean divided by standard deviation; None if that is
    zero."""
    spread = float(np.std(differences, ddof=1)) if len(differences) > 1 else 0.0
    if spread <= 1e-12 * max(1.0, float(np.abs(differences).max(initial=0.0))):
        return None
    return float(np.mean(differences)) / spread


def detectable_difference(differences: np.ndarray) -> float | None:
    """Minimum detectable mean of n paired differences: a two-sided sign-flip test at `LEVEL` has a
    power of `POWER` for it, given the standard deviation observed here.

    Args:
        differences: `[n]`, adapter minus base.

    Returns:
        None without spread, or if so few pairs can't reach the level, see `found_shift`.
    """
    n = len(differences)
    spread = float(np.std(differences, ddof=1)) if n > 1 else 0.0
    shift = found_shift(n)
    return None if shift is None or not spread > 0.0 else shift * spread / math.sqrt(n)


def found_shift(n: int, n_tests: int = 1) -> float | None:
    """The mean, in standard errors, that a sign-flip test of n normal pairs detects with a power of
    `POWER`; the same as for the t-test at that level.

    Args:
        n: number of pairs. The possible p-values are multiples of 2^(1 - n).
        n_tests: size of the family; the level is Bonferroni's, a lower bound for Holm's.

    Returns:
        None if no possible p-value is below the level: with 5 pairs, or with 6 as one of three
        tests.
    """
    # With more pairs the steps don't matter.
    step = 2.0 ** (1 - min(n, 60))
    n_steps = math.floor(LEVEL / max(1, n_tests) / step)
    if n_steps == 0:
        return None
    if n_steps == 1:
        # The smallest p-value occurs only if all pairs have the same sign.
        return math.sqrt(n) * float(stats.norm.ppf(POWER ** (1.0 / n)))
    critical = float(stats.t.ppf(1.0 - n_steps * step / 2.0, n - 1))

    def missing(shift: float) -> float:
        # The other tail has next to no probability.
        return float(stats.nct.sf(critical, n - 1, shift)) - POWER

    # In standard errors; at four above the critical value, power is nearly 1.
    shift: Any = optimize.brentq(missing, 0.0, critical + 4.0)
    return float(shift)


def holm(p_values: Mapping[Any, float]) -> dict[Any, float]:
    """Adjust the p-values of a family of tests to control the family-wise error rate (Holm, A
    Simple Sequentially Rejective Multiple Test Procedure, 1979)."""
    adjusted: dict[Any, float] = {}
    largest = 0.0
    ordered = sorted(p_values.items(), key=lambda item: item[1])
    for place, (name, p_value) in enumerate(ordered):
        largest = max(largest, min(1.0, (len(ordered) - place) * p_value))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}
