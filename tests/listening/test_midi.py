"""Transcriptions to MIDI, compared with the scores that were played."""

from __future__ import annotations

import io

import mido
import numpy as np
import pytest

from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.beats.kit808 import load_kit808
from musicgen_lora.beats.sequencer import Hit, Pattern, render, step_time_s
from musicgen_lora.listening.drums import DrumHit, find_drum_hits
from musicgen_lora.listening.midi import BEND_SEMITONES, KEYS, midi_bytes, midi_of
from musicgen_lora.listening.pitch.bass import BassNote

RATE = 32_000
TRACKS = {
    "kick": ("kick", "kick_long"),
    "snare": ("snare", "snare_tight", "clap"),
    "hat": ("closed_hat", "open_hat", "ride"),
}


def notes_of(content: bytes, channel: int) -> list[tuple[float, int, float]]:
    """Start in seconds, key and length of each note, in order."""
    open_notes, found, time_s = {}, [], 0.0
    for message in mido.MidiFile(file=io.BytesIO(content)):
        time_s += message.time
        if message.is_meta or message.channel != channel:
            continue
        if message.type == "note_on":
            assert message.note not in open_notes
            open_notes[message.note] = time_s
        elif message.type == "note_off":
            start_s = open_notes.pop(message.note)
            found.append((start_s, message.note, time_s - start_s))
    assert not open_notes
    return sorted(found)


def matched(true_s: list[float], found_s: list[float], within_s: float = 0.03) -> int:
    left, count = sorted(found_s), 0
    for time_s in sorted(true_s):
        near = [other for other in left if abs(other - time_s) < within_s]
        if near:
            left.remove(min(near, key=lambda other: abs(other - time_s)))
            count += 1
    return count


@pytest.fixture(scope="module")
def heard() -> list[tuple[Pattern, bytes]]:
    """Beats and their transcriptions; none was used to set the thresholds."""
    beats = [(seed, make_beat(seed, duration_s=8.0)) for seed in range(300, 308)]
    return [
        (beat.pattern, midi_of(render_beat(beat, RATE, seed=seed), RATE, beat.bpm, beat.key))
        for seed, beat in beats
    ]


@pytest.mark.parametrize(("drum", "least"), [("kick", 0.94), ("snare", 0.88), ("hat", 0.92)])
def test_drums_of_beats_whose_score_is_known(
    drum: str, least: float, heard: list[tuple[Pattern, bytes]]
) -> None:
    n_true = n_found = n_right = 0
    for pattern, content in heard:
        quiet = 0.35 if drum == "snare" else 0.0
        hits = [hit for track in TRACKS[drum] for hit in pattern.tracks.get(track, ())]
        true_s = {
            round(step_time_s(hit.step, pattern.bpm, pattern.swing), 4)
            for hit in hits
            if hit.velocity > quiet
        }
        found_s = [start_s for start_s, key, _ in notes_of(content, 9) if key == KEYS[drum]]
        n_true, n_found = n_true + len(true_s), n_found + len(found_s)
        n_right += matched(list(true_s), found_s)
    assert 2.0 * n_right / (n_true + n_found) > least


def test_the_808_line_has_its_pitches_and_lengths() -> None:
    pitches = [24, 31, 36, 29]
    hits = [Hit(8.0 * index, 1.0, float(pitch), 7.0) for index, pitch in enumerate(pitches)]
    kit = load_kit808(RATE, bass_decay_s=1.0)
    played = render(Pattern(140, 2, {"sub": hits}), kit, RATE, humanise_ms=0.0)
    notes = notes_of(midi_of(played, RATE, 140.0), 0)
    assert [key for _, key, _ in notes] == pitches
    starts_s = [step_time_s(hit.step, 140.0) for hit in hits]
    assert [start_s for start_s, _, _ in notes] == pytest.approx(starts_s, abs=0.035)


