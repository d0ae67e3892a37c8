"""Drum patterns of the pretraining corpus, one bar per grid, and how they vary from bar to bar.

A grid has a character for each sixteenth: "." is silence, "1" to "9" a stroke of that
velocity in ninths. Each track of a groove has several grids, of which a clip uses one.
No stroke is shorter than a sixteenth: hi-hat rolls belong to a style that this corpus
leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from musicgen_lora.beats.sequencer import STEPS_PER_BAR, Hit
from pretraining.corpus.sections import Section, playing

HATS = ("hat", "hat_open", "hat_pedal")
CYMBALS = ("ride", "crash")

EIGHTHS = "8.5.7.5.8.5.7.5."
SIXTEENTHS = "8364736483647364"
QUARTERS = "7...7...7...7..."
OFFBEATS = "..8...8...8...8."


@dataclass(frozen=True)
class Groove:
    """The grids of a style's drums, by track: the core that always plays, and hats."""

    core: dict[str, list[str]]
    hats: dict[str, list[str]]


FOUR = ["9...9...9...9..."]
BACKBEAT = ["....9.......9...", "....9.......9..2", "....9..2.2..9..."]

GROOVES = {
    "house": Groove(
        {"kick": FOUR, "clap": ["....9.......9..."], "snare": ["................", BACKBEAT[0]]},
        {"hat_open": [OFFBEATS], "hat": ["................", SIXTEENTHS, "6.3.6.3.6.3.6.3."]},
    ),
    "techno": Groove(
        {"kick": [*FOUR, "9...9...9...9.4."], "rim": ["...6..5....6..5.", "................"]},
        {"hat": [SIXTEENTHS, OFFBEATS, EIGHTHS], "hat_open": [OFFBEATS, "................"]},
    ),
    "disco": Groove(
        {"kick": FOUR, "snare": ["....9.......9...", "....9.......9.3."]},
        {"hat_open": [OFFBEATS], "hat": ["7.2.7.2.7.2.7.2.", "73.373.373.373.3"]},
    ),
    "rock": Groove(
        {
            "kick": [
                "9.......9.......",
                "9.....7.9.......",
                "9.7.....9.7.....",
                "9.....7.7.9.....",
            ],
            "snare": ["....9.......9..."],
        },
        {"hat": [EIGHTHS, "9.8.9.8.9.8.9.8.", QUARTERS], "ride": ["................", EIGHTHS]},
    ),
    "funk": Groove(
        {
            "kick": [
                "9.7...7...9..7..",
                "9..7..9.....7...",
                "9.9....7..9..9..",
                "9.....7.7.9.....",
            ],
            "snare": ["....9..3.3..9..3", "....9.3..3.39...", "....9..2.4..9.2."],
        },
        {
            "hat": [SIXTEENTHS, "8.6.8.658.6.8.6."],
            "hat_open": ["................", "......7........."],
        },
    ),
    "boom bap": Groove(
        {
            "kick": [
                "9......7..9.....",
                "9.7....7..9.....",
                "9.........97....",
                "9..7.....79.....",
            ],
            "snare": ["....9.......9...", "....9.......9..2", "....9..2....9..."],
        },
        {"hat": [EIGHTHS, "8.6.8.6.8.6.8.64", QUARTERS]},
    ),
    "drum and bass": Groove(
        {
            "kick": ["9.........9.....", "9.9.......9.....", "9......9..9....."],
            "snare": ["....9.......9...", "....9..3.3..9..3", "....9..3.4..9.3."],
        },
        {"hat": [EIGHTHS, "8.6.8.6.8.6.8.6."], "ride": ["................", "8...7...8...7..."]},
    ),
    "breakbeat": Groove(
        {
            "kick": ["9.9.......99....", "9..9..9...9.....", "9.9.......7..9.."],
            "snare": ["....9..4.4..9..4", "....9..3......9.", "....9.......9..3"],
        },
        {"hat": [EIGHTHS, SIXTEENTHS], "hat_open": ["................", "..............7."]},
    ),
    "reggae": Groove(
        {
            "kick": ["........9.......", "9.......9.......", "9...9...9...9..."],
            "rim": ["....4...8...4...", "........8....4..", "..4.....8.....4."],
        },
        {"hat": ["..7...7...7...7.", "8.5.8.5.8.5.8.5.", "8.5.8.548.5.8.54"]},
    ),
    "latin": Groove(
        {
            "kick": ["9.....8.9.....8.", "......8...8.....", "9.....7...9....."],
            "clave": ["9.....9.....9...", "....9...9......."],
            "conga_hi": ["..5...88..5...88", "....8.....8...88"],
            "conga_lo": ["......7.......7.", "................"],
        },
        {"shaker": [SIXTEENTHS, EIGHTHS], "ride": ["................", "8.6.76.68.6.76.6"]},
    ),
    "synthwave": Groove(
        {"kick": ["9...9...9...9...", "9.......9......."], "snare": ["....9.......9..."]},
        {"hat": [EIGHTHS, SIXTEENTHS, OFFBEATS], "hat_open": ["................", OFFBEATS]},
    ),
    "electro": Groove(
        {
            "kick": ["9..9..9...9.....", "9.....9..9......", "9...9..9..9....."],
            "snare": ["....9.......9..."],
            "clap": ["................", "....8.......8..."],
        },
        {"hat": [SIXTEENTHS, EIGHTHS], "cowbell": ["................", "..7..7....7..7.."]},
    ),
    "jazz": Groove(
        {
            "kick": ["4...4...4...4...", "5.........4.....", "................"],
            "snare": ["................", "......3.......3.", "...3......3....."],
            "ride": ["8...8..58...8..5", "8...8...8...8..5"],
        },
        {"hat_pedal": ["....8.......8..."]},
    ),
    "soul": Groove(
        {
            "kick": ["9.....6...9.....", "9.......8.9.....", "9.........7....."],
            "snare": BACKBEAT,
        },
        {"hat": [EIGHTHS, "7.4.7.4.7.4.7.4.", SIXTEENTHS]},
    ),
}

