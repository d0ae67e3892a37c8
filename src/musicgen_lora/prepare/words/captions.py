"""Makes captions from facts, in several wordings per clip, and keeps the edits that users make.

A model trained on captions that are all alike learns that captions don't matter. So order and
words vary, facts are dropped, and some captions have audiocraft's form, `bpm: 140. key: C minor.
genre: trap.`, which MusicGen saw in pre-training (audiocraft merges facts into a quarter of its
captions). Only facts that are sure enough are used: a wrong tempo teaches a wrong tempo.

The entry holds a hash of each field that was made. A second run refreshes the fields that still
match their hash; fields that a user changed, added or removed stay that way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from musicgen_lora.dataset.caption_words import BPM_WORDS, KEY_WORDS
from musicgen_lora.listening.pitch.key_names import key_distance
from musicgen_lora.prepare.words.facts import (
    GENRES,
    INSTRUMENTS,
    MOODS,
    Facts,
    facts_from_name,
    find_words,
)
from musicgen_lora.prepare.words.genres import FAMILIES, with_genre

MIN_CONFIDENCE = 0.7
TAGGED_SHARE = 0.25
MADE_FIELD = "made"
"""Where an entry keeps the hashes of made fields: {"text": "1f0c...", "bpm": ...}."""
KEEP_ODDS = {"bpm": 0.75, "key": 0.7, "mood": 0.7, "instrument": 0.6, "other": 0.5}
"""Probability that a wording mentions a fact; a clip's first wording mentions all."""
MAX_INSTRUMENTS = 4
DRAWS_PER_VARIANT = 20

GENRE_WORDS = {
    "trap": ("trap", "trap beat", "trap instrumental"),
    "drill": ("drill", "drill beat", "drill instrumental"),
    "boom bap": ("boom bap", "boom bap beat", "boom bap hip hop"),
    "memphis": ("memphis rap", "memphis hip hop", "memphis rap beat"),
    "southern hip hop": ("southern hip hop", "southern rap beat"),
    "lo-fi": ("lo-fi", "lofi hip hop", "lo-fi beat"),
    "phonk": ("phonk", "phonk beat"),
    "hip hop": ("hip hop", "hip hop beat", "hip-hop instrumental"),
    "rap": ("rap beat", "rap instrumental"),
}
INSTRUMENT_WORDS = {
    "808": ("808", "808 bass", "808s"),
    "piano": ("piano", "piano melody"),
    "guitar": ("guitar", "guitar loop"),
    "bells": ("bells", "bell melody"),
    "bell": ("a bell", "bell melody"),
    "synth": ("synth", "synthesizer"),
    "strings": ("strings", "string section"),
    "vocal": ("vocals", "vocal sample"),
    "hi-hats": ("hi-hats", "hats"),
    "clap": ("claps", "hand claps"),
    "kick": ("kick", "kick drum"),
    "snare": ("snare", "snare drum"),
    "drums": ("drums", "drum loop"),
}


@dataclass(frozen=True)
class Wording:
    """How captions are worded.

    Args:
        n_variants: wordings per clip; fewer if there are few facts, more if a user gave more.
        default_text: base of the captions of clips that have none; it should name the genre.
        trigger: put in front of every caption that lacks it; "" for none.
    """

    n_variants: int
    default_text: str
    seed: int = 0
    trigger: str = ""


