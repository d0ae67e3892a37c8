"""Signals with known technical faults, and signals without any."""

from __future__ import annotations

import io
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import soundfile as sf
import soxr

from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.beats.kit808 import load_kit808
from musicgen_lora.beats.sequencer import render
from musicgen_lora.listening.descriptors import describe
from musicgen_lora.listening.quality import (
    Quality,
    count_clipped,
    find_bandwidth,
    find_silences,
    measure_quality,
    true_peak_db,
)

RATE = 44_100


def tone(hz: float, seconds: float = 2.0, level: float = 0.5) -> np.ndarray:
    time_s = np.arange(round(seconds * RATE)) / RATE
    return (level * np.sin(2.0 * np.pi * hz * time_s)).astype(np.float32)[None]


def noise(seconds: float = 4.0, seed: int = 0, n_channels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(0.0, 0.1, (n_channels, round(seconds * RATE))).astype(np.float32)


@cache
def beat(seed: int, n_channels: int) -> np.ndarray:
    pattern = make_beat(seed, duration_s=6.0).pattern
    return render(pattern, load_kit808(RATE), RATE, seed=seed, n_channels=n_channels)


@cache
def original(seed: int, n_channels: int) -> tuple[float, bool]:
    return bandwidth_of(beat(seed, n_channels), RATE)


def bandwidth_of(waveform: np.ndarray, sample_rate: int) -> tuple[float, bool]:
    edge_hz, is_lossy = find_bandwidth(waveform, sample_rate)
    assert edge_hz is not None
    return edge_hz, is_lossy


def through_mp3(waveform: np.ndarray, kbps: int) -> np.ndarray:
    """Encoded at a constant rate, decoded, and stored in 16 bits."""
    buffer = io.BytesIO()
    level = (320 - kbps) / 288
    sf.write(
        buffer, waveform.T, RATE, format="MP3", bitrate_mode="CONSTANT", compression_level=level
    )
    buffer.seek(0)
    samples, _ = sf.read(buffer, dtype="float32", always_2d=True)
    return (np.round(np.clip(samples.T, -1.0, 1.0) * 32767.0) / 32768.0).astype(np.float32)


def test_a_clean_recording_has_no_faults() -> None:
    waveform = np.stack([noise()[0], noise(seed=1)[0]])
    quality = measure_quality(waveform, RATE)
    assert quality.clipped_samples == 0
    assert quality.silences_s == ()
    assert quality.channels == "stereo"
    assert abs(quality.dc_offset) < 0.001
    edge_hz, _ = bandwidth_of(waveform, RATE)
    assert edge_hz > 21_000
    assert quality.bandwidth_hz == edge_hz
    assert not quality.has_lossy_edge


def test_loudness_is_that_of_the_descriptors() -> None:
    waveform = render_beat(make_beat(7000, duration_s=5.0), RATE)
    expected = describe(waveform, RATE)["loudness_lufs"]
    assert measure_quality(waveform, RATE).loudness_lufs == pytest.approx(expected, abs=0.01)


def test_true_peak_lies_between_the_samples() -> None:
    # A quarter of the rate, sampled at 45 degrees: the crest is 3 dB above every sample.
    time = np.arange(RATE)
    waveform = 0.5 * np.sin(0.5 * np.pi * time + 0.25 * np.pi)[None].astype(np.float32)
    assert 20.0 * np.log10(np.abs(waveform).max()) == pytest.approx(-9.03, abs=0.01)
    assert true_peak_db(waveform, RATE) == pytest.approx(-6.02, abs=0.2)
    assert true_peak_db(np.zeros((1, 100), dtype=np.float32), RATE) == -120.0


def test_true_peak_does_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    waveform = noise(3.0, n_channels=2)
    whole = true_peak_db(waveform, RATE)
    monkeypatch.setattr("musicgen_lora.audio.loudness.BLOCK", 10_000)
    assert true_peak_db(waveform, RATE) == pytest.approx(whole, abs=0.02)


def test_clipped_runs_are_counted() -> None:
    waveform = np.zeros((2, 100), dtype=np.float32)
    waveform[0, 10:15] = 1.0
    waveform[0, 20:22] = 1.0
    waveform[1, 50:53] = -1.0
    waveform[1, 60:64] = 1.25
    waveform[1, 97:] = (1.2, 1.1, 1.3)
    assert count_clipped(waveform) == 5 + 3 + 4
    assert count_clipped(np.array([[1.0, 1.0, -1.0, -1.0]])) == 0
    # The crest of a loud clean bass is no clipping.
    assert count_clipped(tone(50.0, level=1.0)) == 0
    in_16_bits = (np.round(32767.0 * tone(50.0, level=1.0)) / 32768.0).astype(np.float32)
    assert count_clipped(in_16_bits) < 0.01 * 2 * RATE
    assert count_clipped(np.clip(tone(50.0, level=2.0), -1.0, 1.0)) > 0.5 * 2 * RATE


def test_silences_are_found() -> None:
    waveform = noise(6.0)
    waveform[:, : RATE // 2 + 100] = 0.0
    waveform[:, 2 * RATE : 2 * RATE + 8000] = 0.0
    waveform[:, 4 * RATE :] *= 1e-4
    silences = find_silences(waveform, RATE)
    assert len(silences) == 2
    assert silences[0] == pytest.approx((0.0, 0.5), abs=0.051)
    assert silences[1] == pytest.approx((4.0, 6.0), abs=0.051)
    assert all(a[1] < b[0] for a, b in pairwise(silences))
    one_side = np.concatenate([waveform, noise(6.0, seed=2)])
    assert find_silences(one_side, RATE) == []


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (1.0, 1.0, "identical"),
        (1.0, 0.99, "near mono"),
        (1.0, 0.0, "one-sided"),
        (1.0, -1.0, "inverted"),
        (0.0, 0.0, "identical"),
    ],
)
def test_fake_stereo(left: float, right: float, expected: str) -> None:
    mono = noise(1.0)[0]
    assert measure_quality(np.stack([left * mono, right * mono]), RATE).channels == expected


