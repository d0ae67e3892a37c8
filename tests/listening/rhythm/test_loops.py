"""A loop's length as evidence of its tempo, and lengths that are none."""

from __future__ import annotations

import numpy as np
import pytest

from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.beats.kit808 import load_kit808
from musicgen_lora.beats.sequencer import Hit, Pattern, render
from musicgen_lora.listening.rhythm.tempo import estimate_tempo

RATE = 32_000


def one_bar(bpm: float) -> np.ndarray:
    """A bar in which nothing repeats: kick, snare and a few hats, to the sample."""
    tracks = {
        "kick": [Hit(0.0), Hit(3.0), Hit(10.0)],
        "snare": [Hit(4.0), Hit(13.0)],
        "closed_hat": [Hit(float(step), 0.7) for step in (2, 6, 7, 9, 14)],
    }
    waveform = render(Pattern(bpm, 1, tracks), load_kit808(RATE), RATE)
    return waveform[:, : round(240.0 / bpm * RATE)]


@pytest.mark.parametrize("bpm", [97.0, 81.0, 113.0, 142.0])
def test_a_bar_that_is_heard_once(bpm: float) -> None:
    """2.474 s are four beats at 97."""
    waveform = one_bar(bpm)
    tempo = estimate_tempo(waveform, RATE)
    # The length is in whole samples.
    assert tempo.bpm == pytest.approx(bpm, abs=0.005)
    assert tempo.loop_bars == 1
    assert tempo.confidence >= 0.7
    assert tempo.downbeats_s[0] == pytest.approx(0.0, abs=0.01)


def test_a_length_that_the_onsets_contradict() -> None:
    """The same bar with a tail, or cut short, isn't a loop at the tempo of its length."""
    waveform = one_bar(97.0)
    for length in (0.83, 1.13, 1.3):
        n_samples = round(length * waveform.shape[1])
        changed = np.concatenate([waveform, waveform], axis=1)[:, :n_samples]
        assert estimate_tempo(changed, RATE).loop_bars is None


def test_excerpts_are_no_loops() -> None:
    """Excerpts of whole seconds, which are whole bars of some whole tempo, and of any length."""
    rng = np.random.default_rng(5)
    for seed in range(300, 312):
        beat = make_beat(seed, duration_s=20.0)
        waveform = render_beat(beat, RATE, seed=seed)
        for length_s in (4.0, 6.0, float(rng.uniform(2.0, 12.0))):
            start = int(rng.integers(0, 8 * RATE))
            excerpt = waveform[:, start : start + round(length_s * RATE)]
            bars = length_s * beat.bpm / 240.0
            if abs(bars - round(bars)) > 0.03:
                assert estimate_tempo(excerpt, RATE).loop_bars is None, (seed, length_s)


@pytest.mark.parametrize("kind", ["hit", "drone", "hits anywhere"])
def test_what_has_no_tempo_is_no_loop(kind: str) -> None:
    rng = np.random.default_rng(2)
    # Whole bars of 97, 60 and 120.
    for length_s in (240.0 / 97.0, 4.0, 8.0):
        time_s = np.arange(round(length_s * RATE)) / RATE
        waveform = np.zeros(len(time_s))
        if kind == "hit":
            waveform += rng.standard_normal(len(time_s)) * np.exp(-time_s / 0.6)
        elif kind == "drone":
            waveform += np.sin(2.0 * np.pi * 98.0 * time_s) + np.sin(2.0 * np.pi * 147.3 * time_s)
        else:
            for start in rng.integers(0, len(time_s), 12):
                waveform[start : start + 400] += rng.standard_normal(400)[: len(time_s) - start]
        assert estimate_tempo(0.1 * waveform[None], RATE).loop_bars is None
