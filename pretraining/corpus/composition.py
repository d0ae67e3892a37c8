"""Composes a clip of the pretraining corpus.

A clip is a window of a longer track: a pattern for the sequencer, the kit that plays it, the
window's position, and the facts that a caption may state because they can be heard in it.
Everything follows from the seed: composing again gives the same clip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil

import numpy as np

from musicgen_lora.beats.sequencer import STEPS_PER_BAR, Channel, Hit, Kit, Pattern, step_time_s
from pretraining.corpus.colour import drum_colours, melodic_colour
from pretraining.corpus.grooves import (
    CYMBALS,
    GROOVES,
    HATS,
    PERCUSSION,
    Playing,
    choose,
    half_time,
    of_energy,
    percussion_hits,
    play,
)
from pretraining.corpus.harmony import (
    Harmony,
    arpeggio,
    bass_line,
    chord_hits,
    melody,
    random_harmony,
)
from pretraining.corpus.kits import (
    DRUM_KITS,
    PRESETS,
    DrumKit,
    Preset,
    drum_voice,
    is_bass,
    melodic_voice,
)
from pretraining.corpus.sections import Section, arrange
from pretraining.corpus.styles import AMBIENT_WEIGHTS, LAYER_WEIGHTS, LAYERS, STYLES, Style

FRAMES_PER_MINUTE = 3000
"""Codec frames per minute."""
FRAME_S = 60.0 / FRAMES_PER_MINUTE
ON_GRID_SHARE = 0.2
"""Share of clips whose beats last whole frames and whose hits begin with a frame: in them,
repetitions repeat the codec's tokens, so that the model can learn rhythm there first."""
HALF_TIME_SHARE = 0.12
SLOWEST, FASTEST = 60.0, 180.0

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
BUSYNESS = {"sparse": 0.0, "medium": 0.4, "energetic": 1.0}
AUDIBLE_SHARE = 0.3
"""Share of the window's bars in which a part must sound to be named."""


@dataclass(frozen=True)
class Timing:
    """The timing of a clip.

    Args:
        bpm: quarter notes per minute.
        swing: see `sequencer.Pattern`.
        humanise_ms: looseness of the playing.
        on_grid: whether each hit begins with a codec frame.
        is_half_time: whether the backbeat falls only on beat 3.
    """

    bpm: float
    swing: float
    humanise_ms: float
    on_grid: bool
    is_half_time: bool

    @property
    def bar_s(self) -> float:
        return 240.0 / self.bpm


@dataclass(frozen=True)
class Clip:
    """A composed clip: its sounds, and what a caption may say about it."""

    style: str
    pattern: Pattern
    kit: Kit
    timing: Timing
    start_s: float
    """The window's start in the track."""
    harmony: Harmony | None
    layers: str
    energy: str
    drums: DrumKit | None
    words: dict[str, str] = field(default_factory=dict)
    """Instruments by audible part: "bass", "chords", "lead", "percussion"."""
    drum_words: tuple[str, ...] = ()
    """The single drums and cymbals that a listener would notice."""
    has_hats: bool = True
    has_percussion: bool = False
    is_lofi: bool = False
    room: float = 0.0

    @property
    def bpm(self) -> int:
        """The tempo as stated in captions."""
        return round(self.timing.bpm)

    @property
    def parts(self) -> tuple[str, ...]:
        return LAYERS[self.layers]

    @property
    def instruments(self) -> list[str]:
        drums = [f"{self.drums.family} drums"] if self.drums else []
        return list(dict.fromkeys([*self.words.values(), *drums, *self.drum_words]))


