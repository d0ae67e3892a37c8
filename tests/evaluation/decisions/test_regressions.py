"""What got worse is listed, whatever happened to the mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from musicgen_lora.evaluation.compared import Compared
from musicgen_lora.evaluation.decisions.protocol import descriptor_distances
from musicgen_lora.evaluation.decisions.regressions import find_regressions
from musicgen_lora.evaluation.losses.held_out_loss import summarise_losses
from musicgen_lora.evaluation.sound.comparison import SHOWN

NONE: dict[str, Any] = {"computed": False, "why": "no clips"}


def evaluation(shifts: dict[int, dict[str, float]], n: int = 6) -> dict[str, Any]:
    """Prompts whose clips equal the reference's mean with the base, and are off by some standard
    deviations with the adapter."""
    rng = np.random.default_rng(0)
    reference = [{shown.name: float(rng.normal(0.0, 9.0)) for shown in SHOWN} for _ in range(12)]
    at = {name: float(np.mean([own[name] for own in reference])) for name in reference[0]}
    after = [dict(at) for _ in range(n)]
    for place, shift in shifts.items():
        for name, by in shift.items():
            after[place][name] += by * float(np.std([own[name] for own in reference], ddof=1))
    clips = [
        {"prompt": f"beat {k}", "base": {"descriptors": at}, "adapter": {"descriptors": own}}
        for k, own in enumerate(after)
    ]
    distance = descriptor_distances(Compared([at] * n, after), reference, why_none="", seed=0)
    return {
        "generation": {"clips": clips},
        "reference": {"descriptors": reference},
        "descriptor_distance": distance,
        "loss": NONE,
    }


def test_prompts_that_went_away_are_named_with_what_did() -> None:
    shifts = {4: {"roll_density": 5.0, "crest_db": 1.0}, 1: {"loudness_lufs": 2.0}}
    found = find_regressions(evaluation(shifts))
    assert [own["prompt"] for own in found["prompts"]] == ["beat 4", "beat 1"]
    worst = found["prompts"][0]
    assert worst["place"] == 4
    assert worst["descriptors"] == ["roll_density", "crest_db"]
    n_placed = sum(shown.least is not None for shown in SHOWN)
    assert worst["difference"] == pytest.approx(6.0 / n_placed)
    assert found["n_prompts"] == 6


def test_sources_whose_loss_rose_are_named() -> None:
    report = evaluation({})
    base, after = np.full((5, 2), 400.0), np.full((5, 2), 350.0)
    after[3], after[1] = 460.0, 410.0
    report["loss"] = summarise_losses(base, after, np.full((5, 2), 100.0), [*"abcde"], seed=0)
    found = find_regressions(report)
    assert found["prompts"] == []
    assert [own["source"] for own in found["sources"]] == ["d", "b"]
    assert found["sources"][0]["difference"] == pytest.approx(0.6)


def test_what_was_not_compared_says_why() -> None:
    report = evaluation({})
    report["descriptor_distance"]["base"] = None
    assert find_regressions(report) == {"computed": False, "why": "needs --compare"}
    report["descriptor_distance"] = NONE
    assert find_regressions(report) == NONE
