"""Bass notes against notes that were put there."""

from __future__ import annotations

import numpy as np
import pytest

from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.beats.kit808 import load_kit808
from musicgen_lora.beats.sequencer import Hit, Pattern, render, step_time_s
from musicgen_lora.listening.pitch.bass import find_bass_notes

RATE = 32_000


def play(tracks: dict[str, list[Hit]], *, bpm: float = 140.0, n_bars: int = 4) -> np.ndarray:
    kit = load_kit808(RATE, bass_decay_s=1.0)
    return render(Pattern(bpm, n_bars, tracks), kit, RATE, humanise_ms=0.0)


def test_pitches_and_starts() -> None:
    pitches = [24.0, 31.0, 36.0, 29.0, 40.0, 26.0, 33.0, 27.0]
    hits = [Hit(8.0 * index, 1.0, pitch, 7.0) for index, pitch in enumerate(pitches)]
    notes = find_bass_notes(play({"sub": hits}), RATE)
    assert [note.pitch for note in notes] == pytest.approx(pitches, abs=0.3)
    starts_s = [step_time_s(hit.step, 140.0) for hit in hits]
    assert [note.start_s for note in notes] == pytest.approx(starts_s, abs=0.035)
    assert all(note.glide == 0.0 for note in notes)
    assert [note.duration_s for note in notes] == pytest.approx([7.0 * 15.0 / 140.0] * 8, abs=0.1)


def test_glides() -> None:
    targets = [None, 31.0, 36.0, 22.0 + 2.0]
    hits = [Hit(16.0 * i, 1.0, 28.0, 12.0, target) for i, target in enumerate(targets)]
    notes = find_bass_notes(play({"sub": hits}), RATE)
    assert [note.glide for note in notes] == pytest.approx([0.0, 3.0, 8.0, -4.0], abs=0.6)
    assert [note.pitch for note in notes] == pytest.approx([28.0] * 4, abs=0.3)


def test_staccato_notes_are_no_kicks() -> None:
    hits = [Hit(float(step), 1.0, 30.0, 1.5) for step in range(0, 64, 4)]
    notes = find_bass_notes(play({"sub": hits}), RATE)
    assert len(notes) >= 15
    assert [note.pitch for note in notes] == pytest.approx([30.0] * len(notes), abs=0.5)


def test_kicks_toms_and_hats_are_no_notes() -> None:
    tracks = {
        "kick": [Hit(float(step)) for step in range(0, 64, 8)],
        "tom_low": [Hit(float(step)) for step in range(4, 64, 16)],
        "closed_hat": [Hit(float(step)) for step in range(0, 64, 2)],
    }
    assert find_bass_notes(play(tracks), RATE) == []


def test_rendered_beats() -> None:
    n_true = n_hit = n_pitch = n_found = 0
    for seed in range(7000, 7008):
        beat = make_beat(seed, duration_s=10.0)
        notes = find_bass_notes(render_beat(beat, RATE, seed=seed), RATE)
        hits = beat.pattern.tracks.get("sub", ())
        n_true += len(hits)
        n_found += len(notes)
        starts_s = np.array([note.start_s for note in notes])
        for hit in hits:
            late_s = np.abs(starts_s - step_time_s(hit.step, beat.bpm, beat.swing))
            if len(late_s) and late_s.min() < 0.05 and hit.pitch is not None:
                n_hit += 1
                n_pitch += abs(notes[int(late_s.argmin())].pitch - hit.pitch) < 0.5
    assert n_hit > 0.75 * n_true
    assert n_pitch > 0.9 * n_hit
    assert n_hit > 0.8 * n_found


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n_samples", [0, 1, 1000, 3 * RATE])
def test_silence_has_no_notes(n_samples: int) -> None:
    assert find_bass_notes(np.zeros((1, n_samples), dtype=np.float32), RATE) == []


def test_noise_without_bass_has_no_notes() -> None:
    noise = np.diff(np.random.default_rng(0).normal(0.0, 0.05, (1, 4 * RATE)), n=3)
    assert find_bass_notes(noise.astype(np.float32), RATE) == []
