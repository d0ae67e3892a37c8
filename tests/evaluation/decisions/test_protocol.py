"""Verdicts: none without an effect, one with an effect, and never a number that doesn't exist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from musicgen_lora.evaluation.compared import Compared
from musicgen_lora.evaluation.decisions.protocol import (
    descriptor_distances,
    judge_family,
    judge_primaries,
)
from musicgen_lora.evaluation.losses.held_out_loss import summarise_losses
from musicgen_lora.evaluation.losses.overfitting import excess_of
from musicgen_lora.evaluation.measures.damage import Damage
from musicgen_lora.evaluation.measures.embeddings import LOG_MEL
from musicgen_lora.evaluation.report.learned import overfitting_sentences
from musicgen_lora.evaluation.report.verdicts import (
    power_sentence,
    primary_rows,
    primary_sentence,
)
from musicgen_lora.evaluation.sound.comparison import SHOWN
from musicgen_lora.evaluation.sound.ear import Heard
from musicgen_lora.evaluation.sound.references import References
from musicgen_lora.evaluation.sound.set_distances import compare_sets


def facts(rng: np.random.Generator, n: int, shift: float = 0.0) -> list[dict[str, float]]:
    return [{shown.name: float(rng.normal(shift, 1.0)) for shown in SHOWN} for _ in range(n)]


def heard(rng: np.random.Generator, n: int, shift: float = 0.0) -> list[Heard]:
    return [
        Heard(
            descriptors=described,
            vectors={"log_mel": rng.normal(shift, 1.0, 8)},
            damage=Damage(0, 0, 0.0),
            fingerprint=np.zeros(0, np.uint64),
            bpm=140.0,
            key=None,
        )
        for described in facts(rng, n, shift)
    ]


def facts_of(clips: Sequence[Heard]) -> list[Mapping[str, float]]:
    return [one.descriptors for one in clips]


def losses(rng: np.random.Generator, n: int, change: float) -> Any:
    base = rng.normal(4.0, 0.3, (n, 2))
    adapter = base + rng.normal(change, 0.1, (n, 1))
    counts = np.full((n, 2), 100.0)
    sources = [f"{row:02d}" for row in range(n)]
    return summarise_losses(base * counts, adapter * counts, counts, sources, seed=0)


class Reference(References):
    """Held-out clips without files; each is its own source."""

    @property
    def sources(self) -> list[str]:
        return [str(row) for row in range(len(self.heard))]


def evaluation(seed: int, *, n: int = 12, change: float = 0.0, shift: float = 0.0) -> Any:
    """An evaluation whose adapter changes the loss, and whose base is `shift` away."""
    rng = np.random.default_rng(seed)
    base, adapter, reference = heard(rng, n, shift), heard(rng, n), heard(rng, 16)
    clips = Compared(base, adapter)
    return {
        "loss": losses(rng, n, change),
        "distances": compare_sets(
            (LOG_MEL,), clips, Reference(heard=reference), why_none="", seed=seed
        ),
        "descriptor_distance": descriptor_distances(
            clips.each(facts_of), facts_of(reference), why_none="", seed=seed
        ),
    }


def test_an_effect_is_found_by_all_three() -> None:
    primaries = judge_primaries(evaluation(0, change=-0.5, shift=2.0), compared=True)
    assert [p["verdict"] for p in primaries] == ["better"] * 3
    assert all(p["p_holm"] >= p["p_value"] for p in primaries)
    assert all(p["indicative"] for p in primaries)
    assert all(abs(p["difference"]) > p["detectable"] for p in primaries)
    sentence = primary_sentence(primaries[0])
    assert sentence.startswith("Held-out loss: clearly better, 4.")
    assert "n = 12 sources; indicative only: fewer than 20" in sentence
    assert "n = 12 sources a change of " in power_sentence(primaries[0])


def test_values_stand_between_a_near_and_a_far_one() -> None:
    rng = np.random.default_rng(0)
    base, adapter, near, far = heard(rng, 8, 2.0), heard(rng, 8), heard(rng, 16), heard(rng, 8, 4.0)
    clips = Compared(base, adapter)
    anchors = {"other_music": facts_of(far), "noise": facts_of(base)}
    reference = Reference(heard=near, others=[one.vectors for one in far])
    report = {
        "loss": losses(rng, 8, -0.5),
        "forgetting": losses(rng, 8, 0.0),
        "distances": compare_sets((LOG_MEL,), clips, reference, why_none="", seed=0),
        "descriptor_distance": descriptor_distances(
            clips.each(facts_of), facts_of(near), anchors=anchors, why_none="", seed=0
        ),
    }
    loss, kernel, descriptors = judge_primaries(report, compared=True)
    assert (loss["near"]["name"], loss["far"]) == ("other_styles", None)
    assert [kernel[end]["name"] for end in ("near", "far")] == ["halves", "other_music"]
    assert [descriptors[end]["name"] for end in ("near", "far")] == ["sources", "other_music"]
    for own in (kernel, descriptors):
        values = [own["near"]["value"], own["adapter"], own["base"], own["far"]["value"]]
        assert values[0] < values[2] < values[3]
        assert values[1] < values[2]
    row = report["distances"]["embeddings"][0]
    assert row["frechet"]["adapter"] < row["frechet"]["base"] < row["frechet"]["other_music"]
    assert row["frechet"]["noise"] is None
    assert row["diversity"]["noise"] == {"computed": False, "why": "there is none"}
    texts = primary_rows([loss, kernel, descriptors])
    assert [text["near"]["name"] for text in texts] == [
        "other styles, base",
        "halves of the held-out clips",
        "held-out sources",
    ]


def test_a_bad_adapter_is_worse() -> None:
    primaries = judge_primaries(evaluation(0, change=0.5), compared=True)
    assert primaries[0]["verdict"] == "worse"


def test_no_effect_is_rarely_called_one() -> None:
    """3 of 60 are expected; if the level holds, 8 or more have a probability of 1.2 %."""
    called = sum(
        any(
            p["verdict"] in ("better", "worse")
            for p in judge_primaries(evaluation(seed, n=8), compared=True)
        )
        for seed in range(60)
    )
    assert called <= 7


def test_what_is_not_tested_says_why() -> None:
    report = evaluation(0, n=6)
    loss, kernel, _ = judge_primaries(report, compared=True)
    assert loss["verdict"] == "no clear change"
    assert kernel["verdict"] == "not computed"
    assert "too few prompts: a test needs 8 (n = 6 prompts)" in primary_sentence(kernel)
    report["loss"] = {"computed": False, "why": "no clips"}
    primaries = judge_primaries(report, compared=False)
    assert [p["why"] for p in primaries] == ["no clips", "needs --compare", "needs --compare"]
    assert [p["p_holm"] for p in primaries] == [None] * 3


def test_too_few_sources_are_not_tested_rather_than_called_no_change() -> None:
    report = {**evaluation(0, n=12), "loss": losses(np.random.default_rng(0), 4, -0.5)}
    loss, kernel, _ = judge_primaries(report, compared=True)
    assert (loss["verdict"], loss["p_value"], loss["detectable"]) == ("not computed", None, None)
    assert loss["ci_high"] < 0.0
    assert kernel["n_tests"] == 2
    assert primary_sentence(loss) == (
        "Held-out loss: not tested: too few sources: a test needs 6 (n = 4 sources)."
    )


def test_what_can_be_found_is_that_of_the_family() -> None:
    report = evaluation(0, n=12)
    alone = {**report, "distances": {"computed": False, "why": "none"}}
    first = judge_primaries(report, compared=True)
    second = judge_primaries(alone, compared=True)
    assert [p["n_tests"] for p in (first[0], second[0])] == [3, 2]
    assert first[0]["detectable"] > second[0]["detectable"]
    both = [*judge_primaries(report, compared=True), *judge_primaries(report, compared=True)]
    judge_family(both)
    assert both[0]["n_tests"] == 6
    assert both[0]["detectable"] > first[0]["detectable"]
    few = judge_primaries(
        {**report, "loss": losses(np.random.default_rng(0), 6, -0.5)}, compared=True
    )
    assert few[0]["detectable"] is None
    assert power_sentence(few[0]) == (
        "Held-out loss: with n = 6 sources no change, however large, could be significant as one "
        "of 3 tests."
    )


def test_distances_stand_between_their_anchors() -> None:
    rng = np.random.default_rng(0)
    reference = Reference(
        heard=heard(rng, 40),
        recorded=[one.vectors for one in heard(rng, 40)],
        others=[one.vectors for one in heard(rng, 20, 2.0)],
        noises=[one.vectors for one in heard(rng, 8, 6.0)],
    )
    near, far = heard(rng, 20), heard(rng, 20, 2.0)
    (row,) = compare_sets((LOG_MEL,), Compared(far, near), reference, why_none="", seed=0)[
        "embeddings"
    ]
    anchors = {name: anchor["value"] for name, anchor in row["anchors"].items()}
    assert abs(anchors["halves"]) < 0.1 * anchors["other_music"]
    assert abs(anchors["recorded"]) < 0.1 * anchors["other_music"]
    assert anchors["other_music"] < anchors["noise"]
    assert row["position"]["adapter"]["share"] == pytest.approx(0.0, abs=0.1)
    assert row["position"]["base"]["share"] == pytest.approx(1.0, abs=0.2)
    assert row["kernel"]["p_value"] < 0.001
    assert row["frechet"]["bias"] < row["frechet"]["base"]
    assert not row["diversity"]["adapter"]["collapsed"]


def test_anchors_that_are_missing_say_why() -> None:
    rng = np.random.default_rng(0)
    reference = Reference(
        heard=heard(rng, 8), why_not_recorded="no files", why_no_others="no other music"
    )
    (row,) = compare_sets(
        (LOG_MEL,), Compared(None, heard(rng, 6)), reference, why_none="", seed=0
    )["embeddings"]
    assert row["anchors"]["recorded"] == {"value": None, "n": 8, "why": "no files"}
    assert row["anchors"]["other_music"]["why"] == "no other music"
    assert row["kernel"]["note"] == "needs --compare"
    assert row["position"] == {"base": None, "adapter": None}
    nothing = compare_sets(
        (LOG_MEL,), Compared(None, heard(rng, 6)), References(), why_none="why", seed=0
    )
    assert (nothing["computed"], nothing["why"]) == (False, "why")
    one = Reference(heard=heard(rng, 1))
    assert (
        "need 2 clips in each"
        in compare_sets((LOG_MEL,), Compared(None, heard(rng, 6)), one, why_none="", seed=0)["why"]
    )


def test_clips_that_are_all_alike_have_collapsed() -> None:
    rng = np.random.default_rng(0)
    same = heard(rng, 1) * 8
    (row,) = compare_sets(
        (LOG_MEL,), Compared(None, same), Reference(heard=heard(rng, 12)), why_none="", seed=0
    )["embeddings"]
    assert row["diversity"]["adapter"]["collapsed"]


def test_a_clip_without_a_descriptor_is_elsewhere() -> None:
    rng = np.random.default_rng(0)
    reference = facts(rng, 12)
    silent = [{shown.name: float("nan") for shown in SHOWN}]
    found = descriptor_distances(Compared(None, silent), reference, why_none="", seed=0)
    assert found["adapter"] == [10.0]
    assert np.mean(found["reference"]) < 2.0
    assert not descriptor_distances(Compared(None, silent), None, why_none="why", seed=0)[
        "computed"
    ]


def test_overfitting_is_what_training_clips_gained_beyond_held_out_ones() -> None:
    rng = np.random.default_rng(0)
    excess = excess_of(losses(rng, 10, -1.0), losses(rng, 10, -0.3))
    assert excess["difference"] == pytest.approx(-0.7, abs=0.1)
    assert excess["ci_low"] < -0.6 < excess["ci_high"] + 0.2
    assert excess["share"] == pytest.approx(0.7, abs=0.1)
    told = {"computed": True, "trained": losses(rng, 10, -1.0), "excess": excess}
    assert excess["flagged"]
    said = overfitting_sentences(told)[0]
    assert said.startswith("Warning: the adapter learned its training clips more than their style:")
    some = excess_of(losses(rng, 10, -1.0), losses(rng, 10, -0.7))
    assert not some["flagged"]
    said = overfitting_sentences({**told, "excess": some})[0]
    assert said.startswith("Part of what it learned is specific to its training clips")
    none = excess_of(losses(rng, 10, -0.3), losses(rng, 10, -0.3))
    assert overfitting_sentences({**told, "excess": none})[0].startswith("No clear sign")
    assert excess_of(losses(rng, 2, -1.0), losses(rng, 9, -1.0))["ci_low"] is None
