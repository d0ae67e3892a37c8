"""Requested tempos, with beats that keep them, drift away, or have none."""

from __future__ import annotations

import numpy as np
import pytest

from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.listening.rhythm.asked_tempo import kept_tempo
from musicgen_lora.listening.rhythm.metre import onset_strengths

RATE = 32_000


@pytest.mark.parametrize("seed", [11, 12, 13, 14])
@pytest.mark.parametrize("off", [-0.03, 0.0, 0.02])
def test_a_beat_s_tempo_is_measured_near_the_asked_one(seed: int, off: float) -> None:
    beat = make_beat(seed, duration_s=10.0)
    strengths = onset_strengths(render_beat(beat, RATE, seed=seed), RATE)
    for octave in (0.5, 1.0, 2.0):
        if not 60.0 <= octave * beat.bpm <= 200.0:
            continue
        kept = kept_tempo(strengths, octave * beat.bpm / (1.0 + off))
        assert kept.bpm == pytest.approx(octave * beat.bpm, rel=0.003)
        assert kept.is_steady
        assert kept.drift_s < 0.012


def test_drift_is_measured() -> None:
    beat = make_beat(12, duration_s=12.0)
    waveform = render_beat(beat, RATE, seed=12)
    half = waveform.shape[1] // 2
    late = np.concatenate([waveform[:, :half], np.zeros((1, 960)), waveform[:, half:]], axis=1)
    kept = kept_tempo(onset_strengths(late.astype(np.float32), RATE), beat.bpm)
    # 30 ms of silence in the middle; a line through both halves is off by a part of it.
    assert 0.008 < kept.drift_s < 0.03


def test_noise_and_silence_keep_no_tempo() -> None:
    n_steady = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        waveform = np.zeros((1, 10 * RATE), dtype=np.float32)
        for at in rng.integers(0, 9 * RATE, 60):
            waveform[0, at : at + 1600] += rng.standard_normal(1600) * np.linspace(1, 0, 1600)
        n_steady += kept_tempo(onset_strengths(waveform, RATE), 140.0).is_steady
    assert n_steady <= 1
    silent = kept_tempo(onset_strengths(np.zeros((1, RATE), dtype=np.float32), RATE), 140.0)
    assert np.isnan(silent.bpm)
    assert not silent.is_steady
