"""The facts that the words of a caption should say to the language model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pretraining.corpus.composition import FRAMES_PER_MINUTE
from pretraining.corpus.harmony import NOTE_NAMES
from pretraining.corpus.styles import LAYERS, STYLES

TEMPOS = (50, 200)
STATED_TEMPO = re.compile(
    r"\b(?:bpm:|tempo) (?P<after>\d{2,3})\b|\b(?P<before>\d{2,3}) ?(?:bpm|beats per minute)\b",
    re.IGNORECASE,
)
N_WAVES = 22
WAVE_FRAMES = 70.0
"""The tempo is represented as the bar's phase after odd multiples of half of this many frames:
close enough to tell tempos up to 200 bpm apart, and far enough for a clock of 30 s."""
PARTS = ("drums", "bass", "chords", "lead")
FAMILIES = {
    "keys": {"piano", "electric piano", "clavinet"},
    "organ": {"organ"},
    "guitar": {"clean guitar", "muted guitar", "acoustic guitar", "distorted guitar"},
    "distortion": {"distorted guitar"},
    "sustained": {"strings", "warm pad", "choir"},
    "synth": {"synth chords", "synth lead", "synth bass"},
    "winds": {"brass", "saxophone", "trumpet", "flute"},
    "bells": {"bells", "marimba", "vibraphone", "kalimba", "steel drums"},
}
"""Instruments that sound alike, grouped by the corpus's own words."""
FLAGS = (*PARTS, "hats", "sparse", "energetic", "lo-fi", "half-time", "alone", *FAMILIES)
WAVES = slice(0, 2 * N_WAVES)
STYLE = slice(WAVES.stop, WAVES.stop + len(STYLES))
KEY = slice(STYLE.stop, STYLE.stop + 5)
FLAG = slice(KEY.stop, KEY.stop + len(FLAGS))
END = FLAG.stop
N_FACTS = END + 1
"""Columns of the encoder's output; the rest of its width is free. END is positive at the end token
and negative at words; the others apply only to words."""
END_LEVEL = 3.0
STYLE_LEVEL = 2.0
KEY_LEVEL = 1.5
MOST_STRANGE = 12
STRANGE_NUMBERS = 0.2
"""The share of strange words that are numbers."""


def bar_turns(bpm: np.ndarray) -> np.ndarray:
    """Turns of a bar of four beats per frame."""
    return bpm / (4.0 * FRAMES_PER_MINUTE)


def tempo_waves(bpm: np.ndarray) -> np.ndarray:
    """Tempos `[N]` as `[N, 2 * N_WAVES]`: cosines, then sines, of the bar's phase."""
    frames = WAVE_FRAMES * (np.arange(N_WAVES) + 0.5)
    angles = 2.0 * np.pi * bar_turns(bpm)[:, None] * frames
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)


def clip_flags(row: Mapping[str, Any]) -> dict[str, bool]:
    """Which of `FLAGS` are true of a clip, from its row in the corpus's metadata."""
    _, layers, energy, *more = row["tags"]
    parts = LAYERS[layers]
    heard = set(row.get("instruments", ()))
    return {
        **{part: part in parts for part in PARTS},
        "hats": "drums" in parts and "no hats" not in more,
        "sparse": energy == "sparse",
        "energetic": energy == "energetic",
        "lo-fi": "lo-fi" in more,
        "half-time": "half-time" in more,
        "alone": len(parts) == 1,
        **{family: bool(heard & words) for family, words in FAMILIES.items()},
    }


def key_facts(key: str) -> np.ndarray:
    """A key such as "C# minor" as `[5]`: its positions on the circles of semitones and of fifths,
    so that close keys are close words, and its mode."""
    tonic, mode = key.split()
    semitone = NOTE_NAMES.index(tonic)
    angles = 2.0 * np.pi / 12.0 * np.array([semitone, 7 * semitone])
    return np.array([*np.cos(angles), *np.sin(angles), 1.0 if mode == "minor" else -1.0])


def clip_facts(row: dict[str, Any], bpm: float | None) -> np.ndarray:
    """The facts that the words of a caption should say: `[N_FACTS]`.

    Args:
        row: from the corpus's metadata.
        bpm: the tempo that the caption states; None for none.
    """
    facts = np.zeros(N_FACTS, dtype=np.float32)
    if bpm is not None:
        facts[WAVES] = tempo_waves(np.array([bpm]))[0]
    facts[STYLE.start + list(STYLES).index(row["style"])] = STYLE_LEVEL
    if "key" in row:
        facts[KEY] = KEY_LEVEL * key_facts(row["key"])
    flags = clip_flags(row)
    facts[FLAG] = [1.0 if flags[flag] else -1.0 for flag in FLAGS]
    return facts


def caption_and_facts(
    row: dict[str, Any], rng: np.random.Generator, other_tempo: float
) -> tuple[str, np.ndarray]:
    """One of a clip's captions with its facts; with probability `other_tempo` the tempo is replaced
    by a random one, so that all are learnt."""
    text = row["texts"][int(rng.integers(len(row["texts"])))]
    stated = stated_tempo(text)
    if stated is None:
        return text, clip_facts(row, None)
    if rng.random() >= other_tempo:
        return text, clip_facts(row, float(stated))
    bpm = int(rng.integers(TEMPOS[0], TEMPOS[1] + 1))
    return with_tempo(text, bpm), clip_facts(row, float(bpm))


def with_strange_words(text: str, words: Sequence[str], rng: np.random.Generator) -> str:
    """A caption with up to `MOST_STRANGE` meaningless words and numbers inserted, each between two
    of its own words, but not within the tempo."""
    found = STATED_TEMPO.search(text)
    begin, end = found.span() if found else (0, 0)
    gaps = [m.start() for m in re.finditer(" ", text) if not begin <= m.start() < end]
    if not gaps:
        return text
    for gap in sorted(rng.choice(gaps, size=int(rng.integers(MOST_STRANGE + 1))), reverse=True):
        is_number = rng.random() < STRANGE_NUMBERS
        word = str(rng.integers(1, 1000)) if is_number else words[int(rng.integers(len(words)))]
        text = f"{text[:gap]} {word}{text[gap:]}"
    return text


def vocabulary_words(tokenizer: Any) -> list[str]:
    """The words that are single pieces of a tokenizer, in its order."""
    pieces = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    words = (piece.removeprefix("\u2581") for piece in pieces if piece.startswith("\u2581"))
    return [word for word in words if word.isalpha()]


def stated_tempo(text: str) -> int | None:
    """The tempo that a caption of the corpus states; None if it states none.

    The corpus states it at most once, and this is for replacing it. `caption_words.stated_bpm`
    reads what people write, such as fractions and "bpm=140", but nothing if there are several.
    """
    found = STATED_TEMPO.search(text)
    return int(found["after"] or found["before"]) if found else None


def with_tempo(text: str, bpm: int) -> str:
    """A caption with its stated tempo replaced by another.

    Raises:
        ValueError: it states none.
    """
    found = STATED_TEMPO.search(text)
    if found is None:
        raise ValueError(f"no tempo in {text!r}")
    start, stop = found.span("after" if found["after"] else "before")
    return text[:start] + str(bpm) + text[stop:]
