"""Paired statistics, compared with known answers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from musicgen_lora.evaluation.decisions.statistics import (
    apart,
    moved_share,
    paired_bootstrap,
    widened_level,
)


def test_a_constant_drop_is_found_exactly() -> None:
    base = np.array([4.0, 5.0, 6.0, 5.0])
    result = paired_bootstrap(base, base - 1.0)
    assert result["difference"] == pytest.approx(-1.0)
    assert result["ci_low"] == pytest.approx(-1.0)
    assert result["ci_high"] == pytest.approx(-1.0)
    assert result["relative"] == pytest.approx(-0.2)
    # All four pairs agree: 2 of the 2^4 sign patterns are as extreme.
    assert result["p_value"] == pytest.approx(2 / 16)
    assert (result["n"], result["mean_base"], result["mean_adapter"]) == (4, 5.0, 4.0)


def test_the_p_value_is_that_of_all_sign_flips() -> None:
    rng = np.random.default_rng(3)
    base = rng.normal(5.0, 1.0, 9)
    adapter = base + rng.normal(-0.3, 0.5, 9)
    difference = adapter - base
    sums = [np.dot(signs, difference) for signs in itertools.product((-1, 1), repeat=9)]
    expected = np.mean(np.abs(sums) >= abs(difference.sum()) - 1e-12)
    assert paired_bootstrap(base, adapter)["p_value"] == pytest.approx(expected)


def test_no_difference_is_no_difference() -> None:
    base = np.linspace(1.0, 2.0, 8)
    result = paired_bootstrap(base, base)
    assert (result["difference"], result["ci_low"], result["ci_high"]) == (0.0, 0.0, 0.0)
    assert result["p_value"] == 1.0


def test_weights_are_those_of_a_pooled_mean() -> None:
    result = paired_bootstrap(
        np.array([2.0, 4.0, 4.0]), np.array([1.0, 4.0, 4.0]), np.array([2.0, 1.0, 1.0])
    )
    assert result["mean_base"] == pytest.approx(3.0)
    assert result["mean_adapter"] == pytest.approx(2.5)
    assert result["relative"] == pytest.approx(-1 / 6)


def test_few_pairs_have_students_interval() -> None:
    base = np.array([10.0, 10.0, 10.0, 10.0])
    difference = np.array([-3.0, -1.0, -2.0, -2.5])
    result = paired_bootstrap(base, base + difference)
    expected = stats.ttest_1samp(difference, 0.0).confidence_interval(0.95)
    assert result["interval"] == "student"
    assert (result["ci_low"], result["ci_high"]) == pytest.approx((expected.low, expected.high))
    # The bases are all 10: the ratio is the difference over 10.
    assert result["relative_ci_low"] == pytest.approx(expected.low / 10.0)
    assert result["relative_ci_high"] == pytest.approx(expected.high / 10.0)


def test_many_pairs_have_a_bootstrap_close_to_students() -> None:
    rng = np.random.default_rng(5)
    difference = rng.normal(0.3, 1.0, 60)
    result = paired_bootstrap(np.full(60, 2.0), 2.0 + difference)
    expected = stats.ttest_1samp(difference, 0.0).confidence_interval(0.95)
    assert result["interval"] == "bootstrap"
    assert (result["ci_low"], result["ci_high"]) == pytest.approx(
        (expected.low, expected.high), abs=0.03
    )


@pytest.mark.parametrize("n", [1, 2])
def test_too_few_pairs_have_no_interval_and_say_so(n: int) -> None:
    result = paired_bootstrap(np.full(n, 4.0), np.full(n, 3.0))
    assert result["difference"] == -1.0
    assert result["ci_low"] is None
    assert result["p_value"] is None
    assert f"n = {n}" in result["note"]


def test_no_pairs() -> None:
    result = paired_bootstrap(np.array([]), np.array([]))
    assert (result["n"], result["difference"], result["note"]) == (0, None, "no pairs")


def test_decibels_have_no_ratio() -> None:
    result = paired_bootstrap(np.array([-20.0, -18.0, -19.0]), np.array([-10.0, -9.0, -9.0]))
    assert result["relative"] is None
    assert result["difference"] == pytest.approx(29 / 3)


def test_the_same_seed_gives_the_same_interval() -> None:
    rng = np.random.default_rng(0)
    base, adapter = rng.normal(size=(2, 20))
    assert paired_bootstrap(base, adapter, seed=4) == paired_bootstrap(base, adapter, seed=4)


@pytest.mark.parametrize(
    ("base", "adapter", "weights"),
    [
        ([1.0, 2.0], [1.0], None),
        ([1.0, np.nan, 2.0], [1.0, 1.0, 1.0], None),
        ([1.0, 2.0], [1.0, 2.0], [1.0, 0.0]),
        ([[1.0, 2.0]], [[1.0, 2.0]], None),
    ],
)
def test_what_is_not_pairs_is_refused(base: list, adapter: list, weights: list | None) -> None:
    with pytest.raises(ValueError, match="Pairs"):
        paired_bootstrap(
            np.array(base), np.array(adapter), None if weights is None else np.array(weights)
        )


@pytest.mark.parametrize("n", [3, 5, 8])
def test_the_interval_holds_what_it_promises(n: int) -> None:
    """Coverage on normal differences; a plain percentile interval has 75 % at n = 3."""
    rng = np.random.default_rng(n)
    n_trials, held = 400, 0
    for trial in range(n_trials):
        result = paired_bootstrap(np.zeros(n), rng.normal(0.5, 1.0, n), seed=trial)
        assert result["ci_low"] is not None
        assert result["ci_high"] is not None
        held += result["ci_low"] <= 0.5 <= result["ci_high"]
    # Three standard errors of the estimate.
    assert held / n_trials == pytest.approx(0.945, abs=0.035)


def test_few_or_skewed_pairs_are_no_more_than_indicative() -> None:
    rng = np.random.default_rng(0)

    def doubt(differences: np.ndarray, weights: np.ndarray | None = None) -> str:
        return paired_bootstrap(np.full(len(differences), 9.0), 9.0 + differences, weights)["doubt"]

    even = rng.normal(0.5, 1.0, 40)
    assert doubt(even) == ""
    assert doubt(even[:19]) == "few"
    assert doubt(np.full(40, -0.3)) == ""
    # One source that is all the difference, by itself or by its weight.
    assert doubt(np.append(even * 0.01, -9.0)) == "skewed"
    weights = np.ones(40)
    weights[0] = 400.0
    assert doubt(even, weights) == "skewed"


def test_the_widening_vanishes_as_n_grows() -> None:
    assert widened_level(8) > 0.98
    assert widened_level(10_000) == pytest.approx(0.95, abs=1e-3)


def test_the_share_of_the_way() -> None:
    rng = np.random.default_rng(2)
    base = rng.normal(10.0, 0.5, 12)
    adapter = base + 7.4 + rng.normal(0.0, 0.2, 12)
    reference = rng.normal(20.0, 0.5, 15)
    moved = moved_share(base, adapter, reference)
    expected = (adapter.mean() - base.mean()) / (reference.mean() - base.mean())
    assert moved["share"] == pytest.approx(expected)
    assert moved["ci_low"] is not None
    assert moved["ci_high"] is not None
    assert moved["ci_low"] < 0.74 < moved["ci_high"]
    assert moved["ci_high"] - moved["ci_low"] < 0.15


def test_a_way_downwards_and_one_too_far() -> None:
    base, reference = np.linspace(9.0, 11.0, 8), np.linspace(4.0, 6.0, 8)
    assert moved_share(base, base - 2.5, reference)["share"] == pytest.approx(0.5)
    assert moved_share(base, base - 6.0, reference)["share"] == pytest.approx(1.2)
    assert moved_share(base, base + 1.0, reference)["share"] == pytest.approx(-0.2)


def test_no_way_no_share() -> None:
    rng = np.random.default_rng(4)
    base, reference = rng.normal(5.0, 2.0, 8), rng.normal(5.0, 2.0, 8)
    near = moved_share(base, base + 1.0, reference)
    assert (near["share"], near["note"]) == (None, "base and held-out audio cannot be told apart")
    there = moved_share(np.full(8, 5.0), np.full(8, 6.0), np.full(8, 5.2), least=0.5)
    assert (there["share"], there["note"]) == (None, "the base is already there")
    same = moved_share(np.full(8, 5.0), np.full(8, 6.0), np.full(8, 5.0))
    assert same["note"] == "the base is already there"


def test_few_prompts_or_sources_have_no_share() -> None:
    many, few = np.zeros(5), np.zeros(2)
    assert moved_share(few, few, many + 1.0)["note"] == "too few prompts"
    assert moved_share(many, many, few + 1.0)["note"] == "too few sources"
    with pytest.raises(ValueError, match="finite"):
        moved_share(many, many, np.array([np.nan, 1.0, 2.0]))


def test_a_share_that_could_be_anything_is_none() -> None:
    """The base's distance from the reference is hardly more than noise."""
    base = np.array([-1.0, -0.6, -0.3, 0.0, 0.0, 0.3, 0.6, 1.0])
    reference = 0.7 + np.array([-0.2, -0.1, 0.0, 0.1, 0.2])
    # The interval would be 86 to 2595 %.
    moved = moved_share(base, base + 1.2, reference)
    assert moved["share"] is None
    assert moved["ci_high"] is None
    assert moved["note"] == "base and held-out audio are too close for a percentage"


def test_how_far_groups_lie_apart() -> None:
    rng = np.random.default_rng(0)
    ours, near, far = rng.normal(0.0, 1.0, 20), rng.normal(0.1, 1.0, 20), rng.normal(4.0, 1.0, 20)
    found = apart(ours, far, least=0.1)
    assert found is not None
    assert found["size"] == pytest.approx(4.0, abs=0.8)
    assert found["p_value"] < 1e-6
    alike = apart(ours, near, least=0.0)
    assert alike is not None
    assert alike["p_value"] > 0.05
    assert apart(ours, far, least=10.0) is None
    assert apart(ours[:2], far, least=0.0) is None
    # Constants: no spread to measure by, and a difference all the same.
    still = apart(np.zeros(3), np.ones(3), least=0.5)
    assert still is not None
    assert still == {"size": 2.0, "p_value": 0.0}
