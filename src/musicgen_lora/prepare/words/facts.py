"""What is known about a clip, from which source and with what confidence; facts in file names.

Producers put tempo and key in names (`Dark Drill 142 F#min (prod).wav`), each in their own way.
What is read here has a confidence: "140bpm" is a statement, a bare 140 may be a take number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from musicgen_lora.audio.files import READ_EXTENSIONS
from musicgen_lora.dataset.caption_words import stated_bpm
from musicgen_lora.listening.pitch.key_names import find_key
from musicgen_lora.model.text.wording import english_of

BARE_BPM_RANGE = (60.0, 200.0)
"""Numbers outside this range are not a tempo unless the name says so: 808 is a drum machine."""

STATED, LIKELY, GUESSED = 0.9, 0.8, 0.6
"""Confidence in what a name says: explicitly; likely from context (a number beside a key); guessed
from its form alone."""

GENRES = (
    *("trap soul", "trap", "uk drill", "drill", "boom bap", "phonk", "memphis", "lo-fi"),
    *("cloud rap", "crunk", "dirty south", "southern hip hop", "west coast", "g-funk", "pluggnb"),
    *("plugg", "rage", "jersey club", "horrorcore", "jazz rap", "old school hip hop", "grime"),
    *("reggaeton", "dancehall", "afrobeat", "r&b", "soul", "funk", "dubstep", "techno", "house"),
    *("hip hop", "rap"),
)
"""Specific before general: of several in a name, the first in this list is the genre."""
MOODS = (
    *("dark", "hard", "sad", "melodic", "chill", "aggressive", "ambient", "bouncy", "dreamy"),
    *("epic", "emotional", "happy", "heavy", "energetic", "mellow", "smooth", "spacey", "gritty"),
    *("minimal", "moody", "distorted", "jazzy", "vintage", "cinematic", "eerie", "sparse", "busy"),
)
INSTRUMENTS = (
    *("808", "909", "piano", "guitar", "flute", "strings", "violin", "bells", "bell", "synth"),
    *("pad", "pluck", "choir", "brass", "trumpet", "sax", "organ", "rhodes", "harp", "marimba"),
    *("kalimba", "vocal", "sub bass", "bass", "kick", "snare", "clap", "hi-hats", "cowbell"),
    *("congas", "shaker", "rimshot", "toms", "vinyl", "drums", "percussion"),
)
_ALIASES = {
    "southern hip hop": r"southern(?:[ -](?:hip[ -]?hop|rap))?",
    "r&b": r"r[ -]?(?:&|n|and)[ -]?b",
    "afrobeat": "afro[ -]?beats?",
    "808": "808s?",
    "drums": "drums|drum (?:patterns?|loops?)",
    "vocal": "vocals?",
}

FilePart = tuple[float, float | None]
"""Where a part of a file begins and ends, in seconds; None is the file's end."""


@dataclass(frozen=True)
class Facts:
    """What is known about a clip; unknown fields are None or empty.

    Args:
        text: the caption that somebody gave it.
        texts: all such captions, `text` first.
        key: as in "C# minor" or "Bb minor", see `key_names`.
        genre: lower case.
        tags: moods, instruments and other words, lower case.
        split: the split's name in the metadata, see `splits`.
        source: the recording that it comes from, by the metadata.
        part: the part of the file that this describes; None for all of it.
        other: metadata fields that are unknown here; they are kept.
        sources: where each field comes from, by field name; such as "metadata.csv, line 3".
        confidence: how sure each field is, 0 to 1, by field name; 1 if missing.
    """

    text: str | None = None
    texts: tuple[str, ...] = ()
    bpm: float | None = None
    key: str | None = None
    genre: str | None = None
    tags: tuple[str, ...] = ()
    title: str | None = None
    artist: str | None = None
    split: str | None = None
    source: str | None = None
    part: FilePart | None = None
    other: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    confidence: Mapping[str, float] = field(default_factory=dict)

    def sure(self, name: str) -> float:
        """The confidence in a field."""
        return self.confidence.get(name, 1.0)


