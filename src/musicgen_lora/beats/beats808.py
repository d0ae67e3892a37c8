"""Composes hip-hop beats for the TR-808 kit.

The example data needs beats that differ in what a caption can say: tempo, key, feel, instruments.
Each beat is drawn from a style (trap, drill, boom bap ...) as a producer would build it: a bar A,
its variation, A again and a bar B with a fill, the 808 bass on the steps of the kick. The facts of
a beat are derived from its hits, so that they describe what actually sounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from musicgen_lora.beats.kit808 import load_kit808
from musicgen_lora.beats.parts808 import (
    LOWEST_BASS,
    Tracks,
    add_drop,
    add_fills,
    add_tracks,
    backbeats,
    bass_line,
    colour,
    cowbell_melody,
    hi_hats,
    kick_hits,
    kick_steps,
)
from musicgen_lora.beats.sequencer import NOTE_NAMES, STEPS_PER_BAR, Hit, Pattern, render


@dataclass(frozen=True)
class Style:
    """The common properties of a style's beats; odds are 0 to 1.

    Args:
        backbeats: steps of the snare; (8,) is half-time: the beat feels half as fast.
        swing: minimum and maximum, see `sequencer.Pattern`.
        kick_odds: odds of a kick at a step of the bar; step 0 always has one.
        hat_steps: distances between hi-hats, in sixteenths.
        roll_odds: odds of a hi-hat roll in a beat of the bar.
        glide_odds: odds of a glide in a bass note that is long enough.
    """

    bpm: tuple[int, int]
    backbeats: tuple[int, ...]
    swing: tuple[float, float]
    kick_odds: Mapping[int, float]
    hat_steps: tuple[float, ...]
    roll_odds: float
    glide_odds: float
    humanise_ms: float

    @property
    def half_time(self) -> bool:
        return self.backbeats == (8,)


_TRAP_KICKS = {3: 0.25, 4: 0.15, 6: 0.4, 7: 0.2, 10: 0.45, 11: 0.2, 12: 0.15, 13: 0.2, 14: 0.35}
_DRILL_KICKS = {3: 0.5, 6: 0.45, 7: 0.15, 10: 0.4, 11: 0.35, 13: 0.3, 14: 0.3}
_BOOM_BAP_KICKS = {2: 0.15, 3: 0.25, 6: 0.3, 7: 0.4, 8: 0.3, 10: 0.65, 11: 0.2, 14: 0.2}
_SLOW_KICKS = {3: 0.4, 6: 0.45, 7: 0.2, 8: 0.25, 10: 0.45, 11: 0.3, 14: 0.3, 15: 0.15}

STYLES = {
    "trap": Style((126, 168), (8,), (0.5, 0.52), _TRAP_KICKS, (2, 2, 2, 1), 0.35, 0.35, 1.0),
    "drill": Style((138, 148), (8,), (0.5, 0.5), _DRILL_KICKS, (4 / 3, 3, 2), 0.3, 0.7, 1.0),
    "boom bap": Style((74, 90), (4, 12), (0.54, 0.62), _BOOM_BAP_KICKS, (2, 2, 1), 0.04, 0.1, 4.0),
    "memphis": Style((120, 146), (8,), (0.5, 0.55), _TRAP_KICKS, (2, 1), 0.15, 0.2, 2.0),
    "southern": Style((60, 84), (4, 12), (0.5, 0.55), _SLOW_KICKS, (1, 1, 0.5), 0.3, 0.3, 1.5),
}
STYLE_SHARES = {"trap": 0.4, "drill": 0.12, "boom bap": 0.2, "memphis": 0.12, "southern": 0.16}


@dataclass(frozen=True)
class Beat:
    """A composed beat and the facts about it.

    Args:
        bpm: quarter notes per minute, as a sequencer shows it; half-time beats feel half of it.
        key: as in "C# minor"; None if only drums play.
        swing: see `sequencer.Pattern`.
        half_time: the backbeat falls on beat 3 only.
    """

    pattern: Pattern
    bpm: int
    key: str | None
    style: str
    swing: float
    half_time: bool
    tags: tuple[str, ...]
    bass_decay_s: float
    bass_drive: float
    master_drive: float
    humanise_ms: float


def beat_facts(beat: Beat) -> dict[str, object]:
    """The beat's facts for a dataset: bpm, key (omitted if None) and tags."""
    facts: dict[str, object] = {"bpm": beat.bpm, "tags": list(beat.tags)}
    return facts if beat.key is None else {**facts, "key": beat.key}


