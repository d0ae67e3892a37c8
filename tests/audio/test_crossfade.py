"""Passing from one version of the same moments into another."""

from __future__ import annotations

import numpy as np
import pytest

from musicgen_lora.audio.crossfade import pass_into

N = 3200


def square(period: int, level: float, shift: int = 0) -> np.ndarray:
    return (level * np.where(((np.arange(N) + shift) // (period // 2)) % 2, -1.0, 1.0))[None]


@pytest.mark.parametrize("shift", [0, 7, 16])
@pytest.mark.parametrize("level", [0.9, 0.3])
def test_a_crossfade_is_no_louder_than_the_louder_of_both(shift: int, level: float) -> None:
    given, other = square(64, 0.9), square(50, level, shift)
    joined = pass_into(given, other, 320)
    assert np.abs(joined).max() <= max(0.9, level) * (1 + 1e-6)


def test_unrelated_noise_keeps_its_power() -> None:
    rng = np.random.default_rng(0)
    given, other = (0.1 * rng.standard_normal((1, N)).astype(np.float32) for _ in range(2))
    powers = []
    for _ in range(100):
        for sound in (given, other):
            rng.shuffle(sound[0])
        joined = pass_into(given, other, 1600)
        changed = np.flatnonzero((joined[0] != given[0]) & (joined[0] != other[0]))
        middle = joined[0, changed[0] + 700 : changed[0] + 900]
        powers.append(float(np.square(middle).mean()))
    assert np.mean(powers) == pytest.approx(0.01, rel=0.1)


def test_identical_versions_pass_unchanged() -> None:
    given = square(64, 0.9)
    np.testing.assert_allclose(pass_into(given, given, 320), given, atol=1e-6)
