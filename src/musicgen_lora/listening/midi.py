"""Transcribes a beat to a MIDI file: drums, the 808 line with its slides, the tempo.

Nothing is quantised: notes keep their played timing. Sources: MIDI 1.0 for the bend range
(registered parameter 0), General MIDI for the keys of the drums.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import mido
import numpy as np

from musicgen_lora.listening.drums import DrumHit, find_drum_hits
from musicgen_lora.listening.pitch.bass import BassNote, find_bass_notes
from musicgen_lora.listening.pitch.key_names import short_key, usual_key

TICKS_PER_BEAT = 960
KEYS = {"kick": 36, "snare": 38, "hat": 42}
DRUM_CHANNEL, BASS_CHANNEL = 9, 0
DRUM_S = 0.05
BEND_SEMITONES = 24
BEND_STEP_S = 0.01
GLIDE_FROM, GLIDE_TO = 0.45, 0.85
"""Shares of a note between which its glide is written; `bass` measures only its two pitches."""
BASS_RANGE_DB = 40.0
ORDER = ("control_change", "note_off", "pitchwheel", "note_on")
"""Of messages at one time: a note begins at its own pitch, after the last one has ended."""


def midi_of(waveform: np.ndarray, sample_rate: int, bpm: float, key: str | None = None) -> bytes:
    """Transcribe `[C, N]` to a MIDI file.

    Args:
        bpm: quarter notes per minute, the tempo of its bars.
        key: as in "C# minor".
    """
    hits, notes = find_drum_hits(waveform, sample_rate), find_bass_notes(waveform, sample_rate)
    return midi_bytes(hits, notes, bpm, key, duration_s=waveform.shape[1] / sample_rate)


def midi_bytes(
    hits: Sequence[DrumHit],
    notes: Sequence[BassNote],
    bpm: float,
    key: str | None = None,
    *,
    duration_s: float,
) -> bytes:
    """A MIDI file with one track each for tempo, drums and bass, in 4/4 at `bpm`, as long as the
    sound, so that a host loops the same bars."""
    file = mido.MidiFile(type=1, ticks_per_beat=TICKS_PER_BEAT)
    head = [
        mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(bpm)),
        mido.MetaMessage("time_signature", numerator=4, denominator=4),
    ]
    if key is not None:
        head.append(mido.MetaMessage("key_signature", key=short_key(usual_key(key))))
    file.tracks.append(mido.MidiTrack(head))
    file.tracks.append(_track("Drums", _drum_events(hits), bpm, duration_s))
    file.tracks.append(_track("808", _bass_events(notes), bpm, duration_s))
    n_ticks = _ticks(duration_s, bpm)
    for track in file.tracks:
        n_left = n_ticks - sum(message.time for message in track)
        track.append(mido.MetaMessage("end_of_track", time=n_left))
    buffer = io.BytesIO()
    file.save(file=buffer)
    return buffer.getvalue()


Event = tuple[float, mido.Message]
"""Time in seconds, and message."""


def _ticks(time_s: float, bpm: float) -> int:
    return round(time_s * bpm / 60.0 * TICKS_PER_BEAT)


def _track(name: str, events: Sequence[Event], bpm: float, duration_s: float) -> mido.MidiTrack:
    """A track with its events in order, none of them after the end."""
    track = mido.MidiTrack([mido.MetaMessage("track_name", name=name)])
    last = 0
    for time_s, message in sorted(
        events, key=lambda event: (event[0], ORDER.index(event[1].dict()["type"]))
    ):
        tick = max(last, _ticks(min(time_s, duration_s), bpm))
        track.append(message.copy(time=tick - last))
        last = tick
    return track


def _drum_events(hits: Sequence[DrumHit]) -> list[Event]:
    events: list[Event] = []
    for drum, key in KEYS.items():
        own = [hit for hit in hits if hit.drum == drum]
        following = [*(hit.start_s for hit in own), math.inf][1:]
        for hit, following_s in zip(own, following, strict=True):
            velocity = _velocity(hit.velocity)
            end_s = min(hit.start_s + DRUM_S, following_s)
            events.append((hit.start_s, _on(DRUM_CHANNEL, key, velocity)))
            events.append((end_s, _off(DRUM_CHANNEL, key)))
    return events


def _bass_events(notes: Sequence[BassNote]) -> list[Event]:
    # Set the bend range (registered parameter 0), then deselect it so that nothing changes it.
    controls = ((101, 0), (100, 0), (6, BEND_SEMITONES), (38, 0), (101, 127), (100, 127))
    events: list[Event] = [
        (0.0, mido.Message("control_change", channel=BASS_CHANNEL, control=number, value=value))
        for number, value in controls
    ]
    loudest_db = max((note.level_db for note in notes), default=0.0)
    for index, note in enumerate(notes):
        key = int(np.clip(round(note.pitch), 0, 127))
        end_s = note.start_s + note.duration_s
        if index + 1 < len(notes):
            # The bass is monophonic.
            end_s = min(end_s, notes[index + 1].start_s)
        velocity = _velocity(1.0 + (note.level_db - loudest_db) / BASS_RANGE_DB)
        tuning = note.pitch - key
        events.append((note.start_s, _bend(tuning)))
        events.append((note.start_s, _on(BASS_CHANNEL, key, velocity)))
        events.append((end_s, _off(BASS_CHANNEL, key)))
        if note.glide:
            span_s = end_s - note.start_s
            first_s, last_s = (note.start_s + share * span_s for share in (GLIDE_FROM, GLIDE_TO))
            for time_s in np.arange(first_s, last_s, BEND_STEP_S).tolist():
                part = (time_s - first_s) / (last_s - first_s)
                events.append((time_s, _bend(tuning + part * note.glide)))
            events.append((last_s, _bend(tuning + note.glide)))
    return events


def _velocity(share: float) -> int:
    return int(np.clip(round(127.0 * share), 1, 127))


def _on(channel: int, key: int, velocity: int) -> mido.Message:
    return mido.Message("note_on", channel=channel, note=key, velocity=velocity)


def _off(channel: int, key: int) -> mido.Message:
    return mido.Message("note_off", channel=channel, note=key)


def _bend(semitones: float) -> mido.Message:
    pitch = round(8192.0 * semitones / BEND_SEMITONES)
    return mido.Message("pitchwheel", channel=BASS_CHANNEL, pitch=int(np.clip(pitch, -8192, 8191)))
