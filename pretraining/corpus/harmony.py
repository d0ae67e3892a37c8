"""Keys, chords, bass lines and melodies of the pretraining corpus, as hits of the sequencer.

A scale degree counts from 0; degree 7 is the tonic an octave higher. A chord is the degree
of its root; its third, fifth and seventh come from the scale, so nothing leaves the key.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from musicgen_lora.beats.sequencer import STEPS_PER_BAR, Hit

NOTE_NAMES = ["C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B"]
SCALES = {
    "major": [0, 2, 4, 5, 7, 9, 11],
    "mixolydian": [0, 2, 4, 5, 7, 9, 10],
    "minor": [0, 2, 3, 5, 7, 8, 10],
    "dorian": [0, 2, 3, 5, 7, 9, 10],
}
PROGRESSIONS = {
    "major": [(0, 4, 5, 3), (0, 3), (0, 5, 3, 4), (1, 4, 0, 0), (0, 3, 4, 3), (0, 2, 3, 4)],
    "mixolydian": [(0, 6, 3, 0), (0, 3), (0, 6), (0, 0, 3, 6)],
    "minor": [(0, 5, 2, 6), (0, 3), (0, 6, 5, 6), (0, 5), (0, 0, 3, 4), (0,), (0, 2, 5, 6)],
    "dorian": [(0, 3), (0,), (0, 3, 0, 6), (0, 2, 3, 3)],
}
BASS_LOW, BASS_HIGH = 31, 42
"""The range of the bass's root: G1 to F#2."""


@dataclass(frozen=True)
class Harmony:
    """A key and a chord for each bar.

    Args:
        tonic: pitch class, 0 is C.
        mode: a key of `SCALES`.
        chords: degree of each bar's chord.
        extended: sevenths instead of triads.
    """

    tonic: int
    mode: str
    chords: tuple[int, ...]
    extended: bool

    @property
    def key(self) -> str:
        """The key as in the metadata, such as "C# minor"."""
        third = SCALES[self.mode][2]
        return f"{NOTE_NAMES[self.tonic]} {'minor' if third == 3 else 'major'}"

    def pitch_class(self, degree: int) -> int:
        """Semitones above C of a degree; not reduced to one octave."""
        octave, step = divmod(degree, 7)
        return self.tonic + SCALES[self.mode][step] + 12 * octave


