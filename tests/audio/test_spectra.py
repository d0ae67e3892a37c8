"""Spectra of many frames at once against scipy's, frame by frame."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import ShortTimeFFT
from scipy.signal.windows import hann

from musicgen_lora.audio.spectra import magnitudes, magnitudes_at

RATE = 4_000


@pytest.mark.parametrize(("n_samples", "n_window"), [(9_000, 400), (5_003, 185), (700, 400)])
def test_as_scipy_has_them(n_samples: int, n_window: int) -> None:
    mono = np.random.default_rng(0).normal(0.0, 0.2, n_samples)
    window = np.asarray(hann(n_window, sym=False))
    stft = ShortTimeFFT(window, 20, RATE, mfft=512)
    n_frames = n_samples // 20 + 1
    expected = np.abs(stft.stft(mono, p0=0, p1=n_frames)) * (2.0 / window.sum())
    found = magnitudes(mono, window, 20, 512)
    assert found.dtype == np.float32
    assert np.allclose(found, expected, atol=1e-5)
    part = magnitudes(mono, window, 20, 512, bins=slice(3, 90), first=11, n_frames=5)
    assert np.array_equal(part, found[3:90, 11:16])


def test_a_full_scale_sine_reads_one() -> None:
    time_s = np.arange(RATE) / RATE
    found = magnitudes(np.sin(2.0 * np.pi * 500.0 * time_s), np.asarray(hann(400)), 100, 512)
    assert found[:, 20].max() == pytest.approx(1.0, abs=1e-3)
    assert found[:, 20].argmax() == 500.0 * 512 / RATE


def test_some_frames_are_those_of_all() -> None:
    mono = np.random.default_rng(0).standard_normal(20_000).astype(np.float32)
    window = np.asarray(hann(512, sym=False))
    frames, bins = np.array([0, 3, 3, 78]), np.array([5, 200, 1024])
    whole = magnitudes(mono, window, 256, 2048)
    some = magnitudes_at(mono, window, 256 * frames, 2048, bins)
    np.testing.assert_allclose(some, whole[np.ix_(bins, frames)], rtol=1e-6)
