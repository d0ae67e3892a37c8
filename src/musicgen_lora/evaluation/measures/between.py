"""Where a value lies between two reference points (anchors)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def share_between(value: float | None, low: float | None, high: float | None) -> float | None:
    """The position of a value: 0 at the low anchor, 1 at the high one; None if one is missing, or
    if the anchors are not in this order."""
    if value is None or low is None or high is None or not high > low:
        return None
    return (value - low) / (high - low)


def anchor_of(found: Sequence[float], n: int, why: str) -> dict[str, Any]:
    """An anchor: `value`, the mean of `found`, `n` clips, and `why` if there is none."""
    if not len(found):
        return {"value": None, "n": n, "why": why}
    return {"value": float(np.mean(found)), "n": n, "why": ""}