def make_captions(facts: Facts, clip: str, wording: Wording) -> list[str]:
    """Wordings of a clip's facts, for the metadata's `text` (the first) and `texts`.

    The captions that a user gave come first, all of them, unchanged. The others are facts around a
    base, which is one of those captions or else `default_text`; without a user's caption, the first
    one mentions all sure facts. Each of them mentions the genre, and none contradicts the base's
    own tempo or key.

    Args:
        clip: its id, which together with the seed decides every draw.

    Raises:
        ValueError: no base: an empty `default_text` for a clip without captions.
    """
    digest = hashlib.sha256(f"{wording.seed}:{clip}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    given = facts.texts or ((facts.text,) if facts.text else ())
    default_text, trigger, n_variants = wording.default_text, wording.trigger, wording.n_variants
    bases = given or ((default_text.strip(),) if default_text.strip() else ())
    if not bases:
        raise ValueError("A caption needs a base: give default_text.")
    captions = dict.fromkeys(_with_trigger(caption, trigger) for caption in given)
    said = _sure_facts(facts)
    tagged = _tagged_places(rng, len(captions), n_variants) if said else set()
    for draw in range(n_variants * DRAWS_PER_VARIANT):
        place = len(captions)
        if place >= n_variants:
            break
        base = _choose(rng, bases)
        kept = _agreeing(said if draw == 0 else _dropped(rng, said), base)
        if place in tagged:
            caption = _tagged(rng, base, kept, is_given=bool(given)) if kept else base
        else:
            caption = _worded(rng, base, kept, is_first=place == 0, is_given=bool(given))
        captions[_with_trigger(caption, trigger)] = None
    return list(captions)


def _tagged_places(rng: np.random.Generator, n_given: int, n_variants: int) -> set[int]:
    """Which wordings get audiocraft's form: `TAGGED_SHARE` of all, averaged over clips; the first
    wording only if the others aren't enough."""
    expected = TAGGED_SHARE * n_variants
    count = int(expected) + int(rng.random() < expected % 1.0)
    places = np.arange(n_given, n_variants)
    order = [*rng.permutation(places[places > 0]).tolist(), *places[places == 0].tolist()]
    return set(order[:count])


Said = dict[str, Any]
"""Facts to mention: bpm, key and genre as text; mood, instrument and other as lists of words."""


def _sure_facts(facts: Facts) -> Said:
    said: Said = {}
    if facts.bpm is not None and facts.sure("bpm") >= MIN_CONFIDENCE:
        said["bpm"] = f"{round(facts.bpm, 1):g}"
    if facts.key is not None and facts.sure("key") >= MIN_CONFIDENCE:
        said["key"] = facts.key
    if facts.genre is not None and facts.sure("genre") >= MIN_CONFIDENCE:
        said["genre"] = facts.genre
    if facts.sure("tags") >= MIN_CONFIDENCE:
        for tag in facts.tags:
            if tag in FAMILIES and "genre" in said:
                # "trap, hip hop" says it twice.
                continue
            kind = "mood" if tag in MOODS else "instrument" if tag in INSTRUMENTS else "other"
            said.setdefault(kind, []).append(tag)
    return said


def _dropped(rng: np.random.Generator, said: Said) -> Said:
    """A random subset of the facts; the genre is always kept."""
    kept: Said = {}
    for name, value in said.items():
        if isinstance(value, list):
            words = [word for word in value if rng.random() < KEEP_ODDS[name]]
            if words:
                kept[name] = words
        elif name == "genre" or rng.random() < KEEP_ODDS[name]:
            kept[name] = value
    return kept


def _agreeing(said: Said, base: str) -> Said:
    """The facts without a tempo or key that contradicts the base, which a user may have written."""
    stated = facts_from_name(base)
    contradicted = set()
    if stated.bpm is not None and f"{stated.bpm:g}" != said.get("bpm"):
        contradicted.add("bpm")
    if stated.key is not None and key_distance(stated.key, said.get("key", "")) != "same":
        contradicted.add("key")
    return {name: value for name, value in said.items() if name not in contradicted}


def _choose(rng: np.random.Generator, words: Sequence[str]) -> str:
    return words[int(rng.integers(len(words)))]


def _shuffled(rng: np.random.Generator, words: Sequence[str]) -> list[str]:
    return [words[int(place)] for place in rng.permutation(len(words))]


def _unsaid(words: Sequence[str], base: str) -> list[str]:
    """Words that the base doesn't already contain."""
    return [word for word in words if not find_words(base, [word])]


def _worded(
    rng: np.random.Generator, base: str, said: Said, *, is_first: bool, is_given: bool
) -> str:
    """The base and the facts in plain words, in random order."""
    stated = facts_from_name(base)
    base = base.rstrip(" .,")
    genres = [said["genre"]] if "genre" in said else []
    # A user's sentence that names a genre gets no other.
    genres = [] if is_given and names_genre(base) else _unsaid(genres, base)
    moods = _unsaid(said.get("mood", []), base)
    parts = _unsaid(said.get("other", []), base)
    played = _shuffled(rng, _unsaid(said.get("instrument", []), base))[:MAX_INSTRUMENTS]
    played = [_choose(rng, INSTRUMENT_WORDS.get(name, (name,))) for name in played]
    if "bpm" in said and stated.bpm is None:
        parts.append(_choose(rng, BPM_WORDS).format(bpm=said["bpm"]))
    if "key" in said and stated.key is None:
        parts.append(_choose(rng, KEY_WORDS).format(key=said["key"]))
    is_joined = not is_given and rng.random() < 0.5
    if genres and not is_given and (is_joined or names_genre(base)):
        # "drill hip hop 808 beat"; a user's sentence is left as it is.
        base, genres = with_genre(base, genres[0]), []
    if is_joined:
        base = " ".join([*moods, base])
        moods = []
    parts += [*moods, *(_choose(rng, GENRE_WORDS.get(genre, (genre,))) for genre in genres)]
    if played and " with " not in base and rng.random() < 0.5:
        listed = played[0] if len(played) == 1 else f"{', '.join(played[:-1])} and {played[-1]}"
        base = f"{base} with {listed}"
    else:
        parts += played
    parts = _shuffled(rng, parts)
    # The base mostly comes first, where it has the most weight.
    at = 0 if is_first or rng.random() < 0.7 else int(rng.integers(len(parts) + 1))
    return ", ".join([*parts[:at], base, *parts[at:]])


def _tagged(rng: np.random.Generator, base: str, said: Said, *, is_given: bool) -> str:
    """A caption such as `hip hop 808 beat. bpm: 140. key: C minor. genre: trap.`: audiocraft's
    fields in random order (audiocraft.data.music_dataset.augment_music_info_description)."""
    fields = {name: said[name] for name in ("bpm", "key", "genre") if name in said}
    if "genre" in fields:
        joined = base if is_given else with_genre(base, fields["genre"])
        # "hip hop 808 beat. genre: techno." contradicts itself.
        base = base if base in joined else joined
        is_said = names_genre(base) if is_given else find_words(base, [fields["genre"]])
        if is_said:
            del fields["genre"]
    for name, kind in (("moods", "mood"), ("instrument", "instrument"), ("keywords", "other")):
        if kind in said:
            fields[name] = ", ".join(said[kind])
    order = _shuffled(rng, list(fields))
    if not fields:
        return base
    return ". ".join([base.rstrip(" ."), *(f"{name}: {fields[name]}" for name in order)]) + "."


def _with_trigger(caption: str, trigger: str) -> str:
    trigger = trigger.strip()
    if not trigger or trigger.lower() in caption.lower().replace(",", " ").split():
        return caption
    return f"{trigger}, {caption}"


def names_genre(caption: str) -> bool:
    """Whether a caption names a genre, as the guide advises."""
    return bool(find_words(caption, GENRES))


def mark_made(entry: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The entry with hashes of its fields `names`, which were made and not given by a user."""
    return {**entry, MADE_FIELD: {name: _hash(entry[name]) for name in names if name in entry}}


def merge_edits(old_entry: Mapping[str, Any], new_entry: Mapping[str, Any]) -> dict[str, Any]:
    """What a second run writes for a clip: the new entry, with a user's edits kept.

    A field that still matches its hash is untouched and gets refreshed. A field with another value
    was edited, a missing one was removed on purpose, one without a hash was added by hand: all
    these stay as they are. A caption edited by hand stands alone: variants made from the old one
    are dropped. An entry without hashes is the user's own: it only gets the new fields it lacks.

    Args:
        old_entry: the entry in the metadata.
        new_entry: the entry that this run would write, marked by `mark_made`.

    Returns:
        The merged entry, marked for the next run.
    """
    before = old_entry.get(MADE_FIELD)
    before = dict(before) if isinstance(before, Mapping) else {}
    made_now = dict(new_entry.get(MADE_FIELD) or {})
    merged = {name: value for name, value in old_entry.items() if name != MADE_FIELD}
    made: dict[str, str] = {}
    edited = {name for name in before if is_edited(old_entry, name, before)}
    edited |= {name for name in merged if name not in before}
    for name, value in new_entry.items():
        if name == MADE_FIELD:
            continue
        if name not in edited:
            merged[name] = value
            made |= {name: made_now[name]} if name in made_now else {}
        elif name in before:
            # The old hash is kept, so that the edit is recognised next time too.
            made[name] = before[name]
    if "text" in edited and "texts" in merged and "texts" not in edited:
        del merged["texts"]
        made["texts"] = before.get("texts") or made_now.get("texts") or ""
    for name in before.keys() - edited - new_entry.keys():
        # Made by an earlier run, but no longer.
        merged.pop(name, None)
    return {**merged, MADE_FIELD: made} if made else merged


def is_edited(entry: Mapping[str, Any], name: str, made: Mapping[str, str]) -> bool:
    """Whether a user changed or removed a field that was made."""
    return name not in entry or _hash(entry[name]) != made[name]


def _hash(value: object) -> str:
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
