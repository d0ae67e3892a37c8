"""What clips that an evaluation reads are not fit for, in sentences that name a few of them."""

from __future__ import annotations

from collections.abc import Sequence

from musicgen_lora.plural import count

MOST_NAMED = 5
"""Clips that one line names; of more, their number."""


def named(names: Sequence[str]) -> str:
    """Up to five names, and how many more there are."""
    first, n_more = ", ".join(names[:MOST_NAMED]), len(names) - MOST_NAMED
    return f"{first} and {count(n_more, 'clip')} not named here" if n_more > 0 else first


def too_short(names: Sequence[str], shortest: int, data_dir: str = "") -> str:
    """Of clips with fewer frames than a model needs, at least one.

    Args:
        data_dir: their dataset, where it isn't that of the held-out clips.
    """
    where = f" of {data_dir}" if data_dir else ""
    return f"Left out{where}, shorter than {shortest} frames: {named(names)}."


def silent(names: Sequence[str], n_heard: int) -> str:
    """Of held-out clips without sound, at least one."""
    return (
        f"Warning: {len(names)} of {count(n_heard, 'held-out clip')} are silent in the "
        "stretch that is heard; no sound is compared with them, and they count in the losses "
        "alone, as in training: "
        f"{named(names)}."
    )


def too_loud(names: Sequence[str], n_heard: int) -> str:
    """Of held-out clips at or beyond full scale, at least one."""
    return (
        f"Warning: {len(names)} of {count(n_heard, 'held-out clip')} are at full scale or beyond "
        "it in more than 0.1 % of their samples: what is compared with them is compared with "
        f"distortion: {named(names)}."
    )