def compose(
    rng: np.random.Generator, duration_s: float, held_out: bool, style_name: str | None = None
) -> Clip:
    """Composes a clip of `duration_s` in a random style.

    Args:
        rng: decides everything.
        duration_s: of the window; the track is longer.
        held_out: whether to use the kits and presets of the validation split.
        style_name: a key of `STYLES`; None draws one.
    """
    weights = np.array([style.weight for style in STYLES.values()])
    name = style_name or str(rng.choice(list(STYLES), p=weights / weights.sum()))
    style = STYLES[name]
    timing = _timing(rng, style)
    layers = str(rng.choice(list(LAYERS), p=LAYER_WEIGHTS if style.drums else AMBIENT_WEIGHTS))
    parts = LAYERS[layers]
    energy = str(rng.choice(["sparse", "medium", "energetic"], p=[0.25, 0.5, 0.25]))
    n_bars = ceil((duration_s + float(rng.uniform(0.0, 12.0))) / timing.bar_s) + 1
    develops = {"sparse": 0.5, "medium": 0.8, "energetic": 1.0}[energy]
    sections = arrange(rng, n_bars, timing.bar_s, parts, 0.0 if rng.random() < 0.25 else develops)
    tracks: dict[str, list[Hit]] = {}
    kit: dict[str, Channel] = {}
    words: dict[str, str] = {}
    drums, harmony = None, None
    if "drums" in parts:
        drums = _drum_kit(rng, style, held_out)
        drum_tracks, percussion = _drum_tracks(rng, name, sections, energy, timing.is_half_time)
        tracks |= drum_tracks
        words |= {"percussion": percussion} if percussion else {}
        kit |= _drum_channels(rng, drums, drum_tracks)
    if parts != ("drums",):
        harmony = random_harmony(rng, _modes(rng, style), n_bars, style.extended)
        kick_style = "kick" in tracks and name
        for part in parts:
            if part != "drums":
                preset = _preset(rng, style, part, held_out)
                words[part] = preset.word
                hits = _part_hits(rng, style, part, preset, harmony, energy)
                tracks[part] = _without_rests(hits, sections, part)
                kit[part] = _melodic_channel(rng, part, preset, kick_style)
    pattern = Pattern(
        timing.bpm, n_bars, {track: hits for track, hits in tracks.items() if hits}, timing.swing
    )
    track = Clip(
        style=name,
        pattern=pattern,
        kit=kit,
        timing=timing,
        start_s=0.0,
        harmony=harmony,
        layers=layers,
        energy=energy,
        drums=drums,
        words=words,
        has_percussion="percussion" in words or "clave" in tracks,
        has_hats=any(track in tracks for track in (*HATS, *CYMBALS)),
    )
    return _window_of(rng, track, duration_s)


def _window_of(rng: np.random.Generator, track: Clip, duration_s: float) -> Clip:
    """A window of a track, with the words for what is heard in it, and its room."""
    start_s = float(rng.uniform(0.0, track.pattern.duration_s - duration_s))
    if track.timing.on_grid:
        start_s = FRAME_S * round(start_s / FRAME_S)
    sounding = heard(track.pattern, start_s, duration_s)
    is_lofi = track.style in ("boom bap", "soul", "house", "ambient") and rng.random() < 0.2
    is_wide = track.style == "ambient"
    return replace(
        track,
        start_s=start_s,
        words={
            part: word
            for part, word in track.words.items()
            if part == "percussion" or part in sounding
        },
        drum_words=tuple(word for name, word in DRUM_WORDS.items() if name in sounding),
        is_lofi=is_lofi,
        room=float(rng.uniform(0.15, 0.35) if is_wide else rng.uniform(0.0, 0.2)),
    )


