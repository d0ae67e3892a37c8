"""The parts of an 808 beat: kick, bass, backbeat, hi-hats, colour, fills and drops.

Each function draws one part as hits, from plain odds; `beats808` combines them. `bars` is the form
of the beat: a letter for each bar, A, its variation a, or B, which closes a phrase of four.
`density` is 1 for an ordinary beat, less for a sparse and more for a busy one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from musicgen_lora.beats.sequencer import STEPS_PER_BAR, Hit

Tracks = dict[str, list[Hit]]

LOWEST_BASS, HIGHEST_BASS = 24, 40
"""Range of the 808 bass, MIDI: 33 to 82 Hz."""


def add_tracks(tracks: Tracks, more: Mapping[str, Sequence[Hit]]) -> None:
    for track, hits in more.items():
        tracks.setdefault(track, []).extend(hits)


def _stroke(rng: np.random.Generator, level: float, spread: float = 0.06) -> float:
    return float(np.clip(level + rng.normal(0.0, spread), 0.08, 1.0))


def kick_steps(
    rng: np.random.Generator, step_odds: Mapping[int, float], bars: str, density: float
) -> list[list[int]]:
    """The steps of the kick in each bar; variations flip one step, B bars two."""
    busy = density * rng.uniform(0.7, 1.4)
    odds = {step: min(0.9, p * busy) for step, p in step_odds.items()}
    # A kick on the snare's step would hide it.
    main = [0] + [step for step, p in odds.items() if rng.random() < p]
    if len(main) < 2:
        main.append(10)
    result = []
    for letter in bars:
        steps = set(main)
        for _ in range({"A": 0, "a": 1, "B": 2}[letter]):
            steps ^= {int(rng.choice(list(odds)))}
        result.append(sorted(steps))
    return result


def kick_hits(rng: np.random.Generator, kicks: list[list[int]]) -> list[Hit]:
    return [
        Hit(bar * STEPS_PER_BAR + step, _stroke(rng, 1.0 if step % 2 == 0 else 0.85, 0.03))
        for bar, steps in enumerate(kicks)
        for step in steps
    ]


_PROGRESSIONS = ((0, 0, 0, 0), (0, 0, -2, 0), (0, 0, -4, -2), (0, 0, 3, -2), (0, -4, -2, 7))
_MOVES = {0: 0.58, 7: 0.16, -2: 0.14, 12: 0.12}
"""Intervals from the bar's root note within a bar: root, fifth, flat seven, octave."""


def bass_line(
    rng: np.random.Generator, kicks: list[list[int]], tonic_pitch: int, glide_odds: float
) -> list[Hit]:
    """The bass line: on most kicks, each note held up to the next, some sliding into it."""
    progression = _PROGRESSIONS[rng.integers(len(_PROGRESSIONS))]
    moves = rng.choice(list(_MOVES), size=STEPS_PER_BAR, p=list(_MOVES.values()))
    glides = rng.random(STEPS_PER_BAR) < glide_odds
    skipped = rng.random(STEPS_PER_BAR) < 0.12
    # Staccato beats leave gaps between the notes, legato ones none.
    hold, longest = (0.55, 4.0) if rng.random() < 0.2 else (1.0, float(rng.choice([8, 12, 16])))
    starts = [
        (bar, step)
        for bar, steps in enumerate(kicks)
        for step in steps
        if step == 0 or not skipped[step]
    ]
    pitches = [
        _in_range(tonic_pitch + progression[bar % 4] + (int(moves[step]) if step else 0))
        for bar, step in starts
    ]
    times = [bar * STEPS_PER_BAR + step for bar, step in starts]
    ends = [*times[1:], len(kicks) * STEPS_PER_BAR]
    line = []
    for index, (_, step) in enumerate(starts):
        length = min((ends[index] - times[index]) * hold, longest)
        target = None
        if glides[step] and length >= 2.0:
            following = pitches[(index + 1) % len(pitches)]
            octave = pitches[index] + (12 if pitches[index] + 12 <= HIGHEST_BASS else 7)
            target = float(following if following != pitches[index] else _in_range(octave))
        velocity = _stroke(rng, 0.95, 0.03)
        line.append(Hit(times[index], velocity, float(pitches[index]), length, target))
    return line


def _in_range(pitch: int) -> int:
    while pitch > HIGHEST_BASS:
        pitch -= 12
    while pitch < LOWEST_BASS:
        pitch += 12
    return pitch


