"""Unwanted changes: the adapter's clips in other styles compared with the base's.

With the same seed, two models diverge after a few frames, so a difference alone says nothing: it is
compared with the difference that another seed makes for the same prompt with the base, and with
that of another prompt.
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
"""Most descriptors listed per clip."""


def measure_off_style(
    base: Sequence[Heard],
    again: Sequence[Heard],
    adapter: Sequence[Heard],
    own_style: Sequence[Heard],
    *,
    seed: int,
) -> dict[str, Any]:
    """The report's `off_style` without its clips, and `prompts`, the measurements of each.
    Distances are in decibels, see `log_mel_distance`. `changed` lists the descriptors that changed
    most, if by more than another seed changes them for any of these prompts.

    Args:
        base: the base's clips, one per prompt in another style; at least one.
        again: the same with other seeds.
        adapter: the adapter's clips, with the seeds of `base`.
        own_style: the adapter's clips of prompts in its own style; at least one.
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
    """For each clip, the descriptors in which the adapter differs from the base by more than is
    just audible, and by more than another seed does in any of the clips: largest first."""
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
    """Absolute differences `[clips]`; NaN where either side lacks the descriptor."""
    values = [np.array([facts[name] for facts in side], np.float64) for side in (one, other)]
    return np.abs(values[1] - values[0])


def _distance(one: Heard, other: Heard) -> float:
    return log_mel_distance(one.vectors, other.vectors)


def _to_all(one: Heard, others: Sequence[Heard]) -> float:
    return float(np.mean([_distance(one, other) for other in others])) if others else np.nan


def _paired(base: Sequence[float], adapter: Sequence[float], seed: int) -> Mapping[str, Any]:
    return paired_bootstrap(np.array(base), np.array(adapter), seed=seed)
