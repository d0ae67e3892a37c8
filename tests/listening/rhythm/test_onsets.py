"""A hit on a recording's first sample is heard like any other, and at time 0."""

from __future__ import annotations

import numpy as np
import pytest

from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.beats.kit808 import load_kit808
from musicgen_lora.beats.sequencer import Hit, Pattern, render
from musicgen_lora.listening.descriptors import describe
from musicgen_lora.listening.drums import EARLY_S, find_drum_hits
from musicgen_lora.listening.pitch.bass import find_bass_notes
from musicgen_lora.listening.rhythm.loops import weighted_onsets
from musicgen_lora.listening.rhythm.metre import BANDS, onset_strengths
from musicgen_lora.listening.rhythm.onsets import find_onsets

RATE = 32_000
BEFORE_S = 0.5
WINDOWS = [(low, high, window) for low, high, window, _ in BANDS] + [(20.0, 14_000.0, 0.023)]


def bursts(times_s: list[float], duration_s: float = 3.0) -> np.ndarray:
    """Bursts of noise that fall by 60 dB in 70 ms, to the sample `[1, N]`."""
    noise = np.random.default_rng(3).standard_normal(round(0.08 * RATE))
    hit = 0.3 * noise * np.exp(-np.arange(len(noise)) / (0.01 * RATE))
    waveform = np.zeros(round(duration_s * RATE))
    for time_s in times_s:
        start = round(time_s * RATE)
        waveform[start : start + len(hit)] += hit
    return waveform[None].astype(np.float32)


def late(waveform: np.ndarray) -> np.ndarray:
    """The same after half a second of silence."""
    return np.pad(waveform, ((0, 0), (round(BEFORE_S * RATE), 0)))


@pytest.mark.parametrize(("low_hz", "high_hz", "window_s"), WINDOWS)
def test_a_click_on_the_first_sample(low_hz: float, high_hz: float, window_s: float) -> None:
    waveform = bursts([0.0, 0.6, 1.2, 2.0])
    early_s = EARLY_S["low"] if window_s > 0.09 else 0.0
    found = find_onsets(waveform[0], RATE, low_hz, high_hz, window_s, early_s=early_s)
    assert found == pytest.approx([0.0, 0.6, 1.2, 2.0], abs=0.011)
    later = find_onsets(late(waveform)[0], RATE, low_hz, high_hz, window_s, early_s=early_s)
    assert found == pytest.approx(np.maximum(later - BEFORE_S, 0.0), abs=1e-9)


def test_onsets_of_all_bands_begin_at_0() -> None:
    onsets_s, weights = weighted_onsets(onset_strengths(bursts([0.0, 0.6, 1.2, 2.0]), RATE))
    assert onsets_s == pytest.approx([0.0, 0.6, 1.2, 2.0], abs=0.006)
    assert weights[0] >= weights[1:].max()


@pytest.mark.parametrize("drum", ["kick", "snare", "closed_hat"])
def test_a_drum_on_the_first_sample(drum: str) -> None:
    pattern = Pattern(120.0, 1, {drum: [Hit(0.0), Hit(6.0), Hit(13.0)]})
    waveform = render(pattern, load_kit808(RATE), RATE)
    named = {"closed_hat": "hat"}.get(drum, drum)
    heard = [hit.start_s for hit in find_drum_hits(waveform, RATE) if hit.drum == named]
    assert heard == pytest.approx([0.0, 0.75, 1.625], abs=0.011)


@pytest.mark.parametrize("seed", [2000, 2001, 2004])
def test_a_beat_sounds_the_same_after_silence(seed: int) -> None:
    beat = make_beat(seed)
    waveform = render_beat(beat, RATE, seed=seed)
    now, then = find_drum_hits(waveform, RATE), find_drum_hits(late(waveform), RATE)
    for drum in ("kick", "snare", "hat"):
        at_once = [hit.start_s for hit in now if hit.drum == drum]
        times_s = np.array([hit.start_s for hit in then if hit.drum == drum]) - BEFORE_S
        assert at_once == pytest.approx(np.maximum(times_s, 0.0), abs=1e-6)
    assert min(hit.start_s for hit in now if hit.drum == "kick") < 0.006
    notes = [note.start_s for note in find_bass_notes(waveform, RATE)]
    assert notes[0] == pytest.approx(0.0, abs=0.006)


@pytest.mark.parametrize("seed", [2000, 2002, 2013])
def test_counts_have_the_first_hit(seed: int) -> None:
    waveform = render_beat(make_beat(seed), RATE, seed=seed)
    now, after = describe(waveform, RATE), describe(late(waveform), RATE)
    for name in ("onset_rate_hz", "hat_onset_rate_hz", "kick_onset_rate_hz"):
        count = now[name] * waveform.shape[1] / RATE
        assert count == pytest.approx(after[name] * (waveform.shape[1] / RATE + BEFORE_S)), name
