"""What happens to a clip's entry when its file is recut, exported again, or gone.

What a user wrote outlives the clip that it was written about: it moves to the clip that replaces
it. If none does, the entry stays and is marked `skip`, so that training ignores it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from musicgen_lora.formats.kinds import is_number
from musicgen_lora.listening.rhythm.bars import Span
from musicgen_lora.prepare.words.captions import MADE_FIELD, is_edited, mark_made, merge_edits

SKIP_FIELD = "skip"
GONE = "its file is no longer in the input folder"
CUT_ANEW = "its file was cut anew, and no clip took over what you wrote here"
"""The reasons that `prepare` writes for a `skip` of its own."""
STRUCTURE = (
    *("audio", "start_s", "duration_s", "loudness_lufs", "gain_db", "folded", "vocals"),
    *("repeated", "cut", "at_s", "made_from"),
)
"""Fields about the clip itself, which no other clip takes over."""
SAME_SHARE = 0.5
"""Two clips cover the same part if they share this much of the shorter one."""
SAME_S = 0.1
"""Clips whose edges differ by less than this in sum cover exactly the same part."""

Entry = dict[str, Any]


def span_of(entry: Mapping[str, Any]) -> Span:
    """The part of its file that an entry's clip covers; empty where a user left no numbers."""
    start_s = _number(entry.get("at_s"), 0.0)
    length_s = _number(entry.get("duration_s"), 0.0) / max(1.0, _number(entry.get("repeated"), 1.0))
    return start_s, start_s + length_s


def _number(value: object, default: float) -> float:
    return float(value) if is_number(value) else default


def common_s(one: Span, other: Span) -> float:
    """How many seconds two parts of a file have in common."""
    return max(0.0, min(one[1], other[1]) - max(one[0], other[0]))


def lies_in(span: Span, others: Iterable[Span]) -> bool:
    """Whether more than half of a part lies in others."""
    return sum(common_s(span, other) for other in others) > 0.5 * (span[1] - span[0])


def is_marked(entry: Mapping[str, Any], *reasons: str) -> bool:
    """Whether `prepare` itself marked an entry `skip` for one of these reasons."""
    made = entry.get(MADE_FIELD)
    return (
        entry.get(SKIP_FIELD) in reasons
        and isinstance(made, Mapping)
        and SKIP_FIELD in made
        and not is_edited(entry, SKIP_FIELD, made)
    )


def mark(entry: Entry, reason: str) -> Entry:
    """The entry marked `skip`; a user's own `skip`, true or false, is kept."""
    if SKIP_FIELD in entry and not is_marked(entry, GONE, CUT_ANEW):
        return entry
    made = entry.get(MADE_FIELD)
    own = mark_made({SKIP_FIELD: reason}, [SKIP_FIELD])
    kept = dict(made) if isinstance(made, Mapping) else {}
    return {**entry, SKIP_FIELD: reason, MADE_FIELD: {**kept, **own[MADE_FIELD]}}


def unmark(entry: Entry) -> Entry:
    """The entry without a mark of `prepare`'s own."""
    if not is_marked(entry, GONE, CUT_ANEW):
        return entry
    plain = {name: value for name, value in entry.items() if name != SKIP_FIELD}
    made = {name: value for name, value in entry[MADE_FIELD].items() if name != SKIP_FIELD}
    return {**plain, MADE_FIELD: made}


def has_edits(entry: Entry) -> bool:
    """Whether a user edited anything in an entry."""
    plain = unmark(entry)
    made = plain.get(MADE_FIELD)
    if not isinstance(made, Mapping):
        return True
    known = {*made, *STRUCTURE, "source", MADE_FIELD}
    return not plain.keys() <= known or any(is_edited(plain, name, made) for name in made)


def take_over(old: Entry, new: Entry) -> Entry:
    """The new entry with a user's edits to the old one, and its source."""
    kept = {name: value for name, value in unmark(old).items() if name not in STRUCTURE}
    merged = merge_edits(kept, new)
    return {name: merged[name] for name in [*new, *merged] if name in merged}


def succeed(old: Sequence[Entry], new: Sequence[Entry]) -> list[Entry]:
    """The entries of a file after it was recut.

    Args:
        old: entries of the file or of its earlier version.
        new: entries of the clips that exist now.

    Returns:
        The new ones, each with a user's edits to the same part, then the old ones that a user
        edited and no new one took over, marked `skip`.
    """
    taken: set[int] = set()
    entries = []
    for entry in new:
        best = max(range(len(old)), key=lambda i: _fitness(old[i], span_of(entry)), default=None)
        if best is not None and _fitness(old[best], span_of(entry))[0]:
            taken.add(best)
            entry = take_over(old[best], entry)
        entries.append(entry)
    left = [each for index, each in enumerate(old) if index not in taken and has_edits(each)]
    return entries + [mark(each, CUT_ANEW) for each in left]


def _fitness(old: Entry, span: Span) -> tuple[bool, bool, bool, float]:
    """How well an entry's words suit a part: whether it covers the part at all, covers exactly
    that, has a user's edits, and how near it is."""
    other = span_of(old)
    shorter = min(span[1] - span[0], other[1] - other[0])
    gap = abs(span[0] - other[0]) + abs(span[1] - other[1])
    is_of_it = shorter > 0.0 and common_s(span, other) >= SAME_SHARE * shorter
    return is_of_it, gap < SAME_S, has_edits(old), -gap
