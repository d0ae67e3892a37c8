"""Faults of the clips, counted for base, adapter, and held-out audio, which has some too.

Other music, noise and recordings have no such faults, except intended ones: what is counted there
are false positives. There is no position between two anchors: no kind of sound is all faults.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from musicgen_lora.evaluation.compared import Compared
from musicgen_lora.evaluation.decisions.statistics import paired_bootstrap
from musicgen_lora.evaluation.sound.ear import Heard
from musicgen_lora.evaluation.sound.references import ANCHORS, TOO_FEW_FOR_HALVES, References

MEASURES = ("clicks", "stuck_share", "bad_samples")


def compare_damage(
    clips: Compared[Sequence[Heard]],
    references: References,
    *,
    seed: int,
) -> dict[str, Any]:
    """The report's `damage`: for each measure of `Damage` the mean over clips, and how many clips
    have any.

    Args:
        references: held-out clips, which may be empty, and anchors.
    """
    rows, reference, splits = {}, references.heard, references.splits(seed)
    for name in MEASURES:
        values, target = clips.each(partial(_values, name=name)), _values(reference, name)
        rows[name] = {
            "base": _summary(values.base),
            "adapter": _summary(values.adapter),
            "reference": _summary(target),
            "anchors": {
                "halves": _halves(target, splits),
                **{anchor: _anchor(references, anchor, name) for anchor in ANCHORS},
            },
            "paired": None
            if values.base is None
            else paired_bootstrap(values.base, values.adapter, seed=seed),
        }
    return rows


def _values(heard: Sequence[Heard], name: str) -> np.ndarray:
    return np.array([getattr(one.damage, name) for one in heard], np.float64)


def _halves(values: np.ndarray, splits: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    """The mean difference between two halves of the held-out clips."""
    if not splits:
        return {"difference": None, "n": len(values), "why": TOO_FEW_FOR_HALVES}
    found = [abs(values[ours].mean() - values[theirs].mean()) for ours, theirs in splits]
    return {"difference": float(np.mean(found)), "n": len(values), "why": ""}


def _anchor(references: References, anchor: str, name: str) -> dict[str, Any]:
    heard = [*references.some.get(anchor, {}).values()]
    nothing = {"mean": None, "n_with": 0, "n": 0}
    if not heard:
        return nothing | {"why": references.why_no(anchor)}
    values = _values(heard, name)
    if np.isnan(values).any():
        return nothing | {"why": "it is measured on codes, and these sounds have none"}
    return {**(_summary(values) or nothing), "why": ""}


def _summary(values: np.ndarray | None) -> dict[str, Any] | None:
    if values is None or not len(values):
        return None
    return {"mean": float(values.mean()), "n_with": int((values > 0).sum()), "n": len(values)}
