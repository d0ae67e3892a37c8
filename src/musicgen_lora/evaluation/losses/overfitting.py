"""Did the adapter learn its training clips more than their style? Compares the loss on training
clips with the held-out loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import stats

from musicgen_lora.config import EvaluateSettings
from musicgen_lora.console import OnStep
from musicgen_lora.evaluation.decisions.statistics import FEWEST_PAIRS
from musicgen_lora.evaluation.held_out import HeldOut
from musicgen_lora.evaluation.losses.held_out_loss import compare_losses, windows_to_measure
from musicgen_lora.evaluation.performers import BASE, Sides
from musicgen_lora.evaluation.trained_clips import TrainedClips

MAX_CLIPS = 16
SURE = 0.01
"""Significance level for reporting an excess."""
MOSTLY = 0.5
"""Limit for the share of the gain on training clips that does not carry over to held-out ones;
above it, the adapter learned its clips more than their style."""


def measure_overfitting(
    settings: EvaluateSettings,
    sides: Sides,
    trained: TrainedClips,
    held_out: HeldOut,
    held_out_loss: Mapping[str, Any],
    on_step: OnStep,
) -> dict[str, Any]:
    """The report's `overfitting`: `trained`, the loss on training clips from `compare_losses`, and
    `excess`, see `excess_of`."""
    if trained.codes is None:
        return {"computed": False, "why": trained.why_none}
    if not held_out_loss["computed"]:
        return {"computed": False, "why": held_out_loss["why"]}
    stride = -(-len(trained.clips) // MAX_CLIPS)
    model = sides[BASE].model
    clips = trained.clips[::stride]
    # One window per clip: a source counts once, however many windows it has.
    few = replace(held_out, max_windows=min(held_out.max_windows, len(clips)))
    windows = windows_to_measure(model, clips, trained.codes[::stride], few)
    if not windows:
        return {"computed": False, "why": "every training clip is too short"}
    loss = compare_losses(
        sides,
        windows,
        batch_size=settings.batch_size,
        seed=settings.seed,
        on_step=on_step,
    )
    return {
        "computed": True,
        "why": "",
        "trained": loss,
        "excess": excess_of(loss, held_out_loss),
    }


def excess_of(trained: Mapping[str, Any], held_out: Mapping[str, Any]) -> dict[str, Any]:
    """How much more the adapter lowered the loss on training sources than on held-out ones: the
    difference of the mean changes (adapter minus base) in nats per token, with Welch's t-test;
    below 0, training sources improved more. `share` is the part of the gain on training clips that
    does not carry over to held-out ones; None if there was no gain."""
    ours, theirs = (source_differences(loss) for loss in (trained, held_out))
    result: dict[str, Any] = {
        "difference": float(ours.mean() - theirs.mean()),
        "share": None,
        **dict.fromkeys(("ci_low", "ci_high", "p_value")),
        "n_trained": len(ours),
        "n_held_out": len(theirs),
        "note": "",
        "flagged": False,
    }
    if ours.mean() < 0.0:
        result["share"] = result["difference"] / float(ours.mean())
    if min(len(ours), len(theirs)) < FEWEST_PAIRS:
        return result | {"note": "too few sources for an interval"}
    if not ours.var() + theirs.var() > 0.0:
        return result | {"note": "the sources have no variance"}
    tested: Any = stats.ttest_ind(ours, theirs, equal_var=False)
    low, high = tested.confidence_interval()
    p_value, share = float(tested.pvalue), result["share"]
    return result | {
        "ci_low": float(low),
        "ci_high": float(high),
        "p_value": p_value,
        "flagged": share is not None and share > MOSTLY and p_value < SURE,
    }


def source_differences(loss: Mapping[str, Any]) -> np.ndarray:
    """Adapter minus base of each source, averaged over the codebooks: `[n]`."""
    return np.array(
        [np.mean(s["adapter"]) - np.mean(s["base"]) for s in loss["sources"]], np.float64
    )
