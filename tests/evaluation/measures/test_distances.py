"""Distances between sets, compared with known values and direct sums."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.linalg import sqrtm

from musicgen_lora.evaluation.measures import distances
from musicgen_lora.evaluation.measures.distances import (
    SCALE,
    frechet_bias,
    frechet_distance,
    kernel_distance,
    paired_kernel_distance,
    reference_bandwidth,
)


def _normal(n: int, d: int, seed: int, shift: float = 0.0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n, d))
    rows[:, 0] += shift
    return rows


def test_kad_is_the_direct_sum_over_pairs() -> None:
    reference, rows, width = _normal(17, 5, 0), _normal(11, 5, 1, 0.7), 2.3

    def k(x: np.ndarray, y: np.ndarray) -> float:
        return math.exp(-float(((x - y) ** 2).sum()) / (2 * width * width))

    pairs = [k(a, b) for i, a in enumerate(reference) for j, b in enumerate(reference) if i != j]
    others = [k(a, b) for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j]
    between = [k(a, b) for a in reference for b in rows]
    direct = sum(pairs) / len(pairs) + sum(others) / len(others) - 2 * sum(between) / len(between)
    assert kernel_distance(reference, rows, width) == pytest.approx(SCALE * direct, abs=1e-9)


def test_kad_of_shifted_gaussians_is_the_analytic_value() -> None:
    """E k(x, y) of N(0, I) and N(m, I) is (s / (s + 2))^(d/2) exp(-m^2 / (2 (s + 2))), s the
    squared width."""
    d, shift, width = 4, 1.5, 2.0
    s = width**2
    peak = (s / (s + 2.0)) ** (d / 2.0)
    expected = SCALE * 2.0 * peak * (1.0 - math.exp(-(shift**2) / (2.0 * (s + 2.0))))
    found = [
        kernel_distance(_normal(400, d, seed), _normal(400, d, 1000 + seed, shift), width)
        for seed in range(20)
    ]
    error = np.std(found, ddof=1) / math.sqrt(len(found))
    assert np.mean(found) == pytest.approx(expected, abs=4 * error)
    assert error < expected / 50


def test_kad_of_two_sets_of_one_kind_is_as_often_below_zero() -> None:
    found = [kernel_distance(_normal(12, 6, s), _normal(9, 6, 500 + s), 3.0) for s in range(400)]
    assert abs(np.mean(found)) < 4 * np.std(found) / 20
    assert 0.3 < np.mean(np.array(found) < 0) < 0.8


def test_fad_equals_the_matrix_root() -> None:
    reference, rows = _normal(60, 8, 0), _normal(40, 8, 1, 0.5) @ np.diag(np.linspace(0.5, 2, 8))
    a, b = np.cov(reference.T), np.cov(rows.T)
    shift = reference.mean(axis=0) - rows.mean(axis=0)
    root = np.real(np.asarray(sqrtm(a @ b)))
    expected = shift @ shift + np.trace(a + b - 2 * root)
    assert frechet_distance(reference, rows) == pytest.approx(float(expected), abs=1e-6)


def test_fad_of_fewer_clips_than_dimensions_is_no_negative_number() -> None:
    reference, rows = _normal(6, 50, 0), _normal(5, 50, 1)
    assert frechet_distance(reference, reference) == pytest.approx(0.0, abs=1e-9)
    assert frechet_distance(reference, rows) > 0.0


def test_fad_of_one_kind_is_its_bias_and_the_bias_falls_with_n() -> None:
    reference = _normal(2_000, 10, 0)
    small, large = frechet_bias(reference, 20), frechet_bias(reference, 200)
    assert small is not None
    assert large is not None
    assert small == pytest.approx(frechet_distance(reference, _normal(20, 10, 9)), rel=0.4)
    assert large < small / 5
    assert frechet_bias(reference[:3], 20) is None


def test_the_bandwidth_is_the_reference_s_and_needs_one() -> None:
    assert reference_bandwidth(np.array([[0.0], [3.0], [4.0]])) == 3.0
    with pytest.raises(ValueError, match="all sound the same"):
        reference_bandwidth(np.ones((5, 3)))


def test_equal_sets_differ_by_nothing() -> None:
    reference, rows = _normal(30, 5, 0), _normal(12, 5, 1)
    found = paired_kernel_distance(reference, rows, rows.copy())
    assert found.difference == 0.0
    assert found.p_value == 1.0
    assert (found.ci_low, found.ci_high) == pytest.approx((0.0, 0.0), abs=1e-9)


def test_a_nearer_adapter_is_found() -> None:
    reference = _normal(40, 5, 0)
    found = paired_kernel_distance(reference, _normal(16, 5, 1, 3.0), _normal(16, 5, 2, 0.3))
    assert found.ci_high is not None
    assert found.ci_high < 0.0
    assert found.p_value is not None
    assert found.p_value < 0.001


def test_no_difference_is_rarely_called_one_and_the_interval_covers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Clips of the same prompts from one model with other seeds: prompts differ, sides don't."""
    monkeypatch.setattr(distances, "N_RESAMPLES", 399)
    rejected = covered = 0
    n_trials = 200
    for trial in range(n_trials):
        rng = np.random.default_rng(trial)
        prompts = rng.normal(size=(16, 4))
        base, adapter = (prompts + rng.normal(size=prompts.shape) for _ in range(2))
        reference = rng.normal(size=(40, 4)) * 1.4
        found = paired_kernel_distance(reference, base, adapter, seed=trial)
        assert found.p_value is not None
        assert found.ci_low is not None
        assert found.ci_high is not None
        rejected += found.p_value <= 0.05
        covered += found.ci_low <= 0.0 <= found.ci_high
    # Of 200 at 5 %, 19 or more have odds of 1 in 100.
    assert rejected <= 18
    assert covered >= 180


def test_too_few_prompts_have_no_interval_and_say_so() -> None:
    found = paired_kernel_distance(_normal(20, 3, 0), _normal(4, 3, 1), _normal(4, 3, 2))
    assert (found.ci_low, found.ci_high, found.p_value) == (None, None, None)
    assert found.n == 4
    assert "too few prompts" in found.note
    with pytest.raises(ValueError, match="two clips"):
        paired_kernel_distance(_normal(20, 3, 0), _normal(1, 3, 1), _normal(1, 3, 2))