def render_beat(beat: Beat, sample_rate: int, *, seed: int = 0) -> np.ndarray:
    """Render a beat to a waveform `[1, N]`, float32; its last 5 ms are faded out."""
    kit = load_kit808(sample_rate, bass_decay_s=beat.bass_decay_s, bass_drive=beat.bass_drive)
    waveform = render(
        beat.pattern,
        kit,
        sample_rate,
        seed=seed,
        humanise_ms=beat.humanise_ms,
        drive=beat.master_drive,
    )
    n_fade = int(0.005 * sample_rate)
    waveform[:, -n_fade:] *= np.linspace(1.0, 0.0, n_fade, dtype=np.float32)
    return waveform


def make_beat(seed: int | Sequence[int], *, duration_s: float = 15.0) -> Beat:
    """Composes a beat of whole bars, about `duration_s` long; the same seed gives the same beat."""
    rng = np.random.default_rng(seed)
    name = str(rng.choice(list(STYLE_SHARES), p=list(STYLE_SHARES.values())))
    style = STYLES[name]
    bpm = int(rng.integers(style.bpm[0], style.bpm[1] + 1))
    bars = _form(duration_s * bpm / 240.0)
    swing = round(float(rng.uniform(*style.swing)), 3)
    # Most 808 records are in keys where the bass is both low and audible, D# to A#.
    tonic = int(rng.choice(12, p=np.array([2, 3, 3, 4, 4, 4, 4, 4, 3, 3, 3, 2]) / 39))
    has_bass = rng.random() < 0.87
    density = (0.4, 0.8, 1.0, 1.0, 1.3)[rng.integers(5)]

    # The bass takes over where a short kick ends; alone, the kick may ring.
    kicks = kick_steps(rng, style.kick_odds, bars, density)
    tracks: Tracks = {"kick" if has_bass else "kick_long": kick_hits(rng, kicks)}
    if has_bass:
        tracks["sub"] = bass_line(rng, kicks, LOWEST_BASS + tonic, style.glide_odds)
    extra_step = 14 if name == "drill" and rng.random() < 0.7 else None
    add_tracks(tracks, backbeats(rng, style.backbeats, len(bars), density, extra_step))
    add_tracks(tracks, hi_hats(rng, style.hat_steps, style.roll_odds * density, bars, density))
    if has_bass and (name == "memphis" or rng.random() < 0.08):
        add_tracks(tracks, cowbell_melody(rng, bars, tonic))
    elif rng.random() < 0.5 * density:
        add_tracks(tracks, colour(rng, len(bars)))
    fills = add_fills(rng, tracks, bars, style.backbeats[-1] + (4 if style.half_time else 1))
    has_drop = len(bars) >= 4 and rng.random() < 0.4
    if has_drop:
        add_drop(rng, tracks, len(bars))
    tracks = {track: hits for track, hits in tracks.items() if hits}
    pattern = Pattern(float(bpm), len(bars), tracks, swing)
    tags = _tags(name, pattern, style.half_time)
    tags += tuple(f"{fill} fill" for fill in sorted(fills - {"stop"}))
    return Beat(
        pattern=pattern,
        bpm=bpm,
        key=f"{NOTE_NAMES[tonic]} minor" if has_bass else None,
        style=name,
        swing=swing,
        half_time=style.half_time,
        tags=(*tags, "drop") if has_drop else tags,
        bass_decay_s=round(float(rng.uniform(0.5, 1.8)), 2),
        bass_drive=round(float(rng.uniform(0.6, 2.4)), 2),
        master_drive=round(float(rng.uniform(0.2, 1.0)), 2),
        humanise_ms=style.humanise_ms,
    )


