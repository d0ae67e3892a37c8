"""The limiter: its ceiling holds between samples, and the rest is left unchanged."""

from __future__ import annotations

import numpy as np
import pytest
from made_datasets import RATE, beat

from musicgen_lora.audio.limiter import limit_peaks, raise_loudness, reduction_db
from musicgen_lora.audio.loudness import integrated_loudness, true_peak_db


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("gain_db", [3.0, 9.0, 20.0])
def test_the_true_peak_stays_below_the_ceiling(index: int, gain_db: float) -> None:
    loud = beat(index) * np.float32(10.0 ** (gain_db / 20.0))
    limited = limit_peaks(loud, RATE, -1.0)
    assert limited.shape == loud.shape
    assert true_peak_db(limited, RATE) <= -1.0 + 0.01
    assert (np.abs(limited) <= np.abs(loud) + 1e-6).all()


def test_a_peak_between_two_samples_counts() -> None:
    # At a quarter of the rate with a phase of 45 degrees, no sample hits a crest.
    time = np.arange(RATE)
    wave = (np.sin(0.5 * np.pi * time + 0.25 * np.pi))[None].astype(np.float32)
    assert np.abs(wave).max() < 10.0 ** (-1.0 / 20.0)
    limited = limit_peaks(wave, RATE, -1.0)
    assert true_peak_db(limited[:, 1000:-1000], RATE) <= -1.0 + 0.01


def test_what_has_no_peaks_is_not_touched() -> None:
    quiet = beat(0) * np.float32(0.1)
    assert limit_peaks(quiet, RATE, -1.0) is quiet


def test_one_peak_costs_only_its_neighbourhood() -> None:
    wave = np.full((2, 4 * RATE), 0.1, dtype=np.float32)
    wave[0, 2 * RATE] = 3.0
    gain_db = reduction_db(wave, RATE, -1.0)
    assert gain_db.min() == pytest.approx(-1.0 - 20.0 * np.log10(3.0), abs=0.5)
    # Not 12 ms before, not a second after.
    assert not gain_db[: 2 * RATE - 12 * RATE // 1000].any()
    assert np.abs(gain_db[3 * RATE :]).max() < 0.001
    limited = limit_peaks(wave, RATE, -1.0)
    # Both channels together: the stereo image stays.
    assert limited[0, 2 * RATE + 9] == limited[1, 2 * RATE + 9] < 0.1


def test_a_bass_is_turned_down_rather_than_bent() -> None:
    time_s = np.arange(2 * RATE) / RATE
    bass = 2.0 * np.exp(-time_s / 0.8) * np.sin(2.0 * np.pi * 50.0 * time_s)
    bass = bass[None].astype(np.float32)

    def off_the_tone(waveform: np.ndarray) -> float:
        power = np.abs(np.fft.rfft(waveform[0] * np.hanning(waveform.shape[1]))) ** 2
        near = np.abs(np.fft.rfftfreq(waveform.shape[1], 1.0 / RATE) - 50.0) <= 25.0
        return 10.0 * float(np.log10(power[~near].sum() / power[near].sum()))

    clipped = np.clip(bass, -(10.0**-0.05), 10.0**-0.05)
    assert off_the_tone(limit_peaks(bass, RATE, -1.0)) < off_the_tone(clipped) - 30.0


def raised(waveform: np.ndarray, target_lufs: float, most_db: float):
    return raise_loudness(
        waveform,
        RATE,
        target_lufs=target_lufs,
        ceiling_db=-1.0,
        most_gain_db=30.0,
        most_db=most_db,
    )


@pytest.mark.parametrize("index", range(3))
def test_a_held_beat_gets_to_its_loudness(index: int) -> None:
    wave = beat(index, 6.0)
    # Three LU more than the peaks allow.
    target = integrated_loudness(wave, RATE) - 1.0 - true_peak_db(wave, RATE) + 2.0
    held, _, limited_db = raised(wave, target, 0.0)
    assert integrated_loudness(held, RATE) == pytest.approx(target - 2.0, abs=0.05)
    assert limited_db == 0.0
    made, gain_db, limited_db = raised(wave, target, 12.0)
    assert integrated_loudness(made, RATE) == pytest.approx(target, abs=0.1)
    assert true_peak_db(made, RATE) <= -1.0 + 0.01
    assert 2.0 <= limited_db == pytest.approx(gain_db + true_peak_db(wave, RATE) + 1.0, abs=0.01)


def test_no_peak_is_turned_down_by_more_than_is_allowed() -> None:
    wave = beat(0, 6.0)
    made, gain_db, limited_db = raised(wave, -3.0, 4.0)
    assert limited_db == pytest.approx(4.0)
    loud = wave * np.float32(10.0 ** (gain_db / 20.0))
    assert reduction_db(loud, RATE, -1.0).min() == pytest.approx(-4.0, abs=0.05)
    assert integrated_loudness(made, RATE) < -3.0


def test_silence_stays_as_it_is() -> None:
    nothing = np.zeros((1, RATE), dtype=np.float32)
    assert raised(nothing, -16.0, 6.0) == (nothing, 0.0, 0.0)
