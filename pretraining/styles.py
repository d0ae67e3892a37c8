"""The styles of the pretraining corpus, and how a clip of one is composed.

A clip is a pattern for the sequencer, the kit that plays it, and the facts that a caption
may state. Everything follows from the seed: composing again gives the same clip.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil

import numpy as np
from grooves import CYMBALS, GROOVES, HATS, PERCUSSION, choose, percussion_hits, play
from harmony import Harmony, arpeggio, bass_line, chord_hits, melody, random_harmony
from kits import DRUM_KITS, PRESETS, DrumKit, Preset, drum_voice, is_bass, melodic_voice

from musicgen_lora.audio.sequencer import Channel, Hit, Kit, Pattern


@dataclass(frozen=True)
class Style:
    """What is typical of a style. Grids are those of `harmony` and `grooves`."""

    names: tuple[str, ...]
    bpm: tuple[int, int]
    drums: tuple[str, ...]
    modes: tuple[str, ...]
    bass: tuple[str, ...]
    bass_grids: tuple[str, ...]
    chords: tuple[str, ...]
    chord_grids: tuple[str, ...]
    leads: tuple[str, ...]
    swing: tuple[float, float] = (0.5, 0.5)
    extended: float = 0.3
    arpeggios: float = 0.0
    percussion: tuple[str, ...] = ("tambourine", "shaker", "congas", "cowbell")
    weight: float = 1.0


HELD = "x---------------"
STABS = ("..x...x...x...x.", "x..x..x...x..x..", "x.....x.....x...", "...x..x....x..x.")
HALVES = ("x-------x-------", "x---------x-----", HELD)
COMPING = ("x--x--x---x-x---", "..x-..x-..x-..x-", "x-----x-..x-....")

STYLES = {
    "house": Style(
        ("house", "deep house", "house beat"), (110, 132), ("electronic",), ("minor", "dorian"),
        ("synth bass",), ("..1-..1-..1-..1-", "1-.1..1-..5-.7..", "..1...8...1...81"),
        ("electric piano", "synth chords", "organ", "piano"), (*STABS, *COMPING),
        ("synth lead", "bells", "flute"), extended=0.8, weight=1.2,
    ),
    "techno": Style(
        ("techno", "techno track", "minimal techno"), (122, 150), ("electronic",), ("minor",),
        ("synth bass",), (".111.111.111.111", "..1...1...1...1.", "1.11.1.11.11.1.1"),
        ("synth chords", "warm pad", "synth lead"), (*STABS, HELD), ("synth lead", "bells"),
        arpeggios=0.4, percussion=("shaker", "woodblock", "toms", "congas"),
    ),
    "disco": Style(
        ("disco", "disco groove", "nu-disco"), (106, 130), ("acoustic",), ("minor", "dorian"),
        ("electric bass", "slap bass", "synth bass"),
        ("1.8.1.8.1.8.1.8.", "1-8-1-8-5-8-1-8a", "1.1.8.1.5.5.8.5."),
        ("strings", "electric piano", "clean guitar", "piano"), (*STABS, *HALVES),
        ("strings", "brass", "flute"), extended=0.6,
    ),
    "rock": Style(
        ("rock", "rock beat", "indie rock"), (88, 172), ("acoustic",),
        ("major", "mixolydian", "minor"), ("picked bass", "electric bass"),
        ("1.1.1.1.1.1.1.1.", "1-----1-1---5---", "1---1---1---1-5-"),
        ("distorted guitar", "clean guitar", "organ"),
        ("x-x-x-x-x-x-x-x-", *HALVES, "x---x-x---x-x---"),
        ("distorted guitar", "organ"), extended=0.0, percussion=("tambourine", "cowbell", "toms"),
        weight=1.2,
    ),
    "funk": Style(
        ("funk", "funk groove", "funky groove"), (84, 122), ("acoustic",), ("dorian", "mixolydian"),
        ("slap bass", "electric bass"),
        ("1..1..7.8...5.7.", "1.1..8.7...1.5.7", "1-...1.8..7.5.7a", "1...8..1..7.8..."),
        ("clavinet", "electric piano", "muted guitar", "organ"),
        ("x..x..x.x..x.x..", "..x..x.x..x..x..", "x.x..x..x.x..x.x"),
        ("brass", "saxophone", "clavinet"), swing=(0.5, 0.58), extended=0.9, weight=1.2,
    ),
    "boom bap": Style(
        ("boom-bap hip hop", "hip hop boom-bap", "boom bap beat", "old-school hip hop"), (74, 106),
        ("acoustic",), ("minor", "dorian"), ("upright bass", "electric bass"),
        ("1------1--5-....", "1-..1-....7-5-..", "1--.....3-..5-.a"),
        ("electric piano", "piano", "vibraphone", "strings"),
        (HELD, "x-----..x---....", "x---..x-----...."),
        ("trumpet", "saxophone", "flute", "bells"), swing=(0.52, 0.64), extended=0.8, weight=1.4,
    ),
    "drum and bass": Style(
        ("drum and bass", "drum & bass", "jungle"), (158, 180), ("acoustic", "electronic"),
        ("minor", "dorian"), ("synth bass", "upright bass"),
        ("1-------..5-....", "1-----1-....7-5-", "1--1--1-....8-7-"),
        ("warm pad", "electric piano", "strings"), (HELD, "x-------....x---"),
        ("synth lead", "bells", "vibraphone"), extended=0.6,
        percussion=("shaker", "bongos", "congas"),
    ),
    "breakbeat": Style(
        ("breakbeat", "big beat", "breaks"), (104, 146), ("acoustic", "electronic"),
        ("minor", "dorian"), ("synth bass", "picked bass"),
        ("1..1..1.8..1..7.", "1-.1..5-1-.1..7-", "..1...1...1.8.7."),
        ("organ", "synth chords", "electric piano"), (*STABS, HELD), ("synth lead", "brass"),
    ),
    "reggae": Style(
        ("reggae", "dub reggae", "reggae groove"), (60, 96), ("acoustic",), ("minor", "major"),
        ("electric bass",), ("1-..1-3-5-......", "1---..1-5---..3-", "..1-1-..5-3-1-.."),
        ("organ", "clean guitar", "piano", "muted guitar"),
        ("....x.......x...", "..x...x...x...x.", "..xx..xx..xx..xx"),
        ("brass", "trumpet", "saxophone"), swing=(0.5, 0.6), extended=0.1,
        percussion=("bongos", "woodblock", "tambourine"),
    ),
    "latin": Style(
        ("latin", "salsa groove", "bossa nova", "latin groove"), (88, 140), ("brush", "acoustic"),
        ("minor", "major", "dorian"), ("upright bass", "electric bass"),
        ("1-----5-1-----5-", "......5-----1---", "1-----5-----8---"),
        ("piano", "acoustic guitar", "electric piano"),
        ("x-.x-.x-.x-.x-x-", "x..x..x...x..x..", "..x-x..x..x-x..x"),
        ("flute", "trumpet", "marimba", "steel drums"), extended=0.7,
        percussion=("congas", "bongos", "cowbell", "woodblock", "shaker"),
    ),
    "synthwave": Style(
        ("synthwave", "retro synth-pop", "80s synthwave"), (76, 128), ("electronic",),
        ("minor", "major"),
        ("synth bass",), ("1.1.1.1.1.1.1.1.", "1.8.1.8.1.8.1.8.", "..11..11..11..11"),
        ("warm pad", "synth chords", "strings"), (HELD, *HALVES), ("synth lead", "bells"),
        arpeggios=0.6, percussion=("tambourine", "claps", "toms"),
    ),
    "electro": Style(
        ("electro", "electro funk", "electro beat"), (104, 136), ("electronic",),
        ("minor", "dorian"),
        ("synth bass",), ("1.1..1.1..8.7.1.", "1..1..8.1..1..7.", "1.8.1..11.8...7."),
        ("synth chords", "clavinet", "strings"), (*STABS, HELD), ("synth lead", "bells", "brass"),
        arpeggios=0.3, percussion=("cowbell", "claps", "toms", "woodblock"),
    ),
    "jazz": Style(
        ("jazz", "swing jazz", "jazz trio"), (92, 180), ("brush",),
        ("dorian", "major", "mixolydian"),
        ("upright bass",), ("1---3---5---a---", "1---5---8---a---", "1---5---3---a---"),
        ("piano", "electric piano", "clean guitar", "vibraphone"), COMPING,
        ("saxophone", "trumpet", "flute", "vibraphone"), swing=(0.6, 0.67), extended=1.0,
        percussion=("tambourine", "woodblock"), weight=0.9,
    ),
    "soul": Style(
        ("soul", "r&b ballad", "neo-soul"), (60, 98), ("acoustic", "brush"),
        ("major", "dorian", "minor"),
        ("electric bass", "upright bass", "synth bass"),
        ("1-----1-5---7---", "1---..1---3-5---", "1-....5-8---..a-"),
        ("electric piano", "piano", "organ", "clean guitar"), (*HALVES, "x-----x-----x---"),
        ("saxophone", "strings", "brass", "flute"), swing=(0.5, 0.62), extended=0.9,
    ),
    "ambient": Style(
        ("ambient", "ambient soundscape", "chillout"), (60, 112), (), ("major", "minor", "dorian"),
        ("synth bass", "electric bass"), ("1---------------", "1-------5-------"),
        ("warm pad", "strings", "choir", "electric piano"), (HELD,),
        ("bells", "piano", "flute", "kalimba", "vibraphone", "marimba"), extended=0.7,
        arpeggios=0.4, weight=0.9,
    ),
}  # fmt: skip

FRAMES_PER_MINUTE = 3000
"""Of the codec. A beat lasts a whole number of them, so that what repeats in the music repeats in
the codec's tokens: a model this small learns rhythm from that in hours, and not from less."""