def backbeats(
    rng: np.random.Generator,
    steps: Sequence[int],
    n_bars: int,
    density: float,
    extra_step: int | None,
) -> Tracks:
    """Backbeats on snare, clap or both, and ghost notes on other steps; `extra_step` adds a stroke
    in every second bar."""
    snare = ("snare", "snare_tight")[rng.integers(2)]
    layers = ([snare], ["clap"], [snare, "clap"])[rng.integers(3)]
    ghosts = [step for step in (1, 3, 7, 9, 10, 11, 13, 15) if rng.random() < 0.16 * density]
    tracks: Tracks = {layer: [] for layer in layers}
    for bar in range(n_bars):
        start = bar * STEPS_PER_BAR
        for layer in layers:
            tracks[layer] += [Hit(start + step, _stroke(rng, 0.95, 0.03)) for step in steps]
            if extra_step is not None and bar % 2:
                tracks[layer].append(Hit(start + extra_step, _stroke(rng, 0.8)))
        if "clap" not in layers or len(layers) == 2:
            tracks[snare] += [
                Hit(start + step, _stroke(rng, 0.3)) for step in ghosts if rng.random() < 0.75
            ]
    return tracks


_ROLLS = (
    # Divisions of a beat of four sixteenths: 1/32, triplets, 1/64 endings, accelerandos.
    (0.5,) * 8,
    (2 / 3,) * 6,
    (1 / 3,) * 12,
    (1, 1, 0.5, 0.5, 0.5, 0.5),
    (2, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25),
    (1, 1, 1, 0.25, 0.25, 0.25, 0.25),
    (4 / 3, 2 / 3, 2 / 3, 1 / 3, 1 / 3, 1 / 3, 1 / 3),
    (2, 2 / 3, 2 / 3, 2 / 3),
)


def hi_hats(
    rng: np.random.Generator,
    distances: Sequence[float],
    roll_odds: float,
    bars: str,
    density: float,
) -> Tracks:
    """Hi-hats: a steady grid with accents, rolls in some of the beats, open hats."""
    distance = float(rng.choice(distances))
    if density < 0.5:
        distance = float(rng.choice([2.0, 4.0]))
    grid = [step for step in np.arange(0.0, STEPS_PER_BAR, distance) if rng.random() < 0.95]
    rolls = [_draw_rolls(rng, roll_odds) for _ in range(2)]
    opens = [step for step in (2, 6, 10, 14) if rng.random() < rng.choice([0.0, 0.35])]
    accent = rng.uniform(0.15, 0.45)
    closed: list[Hit] = []
    opened: list[Hit] = []
    for bar, letter in enumerate(bars):
        start = bar * STEPS_PER_BAR
        bar_rolls = rolls[0] if letter == "A" else _draw_rolls(rng, roll_odds * 1.3)
        if letter == "a":
            bar_rolls = {**rolls[0], **rolls[1]}
        for step in grid:
            if int(step) // 4 not in bar_rolls and step not in opens:
                level = 0.9 - accent * (0.0 if step % 4 == 0 else 0.6 if step % 2 == 0 else 1.0)
                closed.append(Hit(start + float(step), _stroke(rng, level)))
        for beat, (divisions, first, last) in bar_rolls.items():
            times = np.concatenate([[0.0], np.cumsum(divisions)[:-1]]) + 4.0 * beat
            levels = np.linspace(first, last, len(times))
            closed += [
                Hit(start + float(time), _stroke(rng, float(level), 0.03))
                for time, level in zip(times, levels, strict=True)
            ]
        opened += [
            Hit(start + step, _stroke(rng, 0.75), length=float(rng.choice([1.5, 2.0])))
            for step in opens
            if step // 4 not in bar_rolls
        ]
    return {"closed_hat": closed, "open_hat": opened}


Roll = tuple[tuple[float, ...], float, float]
"""Distances of a roll's strokes in sixteenths, and its first and last velocity."""


def _draw_rolls(rng: np.random.Generator, odds: float) -> dict[int, Roll]:
    """Rolls by beat of the bar, 0 to 3; each swells, fades or stays level."""
    rolls = {}
    for beat in range(4):
        if rng.random() < odds * (0.4 if beat == 0 else 1.0):
            first, last = ((0.35, 0.95), (0.95, 0.4), (0.75, 0.75))[rng.integers(3)]
            rolls[beat] = (_ROLLS[rng.integers(len(_ROLLS))], first, last)
    return rolls


_PATTERNS: dict[str, tuple[dict[str, tuple[float, ...]], ...]] = {
    "cowbell": (
        {"cowbell": (0, 3, 6, 10, 13)},
        {"cowbell": (4, 12)},
        {"cowbell": (2, 6, 10, 14)},
        {"cowbell": (0, 4, 7, 8, 12)},
    ),
    "clave": ({"clave": (0, 3, 6, 10, 12)}, {"clave": (0, 3, 7, 10, 12)}, {"clave": (3, 6, 11)}),
    "congas": (
        {"conga_mid": (2, 10), "conga_high": (4, 12), "conga_low": (6, 7, 14, 15)},
        {"conga_high": (3, 6, 11), "conga_low": (7, 14)},
        {"conga_high": (2, 5), "conga_mid": (10, 11), "conga_low": (13, 14)},
    ),
    "toms": ({"tom_low": (3, 11)}, {"tom_mid": (7,), "tom_low": (10, 15)}, {"tom_high": (6, 14)}),
    "ride": ({"ride": (0, 4, 8, 12)}, {"ride": (0, 6, 8, 14)}, {"ride": (2, 6, 10, 14)}),
}


