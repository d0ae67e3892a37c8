"""The sounds of the pretraining corpus: drum kits and melodic presets, none of them an 808.

Drums come from the CC0 one-shots beside this file and from the FluidR3 soundfont (MIT), the
melodic presets from FluidR3. Kits and presets marked `held_out` are used only in validation.

Left out on purpose: `bd_808`, the soundfont's TR-808 kit and 808 tom, and every kick or bass
hit whose energy stays below 60 Hz for long (`bd_boom`, `bd_pure`, `bd_klub`, `bd_mehackit`,
`bd_jazz`, `bass_hit_c`, `elec_lo_snare`). What an 808 sounds like is left to fine-tuning.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cache

import numpy as np
import soundfile as sf
import soxr
from scipy.signal import butter, sosfilt

from musicgen_lora.beats.sequencer import Hit, Voice, fade_out, one_shot, soften
from pretraining.corpus.colour import Colour
from pretraining.corpus.soundfont import DRUM_BANK, SAMPLE_RATE, notes
from pretraining.paths import ASSETS, WORK

ONE_SHOTS_DIR = ASSETS / "oneshots_cc0"
NOTES_DIR = WORK / "notes"

GM_NOTES = {
    "kick": 36,
    "rim": 37,
    "snare": 38,
    "clap": 39,
    "hat": 42,
    "tom_lo": 43,
    "hat_pedal": 44,
    "hat_open": 46,
    "tom_mid": 47,
    "crash": 49,
    "tom_hi": 50,
    "ride": 51,
    "tambourine": 54,
    "cowbell": 56,
    "bongo_hi": 60,
    "bongo_lo": 61,
    "conga_mute": 62,
    "conga_hi": 63,
    "conga_lo": 64,
    "timbale_hi": 65,
    "timbale_lo": 66,
    "agogo": 67,
    "shaker": 70,
    "guiro": 73,
    "clave": 75,
    "woodblock": 76,
}
HOLD_S, SLOT_S = 4.2, 5.0
BASS_HOLD_S, BASS_SLOT_S = 2.6, 3.0


@dataclass(frozen=True)
class DrumKit:
    """A drum kit.

    Args:
        name: unique name.
        family: "acoustic", "electronic" or "brush"; styles choose by it.
        program: soundfont preset for the tracks that `overrides` lacks.
        overrides: pairs of a track and its CC0 one-shot.
        held_out: used only in validation.
    """

    name: str
    family: str
    program: int
    overrides: tuple[tuple[str, str], ...]
    held_out: bool = False


@dataclass(frozen=True)
class Preset:
    """A melodic preset: `word` is its name in captions, `low` and `high` its MIDI range."""

    word: str
    bank: int
    program: int
    low: int
    high: int
    release_s: float = 0.08
    held_out: bool = False


def _kit(name: str, family: str, program: int, held_out: bool = False, **overrides: str) -> DrumKit:
    return DrumKit(name, family, program, tuple(overrides.items()), held_out)


_STUDIO = {
    "hat": "drum_cymbal_closed",
    "hat_open": "drum_cymbal_open",
    "hat_pedal": "drum_cymbal_pedal",
    "crash": "drum_splash_hard",
}
DRUM_KITS = [
    _kit("standard", "acoustic", 0),
    _kit("standard-1", "acoustic", 1),
    _kit("standard-2", "acoustic", 2, hat="hat_zild", ride="ride_via"),
    _kit("standard-4", "acoustic", 4, hat="hat_bdu"),
    _kit("standard-6", "acoustic", 6),
    _kit("room-1", "acoustic", 9),
    _kit("room-3", "acoustic", 11, hat="hat_metal"),
    _kit("room-5", "acoustic", 13),
    _kit("power", "acoustic", 16),
    _kit("power-2", "acoustic", 18, hat="hat_gump"),
    _kit(
        "studio",
        "acoustic",
        0,
        False,
        kick="drum_bass_hard",
        snare="drum_snare_hard",
        tom_hi="drum_tom_hi_hard",
        tom_mid="drum_tom_mid_hard",
        tom_lo="drum_tom_lo_hard",
        cowbell="drum_cowbell",
        ride="ride_tri",
        **_STUDIO,
    ),
    _kit("dusty", "acoustic", 3, kick="bd_sone", snare="sn_dolf", hat="hat_len"),
    _kit("crate", "acoustic", 10, kick="bd_gas", snare="sn_zome", hat="hat_cab"),
    _kit("jazz", "brush", 32),
    _kit("jazz-1", "brush", 33, hat="hat_zild", ride="ride_via"),
    _kit("brush", "brush", 40),
    _kit("brush-2", "brush", 42),
    _kit("electronic", "electronic", 24),
    _kit("haus", "electronic", 24, kick="bd_haus", snare="sn_dub", hat="hat_gem"),
    _kit("tek", "electronic", 24, kick="bd_tek", snare="elec_snare", hat="hat_noiz"),
    _kit("zome", "electronic", 19, kick="bd_zome", snare="elec_hi_snare", hat="hat_raw"),
    _kit("ada", "electronic", 24, kick="bd_ada", snare="elec_mid_snare", hat="hat_snap"),
    _kit("fat", "electronic", 24, kick="bd_fat", snare="sn_generic", hat="hat_star"),
    _kit("heavy", "electronic", 17, kick="drum_heavy_kick", snare="elec_filt_snare", hat="hat_zan"),
    _kit("standard-5", "acoustic", 5, held_out=True, hat="hat_hier"),
    _kit("power-3", "acoustic", 19, held_out=True, hat="hat_psych"),
    _kit("jazz-3", "brush", 35, held_out=True),
    _kit("zum", "electronic", 24, True, kick="bd_zum", snare="elec_fuzz_tom", hat="hat_mess"),
    _kit("soft", "electronic", 24, True, kick="elec_soft_kick", snare="perc_snap", hat="hat_yosh"),
]

PRESETS = [
    Preset("electric bass", 0, 33, 28, 55),
    Preset("picked bass", 0, 34, 28, 55),
    Preset("electric bass", 0, 35, 28, 55, held_out=True),
    Preset("slap bass", 0, 36, 28, 55),
    Preset("slap bass", 0, 37, 28, 55, held_out=True),
    Preset("upright bass", 0, 32, 28, 55),
    Preset("synth bass", 0, 38, 28, 55),
    Preset("synth bass", 0, 39, 28, 55),
    Preset("synth bass", 8, 38, 28, 55, held_out=True),
    Preset("piano", 0, 0, 46, 85),
    Preset("piano", 0, 1, 46, 85, held_out=True),
    Preset("electric piano", 0, 4, 46, 85),
    Preset("electric piano", 8, 4, 46, 85),
    Preset("electric piano", 0, 5, 46, 85, held_out=True),
    Preset("clavinet", 0, 7, 46, 79),
    Preset("organ", 0, 16, 46, 82),
    Preset("organ", 0, 18, 46, 82),
    Preset("organ", 8, 16, 46, 82, held_out=True),
    Preset("clean guitar", 0, 27, 46, 82),
    Preset("clean guitar", 0, 26, 46, 82, held_out=True),
    Preset("muted guitar", 0, 28, 43, 79),
    Preset("acoustic guitar", 0, 24, 46, 82),
    Preset("acoustic guitar", 0, 25, 46, 82, held_out=True),
    Preset("distorted guitar", 0, 30, 40, 76),
    Preset("distorted guitar", 0, 29, 40, 76, held_out=True),
    Preset("strings", 0, 48, 46, 85, 0.25),
    Preset("strings", 0, 50, 46, 85, 0.25),
    Preset("strings", 0, 49, 46, 85, 0.3, held_out=True),
    Preset("warm pad", 0, 89, 46, 82, 0.4),
    Preset("warm pad", 0, 95, 46, 82, 0.4),
    Preset("warm pad", 0, 94, 46, 82, 0.4, held_out=True),
    Preset("choir", 0, 52, 46, 82, 0.3),
    Preset("choir", 0, 53, 46, 82, 0.3, held_out=True),
    Preset("synth chords", 0, 90, 46, 85),
    Preset("synth chords", 0, 81, 46, 85),
    Preset("synth chords", 0, 63, 46, 85, held_out=True),
    Preset("synth lead", 0, 80, 58, 91),
    Preset("synth lead", 0, 87, 58, 91),
    Preset("synth lead", 0, 84, 58, 91, held_out=True),
    Preset("marimba", 0, 12, 52, 91),
    Preset("marimba", 0, 13, 58, 91, held_out=True),
    Preset("vibraphone", 0, 11, 52, 88),
    Preset("bells", 0, 98, 58, 91),
    Preset("bells", 0, 10, 58, 91, held_out=True),
    Preset("brass", 0, 61, 46, 79, 0.12),
    Preset("brass", 8, 61, 46, 79, 0.12, held_out=True),
    Preset("saxophone", 0, 66, 50, 79, 0.12),
    Preset("saxophone", 0, 65, 54, 82, 0.12, held_out=True),
    Preset("trumpet", 0, 56, 55, 84, 0.12),
    Preset("flute", 0, 73, 60, 91, 0.12),
    Preset("steel drums", 0, 114, 55, 88),
    Preset("kalimba", 0, 108, 55, 88),
]
ROOT_SPACING = 3
"""Semitones between sampled notes; those in between are transposed by one or two at most."""


def is_bass(preset: Preset) -> bool:
    return preset.high <= 55


@cache
def drum_sounds(kit: DrumKit) -> dict[str, np.ndarray]:
    """Samples `[N]` by track at 32 kHz, levelled so that gains mean the same in all kits."""
    ordered = sorted(GM_NOTES.values())
    played = notes(NOTES_DIR, DRUM_BANK, kit.program, ordered, 0.5, 3.0)
    overrides = dict(kit.overrides)
    sounds = {}
    for track, note in GM_NOTES.items():
        name = overrides.get(track)
        sound = read_one_shot(name) if name else np.array(played[ordered.index(note)])
        sounds[track] = _level_drum(_trim_end(sound))
    return sounds


def drum_voice(kit: DrumKit, track: str, colour: Colour) -> Voice:
    return one_shot(colour(drum_sounds(kit)[track]))


def melodic_voice(preset: Preset, colour: Colour) -> Voice:
    """Plays any pitch of a preset; transposed and coloured notes are cached for the next hit."""
    bank = note_bank(preset)
    coloured: dict[int, np.ndarray] = {}

    def play(hit: Hit, held_s: float | None, sample_rate: int) -> np.ndarray:
        pitch = round(hit.pitch or 60)
        if pitch not in coloured:
            coloured[pitch] = colour(_transposed(bank, preset, pitch))
        sound = coloured[pitch]
        if held_s is not None:
            sound = _release(sound, round(held_s * sample_rate), preset.release_s, sample_rate)
        return soften(sound, hit.velocity)

    return play


@cache
def note_bank(preset: Preset) -> dict[int, np.ndarray]:
    roots = list(range(preset.low, preset.high + 1, ROOT_SPACING))
    hold_s, slot_s = (BASS_HOLD_S, BASS_SLOT_S) if is_bass(preset) else (HOLD_S, SLOT_S)
    played = notes(NOTES_DIR, preset.bank, preset.program, roots, hold_s, slot_s)
    # Some pads of the soundfont have a DC offset as strong as their tone.
    rumble = butter(2, 30.0, "highpass", fs=SAMPLE_RATE, output="sos")
    played = np.asarray(sosfilt(rumble, played, axis=1), dtype=np.float32)
    loudness = float(np.median([_loudness(note, 0.2) for note in played]))
    # One gain for the whole preset keeps its own balance between low and high notes.
    return {
        root: _trim_end(note * (0.12 / max(loudness, 1e-4)))
        for root, note in zip(roots, played, strict=True)
    }


_CACHE: OrderedDict[tuple[Preset, int], np.ndarray] = OrderedDict()
_CACHE_NOTES = 800
"""Transposed notes kept in memory, about 0.3 MB each."""


def _transposed(bank: dict[int, np.ndarray], preset: Preset, pitch: int) -> np.ndarray:
    key = (preset, pitch)
    if key not in _CACHE:
        root = min(bank, key=lambda root: abs(root - pitch))
        _CACHE[key] = one_shot(bank[root], root)(Hit(0.0, 1.0, pitch), None, SAMPLE_RATE)
        if len(_CACHE) > _CACHE_NOTES:
            _CACHE.popitem(last=False)
    _CACHE.move_to_end(key)
    return _CACHE[key]


def _release(sound: np.ndarray, n_held: int, release_s: float, sample_rate: int) -> np.ndarray:
    """`sound` released after `n_held` samples, with an exponential decay of `release_s`."""
    n_release = round(release_s * sample_rate)
    cut = fade_out(sound, n_held + n_release, sample_rate).copy()
    tail = cut[n_held:]
    tail *= np.exp(-4.0 * np.arange(len(tail), dtype=np.float32) / n_release)
    return cut


def read_one_shot(name: str) -> np.ndarray:
    samples, sample_rate = sf.read(ONE_SHOTS_DIR / f"{name}.flac", dtype="float32", always_2d=True)
    return soxr.resample(samples.mean(axis=1), sample_rate, SAMPLE_RATE).astype(np.float32)


def _loudness(sound: np.ndarray, window_s: float) -> float:
    """Largest RMS of any window."""
    n_window = min(len(sound), round(window_s * SAMPLE_RATE))
    power = np.cumsum(np.concatenate([[0.0], np.square(sound, dtype=np.float64)]))
    return float(np.sqrt((power[n_window:] - power[:-n_window]).max() / n_window))


def _level_drum(sound: np.ndarray) -> np.ndarray:
    # Between equal peak and equal loudness: clicks must not stick out, nor long crashes dominate.
    peak = float(np.abs(sound).max(initial=1e-6))
    gain = 0.9 / peak
    return sound * gain * min(1.6, (0.25 / max(_loudness(sound * gain, 0.06), 1e-4)) ** 0.5)


def _trim_end(sound: np.ndarray) -> np.ndarray:
    """Drops the end that is 60 dB below the peak, and fades out to the cut."""
    loud = np.flatnonzero(np.abs(sound) > 1e-3 * np.abs(sound).max(initial=1e-9))
    n_kept = int(loud[-1]) + 1 if len(loud) else 1
    return fade_out(sound, n_kept, SAMPLE_RATE).astype(np.float32)