PERCUSSION = {
    "tambourine": ["....8.......8...", "7.4.8.4.7.4.8.4."],
    "shaker": [SIXTEENTHS, "5373537353735373"],
    "cowbell": ["8...8...8...8...", "8.....8...8....."],
    "congas": ["..5...88..5...8.", "8..5..8.8..5..88"],
    "bongos": ["8.55.5.88.55.5.8", "7..7..7.7..7..77"],
    "woodblock": ["8.....8...8.....", "..8..8....8..8.."],
    "claps": ["....9.......9..."],
    "toms": ["...........7..77", "......7..7....7."],
}
"""An extra layer that a caption names: word to grids."""

PERCUSSION_TRACKS = {"congas": "conga", "bongos": "bongo", "claps": "clap", "toms": "tom"}

FILLS = [
    {"snare": "........6.7.8.99"},
    {"snare": "........67..78.9"},
    {"tom_hi": "........88......", "tom_mid": "..........88....", "tom_lo": "............9.99"},
    {"tom_hi": "............8...", "tom_lo": ".............88.", "snare": "........9..9...."},
    {"snare": "............7899"},
    {"kick": "........9.9.....", "snare": "............9.99"},
]


Bars = tuple[str, str]
"""The grids of even and of odd bars, which are the same except in half time."""


def choose(
    rng: np.random.Generator,
    options: Mapping[str, Sequence[str]],
    energy: str,
    foreign: float = 0.0,
) -> dict[str, Bars]:
    """Chooses a grid for each track.

    Args:
        rng: makes the choice.
        options: grids by track.
        energy: of the clip, see `of_energy`.
        foreign: odds that a track's grid comes from another style, or is mutated.
    """
    chosen = {}
    for track, all_grids in options.items():
        grids = of_energy(all_grids, energy)
        grid = grids[int(rng.integers(len(grids)))]
        if rng.random() < foreign:
            grid = _borrowed(rng, track, energy) if rng.random() < 0.5 else _mutated(rng, grid)
        chosen[track] = (grid, grid)
    return chosen


