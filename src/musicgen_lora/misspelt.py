"""What a name that nothing has may have been meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def hint(name: str, known: Iterable[str]) -> str:
    """The end of the line that refuses an unknown name: the one that it most likely stands for, or
    all that there are."""
    names = list(known)
    near = nearest(name, names)
    return f"did you mean {near}?" if near else f"use one of: {', '.join(names)}."


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that an unknown one most likely stands for: one that begins with it, else the
    most similar; None if none is close."""
    names = list(known)
    longer = sorted((one for one in names if name and one.startswith(name)), key=len)
    return next(iter([*longer, *difflib.get_close_matches(name, names, 1)]), None)
