"""The styles of the pretraining corpus: what is typical of each, and which parts a clip has."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Style:
    """What is typical of a style. Grids are as in `harmony` and `grooves`."""

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
        ("house", "deep house", "house beat", "house music", "club house"),
        (108, 134), ("electronic",), ("minor", "dorian"),
        ("synth bass",), ("..1-..1-..1-..1-", "1-.1..1-..5-.7..", "..1...8...1...81"),
        ("electric piano", "synth chords", "organ", "piano"), (*STABS, *COMPING),
        ("synth lead", "bells", "flute"), extended=0.8, weight=1.2,
    ),
    "techno": Style(
        ("techno", "techno track", "minimal techno", "techno beat", "club techno"),
        (118, 154), ("electronic",), ("minor",),
        ("synth bass",), (".111.111.111.111", "..1...1...1...1.", "1.11.1.11.11.1.1"),
        ("synth chords", "warm pad", "synth lead"), (*STABS, HELD), ("synth lead", "bells"),
        arpeggios=0.4, percussion=("shaker", "woodblock", "toms", "congas"),
    ),
    "disco": Style(
        ("disco", "disco groove", "nu-disco", "70s disco", "disco beat"),
        (100, 132), ("acoustic",), ("minor", "dorian"),
        ("electric bass", "slap bass", "synth bass"),
        ("1.8.1.8.1.8.1.8.", "1-8-1-8-5-8-1-8a", "1.1.8.1.5.5.8.5."),
        ("strings", "electric piano", "clean guitar", "piano"), (*STABS, *HALVES),
        ("strings", "brass", "flute"), extended=0.6,
    ),
    "rock": Style(
        ("rock", "rock beat", "indie rock", "rock groove", "rock music"), (72, 178), ("acoustic",),
        ("major", "mixolydian", "minor"), ("picked bass", "electric bass"),
        ("1.1.1.1.1.1.1.1.", "1-----1-1---5---", "1---1---1---1-5-"),
        ("distorted guitar", "clean guitar", "organ"),
        ("x-x-x-x-x-x-x-x-", *HALVES, "x---x-x---x-x---"),
        ("distorted guitar", "organ"), extended=0.0, percussion=("tambourine", "cowbell", "toms"),
        weight=1.2,
    ),
    "funk": Style(
        ("funk", "funk groove", "funky groove", "funk beat", "funky beat"),
        (78, 126), ("acoustic",), ("dorian", "mixolydian"),
        ("slap bass", "electric bass"),
        ("1..1..7.8...5.7.", "1.1..8.7...1.5.7", "1-...1.8..7.5.7a", "1...8..1..7.8..."),
        ("clavinet", "electric piano", "muted guitar", "organ"),
        ("x..x..x.x..x.x..", "..x..x.x..x..x..", "x.x..x..x.x..x.x"),
        ("brass", "saxophone", "clavinet"), swing=(0.5, 0.58), extended=0.9, weight=1.2,
    ),
    "boom bap": Style(
        ("boom-bap hip hop", "hip hop boom-bap", "boom bap beat", "old-school hip hop",
         "boom bap", "90s hip hop"),
        (70, 108),
        ("acoustic",), ("minor", "dorian"), ("upright bass", "electric bass"),
        ("1------1--5-....", "1-..1-....7-5-..", "1--.....3-..5-.a"),
        ("electric piano", "piano", "vibraphone", "strings"),
        (HELD, "x-----..x---....", "x---..x-----...."),
        ("trumpet", "saxophone", "flute", "bells"), swing=(0.52, 0.64), extended=0.8, weight=1.4,
    ),
    "drum and bass": Style(
        ("drum and bass", "drum & bass", "jungle", "dnb", "drum n bass", "jungle beat"),
        (150, 180), ("acoustic", "electronic"),
        ("minor", "dorian"), ("synth bass", "upright bass"),
        ("1-------..5-....", "1-----1-....7-5-", "1--1--1-....8-7-"),
        ("warm pad", "electric piano", "strings"), (HELD, "x-------....x---"),
        ("synth lead", "bells", "vibraphone"), extended=0.6,
        percussion=("shaker", "bongos", "congas"),
    ),
    "breakbeat": Style(
        ("breakbeat", "big beat", "breaks", "breakbeats", "break beat"),
        (98, 150), ("acoustic", "electronic"),
        ("minor", "dorian"), ("synth bass", "picked bass"),
        ("1..1..1.8..1..7.", "1-.1..5-1-.1..7-", "..1...1...1.8.7."),
        ("organ", "synth chords", "electric piano"), (*STABS, HELD), ("synth lead", "brass"),
    ),
    "reggae": Style(
        ("reggae", "dub reggae", "reggae groove", "roots reggae", "dub"),
        (60, 104), ("acoustic",), ("minor", "major"),
        ("electric bass",), ("1-..1-3-5-......", "1---..1-5---..3-", "..1-1-..5-3-1-.."),
        ("organ", "clean guitar", "piano", "muted guitar"),
        ("....x.......x...", "..x...x...x...x.", "..xx..xx..xx..xx"),
        ("brass", "trumpet", "saxophone"), swing=(0.5, 0.6), extended=0.1,
        percussion=("bongos", "woodblock", "tambourine"),
    ),
    "latin": Style(
        ("latin", "salsa groove", "bossa nova", "latin groove", "latin beat", "latin music"),
        (80, 150), ("brush", "acoustic"),
        ("minor", "major", "dorian"), ("upright bass", "electric bass"),
        ("1-----5-1-----5-", "......5-----1---", "1-----5-----8---"),
        ("piano", "acoustic guitar", "electric piano"),
        ("x-.x-.x-.x-.x-x-", "x..x..x...x..x..", "..x-x..x..x-x..x"),
        ("flute", "trumpet", "marimba", "steel drums"), extended=0.7,
        percussion=("congas", "bongos", "cowbell", "woodblock", "shaker"),
    ),
    "synthwave": Style(
        ("synthwave", "retro synth-pop", "80s synthwave", "retrowave", "80s synth-pop"),
        (70, 132), ("electronic",),
        ("minor", "major"),
        ("synth bass",), ("1.1.1.1.1.1.1.1.", "1.8.1.8.1.8.1.8.", "..11..11..11..11"),
        ("warm pad", "synth chords", "strings"), (HELD, *HALVES), ("synth lead", "bells"),
        arpeggios=0.6, percussion=("tambourine", "claps", "toms"),
    ),
    "electro": Style(
        ("electro", "electro funk", "electro beat", "electro music", "80s electro"),
        (98, 140), ("electronic",),
        ("minor", "dorian"),
        ("synth bass",), ("1.1..1.1..8.7.1.", "1..1..8.1..1..7.", "1.8.1..11.8...7."),
        ("synth chords", "clavinet", "strings"), (*STABS, HELD), ("synth lead", "bells", "brass"),
        arpeggios=0.3, percussion=("cowbell", "claps", "toms", "woodblock"),
    ),
    "jazz": Style(
        ("jazz", "swing jazz", "jazz trio", "jazz groove", "jazz music"), (80, 180), ("brush",),
        ("dorian", "major", "mixolydian"),
        ("upright bass",), ("1---3---5---a---", "1---5---8---a---", "1---5---3---a---"),
        ("piano", "electric piano", "clean guitar", "vibraphone"), COMPING,
        ("saxophone", "trumpet", "flute", "vibraphone"), swing=(0.6, 0.67), extended=1.0,
        percussion=("tambourine", "woodblock"), weight=0.9,
    ),
    "soul": Style(
        ("soul", "r&b ballad", "neo-soul", "soul groove", "r&b"), (60, 104), ("acoustic", "brush"),
        ("major", "dorian", "minor"),
        ("electric bass", "upright bass", "synth bass"),
        ("1-----1-5---7---", "1---..1---3-5---", "1-....5-8---..a-"),
        ("electric piano", "piano", "organ", "clean guitar"), (*HALVES, "x-----x-----x---"),
        ("saxophone", "strings", "brass", "flute"), swing=(0.5, 0.62), extended=0.9,
    ),
    "ambient": Style(
        ("ambient", "ambient soundscape", "chillout", "ambient music", "calm ambient"),
        (60, 116), (), ("major", "minor", "dorian"),
        ("synth bass", "electric bass"), ("1---------------", "1-------5-------"),
        ("warm pad", "strings", "choir", "electric piano"), (HELD,),
        ("bells", "piano", "flute", "kalimba", "vibraphone", "marimba"), extended=0.7,
        arpeggios=0.4, weight=0.9,
    ),
}  # fmt: skip

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
