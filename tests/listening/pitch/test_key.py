"""The key of synthetic chords, of a bass alone, and of rendered beats."""

from __future__ import annotations

import numpy as np
import pytest

from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.beats.kit808 import load_kit808
from musicgen_lora.beats.sequencer import NOTE_NAMES, Hit, Pattern, render
from musicgen_lora.listening.pitch.key import bass_chroma, estimate_key, tone_chroma

RATE = 32_000
CADENCES = {
    "major": ((0, 4, 7), (5, 9, 12), (7, 11, 14), (0, 4, 7)),
    "minor": ((0, 3, 7), (5, 8, 12), (7, 10, 14), (0, 3, 7)),
}


def chords(tonic: int, mode: str, detune: float = 0.0) -> np.ndarray:
    """Two cadences of decaying tones with harmonics `[1, N]`, a second a chord."""
    time_s = np.arange(RATE) / RATE
    bars = []
    for chord in CADENCES[mode] * 2:
        bar = np.zeros(RATE)
        for degree in (chord[0] - 12, *chord):
            hz = 440.0 * 2.0 ** ((60 + tonic + degree + detune - 69) / 12.0)
            for harmonic in (1, 2, 3):
                bar += np.sin(2.0 * np.pi * hz * harmonic * time_s) / harmonic**2
        bars.append(0.1 * bar * np.exp(-time_s / 0.8))
    return np.concatenate(bars).astype(np.float32)[None]


@pytest.mark.parametrize("mode", ["major", "minor"])
@pytest.mark.parametrize("tonic", range(12))
def test_cadences_in_all_keys(tonic: int, mode: str) -> None:
    key = estimate_key(chords(tonic, mode), RATE)
    assert key.name == f"{NOTE_NAMES[tonic]} {mode}"
    assert key.confidence > 0.5


@pytest.mark.parametrize("detune", [-0.3, 0.3])
@pytest.mark.parametrize("mode", ["major", "minor"])
@pytest.mark.parametrize("tonic", [0, 3, 6, 10])
def test_chords_out_of_tune_under_drums(tonic: int, mode: str, detune: float) -> None:
    music = chords(tonic, mode, detune)
    tracks = {
        "kick": [Hit(float(step)) for step in range(0, 64, 4)],
        "snare": [Hit(float(step)) for step in range(4, 64, 8)],
        "closed_hat": [Hit(float(step), 0.7) for step in range(0, 64, 2)],
    }
    drums = render(Pattern(120.0, 4, tracks), load_kit808(RATE), RATE)
    n_samples = min(music.shape[1], drums.shape[1])
    mix = music[:, :n_samples] + drums[:, :n_samples]
    assert estimate_key(mix, RATE).name == f"{NOTE_NAMES[tonic]} {mode}"