def colour(rng: np.random.Generator, n_bars: int) -> Tracks:
    """A one-bar percussion figure on one instrument or family, in some or all bars."""
    patterns = _PATTERNS[list(_PATTERNS)[rng.integers(len(_PATTERNS))]]
    pattern = patterns[rng.integers(len(patterns))]
    plays_in = rng.random(4) < rng.choice([0.5, 1.0])
    plays_in[rng.integers(4)] = True
    return {
        track: [
            Hit(bar * STEPS_PER_BAR + step, _stroke(rng, 0.75, 0.08))
            for bar in range(n_bars)
            if plays_in[bar % 4]
            for step in steps
        ]
        for track, steps in pattern.items()
    }


def cowbell_melody(rng: np.random.Generator, bars: str, tonic: int) -> Tracks:
    """A tuned cowbell figure in the minor pentatonic of `tonic` (0 is C), MIDI 72 to 84."""
    scale = sorted(72 + (tonic + degree) % 12 for degree in (0, 3, 5, 7, 10))
    rhythms = ((0, 3, 6, 8, 11, 14), (0, 2, 4, 6, 8, 10, 12, 14), (0, 4, 6, 10, 12), (0, 3, 6, 12))
    rhythm = rhythms[rng.integers(len(rhythms))]
    places = np.clip(np.cumsum(rng.integers(-2, 3, len(rhythm))) + rng.integers(1, 4), 0, 4)
    places[0] = scale.index(72 + tonic)
    hits = []
    for bar, letter in enumerate(bars):
        moved = places.copy()
        if letter != "A":
            moved[len(moved) // 2 :] = rng.integers(0, 5, len(moved) - len(moved) // 2)
        hits += [
            Hit(bar * STEPS_PER_BAR + step, _stroke(rng, 0.8), pitch=float(scale[place]))
            for step, place in zip(rhythm, moved, strict=True)
        ]
    return {"cowbell": hits}


def add_fills(rng: np.random.Generator, tracks: Tracks, bars: str, first_step: int) -> set[str]:
    """Ends the B bars with a fill, in place; returns the kinds used.

    `first_step` is where in the bar a fill may start: after the last backbeat.
    """
    kinds = set()
    for bar, letter in enumerate(bars):
        if letter != "B" or rng.random() < 0.25:
            continue
        start, stop = bar * STEPS_PER_BAR + first_step, (bar + 1) * STEPS_PER_BAR
        kind = ("toms", "snare roll", "stop")[rng.integers(3)]
        kinds.add(kind)
        if kind == "stop":
            _silence(tracks, start, stop, keep=("sub", "cowbell"))
            continue
        distance = (1.0, 2 / 3, 0.5)[rng.integers(3 if kind == "snare roll" else 2)]
        times = np.arange(start, stop, distance)
        levels = np.linspace(0.4, 0.9, len(times))
        names = ["snare"] * len(times)
        if kind == "toms":
            _silence(tracks, start, stop, keep=("sub", "kick", "kick_long"))
            drums = ("tom_high", "tom_mid", "tom_low")
            names = [drums[3 * index // len(times)] for index in range(len(times))]
        for name, time, level in zip(names, times, levels, strict=True):
            add_tracks(tracks, {name: [Hit(float(time), _stroke(rng, float(level)))]})
    return kinds


def add_drop(rng: np.random.Generator, tracks: Tracks, n_bars: int) -> None:
    """Removes kick and backbeat from the first or the middle bars, in place; in the middle, if
    there is a bass, sometimes the hi-hats too."""
    length = 2 if n_bars >= 8 and rng.random() < 0.5 else 1
    first = int(rng.choice([0, n_bars // 2]))
    start, stop = first * STEPS_PER_BAR, (first + length) * STEPS_PER_BAR
    keep = ["sub", "cowbell", "conga_low", "conga_mid", "conga_high", "clave"]
    if first == 0 or "sub" not in tracks or rng.random() < 0.6:
        keep += ["closed_hat", "open_hat", "ride"]
    _silence(tracks, start, stop, keep)


def _silence(tracks: Tracks, start: float, stop: float, keep: Sequence[str]) -> None:
    for track in tracks.keys() - set(keep):
        tracks[track] = [hit for hit in tracks[track] if not start <= hit.step < stop]
