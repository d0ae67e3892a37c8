"""Sentences on clips that are unsuitable for an evaluation, with the names of a few of them."""

from __future__ import annotations

from collections.abc import Sequence

from musicgen_lora.plural import count

MOST_NAMED = 5
"""Clips that one line names; the rest are counted."""


def named(names: Sequence[str]) -> str:
    """Up to five names, and how many more there are."""
    first, n_more = ", ".join(names[:MOST_NAMED]), len(names) - MOST_NAMED
    return f"{first} and {count(n_more, 'clip')} not named here" if n_more > 0 else first


def too_short(names: Sequence[str], shortest: int, data_dir: str = "") -> str:
    """The sentence on clips with fewer frames than a model needs; there is at least one.

    Args:
        data_dir: their dataset, if it isn't that of the held-out clips.
    """
    where = f" of {data_dir}" if data_dir else ""
    return f"Left out{where}, shorter than {shortest} frames: {named(names)}."


def silent(names: Sequence[str], n_heard: int) -> str:
    """The sentence on silent held-out clips; there is at least one."""
    return (
        f"Warning: {len(names)} of {count(n_heard, 'held-out clip')} "
        f"{'is' if len(names) == 1 else 'are'} silent in the part that is analysed, which leaves "
        f"{'it' if len(names) == 1 else 'them'} out of all sound comparisons but not out of the "
        f"losses, as in training: {named(names)}."
    )


def too_loud(names: Sequence[str], n_heard: int) -> str:
    """The sentence on held-out clips at or beyond full scale; there is at least one."""
    return (
        f"Warning: {len(names)} of {count(n_heard, 'held-out clip')} "
        f"{'is' if len(names) == 1 else 'are'} at or beyond full scale in more than 0.1 % of "
        f"{'its' if len(names) == 1 else 'their'} samples, so generated clips are compared with "
        f"distorted audio: {named(names)}."
    )


def idle(adapter: str, strength: float) -> str:
    """The sentence on an adapter that is measured and changes nothing."""
    return (
        f"Warning: {adapter} changes no weight at strength {strength:g}, so all of its figures are "
        "the base's."
    )
