"""Folders that a URL names, among settings that are paths."""

from __future__ import annotations

import re
from pathlib import Path

from musicgen_lora.errors import UserError

_URL = re.compile(r"([a-z][a-z0-9+.-]+):/+(?=[^/])")
"""A scheme of two letters or more: one is a drive of Windows. `Path` takes one of the slashes."""
_SECRET = re.compile(r"(?i)[?&][\w-]*(secret|password|key|token)[\w-]*=")


def url_of(place: Path) -> str | None:
    """The URL that a setting names; None where it names a folder here.

    Raises:
        UserError: it has a key or password in it.
    """
    text = place.as_posix()
    match = _URL.match(text)
    if match is None:
        return None
    rest = text[match.end() :]
    if "@" in rest.split("/")[0] or _SECRET.search(rest):
        raise UserError(
            f"{match[1]}://...: has a key or password in it, which would be printed and recorded; "
            "leave it out, and set it as its library asks, such as AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY."
        )
    return f"{match[1]}://{'/' if match[1] == 'file' else ''}{rest}"


def check_is_folder(place: Path) -> None:
    """Raises a UserError where a URL stands for a folder or file that is read or written in
    place: as a path it would name a folder of that name here."""
    url = url_of(place)
    if url is not None:
        raise UserError(
            f"{url}: is a URL, and only --data_dir of tokenise, train and evaluate can be one; "
            "give a folder or file here, and copy it from or to the store yourself."
        )


def shown(place: Path) -> str:
    """A folder or URL as its user wrote it."""
    return url_of(place) or str(place)
