"""The best of several by a rule fixed beforehand, and whether it differs from the others."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from musicgen_lora.dataset.metadata import Clip
from musicgen_lora.evaluation.decisions.choice import choose_best
from musicgen_lora.evaluation.decisions.protocol import judge_family
from musicgen_lora.evaluation.held_out import HeldOut
from musicgen_lora.evaluation.variants import common_held_out, list_variants


def variant(name: str, losses: np.ndarray, values: tuple[float, float], p: float = 0.01) -> Any:
    """A variant with these losses per source and values of the other two primary outcomes."""
    named = zip(
        ("held_out_loss", "kernel_distance", "descriptor_distance"),
        (losses.mean(), *values),
        strict=True,
    )
    return {
        "name": name,
        "primaries": [
            {
                "name": key,
                "adapter": value,
                "p_value": p,
                "difference": -1.0,
                "n": len(losses),
                "n_tests": 3,
                "detectable": 0.5,
            }
            for key, value in named
        ],
        "loss": {"computed": True, "sources": [{"adapter": [own]} for own in losses]},
    }


def judge(variants: list[Any]) -> None:
    judge_family([primary for own in variants for primary in own["primaries"]])


def test_the_lowest_mean_rank_wins_and_its_rivals_are_told() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(5.0, 0.5, 20)
    near, far = base + rng.normal(0.0, 0.05, 20), base + 0.5 + rng.normal(0.0, 0.05, 20)
    variants = [
        variant("far", far, (3.0, 3.0)),
        variant("good", base, (1.0, 1.0)),
        variant("near", near, (2.0, 2.0)),
    ]
    judge(variants)
    # Nine tests of one p: Holm multiplies each by nine.
    adjusted = [p["p_holm"] for own in variants for p in own["primaries"]]
    assert adjusted == pytest.approx([0.09] * 9)
    assert {p["n_tests"] for own in variants for p in own["primaries"]} == {9}
    assert {p["verdict"] for own in variants for p in own["primaries"]} == {"no clear change"}
    choice = choose_best(variants, seed=0)
    assert choice["best"] == "good"
    assert not choice["is_better"]
    assert choice["ranks"]["far"] == 3.0
    apart = {own["name"]: own["apart"] for own in choice["others"]}
    assert apart == {"far": True, "near": False}


def test_who_is_clearly_worse_in_anything_comes_last() -> None:
    losses = np.linspace(4.0, 5.0, 8)
    variants = [
        variant("sly", losses - 1.0, (1.0, 1.0), 0.001),
        variant("plain", losses, (2.0, 2.0)),
    ]
    variants[0]["primaries"][1]["difference"] = 1.0
    judge(variants)
    assert variants[0]["primaries"][1]["verdict"] == "worse"
    assert choose_best(variants, seed=0)["best"] == "plain"


def test_choosing_among_equals_flatters_and_the_figure_shows_it() -> None:
    """Forty variants that differ only by noise: the best looks better than it is on other clips."""
    rng = np.random.default_rng(1)
    table = rng.normal(5.0, 1.0, (40, 6))
    variants = [variant(f"{row}", own, (1.0, 1.0)) for row, own in enumerate(table)]
    judge(variants)
    choice = choose_best(variants, seed=0)
    assert choice["loss"] < 4.6
    assert choice["loss_elsewhere"] > choice["loss"] + 0.2


def test_what_only_some_have_is_not_ranked() -> None:
    losses = np.linspace(4.0, 5.0, 8)
    variants = [variant("a", losses, (1.0, 9.0)), variant("b", losses + 1.0, (9.0, 1.0))]
    variants[1]["primaries"][1] |= {"adapter": None, "p_value": None}
    judge(variants)
    assert choose_best(variants, seed=0)["by"] == ["held_out_loss", "descriptor_distance"]
    for own in variants:
        own["loss"] = {"computed": False, "why": "none"}
        for primary in own["primaries"]:
            primary |= {"adapter": None, "p_value": None}
    judge(variants)
    nothing = choose_best(variants, seed=0)
    assert (nothing["computed"], nothing["best"], nothing["loss"]) == (False, "a", None)


def files(path: str) -> Any:
    return SimpleNamespace(folder=Path(path), fingerprint=path)


def test_variants_have_names_that_tell_them_apart() -> None:
    (alone,) = list_variants([files("run/best_model")], [])
    assert (alone.name, alone.label, alone.strength) == ("adapter", "best_model", 1.0)
    found = list_variants([files("a/best_model"), files("b/best_model")], [0.5, 1.0, 0.5])
    assert [own.label for own in found] == [
        *("a/best_model x 0.5", "a/best_model", "b/best_model x 0.5", "b/best_model"),
    ]
    assert [own.name for own in found] == [
        *("01_a-best-model-x-0.5", "02_a-best-model", "03_b-best-model-x-0.5", "04_b-best-model"),
    ]
    assert len(list_variants([files("a"), files("a"), files("b")], [])) == 2


def clips(*names: str) -> list[Clip]:
    return [Clip(f"{name}.wav", Path("data"), ("beat",), source=name) for name in names]


def test_all_are_measured_on_what_none_was_trained_on() -> None:
    data = Path("data")
    one = HeldOut(clips("a", "b"), data, is_unseen=True, trained=clips("c", "d"))
    other = HeldOut(clips("b", "c"), data, is_unseen=True, trained=clips("a", "d"))
    both = common_held_out([one, other], ["one", "other"])
    assert [clip.source for clip in both.clips] == ["b"]
    assert [clip.source for clip in both.trained] == ["d"]
    assert "Measured on the 1 clip that all training runs held out." in both.origin
    assert common_held_out([one, one], ["one", "one"]) == one
    none = common_held_out([one, HeldOut(clips("c"), data)], ["one", "other"])
    assert (list(none.clips), none.data_dir) == ([], None)
    assert "no clip was held out from all training runs" in none.why_none
    unknown = HeldOut(why_none="another tool made it")
    assert common_held_out([one, unknown], ["one", "other"]).why_none.startswith("other: another")
    elsewhere = HeldOut(clips("a"), Path("elsewhere"))
    assert "no dataset in common" in common_held_out([one, elsewhere], ["one", "x"]).why_none
