"""Tempo, beats and bar lines against beats whose grid is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.beats.kit808 import load_kit808
from musicgen_lora.beats.sequencer import Hit, Pattern, render
from musicgen_lora.listening.rhythm.metre import FRAME_RATE, onset_strengths
from musicgen_lora.listening.rhythm.tempo import Tempo, estimate_tempo

RATE = 32_000


def drum_beat(bpm: float, backbeats: tuple[int, ...], hat_step: float, n_bars: int) -> np.ndarray:
    """Kick, snare and hats `[1, N]`, the kick in a figure that is the bar's own."""
    bars = 16 * np.arange(n_bars)
    tracks = {
        "kick": [Hit(float(bar + step)) for bar in bars for step in (0, 6, 11)],
        "snare": [Hit(float(bar + step)) for bar in bars for step in backbeats],
        "closed_hat": [Hit(float(step), 0.7) for step in np.arange(0, 16 * n_bars, hat_step)],
    }
    return render(Pattern(bpm, n_bars, tracks), load_kit808(RATE), RATE, humanise_ms=2.0)


def distances_s(tempo: Tempo, bar_s: float, first_bar_s: float = 0.0) -> np.ndarray:
    """Distance from each bar line found to the nearest true one."""
    late = (tempo.downbeats_s - first_bar_s + 0.5 * bar_s) % bar_s - 0.5 * bar_s
    return np.abs(late)


@pytest.mark.parametrize(
    ("bpm", "backbeats", "hat_step"),
    [(140.0, (8,), 2.0), (140.0, (8,), 1.0), (152.0, (8,), 2.0), (86.0, (4, 12), 2.0)],
)
def test_octave_of_trap_and_boom_bap(
    bpm: float, backbeats: tuple[int, ...], hat_step: float
) -> None:
    tempo = estimate_tempo(drum_beat(bpm, backbeats, hat_step, 8), RATE)
    assert tempo.bpm == pytest.approx(bpm, rel=5e-4)
    assert tempo.alternative_bpm / tempo.bpm in (0.5, 2.0)
    assert tempo.confidence > 0.6
    assert tempo.is_steady


def test_bar_lines_hold_for_a_minute() -> None:
    waveform = drum_beat(141.37, (8,), 2.0, 36)
    bar_s = 240.0 / 141.37
    cut = round(0.6 * bar_s * RATE)
    tempo = estimate_tempo(waveform[:, cut:], RATE)
    assert tempo.bpm == pytest.approx(141.37, rel=1e-4)
    assert distances_s(tempo, bar_s, -cut / RATE).max() < 0.015
    assert tempo.downbeats_s[0] == pytest.approx(0.4 * bar_s, abs=0.015)
    assert len(tempo.downbeats_s) in (35, 36)
    assert np.isin(tempo.downbeats_s, tempo.beats_s).all()


def test_rendered_beats_of_all_styles() -> None:
    right, near, on_bar = [], [], []
    for seed in range(7000, 7016):
        beat = make_beat(seed, duration_s=20.0)
        bar_s = 240.0 / beat.bpm
        cut = round(0.37 * bar_s * RATE)
        tempo = estimate_tempo(render_beat(beat, RATE, seed=seed)[:, cut : cut + 15 * RATE], RATE)
        right.append(abs(tempo.bpm / beat.bpm - 1.0) < 0.04)
        near.append(any(abs(tempo.bpm * k / beat.bpm - 1.0) < 0.04 for k in (0.5, 1.0, 2.0)))
        on_bar.append((distances_s(tempo, bar_s, -cut / RATE) < 0.03).all())
    assert np.mean(right) >= 0.85
    assert np.mean(near) == 1.0
    assert np.mean(on_bar) >= 0.75


@pytest.mark.parametrize("n_bars", [2, 4])
@pytest.mark.parametrize("sample_rate", [44_100, 22_050])
def test_a_short_loop(n_bars: int, sample_rate: int) -> None:
    waveform = drum_beat(93.0, (4, 12), 2.0, n_bars)
    positions = np.arange(0, waveform.shape[1] - 1, RATE / sample_rate)
    resampled = np.interp(positions, np.arange(waveform.shape[1]), waveform[0])
    tempo = estimate_tempo(resampled.astype(np.float32)[None], sample_rate)
    assert tempo.bpm == pytest.approx(93.0, rel=2e-3)
    assert tempo.downbeats_s[0] == pytest.approx(0.0, abs=0.015)


def test_a_tempo_that_moves_is_followed() -> None:
    bpm = 112.0
    waveform = drum_beat(bpm, (4, 12), 2.0, 15)[0]
    time_s = np.arange(len(waveform)) / RATE
    # Two per cent faster and slower within 20 s.
    played_s = time_s + 0.06 * np.sin(2.0 * np.pi * time_s / 20.0)
    moving = np.interp(played_s, time_s, waveform).astype(np.float32)
    tempo = estimate_tempo(moving[None], RATE)
    assert not tempo.is_steady
    assert tempo.bpm == pytest.approx(bpm, rel=0.04)
    beats_s = np.interp(np.arange(0.0, time_s[-1], 60.0 / bpm), played_s, time_s)
    off_s = np.abs(tempo.beats_s[:, None] - beats_s).min(axis=1)
    assert (off_s < 0.05).mean() > 0.9


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n_samples", [0, 1, 1000, 15 * RATE])
def test_silence_has_no_tempo(n_samples: int) -> None:
    tempo = estimate_tempo(np.zeros((2, n_samples), dtype=np.float32), RATE)
    assert math.isnan(tempo.bpm)
    assert math.isnan(tempo.alternative_bpm)
    assert tempo.confidence == tempo.downbeat_confidence == 0.0
    assert len(tempo.beats_s) == len(tempo.downbeats_s) == 0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["noise", "sine", "click"])
def test_nothing_that_repeats_gives_no_confidence(kind: str) -> None:
    n_samples = 12 * RATE
    waveform = {
        "noise": np.random.default_rng(0).normal(0.0, 0.1, n_samples),
        "sine": 0.5 * np.sin(0.05 * np.arange(n_samples)),
        "click": np.eye(1, n_samples, 5000)[0],
    }[kind]
    tempo = estimate_tempo(waveform.astype(np.float32)[None], RATE)
    assert tempo.confidence < 0.3
    assert tempo.downbeat_confidence < 0.3


def test_blocks_of_a_long_recording_join_without_a_seam() -> None:
    waveform = drum_beat(120.0, (4, 12), 2.0, 40)
    strengths = onset_strengths(waveform, RATE)
    assert strengths.shape == (4, int(waveform.shape[1] / RATE * FRAME_RATE) + 1)
    # Beat for beat the same at the seam of 60 s as ten seconds earlier.
    seam = strengths[2:, round(59.0 * FRAME_RATE) : round(61.0 * FRAME_RATE)].sum(axis=0)
    earlier = strengths[2:, round(49.0 * FRAME_RATE) : round(51.0 * FRAME_RATE)].sum(axis=0)
    assert np.corrcoef(seam, earlier)[0, 1] > 0.9


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[C, N\]"):
        estimate_tempo(np.zeros(RATE, dtype=np.float32), RATE)
    with pytest.raises(ValueError, match="NaN"):
        estimate_tempo(np.full((1, 2 * RATE), np.nan, dtype=np.float32), RATE)