LAYERS = {
    "full": ("drums", "bass", "chords", "lead"),
    "no lead": ("drums", "bass", "chords"),
    "drums and bass": ("drums", "bass"),
    "no bass": ("drums", "chords", "lead"),
    "no drums": ("bass", "chords", "lead"),
    "drums only": ("drums",),
    "bass only": ("bass",),
    "chords only": ("chords",),
    "lead only": ("lead",),
}
LAYER_WEIGHTS = (0.16, 0.18, 0.16, 0.08, 0.05, 0.25, 0.04, 0.04, 0.04)
AMBIENT_WEIGHTS = (0.0, 0.0, 0.0, 0.0, 0.40, 0.0, 0.0, 0.35, 0.25)

DRUM_GAINS_DB = {
    "kick": 0.0, "snare": -3.0, "clap": -4.0, "rim": -5.0, "hat": -11.0, "hat_open": -12.5,
    "hat_pedal": -12.0, "ride": -11.5, "crash": -12.0, "tom_hi": -5.0, "tom_mid": -5.0,
    "tom_lo": -4.0, "cowbell": -12.0, "tambourine": -11.0, "shaker": -9.0, "clave": -10.0,
    "woodblock": -10.0, "conga_hi": -7.0, "conga_lo": -6.0, "bongo_hi": -8.0, "bongo_lo": -7.0,
}  # fmt: skip
MELODIC_GAINS_DB = {"bass": 3.0, "chords": -5.0, "lead": 1.0}