def test_one_channel_is_mono() -> None:
    assert measure_quality(noise(1.0), RATE).channels == "mono"


@pytest.mark.parametrize(
    ("kbps", "n_channels", "low_hz", "high_hz"),
    [(64, 1, 14_000, 17_500), (64, 2, 9_000, 12_500), (128, 2, 14_000, 18_000)],
)
def test_an_mp3_called_wav(kbps: int, n_channels: int, low_hz: float, high_hz: float) -> None:
    for seed in (7000, 7001, 7002):
        original_hz, was_lossy = original(seed, n_channels)
        edge_hz, is_lossy = bandwidth_of(through_mp3(beat(seed, n_channels), kbps), RATE)
        assert not was_lossy
        assert is_lossy
        assert low_hz < edge_hz < min(high_hz, original_hz)


def test_a_lower_rate_blown_up() -> None:
    small = soxr.resample(noise()[0], RATE, 16_000)
    edge_hz, is_lossy = bandwidth_of(soxr.resample(small, 16_000, RATE)[None], RATE)
    assert is_lossy
    assert 6_500 < edge_hz < 8_500


def test_a_bass_alone_has_a_low_band_but_no_edge() -> None:
    edge_hz, is_lossy = bandwidth_of(tone(50.0) + 0.2 * tone(150.0), RATE)
    assert not is_lossy
    assert 100.0 < edge_hz < 600.0


def test_offset() -> None:
    waveform = noise(1.0, n_channels=2)
    waveform[1] += 0.05
    quality = measure_quality(waveform, RATE)
    assert quality.dc_offset == pytest.approx(0.05, abs=0.003)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("rate", [4_000, 22_050, 192_000])
@pytest.mark.parametrize("n_samples", [1, 100, 30_000])
def test_silence_at_any_rate_and_length(rate: int, n_samples: int) -> None:
    quality = measure_quality(np.zeros((2, n_samples), dtype=np.float32), rate)
    assert isinstance(quality, Quality)
    assert quality.loudness_lufs is quality.bandwidth_hz is None
    assert quality.true_peak_db == -120.0
    expected = ((0.0, n_samples / rate),) if n_samples >= 0.5 * rate else ()
    assert quality.silences_s == expected


def test_shapes_are_checked() -> None:
    for bad in (np.zeros(10), np.zeros((1, 0))):
        with pytest.raises(ValueError, match=r"\[C, N\]"):
            measure_quality(bad, RATE)
