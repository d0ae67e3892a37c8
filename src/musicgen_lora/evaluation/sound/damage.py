"""Faults of the clips, counted side by side: base, adapter, and held-out audio, which has some."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from musicgen_lora.evaluation.decisions.statistics import paired_bootstrap
from musicgen_lora.evaluation.sound.ear import Heard

MEASURES = ("clicks", "stuck_share", "bad_samples")


def compare_damage(
    base: Sequence[Heard] | None,
    adapter: Sequence[Heard],
    reference: Sequence[Heard],
    *,
    seed: int,
) -> dict[str, Any]:
    """The report's `damage`.

    Args:
        base: its clips; None without a comparison.
        adapter: its clips, the same prompts.
        reference: held-out clips; may be none.
        seed: of the intervals.

    Returns:
        Of each measure of `Damage`: for `base`, `adapter` and `reference` None or the mean over
        clips, how many clips have any, and n; `paired`, None or what `paired_bootstrap` gives.
    """
    rows = {}
    for name in MEASURES:
        before = None if base is None else _values(base, name)
        after, target = _values(adapter, name), _values(reference, name)
        rows[name] = {
            "base": _summary(before),
            "adapter": _summary(after),
            "reference": _summary(target),
            "paired": None if before is None else paired_bootstrap(before, after, seed=seed),
        }
    return rows


def _values(heard: Sequence[Heard], name: str) -> np.ndarray:
    return np.array([getattr(one.damage, name) for one in heard], np.float64)


def _summary(values: np.ndarray | None) -> dict[str, Any] | None:
    if values is None or not len(values):
        return None
    return {"mean": float(values.mean()), "n_with": int((values > 0).sum()), "n": len(values)}
