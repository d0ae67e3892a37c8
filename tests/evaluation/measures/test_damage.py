"""Planted damage is found, and beats have none."""

from __future__ import annotations

import numpy as np
import pytest
from made_datasets import beat

from musicgen_lora.evaluation.measures.damage import count_clicks, measure_damage, stuck_share

RATE = 32_000
SOUND = beat(0)


@pytest.mark.parametrize("index", range(6))
def test_beats_have_hardly_any(index: int) -> None:
    """A kick that cuts off the bass note before it does click."""
    assert count_clicks(beat(index)[0], RATE) <= 4


@pytest.mark.parametrize("frequency", [40.0, 440.0, 9_000.0])
def test_tones_and_noise_have_none(frequency: float) -> None:
    time = np.arange(2 * RATE) / RATE
    assert count_clicks(0.5 * np.sin(2 * np.pi * frequency * time), RATE) == 0
    noise = np.random.default_rng(0).normal(0.0, 0.2, 2 * RATE)
    assert count_clicks(noise, RATE) == 0


def test_jumps_in_a_bass_are_counted() -> None:
    time = np.arange(2 * RATE) / RATE
    bass = 0.5 * np.sin(2 * np.pi * 45.0 * time)
    cut = np.concatenate([bass[:20_000], bass[20_300:40_000], bass[40_400:]])
    assert count_clicks(cut, RATE) == 2
    single = bass.copy()
    single[30_000] += 0.4
    assert count_clicks(single, RATE) == 1


def test_samples_that_are_no_numbers_are_counted() -> None:
    broken = SOUND.copy()
    broken[0, 100:103] = [np.nan, np.inf, -np.inf]
    codes = np.random.default_rng(0).integers(0, 64, (4, 100))
    found = measure_damage(broken, RATE, codes, 50.0)
    assert found.bad_samples == 3
    assert found.stuck_share == 0.0


def test_a_stuck_stretch_is_told_from_a_loop() -> None:
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 2048, (4, 200))
    assert stuck_share(codes, 50.0) == 0.0
    # A bar again is music.
    assert stuck_share(np.concatenate([codes, codes], axis=1), 50.0) == 0.0
    held = codes.copy()
    held[:, 50:100] = held[:, 50:51]
    assert stuck_share(held, 50.0) == pytest.approx(0.25)
    stutter = codes.copy()
    stutter[:, 100:140] = np.tile(stutter[:, 100:105], (1, 8))
    assert stuck_share(stutter, 50.0) == pytest.approx(0.2)
    # A held bass: one codebook stays, the others move.
    bass = codes.copy()
    bass[0] = 7
    assert stuck_share(bass, 50.0) == 0.0