def test_short_bass_notes_with_octaves_under_drums() -> None:
    time_s = np.arange(RATE // 8) / RATE
    line = np.zeros(64 * len(time_s))
    for step, degree in enumerate(
        [0, 0, 12, 0, 0, 12, 7, 0] * 6 + [8, 8, 20, 8, 10, 10, 22, 10] * 2
    ):
        if step % 4 == 0:
            continue
        hz = 440.0 * 2.0 ** ((38 + degree - 69) / 12.0)
        note = sum(np.sin(2.0 * np.pi * hz * n * time_s) / n for n in range(1, 6))
        line[step * len(time_s) :][: len(time_s)] = note * np.exp(-time_s / 0.1)
    tracks = {"kick": [Hit(float(step)) for step in range(0, 64, 4)]}
    kicks = render(Pattern(120.0, 4, tracks), load_kit808(RATE), RATE)
    chroma, held = bass_chroma(0.3 * line[None].astype(np.float32) + kicks[:, : len(line)], RATE)
    assert held > 0.2
    assert set(np.argsort(chroma)[-4:]) == {0, 2, 9, 10}
    assert chroma.argmax() == 2
    assert chroma[[0, 2, 9, 10]].sum() > 0.9


@pytest.mark.parametrize(("pitch", "name"), [(25, "C# minor"), (29, "F minor"), (33, "A minor")])
def test_a_bass_alone_under_drums(pitch: int, name: str) -> None:
    line = [(0, 0), (6, 0), (10, 7), (16, 0), (24, -2), (32, 0), (38, 3), (48, -4), (56, -2)]
    hits = [Hit(float(step), 1.0, float(pitch + degree), 5.0) for step, degree in line]
    tracks = {
        "sub": hits,
        "kick": [Hit(float(step)) for step, _ in line],
        "snare": [Hit(float(step)) for step in range(8, 64, 16)],
        "closed_hat": [Hit(float(step), 0.7) for step in range(0, 64, 2)],
    }
    waveform = render(Pattern(140.0, 4, tracks), load_kit808(RATE), RATE)
    key = estimate_key(waveform, RATE)
    assert key.name == name
    assert key.confidence > 0.5


@pytest.mark.parametrize("drums", [False, True], ids=["alone", "under drums"])
@pytest.mark.parametrize(
    ("degrees", "n_harmonics"),
    [([0], 1), ([0], 4), ([0], 12), ([0, 12], 4), ([0, 7], 4)],
    ids=["sine", "note", "distorted", "octaves", "fifths"],
)
def test_notes_that_both_modes_have_give_no_confidence(
    degrees: list[int], n_harmonics: int, drums: bool
) -> None:
    time_s = np.arange(RATE // 2) / RATE
    line = []
    for step in range(32):
        hz = 55.0 * 2.0 ** (degrees[step % len(degrees)] / 12.0)
        note = sum(np.sin(2.0 * np.pi * hz * n * time_s) / n for n in range(1, n_harmonics + 1))
        line.append(note * np.exp(-time_s / 0.5))
    waveform = 0.3 * np.concatenate(line)[None].astype(np.float32)
    if drums:
        tracks = {
            "kick": [Hit(float(step)) for step in range(0, 128, 8)],
            "snare": [Hit(float(step)) for step in range(4, 128, 8)],
        }
        beat = render(Pattern(120.0, 8, tracks), load_kit808(RATE), RATE)
        waveform += beat[:, : waveform.shape[1]]
    assert estimate_key(waveform, RATE).confidence < 0.5


def test_rendered_beats() -> None:
    right = []
    for seed in range(7000, 7014):
        beat = make_beat(seed, duration_s=15.0)
        if beat.key is not None:
            right.append(estimate_key(render_beat(beat, RATE, seed=seed), RATE).name == beat.key)
    assert len(right) >= 10
    assert np.mean(right) >= 0.8


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n_samples", [0, 1, 500, 5 * RATE])
def test_silence_has_no_key(n_samples: int) -> None:
    key = estimate_key(np.zeros((2, n_samples), dtype=np.float32), RATE)
    assert key.name is None
    assert key.confidence == 0.0


def test_noise_and_drums_give_no_confidence() -> None:
    noise = np.random.default_rng(0).normal(0.0, 0.1, (1, 8 * RATE)).astype(np.float32)
    assert estimate_key(noise, RATE).confidence < 0.5
    tracks = {
        "kick": [Hit(float(step)) for step in range(0, 64, 8)],
        "snare": [Hit(float(step)) for step in range(4, 64, 8)],
        "closed_hat": [Hit(float(step)) for step in range(0, 64, 2)],
    }
    drums = render(Pattern(90.0, 4, tracks), load_kit808(RATE), RATE)
    assert estimate_key(drums, RATE).confidence < 0.5


def test_tones_are_told_from_noise() -> None:
    _, of_chords = tone_chroma(chords(0, "major"), RATE)
    noise = np.random.default_rng(0).normal(0.0, 0.1, (1, 8 * RATE)).astype(np.float32)
    _, of_noise = tone_chroma(noise, RATE)
    assert of_chords > 3.0 * of_noise
