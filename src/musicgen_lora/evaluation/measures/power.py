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
    """The smallest mean of n paired differences that a two-sided t-test at `LEVEL` would find in
    `POWER` of such evaluations, their spread being what it is here.

    Args:
        differences: `[n]`, adapter minus base.

    Returns:
        None with fewer than 3 pairs or no spread.
    """
    n = len(differences)
    spread = float(np.std(differences, ddof=1)) if n >= 3 else 0.0
    if not spread > 0.0:
        return None
    critical = float(stats.t.ppf(1.0 - LEVEL / 2.0, n - 1))

    def missing(shift: float) -> float:
        found = stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift)
        return float(found) - POWER

    # In standard errors; three more than the critical value are found nearly always.
    shift: Any = optimize.brentq(missing, 0.0, critical + 4.0)
    return float(shift) * spread / math.sqrt(n)


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
