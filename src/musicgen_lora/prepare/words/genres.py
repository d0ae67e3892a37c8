"""How a genre is said together with a base of captions, and the tempo that it is counted in.

"hip hop 808 beat, trap beat" says beat twice and two genres; a producer says "trap hip hop 808
beat". And of trap at 66 BPM he says 132: sequencers are set to the faster one, and the snare on
three makes it half-time.
"""

from __future__ import annotations

import re
from dataclasses import replace

from musicgen_lora.prepare.words.facts import GENRES, Facts, find_words

FAMILIES = ("hip hop", "rap")
"""Genres that stand for many; a kind of hip hop goes in front of one."""
OTHERS = frozenset(
    ("jersey club", "grime", "reggaeton", "dancehall", "afrobeat", "r&b", "soul", "funk")
) | {"dubstep", "techno", "house"}
"""Genres that are no kind of hip hop: they take its place."""
HALF_TIME = frozenset(
    ("trap", "trap soul", "drill", "uk drill", "memphis", "plugg", "pluggnb", "rage")
)
HALF_TIME_BPM = (55.0, 90.0)
HALF_TIME_WORD = "half-time"
_HIP_HOP, _RAP = r"hip[ -]?hop", r"rap"


def with_genre(base: str, genre: str) -> str:
    """A base such as "hip hop 808 beat" with a genre that it doesn't say: said once, in one phrase.
    A genre that contradicts the base's takes its place."""
    own = find_words(base, GENRES)
    if genre in own:
        return base
    is_family = all(name in FAMILIES for name in own)
    holds_family = bool(re.search(rf"\b({_HIP_HOP}|{_RAP})\b", genre))
    if own and (not is_family or genre in OTHERS or holds_family):
        rest = base
        for name in own:
            spelling = _HIP_HOP if name == "hip hop" else re.escape(name).replace(r"\ ", "[ -]?")
            rest = re.sub(rf"(?<![a-z0-9]){spelling}(?![a-z0-9])", " ", rest, flags=re.IGNORECASE)
        base = " ".join(rest.split())
    return f"{genre} {base}".strip()


def in_sequencer_tempo(facts: Facts) -> Facts:
    """Facts whose tempo is the one that a sequencer shows: of a genre played in half time, the
    double of a slow one. What the metadata states as a number stays."""
    genre = next((name for name in (facts.genre, *facts.tags) if name in HALF_TIME), None)
    is_stated = facts.sure("bpm") >= 1.0
    if facts.bpm is None or genre is None or is_stated or facts.genre not in (genre, None):
        return facts
    if not HALF_TIME_BPM[0] <= facts.bpm <= HALF_TIME_BPM[1]:
        return facts
    tags = tuple(dict.fromkeys([*facts.tags, HALF_TIME_WORD]))
    return replace(facts, bpm=2.0 * facts.bpm, tags=tags)
