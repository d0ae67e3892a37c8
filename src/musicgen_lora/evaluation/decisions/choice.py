"""Which of several variants is best, by a rule fixed before anything is measured, and how far that
can be trusted: the best of several on the same clips looks better than it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

from musicgen_lora.evaluation.decisions.statistics import paired_bootstrap
from musicgen_lora.evaluation.measures.power import LEVEL, holm

RULE = (
    "no primary clearly worse than the base, then the lowest mean rank over the primaries "
    "that all variants have, then the lowest held-out loss"
)


def choose_best(variants: Sequence[Mapping[str, Any]], *, seed: int) -> dict[str, Any]:
    """The report's `choice`. `others` gives the difference between each variant's held-out loss and
    the best's (above 0 is worse). `loss_elsewhere` is a leave-one-source-out estimate: the variant
    with the lowest loss on all other sources is scored on the source that was left out.

    Args:
        variants: two or more, with verdicts: `name`, `primaries`, `loss`.
    """
    values = _values(variants)
    by = [name for name, own in values.items() if np.isfinite(own).all()]
    ranks = (
        np.mean([rankdata(values[name]) for name in by], axis=0) if by else np.ones(len(variants))
    )
    worse = [sum(p["verdict"] == "worse" for p in own["primaries"]) for own in variants]
    losses = values.get("held_out_loss", np.full(len(variants), np.nan))
    order = sorted(
        range(len(variants)),
        key=lambda row: (worse[row] > 0, ranks[row], np.nan_to_num(losses[row], nan=np.inf), row),
    )
    best = order[0]
    found: dict[str, Any] = {
        "computed": bool(by),
        "why": "" if by else "no primary outcome was computed for all variants",
        "best": variants[best]["name"],
        "rule": RULE,
        "by": by,
        "ranks": {own["name"]: float(ranks[row]) for row, own in enumerate(variants)},
        "is_better": any(p["verdict"] == "better" for p in variants[best]["primaries"]),
        "others": [],
        "n_sources": 0,
        "loss": None,
        "loss_elsewhere": None,
    }
    table = _by_source(variants)
    if table is None:
        return found
    found["n_sources"] = table.shape[1]
    found["others"] = _others(variants, table, best, seed)
    found["loss"] = float(table[best].mean())
    if table.shape[1] > 1:
        rest = (table.sum(axis=1, keepdims=True) - table) / (table.shape[1] - 1)  # [V, S]
        found["loss_elsewhere"] = float(
            np.mean([table[rest[:, s].argmin(), s] for s in range(table.shape[1])])
        )
    return found


def _values(variants: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """The variants' values of each primary outcome; NaN if missing."""
    names = [primary["name"] for primary in variants[0]["primaries"]]
    rows = [{p["name"]: p["adapter"] for p in own["primaries"]} for own in variants]
    return {
        name: np.array([np.nan if row[name] is None else row[name] for row in rows], np.float64)
        for name in names
    }


def _by_source(variants: Sequence[Mapping[str, Any]]) -> np.ndarray | None:
    """Held-out losses `[V, S]`, averaged over the codebooks; None if they were not computed."""
    if not all(own["loss"]["computed"] for own in variants):
        return None
    return np.array(
        [[np.mean(source["adapter"]) for source in own["loss"]["sources"]] for own in variants]
    )


def _others(
    variants: Sequence[Mapping[str, Any]], table: np.ndarray, best: int, seed: int
) -> list[dict[str, Any]]:
    others = [row for row in range(len(variants)) if row != best]
    paired = {row: paired_bootstrap(table[best], table[row], seed=seed) for row in others}
    adjusted = holm({row: p for row, own in paired.items() if (p := own["p_value"]) is not None})
    return [
        {
            "name": variants[row]["name"],
            **{key: paired[row][key] for key in ("difference", "ci_low", "ci_high")},
            "p_holm": adjusted.get(row),
            "apart": row in adjusted and adjusted[row] < LEVEL,
        }
        for row in others
    ]
