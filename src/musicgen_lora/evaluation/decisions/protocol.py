"""The primary outcomes of an evaluation, fixed before it ran, and their verdicts.

There are three, whatever else is measured: the held-out loss (has it learned the style?), KAD (do
its clips as a set sound like held-out ones?) and the descriptor distance (do they have an 808's
bass and hi-hats?). They are one family of tests: Holm's adjustment keeps the family-wise error rate
at 5 %. All other figures are descriptive and are not reported as test results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from musicgen_lora.evaluation.compared import Compared
from musicgen_lora.evaluation.decisions.statistics import FEWEST_FOR_SURE, paired_bootstrap
from musicgen_lora.evaluation.losses.overfitting import source_differences
from musicgen_lora.evaluation.measures.power import (
    LEVEL,
    detectable_difference,
    effect_size,
    found_shift,
    holm,
)
from musicgen_lora.evaluation.sound.comparison import SHOWN, Descriptors

FAR_ENOUGH = 10.0
"""Cap on a descriptor's distance, in standard deviations of the reference: a descriptor with hardly
any spread in the reference must not outweigh all others."""
FEWEST_SOURCES = 3
FEWEST_TO_TEST = 6
"""Pairs: with 5, the sign-flip test has no p-value below 0.0625, however large the change."""
TOO_FEW = {
    "source": f"too few sources: a test needs {FEWEST_TO_TEST}",
    "prompt": f"too few prompts: a test needs {FEWEST_TO_TEST}",
}


def descriptor_distances(
    clips: Compared[Descriptors],
    reference: Descriptors | None,
    *,
    anchors: Mapping[str, Descriptors] | None = None,
    why_none: str,
    seed: int,
) -> dict[str, Any]:
    """The report's `descriptor_distance`: how far a clip's descriptors are from those of the
    held-out audio, as the mean over descriptors of the distance to the held-out mean in held-out
    standard deviations. `reference` has each source's distance to the other sources, which is the
    distance that a clip of the style has.

    Args:
        clips: descriptors of base and adapter, prompt by prompt.
        reference: descriptors of held-out audio, one entry per source; None if there is none.
        anchors: descriptors of other clips, such as other music, by name.
        why_none: the reason if there is no held-out audio.
    """
    if reference is None:
        return {"computed": False, "why": why_none}
    if len(reference) < FEWEST_SOURCES:
        return {"computed": False, "why": f"needs {FEWEST_SOURCES} held-out sources"}
    distances = clips.each(lambda facts: _distances(facts, reference))
    before, after = distances.base, distances.adapter
    left_out = [
        _distances([own], [*reference[:row], *reference[row + 1 :]])[0]
        for row, own in enumerate(reference)
    ]
    return {
        "computed": True,
        "why": "",
        "n_reference": len(reference),
        "base": None if before is None else before.tolist(),
        "adapter": after.tolist(),
        "reference": left_out,
        "anchors": {
            name: float(np.mean(_distances(anchor, reference)))
            for name, anchor in (anchors or {}).items()
        },
        "paired": None if before is None else paired_bootstrap(before, after, seed=seed),
    }


def _distances(clips: Descriptors, reference: Descriptors) -> np.ndarray:
    """Distances `[clips]`, averaged over the descriptors."""
    found = [*descriptor_offsets(clips, reference).values()]
    return np.mean(found, axis=0) if found else np.full(len(clips), np.nan)


def descriptor_offsets(
    clips: Sequence[Mapping[str, float | None]], reference: Sequence[Mapping[str, float | None]]
) -> dict[str, np.ndarray]:
    """For each descriptor with a `least`, distances `[clips]` to the reference's mean in its
    standard deviations; a descriptor that a clip lacks has the distance `FAR_ENOUGH`."""
    found = {}
    for shown in SHOWN:
        if shown.least is None:
            continue
        target = np.array([facts[shown.name] for facts in reference], np.float64)
        target = target[np.isfinite(target)]
        if len(target) < 2:
            continue
        values = np.array([clip[shown.name] for clip in clips], np.float64)
        spread = max(float(target.std(ddof=1)), shown.least)
        away = np.abs(values - target.mean()) / spread
        found[shown.name] = np.minimum(np.nan_to_num(away, nan=FAR_ENOUGH), FAR_ENOUGH)
    return found


def judge_primaries(report: Mapping[str, Any], *, compared: bool) -> list[dict[str, Any]]:
    """The report's `primaries`, each a `document.Primary`: the verdicts of the three primary
    outcomes, from `loss`, `distances` and `descriptor_distance`.

    Args:
        compared: whether the base has clips too.
    """
    found = [
        _loss(report["loss"], report.get("forgetting", {"computed": False})),
        _kernel(report["distances"], compared),
        _descriptors(report["descriptor_distance"], compared),
    ]
    for primary in found:
        primary["indicative"] = primary["n"] < FEWEST_FOR_SURE
    judge_family(found)
    return found


def judge_family(primaries: Sequence[dict[str, Any]]) -> None:
    """Adjust the p-values of primary outcomes as one family (Holm), and in line with it their
    detectable change and verdict, in place."""
    tested = {row: p["p_value"] for row, p in enumerate(primaries) if p["p_value"] is not None}
    adjusted = holm(tested)
    for row, primary in enumerate(primaries):
        primary["p_holm"] = adjusted.get(row)
        primary["detectable"] = _detectable(primary, len(adjusted))
        primary["n_tests"] = len(adjusted)
        primary["verdict"] = _verdict(primary)


def _detectable(primary: Mapping[str, Any], n_tests: int) -> float | None:
    """Rescale the detectable change from the previous family size to `n_tests`."""
    before = found_shift(primary["n"], primary["n_tests"])
    after = found_shift(primary["n"], n_tests) if primary["p_value"] is not None else None
    if primary["detectable"] is None or before is None or after is None:
        return None
    return primary["detectable"] * after / before


def _verdict(primary: Mapping[str, Any]) -> str:
    """The verdict that follows from the adjusted p-value."""
    if primary["p_holm"] is None:
        return "not computed"
    if primary["p_holm"] >= LEVEL:
        return "no clear change"
    return "better" if primary["difference"] < 0.0 else "worse"


def _primary(name: str, label: str, unit: str) -> dict[str, Any]:
    values = ("base", "adapter", "difference", "ci_low", "ci_high", "p_value")
    return {
        "name": name,
        "label": label,
        "unit": unit,
        "n": 0,
        "near": None,
        "far": None,
        **dict.fromkeys((*values, "effect", "detectable")),
        "n_tests": 1,
        "why": "",
    }


def _paired(primary: dict[str, Any], paired: Mapping[str, Any], pairs: np.ndarray) -> None:
    few = paired["n"] < FEWEST_TO_TEST
    primary |= {
        "n": paired["n"],
        "base": paired["mean_base"],
        "adapter": paired["mean_adapter"],
        **{key: paired[key] for key in ("difference", "ci_low", "ci_high")},
        "p_value": None if few else paired["p_value"],
        "effect": effect_size(pairs),
        "detectable": detectable_difference(pairs),
        "why": TOO_FEW[primary["unit"]] if few else "",
    }


def _end(name: str, value: float | None) -> dict[str, Any] | None:
    """Make an anchor; None without a value."""
    return None if value is None else {"name": name, "value": value}


def _loss(loss: Mapping[str, Any], forgetting: Mapping[str, Any]) -> dict[str, Any]:
    primary = _primary("held_out_loss", "Held-out loss", "source")
    if not loss["computed"]:
        return primary | {"why": loss["why"]}
    _paired(primary, loss["mean"], source_differences(loss))
    if forgetting["computed"]:
        # Music that the base was made for.
        primary["near"] = _end("other_styles", forgetting["mean"]["mean_base"])
    return primary


def _why_not(found: Mapping[str, Any], compared: bool) -> str | None:
    """Why a comparison with the base has no figures; None if it has some."""
    if not compared:
        return "needs --compare"
    return None if found["computed"] else found["why"]


def _kernel(distances: Mapping[str, Any], compared: bool) -> dict[str, Any]:
    primary = _primary("kernel_distance", "Distance to held-out clips (KAD)", "prompt")
    if (why := _why_not(distances, compared)) is not None:
        return primary | {"why": why}
    row = next(row for row in distances["embeddings"] if row["name"] == distances["primary"])
    if not row["computed"]:
        return primary | {"why": row["why"]}
    kernel, anchors = row["kernel"], row["anchors"]
    far = "noise" if anchors["other_music"]["value"] is None else "other_music"
    same = ("n", "base", "adapter", "difference", "ci_low", "ci_high", "p_value")
    return primary | {
        **{key: kernel[key] for key in (*same, "effect", "detectable")},
        "near": _end("halves", anchors["halves"]["value"]),
        "far": _end(far, anchors[far]["value"]),
        "why": kernel["note"],
    }


def _descriptors(distance: Mapping[str, Any], compared: bool) -> dict[str, Any]:
    primary = _primary("descriptor_distance", "Descriptor distance", "prompt")
    if (why := _why_not(distance, compared)) is not None:
        return primary | {"why": why}
    pairs = np.array(distance["adapter"]) - np.array(distance["base"])
    _paired(primary, distance["paired"], pairs)
    anchors = distance["anchors"]
    far = "other_music" if "other_music" in anchors else "noise"
    primary["near"] = _end("sources", float(np.mean(distance["reference"])))
    primary["far"] = _end(far, anchors.get(far))
    return primary
