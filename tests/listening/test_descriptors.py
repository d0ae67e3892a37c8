"""Descriptors against signals whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.beats.kit808 import load_kit808
from musicgen_lora.beats.sequencer import Hit, Pattern, render, step_time_s
from musicgen_lora.evaluation.report.summary import NO_BEAT
from musicgen_lora.listening.descriptors import BANDS_HZ, band_name, describe
from musicgen_lora.listening.rhythm.onsets import (
    pick_onsets,
    spectral_flux,
)

RATE = 32_000


def sine(frequency_hz: float, seconds: float = 2.0, level: float = 0.5) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    return (level * np.sin(2 * np.pi * frequency_hz * time)).astype(np.float32)[None]


def bursts(times_s: np.ndarray, seconds: float) -> np.ndarray:
    """Short bursts of noise, like hats."""
    rng = np.random.default_rng(0)
    wave = np.zeros(round(seconds * RATE) + 800, dtype=np.float32)
    burst = rng.normal(size=800) * np.exp(-np.arange(800) / 150.0) * 0.2
    for time_s in times_s:
        start = round(float(time_s) * RATE)
        wave[start : start + 800] += burst
    return wave[None, : round(seconds * RATE)]


@pytest.mark.parametrize(
    ("band", "frequency_hz"), list(zip(BANDS_HZ, (45, 90, 180, 1000, 4000, 10000), strict=True))
)
def test_a_sine_lies_in_its_band(band: tuple[int, int], frequency_hz: float) -> None:
    facts = describe(sine(frequency_hz), RATE)
    assert facts[f"{band_name(*band)}_share"] == pytest.approx(1.0, abs=0.01)
    assert facts[f"{band_name(*band)}_db"] == pytest.approx(0.0, abs=0.05)
    others = [facts[f"{band_name(*other)}_share"] for other in BANDS_HZ if other != band]
    assert sum(others) < 0.01
    assert facts["spectral_centroid_hz"] == pytest.approx(frequency_hz, rel=0.02, abs=5)
    assert facts["spectral_flatness"] < 0.001


def test_two_sines_of_equal_level_share_the_energy() -> None:
    facts = describe(sine(50) + sine(3000), RATE)
    assert facts["band_20_60_share"] == pytest.approx(0.5, abs=0.01)
    assert facts["band_2000_6000_db"] == pytest.approx(-3.01, abs=0.1)


def test_levels_of_a_sine() -> None:
    facts = describe(sine(1000, level=0.5), RATE)
    assert facts["peak_db"] == pytest.approx(-6.02, abs=0.01)
    assert facts["rms_db"] == pytest.approx(-9.03, abs=0.01)
    assert facts["crest_db"] == pytest.approx(3.01, abs=0.01)
    assert facts["clipped_share"] == 0.0
    assert facts["silence_share"] == 0.0


def test_loudness_of_the_standards_reference_tone() -> None:
    # BS.1770-4: a 0 dBFS sine of 997 Hz in one channel reads -3.01 LKFS.
    assert describe(sine(997, 5.0, 1.0), RATE)["loudness_lufs"] == pytest.approx(-3.01, abs=0.1)


def test_offset_clipping_and_silent_share() -> None:
    wave = np.zeros((2, RATE), dtype=np.float32)
    wave[1, : RATE // 4] = 1.0
    facts = describe(wave, RATE)
    assert facts["dc_offset"] == pytest.approx(0.25)
    assert facts["clipped_share"] == pytest.approx(0.125)
    assert facts["silence_share"] == pytest.approx(0.75)


def test_white_noise_is_flat() -> None:
    noise = np.random.default_rng(1).normal(size=(1, 4 * RATE)).astype(np.float32) * 0.1
    facts = describe(noise, RATE)
    # exp(-Euler's gamma), the geometric over the arithmetic mean of an exponential variable.
    assert facts["spectral_flatness"] == pytest.approx(0.5615, abs=0.01)
    for low, high in BANDS_HZ[3:]:
        expected = (high - low) / 13_980
        assert facts[f"{band_name(low, high)}_share"] == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("frequency_hz", [32.7, 55.0, 110.0])
def test_pitch_of_a_bass(frequency_hz: float) -> None:
    wave = sine(frequency_hz, 3.0) + 0.5 * sine(2 * frequency_hz, 3.0) + 0.1 * sine(3000, 3.0)
    assert describe(wave, RATE)["sub_f0_hz"] == pytest.approx(frequency_hz, abs=0.3)


def test_no_bass_no_pitch() -> None:
    assert math.isnan(describe(sine(1000), RATE)["sub_f0_hz"])


@pytest.mark.parametrize("bpm", [75.0, 120.0, 172.0])
def test_rate_and_tempo_of_a_click_train(bpm: float) -> None:
    facts = describe(bursts(np.arange(0.0, 9.9, 60.0 / bpm), 10.0), RATE)
    assert facts["onset_rate_hz"] == pytest.approx(bpm / 60.0, abs=0.11)
    assert facts["hat_onset_rate_hz"] == pytest.approx(bpm / 60.0, abs=0.11)
    octaves = math.log2(facts["tempo_bpm"] / bpm)
    assert abs(octaves - round(octaves)) < math.log2(1.005)
    assert facts["tempo_confidence"] > 0.7


def test_tempo_is_exact_inside_the_prior() -> None:
    facts = describe(bursts(np.arange(0.0, 9.9, 60.0 / 124.0), 10.0), RATE)
    assert facts["tempo_bpm"] == pytest.approx(124.0, rel=0.002)


def test_onsets_are_where_they_were_put() -> None:
    times = np.array([0.0, 0.5, 0.75, 1.0, 1.05, 1.1, 1.6])
    flux, rate = spectral_flux(bursts(times, 2.0)[0], RATE, 6000.0, 14000.0, 0.012)
    found = pick_onsets(flux, rate)
    assert found == pytest.approx(times, abs=0.012)


def test_rolls_are_told_from_straight_hats() -> None:
    straight = describe(bursts(np.arange(0.0, 5.9, 0.2), 6.0), RATE)
    assert straight["roll_density"] == 0.0
    # A quarter of the beats rolls in 1/32 at 140 BPM: of 11 strokes, 8 follow fast.
    step_s = 60.0 / 140.0 / 8.0
    strokes = [
        beat * 8 * step_s + np.arange(8) * step_s if beat % 4 == 0 else [beat * 8 * step_s]
        for beat in range(12)
    ]
    rolled = describe(bursts(np.concatenate(strokes), 6.0), RATE)
    assert rolled["roll_density"] == pytest.approx(24 / 33, abs=0.03)


def test_kicks_and_hats_are_heard_apart() -> None:
    time = np.arange(round(0.25 * RATE)) / RATE
    kick = np.sin(2 * np.pi * 52.0 * time) * np.exp(-time / 0.07) * np.linspace(1.0, 0.0, len(time))
    # Twice differentiated, so that the bursts have no bass.
    wave = np.diff(bursts(np.arange(0.0, 7.9, 0.25), 8.0), n=2, append=[[0.0, 0.0]])
    for start_s in np.arange(0.0, 7.5, 1.0):
        start = round(start_s * RATE)
        wave[0, start : start + len(kick)] += 0.7 * kick.astype(np.float32)
    facts = describe(wave, RATE)
    assert facts["kick_onset_rate_hz"] == pytest.approx(1.0, abs=0.13)
    assert facts["hat_onset_rate_hz"] == pytest.approx(4.0, abs=0.13)


def test_a_gliding_bass_is_one_onset() -> None:
    time = np.arange(3 * RATE) / RATE
    glide = 0.5 * np.sin(2 * np.pi * (40.0 * time + 5.0 * time**2)) * np.minimum(time / 0.005, 1.0)
    facts = describe(glide.astype(np.float32)[None], RATE)
    assert facts["kick_onset_rate_hz"] == pytest.approx(1 / 3)


def test_rendered_beats() -> None:
    """On composed 808 beats, whose hits are known: F-measure of all onsets; the exact tempo."""
    scores, tempi = [], []
    for seed in range(6):
        beat = make_beat([11, seed], duration_s=10.0)
        mono = render_beat(beat, RATE, seed=seed)[0]
        pattern = beat.pattern
        times = sorted(
            step_time_s(hit.step, pattern.bpm, pattern.swing)
            for hits in pattern.tracks.values()
            for hit in hits
        )
        apart = [times[0]]
        for time_s in times:
            if time_s - apart[-1] > 0.015:
                apart.append(time_s)
        found = pick_onsets(*spectral_flux(mono, RATE, 20.0, 14000.0, 0.023))
        hit = np.abs(found[:, None] - np.asarray(apart)).min(axis=1) < 0.03
        missed = np.abs(found[:, None] - np.asarray(apart)).min(axis=0) >= 0.03
        precision, recall = float(hit.mean()), 1.0 - float(missed.mean())
        scores.append(2 * precision * recall / (precision + recall))
        tempi.append(abs(describe(mono[None], RATE)["tempo_bpm"] / beat.bpm - 1.0))
    assert np.mean(scores) > 0.85
    assert max(tempi) < 0.005


def test_beats_are_steady_and_noise_and_hits_at_random_are_not() -> None:
    rng = np.random.default_rng(3)
    beats = [render_beat(make_beat([11, seed], duration_s=10.0), RATE) for seed in range(4)]
    noise = rng.normal(0.0, 0.1, (1, 10 * RATE)).astype(np.float32)
    scattered = [bursts(rng.uniform(0.0, 9.8, 40), 10.0) for _ in range(3)]
    held = sine(110.0, 10.0) + sine(311.0, 10.0)
    steady = [describe(wave, RATE)["tempo_confidence"] for wave in beats]
    others = [describe(wave, RATE)["tempo_confidence"] for wave in (noise, held, *scattered)]
    assert min(steady) > 2.0 * NO_BEAT > 2.0 * max(others)


def test_an_808_line_has_its_glide_and_decay() -> None:
    kit = {decay_s: load_kit808(RATE, bass_decay_s=decay_s, bass_drive=0.0) for decay_s in (0.4, 1)}
    still = [Hit(16.0 * bar, 1.0, 30.0, 14.0) for bar in range(4)]
    glides = [Hit(16.0 * bar, 1.0, 30.0, 14.0, 33.0 + 4.0 * (bar % 2)) for bar in range(4)]

    def facts(hits: list[Hit], decay_s: float) -> dict[str, float]:
        pattern = Pattern(140.0, 4, {"sub": hits})
        return describe(render(pattern, kit[decay_s], RATE, humanise_ms=0.0), RATE)

    held = facts(still, 1)
    assert held["bass_glide_semitones"] == 0.0
    assert held["bass_decay_s"] == pytest.approx(1.0, rel=0.1)
    assert facts(still, 0.4)["bass_decay_s"] == pytest.approx(0.4, rel=0.1)
    assert facts(glides, 1)["bass_glide_semitones"] == pytest.approx(5.0, abs=0.5)


def test_width_is_the_side_s_share() -> None:
    left, right = sine(200.0), sine(300.0)
    assert describe(np.concatenate([left, left]), RATE)["side_share"] == 0.0
    assert describe(left, RATE)["side_share"] == 0.0
    apart = describe(np.concatenate([left, right]), RATE)["side_share"]
    assert apart == pytest.approx(0.5, abs=0.01)
    assert describe(np.concatenate([left, -left]), RATE)["side_share"] == 1.0


@pytest.mark.filterwarnings("error")
def test_silence_and_very_short_clips_have_no_loudness_and_no_spectrum() -> None:
    for wave in (np.zeros((2, RATE)), np.zeros((1, 1)), np.full((1, 10), 0.1)):
        facts = describe(wave.astype(np.float32), RATE)
        assert math.isnan(facts["loudness_lufs"])
        assert math.isnan(facts["tempo_bpm"])
        assert math.isnan(facts["band_20_60_share"])
        assert facts["onset_rate_hz"] == 0.0
    assert facts["peak_db"] == pytest.approx(-20.0)
    assert describe(np.zeros((1, RATE), dtype=np.float32), RATE)["peak_db"] == -120.0


def test_loudness_begins_at_a_block() -> None:
    assert math.isnan(describe(sine(1000, 0.4), RATE)["loudness_lufs"])
    assert math.isfinite(describe(sine(1000, 0.41), RATE)["loudness_lufs"])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_a_number_is_refused(bad: float) -> None:
    wave = sine(100)
    wave[0, 7] = bad
    with pytest.raises(ValueError, match="NaN"):
        describe(wave, RATE)


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"\[C, N\]"):
        describe(np.zeros(100, dtype=np.float32), RATE)


def test_a_low_sample_rate_loses_the_hats_alone() -> None:
    time = np.arange(16_000) / 8_000
    facts = describe(np.sin(2 * np.pi * 50.0 * time).astype(np.float32)[None], 8_000)
    assert facts["band_6000_14000_share"] == 0.0
    assert facts["hat_onset_rate_hz"] == 0.0
    assert facts["band_20_60_share"] > 0.99
