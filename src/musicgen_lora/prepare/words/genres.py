"""How a genre is combined with the base of a caption, and the tempo that the genre is counted in.

"hip hop 808 beat, trap beat" has two genres and "beat" twice; a producer says "trap hip hop 808
beat". And a producer calls trap at 66 BPM 132: sequencers are set to the faster tempo, and the
snare on three makes it half-time.
"""

from __future__ import annotations

import re
from dataclasses import replace

from musicgen_lora.prepare.words.facts import GENRES, Facts, find_words

FAMILIES = ("hip hop", "rap")
"""Umbrella genres; a kind of hip hop goes in front of one."""
OTHERS = frozenset(
    ("jersey club", "grime", "reggaeton", "dancehall", "afrobeat", "r&b", "soul", "funk")
) | {"dubstep", "techno", "house"}
"""Genres that are not a kind of hip hop: they replace it."""
HALF_TIME = frozenset(
    ("trap", "trap soul", "drill", "uk drill", "memphis", "plugg", "pluggnb", "rage")
)
HALF_TIME_BPM = (55.0, 90.0)
HALF_TIME_WORD = "half-time"
_HIP_HOP, _RAP = r"hip[ -]?hop", r"rap"


def with_genre(base: str, genre: str) -> str:
    """A base such as "hip hop 808 beat" combined with a genre into one phrase that names it once.
    A genre that contradicts the base's replaces it."""
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
    """The facts with the tempo that a sequencer shows: a slow tempo of a half-time genre is
    doubled. A number stated in the metadata is kept."""
    genre = next((name for name in (facts.genre, *facts.tags) if name in HALF_TIME), None)
    is_stated = facts.sure("bpm") >= 1.0
    if facts.bpm is None or genre is None or is_stated or facts.genre not in (genre, None):
        return facts
    if not HALF_TIME_BPM[0] <= facts.bpm <= HALF_TIME_BPM[1]:
        return facts
    tags = tuple(dict.fromkeys([*facts.tags, HALF_TIME_WORD]))
    return replace(facts, bpm=2.0 * facts.bpm, tags=tags)
