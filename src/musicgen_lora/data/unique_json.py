"""JSON in which no key stands twice: Python's parser keeps the last one without a word, and a
caption is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any


def parse_json(text: str, parse_constant: Callable[[str], Any] | None = None) -> Any:
    """The value in a JSON text.

    Args:
        text: the whole of it.
        parse_constant: as in `json.loads`, for NaN and infinities.

    Raises:
        ValueError: no JSON, or a key that stands twice in one object.
    """
    return json.loads(text, object_pairs_hook=_unique, parse_constant=parse_constant)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key!r} stands twice; remove one")
            seen.add(key)
    return value