def random_harmony(
    rng: np.random.Generator, modes: tuple[str, ...], n_bars: int, extended: float
) -> Harmony:
    """A random key, and a progression that repeats over `n_bars`."""
    mode = str(rng.choice(modes))
    options = PROGRESSIONS[mode]
    progression = options[int(rng.integers(len(options)))]
    hold = 2 if len(progression) == 2 and rng.random() < 0.4 else 1
    chords = tuple(progression[(bar // hold) % len(progression)] for bar in range(n_bars))
    return Harmony(int(rng.integers(12)), mode, chords, bool(rng.random() < extended))


def bass_line(rng: np.random.Generator, harmony: Harmony, grids: list[str]) -> list[Hit]:
    """A bass line from one-bar grids of 16 characters.

    "1", "3", "5", "7" and "8" are chord tones above the bar's root, "a" a scale step below
    the next bar's root, "-" holds the note before, "." is silence; the line repeats one grid
    and takes another in every fourth bar.
    """
    main, other = (grids[int(rng.integers(len(grids)))] for _ in range(2))
    dynamics = rng.normal(0.0, 0.05, STEPS_PER_BAR)
    hits: list[Hit] = []
    for bar, chord in enumerate(harmony.chords):
        grid = other if bar % 4 == 3 else main
        root = _near(harmony.pitch_class(chord), BASS_LOW, BASS_HIGH)
        following = harmony.chords[(bar + 1) % len(harmony.chords)]
        for step, symbol in enumerate(grid):
            if symbol in ".-":
                continue
            length = 1
            while step + length < STEPS_PER_BAR and grid[step + length] == "-":
                length += 1
            if symbol == "a":
                pitch = _near(harmony.pitch_class(following - 1), BASS_LOW - 2, BASS_HIGH)
            else:
                degree = chord + int(symbol) - 1
                pitch = root + harmony.pitch_class(degree) - harmony.pitch_class(chord)
            strong = 0.95 if step % 4 == 0 else 0.82
            velocity = float(np.clip(strong + dynamics[step], 0.5, 1.0))
            hits.append(Hit(bar * STEPS_PER_BAR + step, velocity, pitch, length * 0.94))
    return hits


def chord_hits(
    rng: np.random.Generator, harmony: Harmony, grids: list[str], low: int = 53, strum: float = 0.0
) -> list[Hit]:
    """Chords on a rhythm: "x" strikes, "-" holds, "." is silence; one grid for all bars.

    Args:
        rng: draws grid and dynamics.
        harmony: the chords.
        grids: one-bar rhythms to choose from.
        low: the chord's lowest note is this MIDI note or up to 11 above.
        strum: delay in steps from one note of a chord to the next.
    """
    grid = grids[int(rng.integers(len(grids)))]
    dynamics = rng.normal(0.0, 0.06, STEPS_PER_BAR)
    hits: list[Hit] = []
    for bar, chord in enumerate(harmony.chords):
        degrees = [chord, chord + 2, chord + 4] + ([chord + 6] if harmony.extended else [])
        pitches = sorted(_near(harmony.pitch_class(d), low, low + 11) for d in degrees)
        for step, symbol in enumerate(grid):
            if symbol != "x":
                continue
            length = 1
            while step + length < STEPS_PER_BAR and grid[step + length] == "-":
                length += 1
            velocity = float(np.clip(0.85 + dynamics[step], 0.5, 1.0))
            for index, pitch in enumerate(pitches):
                start = bar * STEPS_PER_BAR + step + index * strum
                hits.append(Hit(start, velocity, pitch, length * 0.96))
    return hits


def arpeggio(rng: np.random.Generator, harmony: Harmony, spacing: int, low: int = 60) -> list[Hit]:
    """The chord's notes one after another, every `spacing` steps."""
    orders = [(0, 2, 4, 7), (0, 4, 7, 4), (7, 4, 2, 0), (0, 2, 4, 2), (0, 7, 4, 7)]
    order = orders[int(rng.integers(len(orders)))]
    hits = []
    for bar, chord in enumerate(harmony.chords):
        root = _near(harmony.pitch_class(chord), low, low + 11)
        for index, step in enumerate(range(0, STEPS_PER_BAR, spacing)):
            offset = order[index % len(order)]
            pitch = root + harmony.pitch_class(chord + offset) - harmony.pitch_class(chord)
            velocity = 0.9 if step % 4 == 0 else 0.7
            hits.append(Hit(bar * STEPS_PER_BAR + step, velocity, pitch, spacing * 0.9))
    return hits


def melody(rng: np.random.Generator, harmony: Harmony, n_notes: int, low: int = 64) -> list[Hit]:
    """A motif of one or two bars, stepwise on the scale, repeated with small changes."""
    n_bars = int(rng.integers(1, 3))
    offbeats = rng.random() < 0.5
    places = np.arange(0, n_bars * STEPS_PER_BAR, 2 if offbeats else 4)
    n_chosen = min(len(places), n_notes * n_bars)
    steps = sorted(int(s) for s in rng.choice(places, n_chosen, replace=False))
    degree, motif = int(rng.choice([0, 2, 4])), []
    for step in steps:
        motif.append((step, degree))
        degree = int(np.clip(degree + rng.choice([-2, -1, -1, 1, 1, 2]), -2, 8))
    base = _near(harmony.tonic, low, low + 11)
    dynamics = rng.normal(0.0, 0.08, len(motif))
    hits = []
    for start in range(0, len(harmony.chords), n_bars):
        for index, (step, note) in enumerate(motif):
            bar = start + step // STEPS_PER_BAR
            if bar >= len(harmony.chords) or rng.random() < 0.06:
                continue
            end = motif[index + 1][0] if index + 1 < len(motif) else n_bars * STEPS_PER_BAR
            if step % 8 == 0:
                note = _nearest_chord_tone(note, harmony.chords[bar])
            pitch = base + harmony.pitch_class(note) - harmony.tonic
            velocity = float(np.clip(0.85 + dynamics[index], 0.5, 1.0))
            length = min(end - step, 6) * 0.92
            hits.append(Hit(start * STEPS_PER_BAR + step, velocity, pitch, length))
    return hits


def _nearest_chord_tone(degree: int, chord: int) -> int:
    tones = [chord + offset + 7 * octave for offset in (0, 2, 4) for octave in (-2, -1, 0, 1)]
    return min(tones, key=lambda tone: abs(tone - degree))


def _near(pitch: int, low: int, high: int) -> int:
    """The pitch, moved by octaves into `low` to `high` (12 notes)."""
    pitch = low + (pitch - low) % 12
    return pitch if pitch <= high else pitch - 12
