"""Channels out of phase in some bands are found, and the fold keeps those bands."""

from __future__ import annotations

import numpy as np
import pytest
from made_datasets import RATE, beat, sine

from musicgen_lora.audio.fold import band_levels, cancelled_bands, fold_to_mono, name_bands


def tones(*tones_hz: float, level: float = 0.25) -> np.ndarray:
    """`[N]`, two seconds."""
    return np.sum([sine(hz, 2.0, RATE, level)[0] for hz in tones_hz], axis=0)


def level_db(samples: np.ndarray, hz: float) -> float:
    """Level of a tone in `[N]`, from its middle second."""
    middle = samples[RATE // 2 : RATE // 2 + RATE]
    wave = np.exp(-2j * np.pi * hz * np.arange(RATE) / RATE)
    return float(20.0 * np.log10(2.0 * np.abs(np.mean(middle * wave)) + 1e-9))


def cancelled(waveform: np.ndarray) -> list[tuple[float, float]]:
    return cancelled_bands(*band_levels(waveform, RATE))


def test_levels_are_those_of_the_signal() -> None:
    left = tones(100.0, 3000.0)
    unrelated_db, mono_db = band_levels(left[None], RATE)
    assert np.allclose(unrelated_db, mono_db)
    # 0.25 of a full-scale sine is -12 dB, and its power 3 dB below.
    expected = 20.0 * np.log10(0.25) - 3.01
    bands = [name_bands([band]) for band in [(60.0, 120.0), (2000.0, 4000.0)]]
    assert bands == ["60-120 Hz", "2-4 kHz"]
    assert mono_db[1] == pytest.approx(expected, abs=0.3)
    assert mono_db[7] == pytest.approx(expected, abs=0.3)
    assert max(mono_db[[0, 4, 5, 9]]) < -40.0


@pytest.mark.parametrize("n_channels", [2, 4, 6])
def test_channels_in_phase_or_unrelated_lose_nothing(n_channels: int) -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0.0, 0.1, (n_channels, 4 * RATE)).astype(np.float32)
    for waveform in (noise, np.repeat(beat(0), n_channels, axis=0)):
        assert cancelled(waveform) == []
        mono, bands = fold_to_mono(waveform, RATE)
        assert bands == []
        assert np.allclose(mono[0], waveform.mean(axis=0), atol=1e-6)
    one_sided = np.zeros((n_channels, RATE), dtype=np.float32)
    one_sided[1] = noise[0, :RATE]
    assert cancelled(one_sided) == []


def test_a_bass_out_of_phase_is_kept() -> None:
    bass, hats = tones(50.0, 100.0), tones(3000.0, level=0.1)
    waveform = np.stack([hats + bass, hats - bass])
    assert level_db(waveform.mean(axis=0), 50.0) < -100.0
    assert cancelled(waveform) == [(20.0, 120.0)]
    mono, bands = fold_to_mono(waveform, RATE)
    assert bands == [(20.0, 120.0)]
    for hz, level in ((50.0, 0.25), (100.0, 0.25), (3000.0, 0.1)):
        assert level_db(mono[0], hz) == pytest.approx(20.0 * np.log10(level), abs=0.5)


def test_bands_in_between_and_several() -> None:
    waveform = np.stack([tones(80.0, 700.0, 5000.0)] * 2)
    waveform[1] -= 2.0 * tones(700.0, 5000.0)
    assert name_bands(cancelled(waveform)) == "500-1000 Hz, 4-8 kHz"
    mono, _ = fold_to_mono(waveform, RATE)
    for hz in (80.0, 700.0, 5000.0):
        assert level_db(mono[0], hz) == pytest.approx(20.0 * np.log10(0.25), abs=0.5)


@pytest.mark.parametrize("signs", [(1, -1), (1, -1, 1, -1), (1, -1, -1, 1, 1, -1)])
def test_channels_that_cancel_wholly(signs: tuple[int, ...]) -> None:
    original = beat(1)[0]
    mono, bands = fold_to_mono(np.stack([sign * original for sign in signs]), RATE)
    assert bands[0][0] == 20.0
    assert np.allclose(np.abs(mono[0]), np.abs(original), atol=0.02)
    assert abs(float(np.corrcoef(mono[0], original)[0, 1])) > 0.999


def test_a_band_that_nobody_hears_is_no_fault() -> None:
    bass = tones(60.0)
    hiss = 1e-4 * np.random.default_rng(0).standard_normal(len(bass))
    assert cancelled(np.stack([bass + hiss, bass - hiss])) == []
    assert cancelled(np.zeros((2, RATE))) == []
    assert cancelled(np.zeros((2, 10))) == []