DRUM_WORDS = {
    "hat": "hi-hats", "hat_open": "open hats", "ride": "ride cymbal", "clap": "claps",
    "rim": "rimshots", "conga_hi": "congas", "cowbell": "cowbell", "shaker": "shaker",
    "tom_hi": "toms", "clave": "claves",
}  # fmt: skip


@dataclass(frozen=True)
class Clip:
    """A composed clip: what sounds, and what may be said about it."""

    style: str
    pattern: Pattern
    kit: Kit
    harmony: Harmony | None
    layers: str
    energy: str
    drums: DrumKit | None
    words: dict[str, str] = field(default_factory=dict)
    """Instrument by part: "bass", "chords", "lead", "percussion"."""
    has_hats: bool = True
    is_lofi: bool = False
    room: float = 0.0

    @property
    def bpm(self) -> int:
        """As captions say it."""
        return round(self.pattern.bpm)

    @property
    def drum_words(self) -> list[str]:
        """The single drums and cymbals that a listener would notice."""
        return [word for track, word in DRUM_WORDS.items() if track in self.pattern.tracks]

    @property
    def instruments(self) -> list[str]:
        drums = [f"{self.drums.family} drums"] if self.drums else []
        return list(dict.fromkeys([*self.words.values(), *drums, *self.drum_words]))