def _timing(rng: np.random.Generator, style: Style) -> Timing:
    low, high = max(SLOWEST, style.bpm[0]), min(FASTEST, style.bpm[1])
    is_half_time = bool(style.drums) and rng.random() < HALF_TIME_SHARE
    if is_half_time:
        # Half time is for tempos that would be hurried otherwise.
        low, high = max(low, 0.5 * (low + high)), FASTEST
    swing = float(rng.uniform(*style.swing))
    if rng.random() < 0.15:
        swing = float(rng.uniform(0.5, 0.66))
    if rng.random() < ON_GRID_SHARE:
        beats = range(ceil(FRAMES_PER_MINUTE / high), int(FRAMES_PER_MINUTE // low) + 1)
        return Timing(FRAMES_PER_MINUTE / int(rng.choice(beats)), swing, 0.0, True, is_half_time)
    humanise_ms = 0.0 if rng.random() < 0.4 else float(rng.uniform(1.0, 8.0))
    return Timing(float(rng.uniform(low, high)), swing, humanise_ms, False, is_half_time)


def _modes(rng: np.random.Generator, style: Style) -> tuple[str, ...]:
    # Most styles are mostly minor; keys are learnt because each style is heard in both modes.
    return ("major", "mixolydian") if rng.random() < 0.25 else style.modes


def heard(pattern: Pattern, start_s: float, duration_s: float) -> set[str]:
    """Tracks that sound in enough of the window's bars to be named."""
    bar_s = STEPS_PER_BAR * 15.0 / pattern.bpm
    n_bars = duration_s / bar_s
    sounding: set[str] = set()
    for track, hits in pattern.tracks.items():
        times = [step_time_s(hit.step, pattern.bpm) for hit in hits]
        bars = {int(time_s // bar_s) for time_s in times if 0 <= time_s - start_s < duration_s}
        if len(bars) >= AUDIBLE_SHARE * n_bars:
            sounding.add(track)
    return sounding


def _without_rests(hits: Sequence[Hit], sections: list[Section], part: str) -> list[Hit]:
    resting = {bar for section in sections if part in section.resting for bar in section.bars}
    return [hit for hit in hits if int(hit.step // STEPS_PER_BAR) not in resting]


def _drum_kit(rng: np.random.Generator, style: Style, held_out: bool) -> DrumKit:
    families = [drums for drums in DRUM_KITS if drums.family in style.drums]
    options = [drums for drums in families if drums.held_out == held_out]
    return options[int(rng.integers(len(options)))]


def _drum_tracks(
    rng: np.random.Generator,
    style_name: str,
    sections: list[Section],
    energy: str,
    is_half_time: bool,
) -> tuple[dict[str, list[Hit]], str | None]:
    """Hits by track, and the extra percussion's word."""
    groove, style = GROOVES[style_name], STYLES[style_name]
    busyness = BUSYNESS[energy]
    foreign = 0.1 if style_name in ("jazz", "latin", "reggae") else 0.3
    has_hats = bool(rng.random() > 0.2)
    first = choose(rng, groove.core, energy, foreign)
    hats = _hat_bars(rng, groove.hats, energy) if has_hats else {}
    if not has_hats:
        first = {track: bars for track, bars in first.items() if track not in CYMBALS}
    # The other variant keeps most of the first, like the second part of a song.
    varied = {track: groove.core[track] for track in first if rng.random() < 0.4}
    second = first | choose(rng, varied, energy, foreign)
    other_hats = _hat_bars(rng, groove.hats, energy) if has_hats and rng.random() < 0.6 else hats
    first, second = first | hats, second | other_hats
    if is_half_time:
        first, second = half_time(first), half_time(second)
    fills = energy == "energetic" or (energy == "medium" and rng.random() < 0.6)
    tracks = play(rng, (first, second), sections, Playing(busyness, fills, fills and has_hats))
    percussion = None
    if rng.random() < {"sparse": 0.1, "medium": 0.3, "energetic": 0.5}[energy]:
        percussion = str(rng.choice([word for word in style.percussion if word in PERCUSSION]))
        for track, hits in percussion_hits(rng, percussion, sections, busyness).items():
            tracks[track] = tracks.get(track, []) + hits
    return tracks, percussion


def _hat_bars(
    rng: np.random.Generator, options: dict[str, list[str]], energy: str
) -> dict[str, tuple[str, str]]:
    hats = choose(rng, options, energy, 0.15)
    # A sparse beat has one cymbal track at most, in eighths.
    if energy == "sparse":
        kept = next((track for track, bars in hats.items() if set(bars[0]) != {"."}), None)
        if kept is None:
            return {}
        grid = "".join(s if i % 2 == 0 else "." for i, s in enumerate(hats[kept][0]))
        hats = {kept: (grid, grid)}
    return hats


def _drum_channels(
    rng: np.random.Generator, drums: DrumKit, tracks: Mapping[str, list[Hit]]
) -> dict[str, Channel]:
    channels = {}
    colours = drum_colours(rng, list(tracks))
    for track in tracks:
        gain_db = DRUM_GAINS_DB[track] + float(rng.normal(0.0, 1.5))
        chokes = ("hat_open",) if track in ("hat", "hat_open", "hat_pedal") else ()
        channels[track] = Channel(drum_voice(drums, track, colours[track]), gain_db, chokes=chokes)
    return channels


def _preset(rng: np.random.Generator, style: Style, part: str, held_out: bool) -> Preset:
    wanted = {"bass": style.bass, "chords": style.chords, "lead": style.leads}[part]
    fitting = [p for p in PRESETS if p.held_out == held_out and is_bass(p) == (part == "bass")]
    options = [preset for preset in fitting if preset.word in wanted]
    if part != "bass" and rng.random() < 0.15:
        # Any instrument may turn up in any style, so that its word means a sound.
        options = fitting
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
        return bass_line(rng, harmony, of_energy(style.bass_grids, energy))
    if part == "chords":
        strum = 0.12 if "guitar" in preset.word else 0.0
        low = max(preset.low, int(rng.integers(50, 60)))
        grids = of_energy(style.chord_grids, energy)
        return chord_hits(rng, harmony, grids, low, strum)
    low = max(preset.low + 3, int(rng.integers(62, 70)))
    if rng.random() < style.arpeggios:
        return arpeggio(rng, harmony, 1 if energy == "energetic" else 2, min(low, 66))
    return melody(rng, harmony, {"sparse": 2, "medium": 4, "energetic": 6}[energy], min(low, 66))


def _melodic_channel(
    rng: np.random.Generator, part: str, preset: Preset, kick_style: str | bool
) -> Channel:
    gain_db = MELODIC_GAINS_DB[part] + float(rng.normal(0.0, 1.5))
    pumps = kick_style in ("house", "techno", "synthwave") and part != "lead"
    chokes = (part,) if part == "bass" else ()
    ducked_by = "kick" if pumps else None
    voice = melodic_voice(preset, melodic_colour(rng, part))
    return Channel(voice, gain_db, chokes=chokes, ducked_by=ducked_by)
