"""Where the adapter did worse than its base: a better mean hides the prompts that got worse, and
those are the ones to listen to first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from musicgen_lora.evaluation.decisions.protocol import descriptor_offsets

MOST = 3
"""Number of prompts, of sources, and of descriptors per prompt that are listed."""


def find_regressions(report: Mapping[str, Any]) -> dict[str, Any]:
    """The report's `regressions`, from its `generation`, `descriptor_distance` and `loss`: only
    what got worse, worst first."""
    distance, loss = report["descriptor_distance"], report["loss"]
    compared = distance["computed"] and distance["base"] is not None
    if not compared and not loss["computed"]:
        why = loss["why"] if not distance["computed"] else "needs --compare"
        return {"computed": False, "why": why}
    sources = loss["sources"] if loss["computed"] else []
    return {
        "computed": True,
        "why": "",
        "n_prompts": len(distance["adapter"]) if compared else 0,
        "prompts": _worse_prompts(report) if compared else [],
        "n_sources": len(sources),
        "sources": _worse_sources(sources),
    }


def _worse_prompts(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    clips, distance = report["generation"]["clips"], report["descriptor_distance"]
    reference = report["reference"]["descriptors"]
    before, after = (
        descriptor_offsets([clip[side]["descriptors"] for clip in clips], reference)
        for side in ("base", "adapter")
    )
    differences = np.array(distance["adapter"]) - np.array(distance["base"])
    found = []
    for place in differences.argsort()[::-1][:MOST].tolist():
        if not differences[place] > 0.0:
            break
        away = {name: after[name][place] - before[name][place] for name in after}
        worst = sorted((name for name in away if away[name] > 0.0), key=lambda name: -away[name])
        found.append(
            {
                "place": place,
                "prompt": clips[place]["prompt"],
                "base": distance["base"][place],
                "adapter": distance["adapter"][place],
                "difference": float(differences[place]),
                "descriptors": worst[:MOST],
            }
        )
    return found


def _worse_sources(sources: Any) -> list[dict[str, Any]]:
    found = []
    for own in sources:
        base, adapter = float(np.mean(own["base"])), float(np.mean(own["adapter"]))
        sides = {"base": base, "adapter": adapter, "difference": adapter - base}
        found.append({"source": own["source"], **sides})
    found.sort(key=lambda own: -own["difference"])
    return [own for own in found[:MOST] if own["difference"] > 0.0]
