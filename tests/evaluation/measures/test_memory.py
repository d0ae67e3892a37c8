"""Planted memorisation is flagged, and learning a style is not."""

from __future__ import annotations

import numpy as np
import pytest

from musicgen_lora.evaluation.measures.memory import (
    judge_continuations,
    nearest_trained,
    share_given_back,
)


def test_a_continuation_that_is_the_clip_shares_all() -> None:
    codes = np.random.default_rng(0).integers(0, 64, (4, 40))
    assert share_given_back(codes, codes, 10) == 1.0
    half = codes.copy()
    half[:, 25:] += 1
    assert share_given_back(codes, half, 10) == 0.5
    # What was given is no merit.
    wrong = codes + 1
    wrong[:, :10] = codes[:, :10]
    assert share_given_back(codes, wrong, 10) == 0.0


def _shares(mean: float, n: int, seed: int) -> np.ndarray:
    return np.clip(np.random.default_rng(seed).normal(mean, 0.03, n), 0.0, 1.0)


def test_a_memoriser_is_flagged() -> None:
    found = judge_continuations(
        (_shares(0.7, 12, 0), _shares(0.1, 8, 1)), (_shares(0.08, 12, 2), _shares(0.08, 8, 3))
    )
    assert found.flagged
    assert found.excess == pytest.approx(0.6, abs=0.05)


def test_a_style_that_helps_everywhere_is_not_memory() -> None:
    found = judge_continuations(
        (_shares(0.2, 12, 0), _shares(0.2, 8, 1)), (_shares(0.08, 12, 2), _shares(0.08, 8, 3))
    )
    assert not found.flagged


def test_no_memory_is_rarely_called_one() -> None:
    flagged = 0
    for trial in range(50):
        sides = [_shares(0.1, n, 10 * trial + k) for k, n in enumerate((10, 6, 10, 6))]
        flagged += judge_continuations((sides[0], sides[1]), (sides[2], sides[3])).flagged
    assert flagged <= 2


def test_few_clips_have_no_verdict() -> None:
    found = judge_continuations(([0.9] * 12, [0.1] * 2), ([0.1] * 12, [0.1] * 2))
    assert found.p_value is None
    assert not found.flagged


def test_nearest_clip_and_its_odds() -> None:
    made = np.array([[0.1, 0.9, 0.2], [0.3, 0.2, 0.1]])
    held_out = np.array([[0.3, 0.1, 0.2], [0.2, 0.4, 0.1], [0.1, 0.1, 0.1]])
    first, second = nearest_trained(made, held_out)
    assert (first.place, first.similarity, first.odds) == (1, 0.9, 0.25)
    assert (second.place, second.odds) == (0, 0.75)
    assert nearest_trained(made, np.empty((0, 3)))[0].odds == 1.0