def of_energy(grids: Sequence[str], energy: str) -> list[str]:
    """The grids that suit a clip's energy: for "sparse" the third with the fewest strokes, for
    "energetic" the third with the most, otherwise all; so that the words can be heard."""
    third = -(-len(grids) // 3)
    ordered = sorted(grids, key=lambda grid: len(grid) - grid.count(".") - grid.count("-"))
    return {"sparse": ordered[:third], "energetic": ordered[-third:]}.get(energy, list(grids))


def _borrowed(rng: np.random.Generator, track: str, energy: str) -> str:
    """A grid for the track from any style."""
    grids = of_energy(
        [
            grid
            for groove in GROOVES.values()
            for grid in (*groove.core.get(track, ()), *groove.hats.get(track, ()))
        ],
        energy,
    )
    return grids[int(rng.integers(len(grids)))]


def _mutated(rng: np.random.Generator, grid: str) -> str:
    """The grid with a stroke or two moved, removed or added, but never empty."""
    strokes = list(grid)
    for _ in range(int(rng.integers(1, 4))):
        step, other = (int(s) for s in rng.integers(STEPS_PER_BAR, size=2))
        if strokes[step] == ".":
            strokes[step] = str(rng.integers(4, 9))
        elif step:
            strokes[step], strokes[other] = strokes[other], strokes[step]
    return "".join(strokes) if set(strokes) != {"."} else grid


def half_time(bars: dict[str, Bars]) -> dict[str, Bars]:
    """Kick, snare and the like at half speed; hats and cymbals unchanged."""
    slow = {}
    for track, (grid, other) in bars.items():
        stretched = "".join(symbol + "." for symbol in grid)
        keeps = track in HATS or track in CYMBALS
        slow[track] = (grid, other) if keeps else (stretched[:16], stretched[16:])
    return slow


@dataclass(frozen=True)
class Playing:
    """How a drummer plays.

    Args:
        busyness: 0 drops soft strokes now and then, 1 adds ghost notes.
        fills: ends sections, and other bars now and then, with a fill.
        crashes: may start a section with a crash.
    """

    busyness: float
    fills: bool
    crashes: bool


def play(
    rng: np.random.Generator,
    variants: tuple[dict[str, Bars], dict[str, Bars]],
    sections: list[Section],
    how: Playing,
) -> dict[str, list[Hit]]:
    """The drums of a track: its bars with small changes, section after section.

    Args:
        rng: draws the variation.
        variants: grids of the tracks, for sections of either variant.
        sections: of the track.
        how: the drummer's way of playing.
    """
    tracks: dict[str, list[Hit]] = {}
    fill = FILLS[int(rng.integers(len(FILLS)))]
    fill_every = int(rng.choice([4, 4, 8]))
    takes = _takes(rng, sections[-1].bars.stop)
    for bar, section in playing(sections, "drums"):
        is_last = bar == section.bars.stop - 1
        fill_odds = 0.85 if is_last else 0.5 * (bar % fill_every == fill_every - 1)
        has_fill = how.fills and rng.random() < fill_odds
        if has_fill and is_last and rng.random() < 0.5:
            fill = FILLS[int(rng.integers(len(FILLS)))]
        for number, (track, bars) in enumerate(variants[section.variant].items()):
            grid = bars[bar % 2]
            if track == "kick" and "kick" in section.resting:
                continue
            if has_fill and track in ("snare", "clap", "rim", *fill):
                grid = grid[:8] + "." * 8
            take = np.random.default_rng([takes[bar], number])
            tracks.setdefault(track, []).extend(_bar_hits(take, grid, bar, track, how.busyness))
        if has_fill:
            for track, grid in fill.items():
                tracks.setdefault(track, []).extend(_bar_hits(rng, grid, bar, track, 0.5))
        if bar == section.start and bar and how.crashes and rng.random() < 0.5:
            tracks.setdefault("crash", []).append(Hit(bar * STEPS_PER_BAR, 0.8))
    return {track: hits for track, hits in tracks.items() if hits}


def _takes(rng: np.random.Generator, n_bars: int) -> list[int]:
    """A seed for each bar's small changes: three equal bars, then a different one, as in loops."""
    main, other = (int(seed) for seed in rng.integers(2**31, size=2))
    return [other if bar % 4 == 3 else main for bar in range(n_bars)]


def _bar_hits(
    rng: np.random.Generator, grid: str, bar: int, track: str, busyness: float
) -> list[Hit]:
    hits = []
    for step, symbol in enumerate(grid):
        velocity = 0.0 if symbol == "." else int(symbol) / 9.0
        if 0.0 < velocity < 0.7 and rng.random() < 0.12 * (1.0 - busyness):
            continue
        if velocity == 0.0 and track == "snare" and step % 2 and "9" in grid:
            # A ghost note: barely touched, between the beats.
            velocity = 0.25 if rng.random() < 0.05 * busyness else 0.0
        if velocity == 0.0 and track == "kick" and step in (6, 7, 10, 14):
            velocity = 0.7 if "." in grid and rng.random() < 0.04 * busyness else 0.0
        if velocity > 0.0:
            velocity = float(np.clip(velocity + rng.normal(0.0, 0.04), 0.1, 1.0))
            hits.append(Hit(bar * STEPS_PER_BAR + step, velocity))
    return hits


def percussion_hits(
    rng: np.random.Generator, word: str, sections: list[Section], busyness: float
) -> dict[str, list[Hit]]:
    """The named extra layer, which plays whenever the drums do; pairs of drums alternate."""
    grids = PERCUSSION[word]
    grid = grids[int(rng.integers(len(grids)))]
    base = PERCUSSION_TRACKS.get(word, word)
    takes = _takes(rng, sections[-1].bars.stop)
    bars = [
        _bar_hits(np.random.default_rng(takes[bar]), grid, bar, base, busyness)
        for bar, _ in playing(sections, "drums")
    ]
    if base not in ("conga", "bongo", "tom"):
        return {base: [hit for hits in bars for hit in hits]}
    numbered = [pair for hits in bars for pair in enumerate(hits)]
    high = [hit for index, hit in numbered if index % 3 != 2]
    low = [hit for index, hit in numbered if index % 3 == 2]
    return {f"{base}_hi": high, f"{base}_lo": low}
