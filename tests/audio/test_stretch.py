"""Stretched beats against the same beats played at the other tempo."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.signal import butter, sosfiltfilt

from musicgen_lora.audio.loudness import integrated_loudness
from musicgen_lora.audio.stretch import stretch
from musicgen_lora.beats.beats808 import Beat, make_beat, render_beat
from musicgen_lora.beats.sequencer import step_time_s

RATE = 32_000


def beat_at(seed: int, speed: float) -> tuple[np.ndarray, list[float]]:
    """A beat at `speed` times its tempo, and the times of its drums' loud hits."""
    made = make_beat(seed, duration_s=6.0)
    pattern = dataclasses.replace(made.pattern, bpm=made.pattern.bpm * speed)
    beat: Beat = dataclasses.replace(made, pattern=pattern, humanise_ms=0.0)
    drums = [hits for track, hits in pattern.tracks.items() if track != "sub"]
    times = {step_time_s(hit.step, pattern.bpm, pattern.swing) for hits in drums for hit in hits}
    return render_beat(beat, RATE, seed=seed), sorted(times)


def rises_db(waveform: np.ndarray, times_s: list[float]) -> np.ndarray:
    """The steepest rise within 0.25 ms above 1 kHz at each hit, in dB."""
    high = sosfiltfilt(butter(2, 1000.0, "highpass", fs=RATE, output="sos"), waveform[0])
    level = 10.0 * np.log10(np.convolve(high**2, np.ones(32) / 32, "same") + 1e-10)
    places = [round(time_s * RATE) for time_s in times_s if time_s > 0.03]
    return np.array([np.diff(level[at - 320 : at + 480 : 8]).max() for at in places])


@pytest.mark.parametrize("speed", [1.03, 0.97])
@pytest.mark.parametrize("seed", [40, 43])
def test_hits_stay_sharp_at_their_place_and_level(seed: int, speed: float) -> None:
    waveform, onsets_s = beat_at(seed, 1.0)
    played, times_s = beat_at(seed, speed)
    made = stretch(waveform, RATE, speed, onsets_s)
    assert abs(made.shape[1] - played.shape[1]) <= 1
    assert np.median(rises_db(made, times_s) - rises_db(played, times_s)) > -1.0
    assert integrated_loudness(made, RATE) == pytest.approx(
        integrated_loudness(played, RATE), abs=0.5
    )


@pytest.mark.parametrize("speed", [1.04, 0.96])
def test_a_bass_keeps_its_pitch(speed: float) -> None:
    time_s = np.arange(4 * RATE) / RATE
    bass = (0.5 * np.sin(2.0 * np.pi * 50.0 * time_s) * np.exp(-time_s / 2.0))[None]
    made = stretch(bass.astype(np.float32), RATE, speed, np.arange(0.0, 4.0, 0.2).tolist())
    inner = made[0, RATE // 2 : -RATE // 2]
    power = np.abs(np.fft.rfft(inner * np.hanning(len(inner)))) ** 2
    on_pitch = np.abs(np.fft.rfftfreq(len(inner), 1.0 / RATE) - 50.0) < 3.0
    assert 10.0 * np.log10(power[~on_pitch].sum() / power[on_pitch].sum()) < -30.0


def wandered(waveform: np.ndarray, off_s: float) -> np.ndarray:
    """A recording that is alternately early and late, as from tape wow."""
    time_s = np.arange(waveform.shape[1]) / RATE
    played = (time_s - off_s * np.sin(2.0 * np.pi * time_s / 5.0)) * RATE
    return np.array([np.interp(played, RATE * time_s, channel) for channel in waveform])


@pytest.mark.parametrize("speed", [1.0, 1.02])
@pytest.mark.parametrize("seed", [40, 43])
def test_what_wanders_comes_back_in_time(speed: float, seed: int) -> None:
    waveform, onsets_s = beat_at(seed, 1.0)
    played, times_s = beat_at(seed, speed)
    times = np.linspace(0.0, 12.0, 121)
    # `late_s` at the time when it sounds now: as late as the audio played then.
    sounds_at = times + 0.02 * np.sin(2.0 * np.pi * times / 5.0)

    def late_s(at_s: np.ndarray) -> np.ndarray:
        return at_s - np.interp(at_s, sounds_at, times)

    now_s = np.array(onsets_s) + 0.02 * np.sin(2.0 * np.pi * np.array(onsets_s) / 5.0)
    made = stretch(wandered(waveform, 0.02), RATE, speed, now_s.tolist(), late_s)
    assert abs(made.shape[1] - played.shape[1]) <= 0.025 * RATE
    # A hit that is 20 ms off rises where the other is level.
    assert np.median(rises_db(made, times_s) - rises_db(played, times_s)) > -2.0
    # The bass is in place too.
    low = butter(2, 100.0, "lowpass", fs=RATE, output="sos")
    n_both = min(made.shape[1], played.shape[1])
    bass, like = (sosfiltfilt(low, one[0, :n_both]) for one in (made, played))
    envelope, its = (np.convolve(np.abs(one), np.ones(1000) / 1000) for one in (bass, like))
    assert np.corrcoef(envelope, its)[0, 1] > 0.97


def test_stereo_silence_and_no_onsets() -> None:
    rng = np.random.default_rng(0)
    noise = rng.uniform(-0.5, 0.5, (2, 2 * RATE)).astype(np.float32)
    assert stretch(noise, RATE, 0.97, []).shape == (2, round(2 * RATE / 0.97))
    assert not stretch(np.zeros((2, RATE), dtype=np.float32), RATE, 1.02, [0.5]).any()
    np.testing.assert_array_equal(stretch(noise, RATE, 1.0, [0.5]), noise)
    with pytest.raises(ValueError, match="beyond"):
        stretch(noise, RATE, 1.5, [])
    with pytest.raises(ValueError, match="beyond"):
        stretch(noise, RATE, 1.0, [], lambda at_s: 0.3 * at_s)
