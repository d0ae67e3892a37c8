"""What an adapter changes where it wasn't asked to: its clips of other styles beside the base's.

The same seed leads two models apart after a few frames, so that a difference alone says nothing:
it is read between what another seed makes of the same prompt with the base, and what another prompt
makes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from musicgen_lora.evaluation.decisions.statistics import paired_bootstrap
from musicgen_lora.evaluation.measures.embeddings import log_mel_distance
from musicgen_lora.evaluation.report.document import Described
from musicgen_lora.evaluation.sound.comparison import SHOWN
from musicgen_lora.evaluation.sound.ear import Heard

MOST = 3
"""Descriptors of a clip that are named."""


def measure_off_style(
    base: Sequence[Heard],
    again: Sequence[Heard],
    adapter: Sequence[Heard],
    own_style: Sequence[Heard],
    *,
    seed: int,
) -> dict[str, Any]:
    """The report's `off_style` but for its clips, and `prompts`, what was measured of each.
    Distances are in decibels, see `log_mel_distance`. `changed` names the descriptors that changed
    most, if by more than another seed changes them in any of these prompts.

    Args:
        base: its clips, a prompt of another style each; at least one.
        again: the same by other seeds.
        adapter: its clips, by the seeds of `base`.
        own_style: the adapter's clips of prompts of its own style; at least one.
    """
    rows = {
        "another_seed": [_distance(*pair) for pair in zip(base, again, strict=True)],
        "adapter": [_distance(*pair) for pair in zip(base, adapter, strict=True)],
        "base_to_style": [_to_all(one, own_style) for one in base],
        "adapter_to_style": [_to_all(one, own_style) for one in adapter],
    }
    apart = [_to_all(one, [*base[:row], *base[row + 1 :]]) for row, one in enumerate(base)]
    changed = find_changed(*([one.descriptors for one in side] for side in (base, again, adapter)))
    return {
        "n": len(base),
        "change": _paired(rows["another_seed"], rows["adapter"], seed),
        "another_prompt": float(np.mean(apart)) if len(base) > 1 else None,
        "towards_style": _paired(rows["base_to_style"], rows["adapter_to_style"], seed),
        "prompts": [
            {**{name: values[row] for name, values in rows.items()}, "changed": names}
            for row, names in enumerate(changed)
        ],
    }


def find_changed(
    base: Sequence[Described], again: Sequence[Described], adapter: Sequence[Described]
) -> list[list[str]]:
    """For each clip the descriptors in which the adapter differs from the base by more than what is
    barely heard, and by more than another seed does in any of the clips: the furthest first."""
    found: list[dict[str, float]] = [{} for _ in base]
    for shown in SHOWN:
        if shown.least is None:
            continue
        by_seed = _differences(base, again, shown.name)
        usual = max([shown.least, *by_seed[np.isfinite(by_seed)].tolist()])
        for own, difference in zip(found, _differences(base, adapter, shown.name), strict=True):
            if difference > usual:
                own[shown.name] = difference / usual
    return [sorted(own, key=lambda name: -own[name])[:MOST] for own in found]


def _differences(one: Sequence[Described], other: Sequence[Described], name: str) -> np.ndarray:
    """`[clips]`; NaN where one of the two has no such thing."""
    values = [np.array([facts[name] for facts in side], np.float64) for side in (one, other)]
    return np.abs(values[1] - values[0])


def _distance(one: Heard, other: Heard) -> float:
    return log_mel_distance(one.vectors, other.vectors)


def _to_all(one: Heard, others: Sequence[Heard]) -> float:
    return float(np.mean([_distance(one, other) for other in others])) if others else np.nan


def _paired(base: Sequence[float], adapter: Sequence[float], seed: int) -> Mapping[str, Any]:
    return paired_bootstrap(np.array(base), np.array(adapter), seed=seed)