def _form(n_bars: float) -> str:
    """A letter for each bar: A, its variation a, and B, the last of every four."""
    n_whole = max(2, 2 * round(n_bars / 2.0))
    return ("AaAB" * n_whole)[: n_whole - 1] + "B"


def _tags(style: str, pattern: Pattern, half_time: bool) -> tuple[str, ...]:
    """The character of the pattern and its instruments, derived from its hits."""
    tracks = pattern.tracks
    strokes = sum(len(hits) for track, hits in tracks.items() if track != "sub") / pattern.n_bars
    tags = [style, "half-time"] if half_time else [style]
    tags += ["sparse"] if strokes < 13 else ["busy"] if strokes > 26 else []
    tags += ["swing"] if pattern.swing >= 0.54 else []
    tags += _bass_tags(tracks.get("sub", ()), pattern.bpm)
    tags += _hat_tags(tracks.get("closed_hat", ()))
    snares = [hit for track in ("snare", "snare_tight") for hit in tracks.get(track, ())]
    played = {
        "snare": [hit for hit in snares if hit.velocity > 0.7],
        "claps": tracks.get("clap", ()),
        "ghost notes": [hit for hit in snares if hit.velocity < 0.4],
    }
    for tag, names in _INSTRUMENTS.items():
        played[tag] = [hit for name in names for hit in tracks.get(name, ())]
    for tag, hits in played.items():
        # In at least half of the bars: a fill alone does not count.
        if len({hit.step // STEPS_PER_BAR for hit in hits}) >= pattern.n_bars / 2:
            tags.append(tag)
    if any(hit.pitch is not None for hit in tracks.get("cowbell", ())):
        tags[tags.index("cowbell")] = "cowbell melody"
    return tuple(tags)


_INSTRUMENTS = {
    "open hi-hats": ("open_hat",),
    "cowbell": ("cowbell",),
    "congas": ("conga_low", "conga_mid", "conga_high"),
    "clave": ("clave",),
    "toms": ("tom_low", "tom_mid", "tom_high"),
    "ride": ("ride",),
}


def _bass_tags(line: Sequence[Hit], bpm: float) -> list[str]:
    if not line:
        return ["drums only"]
    lengths_s = [(hit.length or 16.0) * 15.0 / bpm for hit in line]
    tags = ["808 bass"]
    tags += ["long bass"] if np.median(lengths_s) > 0.6 else []
    tags += ["short bass"] if np.median(lengths_s) < 0.3 else []
    tags += ["gliding bass"] if sum(hit.glide_to is not None for hit in line) >= 2 else []
    return tags


def _hat_tags(hits: Sequence[Hit]) -> list[str]:
    """The grid of most strokes, and whether there are faster rolls between them."""
    distances = np.diff(sorted(hit.step for hit in hits))
    distances = distances[(distances > 0.01) & (distances < 4.01)]
    if np.sum(distances > 0.45) < 4:
        return []
    names = {0.5: "1/32 hi-hats", 1.0: "1/16 hi-hats", 4 / 3: "triplet hi-hats", 2.0: "1/8 hi-hats"}
    # Weighted by the time that each distance fills, as a short roll has many fast strokes.
    values, counts = np.unique(np.round(distances[distances > 0.45], 2), return_counts=True)
    common = float(values[(values * counts).argmax()])
    tags = [name for distance, name in names.items() if abs(distance - common) < 0.02]
    rolling = distances < (0.75 if common > 0.52 else 0.45)
    return [*tags, "rolling hi-hats"] if rolling.sum() >= 8 else tags


_STYLE_WORDS = {
    "trap": ("trap beat", "808 trap beat", "trap instrumental", "hip hop trap beat"),
    "drill": ("drill beat", "drill trap beat", "hip hop drill beat"),
    "boom bap": ("boom bap hip hop beat", "boom bap beat on an 808", "boom bap 808 hip hop"),
    "memphis": ("memphis rap beat", "memphis hip hop beat", "memphis trap beat"),
    "southern": ("southern hip hop beat", "southern rap beat", "southern 808 hip hop beat"),
}
_WORDS = {
    "half-time": ("half-time drums", "a half-time feel", "the backbeat on three"),
    "swing": ("a swung groove", "swing", "shuffled sixteenths"),
    "1/32 hi-hats": ("rapid 1/32 hi-hats", "very fast hi-hats"),
    "1/16 hi-hats": ("sixteenth-note hi-hats", "fast hi-hats", "1/16 hi-hats"),
    "1/8 hi-hats": ("eighth-note hi-hats", "steady hi-hats", "1/8 hi-hats"),
    "triplet hi-hats": ("triplet hi-hats", "hi-hats in triplets"),
    "rolling hi-hats": ("rolling hi-hats", "hi-hat rolls", "stuttering hi-hat rolls"),
    "open hi-hats": ("open hats", "open hi-hats"),
    "snare": ("snare", "808 snare", "crisp snare"),
    "claps": ("claps", "808 claps", "hand claps"),
    "ghost notes": ("ghost notes on the snare", "snare ghost notes"),
    "cowbell": ("cowbell", "808 cowbell"),
    "cowbell melody": ("a cowbell melody", "a tuned cowbell melody", "a melodic 808 cowbell"),
    "congas": ("congas", "808 congas"),
    "clave": ("clave", "a clave pattern"),
    "toms": ("toms", "808 toms"),
    "ride": ("ride cymbal", "a ride"),
    "toms fill": ("a tom fill", "tom fills"),
    "snare roll fill": ("a snare roll", "snare roll fills"),
    "drop": ("a drop", "a break without kick", "kick and snare dropping out"),
    "drums only": ("drums only", "no bass", "no bass, only drums"),
}
_TEMPLATES = (
    "{style} with {parts}, {bpm} bpm, {key}",
    "{style}, {parts}, {key}, {bpm} bpm",
    "{bpm} bpm {style} in {key} with {parts}",
    "{style} at {bpm} bpm in {key}: {parts}",
)


def caption(beat: Beat, seed: int | Sequence[int]) -> str:
    """One wording of the beat's facts: style, tempo, key and some of the instruments."""
    rng = np.random.default_rng(seed)
    tags = beat.tags
    named = [tag for tag in tags if tag in _WORDS]
    # The bass, or its absence, is always named; of the rest at most five tags.
    first = [_bass_words(rng, tags)] if "808 bass" in tags else []
    if "rolling hi-hats" in named:
        named = [tag for tag in named if tag == "rolling hi-hats" or not tag.endswith("/8 hi-hats")]
    chosen = set(rng.permutation(named)[: rng.integers(3, 6)].tolist())
    chosen |= {"drums only", "rolling hi-hats", "cowbell melody"} & set(named)
    words = first + [str(rng.choice(_WORDS[tag])) for tag in named if tag in chosen]
    style = str(rng.choice(_STYLE_WORDS[beat.style]))
    density = [tag for tag in ("sparse", "busy") if tag in tags]
    style = " ".join([*density, style])
    parts = words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]
    template = str(rng.choice(_TEMPLATES))
    if beat.key is None:
        template = template.replace(" in {key}", "").replace(", {key}", "")
    return template.format(style=style, parts=parts, bpm=beat.bpm, key=beat.key)


def _bass_words(rng: np.random.Generator, tags: Sequence[str]) -> str:
    adjectives = [word for word in ("long", "short", "gliding") if f"{word} bass" in tags]
    noun = str(rng.choice(["808 bass", "808s", "808 sub bass"]))
    return " ".join([*adjectives, noun])