def test_what_a_loop_begins_with_is_on_its_first_beat() -> None:
    """A kick and a note of the 808 there count like those of other bars."""
    hits = [Hit(16.0 * bar, 1.0, 30.0, 7.0) for bar in range(2)]
    tracks = {"kick": hits, "sub": hits, "closed_hat": [Hit(4.0 * at, 1.0) for at in range(8)]}
    played = render(Pattern(140, 2, tracks), load_kit808(RATE), RATE, humanise_ms=0.0)
    content = midi_of(played, RATE, 140.0)
    bar_s = 240.0 / 140.0
    kicks_s = [start_s for start_s, key, _ in notes_of(content, 9) if key == KEYS["kick"]]
    assert kicks_s == pytest.approx([0.0, bar_s], abs=0.01)
    assert [at for at, _, _ in notes_of(content, 0)] == pytest.approx([0.0, bar_s], abs=0.01)


def test_a_midi_is_as_long_as_its_sound() -> None:
    """Hosts loop a MIDI file by the end of its tracks."""
    last = BassNote(6.5, 1.0, 30.0, 0.0, -6.0)
    bars_s = 4 * 240.0 / 140.0
    content = midi_bytes([DrumHit(6.84, "hat", 1.0)], [last], 140.0, duration_s=bars_s)
    for track in mido.MidiFile(file=io.BytesIO(content)).tracks:
        assert sum(message.time for message in track) == 16 * 960
    assert notes_of(content, 0)[0][2] == pytest.approx(bars_s - 6.5, abs=0.001)


def test_slides_bend_to_their_end() -> None:
    note = BassNote(start_s=1.0, duration_s=1.0, pitch=30.0, glide=7.0, level_db=-6.0)
    notes = [note, BassNote(2.5, 0.5, 30.0, 0.0, -12.0)]
    content = midi_bytes([], notes, 120.0, duration_s=3.0)
    bends, time_s = [], 0.0
    for message in mido.MidiFile(file=io.BytesIO(content)):
        time_s += message.time
        if message.type == "pitchwheel":
            bends.append((time_s, message.pitch / 8192.0 * BEND_SEMITONES))
    assert bends[0][1] == pytest.approx(0.0, abs=0.01)
    during = [bend for at_s, bend in bends if 1.0 < at_s < 2.0]
    assert during == sorted(during)
    assert during[-1] == pytest.approx(7.0, abs=0.01)
    # The next note is in tune again.
    assert bends[-1] == pytest.approx((2.5, 0.0), abs=0.01)


def test_tempo_and_key_are_in_the_file() -> None:
    content = midi_bytes([DrumHit(0.5, "kick", 1.0)], [], 93.5, "D# major", duration_s=1.0)
    file = mido.MidiFile(file=io.BytesIO(content))
    told = {message.type: message for message in file.tracks[0]}
    assert mido.tempo2bpm(told["set_tempo"].tempo) == pytest.approx(93.5, abs=0.001)
    assert told["key_signature"].key == "Eb"
    assert notes_of(content, 9)[0][:2] == (pytest.approx(0.5, abs=0.001), 36)


def test_silence_and_a_tone_have_no_drums() -> None:
    assert find_drum_hits(np.zeros((1, RATE), dtype=np.float32), RATE) == []
    time_s = np.arange(2 * RATE) / RATE
    # Switched on at once it would begin with a click, which is heard as a hit.
    fade = np.minimum(1.0, time_s / 0.02)
    tone = (0.3 * fade * np.sin(2.0 * np.pi * 300.0 * time_s)).astype(np.float32)[None]
    assert find_drum_hits(tone, RATE) == []


def test_a_note_after_a_slide_begins_at_its_own_pitch() -> None:
    """A host plays messages of one time in the file's order."""
    slid = BassNote(start_s=0.0, duration_s=1.0, pitch=30.0, glide=7.0, level_db=-6.0)
    notes = [slid, BassNote(1.0, 0.5, 36.0, 0.0, -6.0)]
    bend, begun = 0, []
    for message in mido.MidiFile(file=io.BytesIO(midi_bytes([], notes, 120.0, duration_s=2.0))):
        if message.type == "pitchwheel":
            bend = message.pitch
        elif message.type == "note_on":
            begun.append((message.note, bend))
    assert begun == [(30, 0), (36, 0)]
