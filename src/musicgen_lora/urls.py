"""URLs among settings that are paths."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musicgen_lora.errors import UserError

_URL = re.compile(r"([a-z][a-z0-9+.-]+):/+(?=[^/])")
"""A scheme of two letters or more: one is a Windows drive. `Path` drops one of the slashes."""
_SECRET = re.compile(r"(?i)[?&][\w-]*(secret|password|key|token)[\w-]*=")


def url_of(place: Path) -> str | None:
    """The URL that a setting names; None if it names a local path.

    Raises:
        UserError: it contains a key or password.
    """
    text = place.as_posix()
    match = _URL.match(text)
    if match is None:
        return None
    rest = text[match.end() :]
    if "@" in rest.split("/")[0] or _SECRET.search(rest):
        raise UserError(
            f"{match[1]}://...: contains a key or password, which would be printed and recorded; "
            "leave it out, and set it as its library expects, such as AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY."
        )
    return f"{match[1]}://{'/' if match[1] == 'file' else ''}{rest}"


def as_list(value: Any) -> list[Any]:
    """The values of a setting that takes one or several, as a list; empty for None."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def places_in(settings: Any) -> Iterator[tuple[str, Path]]:
    """The paths among a command's settings, those of lists too, each with its setting's name."""
    for name, value in vars(settings).items():
        for place in as_list(value):
            if isinstance(place, Path):
                yield name, place


def any_url(settings: Any) -> bool:
    """Whether one of a command's settings is a URL, or a list with one.

    Raises:
        UserError: it contains a key or password.
    """
    return any(url_of(place) is not None for _, place in places_in(settings))


def check_is_folder(place: Path) -> None:
    """Raises a UserError if a URL is given for a folder or file that is read or written in place:
    as a path it would name a local folder of that name."""
    url = url_of(place)
    if url is not None:
        raise UserError(
            f"{url}: is a URL, and this setting can't be one (docs/scale.md lists those that can); "
            "give a local folder or file, and copy it from or to the store yourself."
        )


@dataclass(frozen=True)
class Copied:
    """A local folder or file that is a copy of what a URL names.

    Args:
        path: its own, resolved.
        proof: a file of this run beside it: a machine that has it shares the copy.
    """

    url: str
    path: str
    proof: Path


@contextmanager
def copied(*copies: Copied) -> Iterator[None]:
    """Calls copies by their URLs in whatever is printed and recorded in the block."""
    _COPIES.extend(copies)
    try:
        yield
    finally:
        for copy in copies:
            _COPIES.remove(copy)


def copies() -> tuple[Copied, ...]:
    """The copies that this process works with."""
    return tuple(_COPIES)


def shown(place: Path) -> str:
    """A folder or URL as its user wrote it."""
    return url_of(place) or with_urls(str(place))


def with_urls(text: str) -> str:
    """A text in which copies are called by their URLs."""
    for copy in _COPIES:
        text = text.replace(copy.path + os.sep, f"{copy.url}/").replace(copy.path, copy.url)
    return text


def copy_of(place: str) -> str:
    """The path of a URL's copy, or the same text if there is none."""
    return next((copy.path for copy in _COPIES if copy.url == place), place)


_COPIES: list[Copied] = []