def compose(rng: np.random.Generator, duration_s: float, held_out: bool) -> Clip:
    """A clip of at least `duration_s`, of a style at random.

    Args:
        rng: decides everything.
        duration_s: the pattern has as many whole bars as this takes.
        held_out: use the kits and presets of the validation split.
    """
    weights = np.array([style.weight for style in STYLES.values()])
    name = str(rng.choice(list(STYLES), p=weights / weights.sum()))
    style = STYLES[name]
    beats = range(ceil(FRAMES_PER_MINUTE / style.bpm[1]), FRAMES_PER_MINUTE // style.bpm[0] + 1)
    bpm = FRAMES_PER_MINUTE / int(rng.choice(beats))
    n_bars = ceil(duration_s * bpm / 240.0)
    layers = str(rng.choice(list(LAYERS), p=LAYER_WEIGHTS if style.drums else AMBIENT_WEIGHTS))
    parts = LAYERS[layers]
    energy = str(rng.choice(["sparse", "medium", "energetic"], p=[0.25, 0.5, 0.25]))
    tracks: dict[str, list[Hit]] = {}
    kit: dict[str, Channel] = {}
    words: dict[str, str] = {}
    drums, has_hats, harmony = None, False, None
    if "drums" in parts:
        families = [drums for drums in DRUM_KITS if drums.family in style.drums]
        options = [drums for drums in families if drums.held_out == held_out]
        drums = options[int(rng.integers(len(options)))]
        drum_tracks, percussion, has_hats = _drum_tracks(rng, name, n_bars, energy)
        tracks |= drum_tracks
        words |= {"percussion": percussion} if percussion else {}
        kit |= _drum_channels(rng, drums, drum_tracks)
    if parts != ("drums",):
        harmony = random_harmony(rng, style.modes, n_bars, style.extended)
        for part in parts:
            if part != "drums":
                preset = _preset(rng, style, part, held_out)
                words[part] = preset.word
                tracks[part] = _part_hits(rng, style, part, preset, harmony, energy)
                kit[part] = _melodic_channel(rng, part, preset, "kick" in tracks and name)
    swing = float(rng.uniform(*style.swing))
    is_lofi = name in ("boom bap", "soul", "house", "ambient") and rng.random() < 0.2
    room = float(rng.uniform(0.15, 0.35) if name == "ambient" else rng.uniform(0.0, 0.14))
    pattern = Pattern(bpm, n_bars, {track: hits for track, hits in tracks.items() if hits}, swing)
    return Clip(name, pattern, kit, harmony, layers, energy, drums, words, has_hats, is_lofi, room)


def _drum_tracks(
    rng: np.random.Generator, style_name: str, n_bars: int, energy: str
) -> tuple[dict[str, list[Hit]], str | None, bool]:
    """Hits by track, the extra percussion's word, and whether hats or rides sound."""
    groove = GROOVES[style_name]
    style = STYLES[style_name]
    busyness = {"sparse": 0.0, "medium": 0.4, "energetic": 1.0}[energy]
    grids = choose(rng, groove.core)
    has_hats = bool(rng.random() > 0.2)
    if has_hats:
        hats = choose(rng, groove.hats)
        # A sparse beat has one cymbal track at most, in eighths.
        if energy == "sparse":
            kept = next(track for track, grid in hats.items() if set(grid) != {"."})
            hats = {kept: "".join(s if i % 2 == 0 else "." for i, s in enumerate(hats[kept]))}
        grids |= hats
    else:
        grids = {track: grid for track, grid in grids.items() if track not in CYMBALS}
    fills = energy == "energetic" or (energy == "medium" and rng.random() < 0.5)
    tracks = play(rng, grids, n_bars, busyness, fills)
    if not has_hats:
        tracks.pop("crash", None)
    percussion = None
    if rng.random() < {"sparse": 0.1, "medium": 0.3, "energetic": 0.5}[energy]:
        percussion = str(rng.choice([word for word in style.percussion if word in PERCUSSION]))
        for track, hits in percussion_hits(rng, percussion, n_bars, busyness).items():
            tracks[track] = tracks.get(track, []) + hits
    return tracks, percussion, any(track in tracks for track in (*HATS, *CYMBALS))


def _drum_channels(
    rng: np.random.Generator, drums: DrumKit, tracks: dict[str, list[Hit]]
) -> dict[str, Channel]:
    channels = {}
    for track in tracks:
        gain_db = DRUM_GAINS_DB[track] + float(rng.normal(0.0, 1.2))
        chokes = ("hat_open",) if track in ("hat", "hat_open", "hat_pedal") else ()
        channels[track] = Channel(drum_voice(drums, track), gain_db, chokes=chokes)
    return channels


def _preset(rng: np.random.Generator, style: Style, part: str, held_out: bool) -> Preset:
    wanted = {"bass": style.bass, "chords": style.chords, "lead": style.leads}[part]
    fitting = [p for p in PRESETS if p.held_out == held_out and is_bass(p) == (part == "bass")]
    options = [preset for preset in fitting if preset.word in wanted]
    word = str(rng.choice(sorted({preset.word for preset in options or fitting})))
    options = [preset for preset in fitting if preset.word == word]
    return options[int(rng.integers(len(options)))]


def _part_hits(
    rng: np.random.Generator,
    style: Style,
    part: str,
    preset: Preset,
    harmony: Harmony,
    energy: str,
) -> list[Hit]:
    if part == "bass":
        return bass_line(rng, harmony, list(style.bass_grids))
    if part == "chords":
        strum = 0.12 if "guitar" in preset.word else 0.0
        low = max(preset.low, int(rng.integers(50, 60)))
        grids = list(style.chord_grids)
        return chord_hits(rng, harmony, grids, low, strum)
    low = max(preset.low + 3, int(rng.integers(62, 70)))
    if rng.random() < style.arpeggios:
        return arpeggio(rng, harmony, 1 if energy == "energetic" else 2, min(low, 66))
    return melody(rng, harmony, {"sparse": 2, "medium": 4, "energetic": 6}[energy], min(low, 66))


def _melodic_channel(
    rng: np.random.Generator, part: str, preset: Preset, kick_style: str | bool
) -> Channel:
    gain_db = MELODIC_GAINS_DB[part] + float(rng.normal(0.0, 1.2))
    pumps = kick_style in ("house", "techno", "synthwave") and part != "lead"
    chokes = (part,) if part == "bass" else ()
    ducked_by = "kick" if pumps else None
    return Channel(melodic_voice(preset), gain_db, chokes=chokes, ducked_by=ducked_by)
