"""Swing against grooves that have a known one."""

from __future__ import annotations

import numpy as np
import pytest

from musicgen_lora.beats.sequencer import step_time_s
from musicgen_lora.listening.rhythm.swing import find_swing

BPM = 90.0
BEATS_S = np.arange(16) * 60.0 / BPM


def onsets(steps: np.ndarray, swing: float) -> np.ndarray:
    late_s = np.random.default_rng(0).normal(0.0, 0.004, len(steps))
    return np.array([step_time_s(step, BPM, swing) for step in steps]) + late_s


@pytest.mark.parametrize("swing", [0.5, 0.54, 0.58, 0.62, 0.66])
def test_sixteenths(swing: float) -> None:
    found = find_swing(onsets(np.arange(0.0, 60.0), swing), BEATS_S)
    assert found == pytest.approx(swing, rel=0.05)


def test_rolls_swing_too_and_triplets_are_no_swing() -> None:
    rolls = onsets(np.concatenate([np.arange(0.0, 56.0, 2.0), np.arange(8.0, 16.0, 0.5)]), 0.56)
    assert find_swing(rolls, BEATS_S) == pytest.approx(0.56, rel=0.05)
    triplets = np.arange(0.0, 56.0, 4.0 / 3.0)
    assert np.isnan(find_swing(onsets(triplets, 0.5), BEATS_S))
    kicks = np.array([3.0, 7.0, 11.0, 19.0, 27.0, 35.0])
    both = onsets(np.concatenate([triplets, kicks]), 0.5)
    assert find_swing(both, BEATS_S) == pytest.approx(0.5, rel=0.05)


def test_eighths_alone_tell_none() -> None:
    assert np.isnan(find_swing(onsets(np.arange(0.0, 60.0, 2.0), 0.5), BEATS_S))
    assert np.isnan(find_swing(np.zeros(0), BEATS_S))
    assert np.isnan(find_swing(BEATS_S, BEATS_S[:2]))