def make_facts(source: str, confidence: Mapping[str, float], /, **fields: Any) -> Facts:
    """Facts from one source; empty fields are left out, and so is their `confidence`."""
    given = {name: value for name, value in fields.items() if value not in (None, "", (), {})}
    return Facts(
        **given,
        sources=dict.fromkeys(given, source),
        confidence={name: confidence[name] for name in given if name in confidence},
    )


def merge_facts(facts: Iterable[Facts]) -> Facts:
    """Merges facts from several sources, the most trusted first.

    For each field the surest value wins, and the earlier one in a tie. All captions, tags and
    merely kept fields are collected; the first caption is the `text`. `part` is not merged: facts
    about different parts don't belong together.
    """
    merged = Facts()
    for other in facts:
        texts = dict.fromkeys([*merged.texts, *([other.text] if other.text else []), *other.texts])
        taken: dict[str, Any] = {
            "texts": tuple(texts),
            "tags": tuple(dict.fromkeys([*merged.tags, *other.tags])),
            "other": {**other.other, **merged.other},
        }
        credited = [name for name in ("texts", "tags") if not getattr(merged, name)]
        for name in ("text", "bpm", "key", "genre", "title", "artist", "split", "source"):
            value = getattr(other, name)
            if value is None:
                continue
            if getattr(merged, name) is None or other.sure(name) > merged.sure(name):
                taken[name] = value
                credited.append(name)
        sources, confidence = dict(merged.sources), dict(merged.confidence)
        for name in credited:
            if name in other.sources:
                sources[name] = other.sources[name]
            confidence.pop(name, None)
            if name in other.confidence:
                confidence[name] = other.confidence[name]
        merged = replace(merged, **taken, sources=sources, confidence=confidence)
    return merged


def facts_from_name(name: str, source: str = "file name") -> Facts:
    """Tempo, key, genre and tags in a file's or folder's name. Chinese music words in it are read
    as English.

    Args:
        name: with or without an audio extension, as in `trap_140bpm_Cm.wav`.
    """
    path = PurePosixPath(name.replace("/", " "))
    stem = path.stem if path.suffix.lower() in READ_EXTENSIONS else path.name
    words = re.sub(r"[\s_()\[\]{},;~+@]+", " ", english_of(stem))
    # DarkTrap is two words, F#min is one.
    words = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", words)
    stated = stated_bpm(words)
    bare = None if stated else _bare_bpm(words)
    key = find_key(words, has_tempo=bool(stated or bare), music=_is_music)
    is_sure = key is not None and key.is_sure
    genres = find_words(words, GENRES)
    return make_facts(
        source,
        {
            "bpm": STATED if stated else LIKELY if is_sure else GUESSED,
            "key": STATED if is_sure else GUESSED,
            "genre": STATED,
            "tags": STATED,
        },
        bpm=stated or bare,
        key=None if key is None else key.name,
        genre=genres[0] if genres else None,
        tags=(*genres[1:], *find_words(words, MOODS), *find_words(words, INSTRUMENTS)),
    )


def _is_music(word: str) -> bool:
    """Whether a word belongs to the vocabulary that keys appear beside."""
    return bool(find_words(word, (*GENRES, *MOODS, *INSTRUMENTS)))


def _bare_bpm(words: str) -> float | None:
    numbers = {float(n) for n in re.findall(r"(?<![^ -])[1-9]\d{1,2}(?:\.\d)?(?![^ -])", words)}
    likely = [n for n in numbers if BARE_BPM_RANGE[0] <= n <= BARE_BPM_RANGE[1]]
    return likely[0] if len(likely) == 1 else None


def find_words(words: str, vocabulary: Iterable[str]) -> tuple[str, ...]:
    """Members of a vocabulary that occur as whole words, in the vocabulary's order, ignoring case
    and hyphens; a word inside a longer match ("trap" in "trap soul") doesn't count."""
    rest, found = words.lower(), []
    for entry in vocabulary:
        spelling = _ALIASES.get(entry) or re.escape(entry).replace(r"\-", " ").replace(r"\ ", " ")
        if entry not in _ALIASES:
            spelling = spelling.replace(" ", "[ -]?")
        rest, count = re.subn(rf"(?<![a-z0-9]){spelling}(?![a-z])(?!\d)", "|", rest)
        if count:
            found.append(entry)
    return tuple(found)
