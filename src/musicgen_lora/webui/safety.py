"""What the page may touch: files below a few folders, named by ids that the server issued.

Any program that reaches the port can call the page's handlers with any values. So no path ever
comes from the browser: it sends an id, which is looked up in what the folders hold at that moment;
what isn't there, or is a link, is refused. New names are reduced to letters, names of uploads to
what a file name may contain; only folders directly below one root are deleted, after their name was
typed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from musicgen_lora import atomic
from musicgen_lora.errors import UserError
from musicgen_lora.runtime import locks

MAX_FILES, MAX_UPLOAD_BYTES = 500, 2 << 30
"""Limits of one upload."""
MAX_NAME = 60
MAX_STEM_BYTES = 180
"""Of an upload's name: file systems take 255, and files derived from it have longer names."""
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".m4a")
NO_LONGER = "That no longer exists; reload the page."
_ID = re.compile(r"[0-9a-f]{24}")
_UNSAFE = re.compile(r"[^\w -]+")
_FORBIDDEN = frozenset('\\/:*?"<>|')
"""Characters that some file system refuses in a name."""


def id_of(name: str) -> str:
    """The id of a name within its folder: it reveals no path, and can't be one."""
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:24]


def find(names: Iterable[str], wanted: object) -> str:
    """The name whose id is `wanted`.

    Args:
        names: that may be requested.
        wanted: what the browser sent; anything.

    Raises:
        UserError: none of them has it, or nothing was chosen.
    """
    if wanted is None or wanted == "":
        raise UserError("Nothing is chosen yet: choose one, or make one first.")
    if isinstance(wanted, str) and _ID.fullmatch(wanted):
        for name in names:
            if id_of(name) == wanted:
                return name
    raise UserError(NO_LONGER)


def folders_of(root: Path) -> list[str]:
    """Names of the folders directly below `root`, newest first, without links and hidden ones."""
    try:
        entries = [
            (entry.stat(follow_symlinks=False).st_mtime, entry.name)
            for entry in os.scandir(root)
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
        ]
    except OSError:
        return []
    return [name for _, name in sorted(entries, reverse=True) if is_text(name)]


def is_text(name: str) -> bool:
    """Whether a file's name can be shown and written into a file."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return name.isprintable()


def inside(root: Path, name: str) -> Path:
    """A regular file or folder below `root`, by a relative path from a document.

    Raises:
        UserError: the path is absolute, leads elsewhere, passes through a link, is a URL, or
            doesn't exist.
    """
    parts = name.split("/")
    is_plain = (
        0 < len(name) <= 4096
        and not any(part in ("", ".", "..") for part in parts)
        and not re.search(r'[\\\0:*?"<>|]', name)
    )
    if not is_plain:
        raise UserError(f"{name[:80]!r}: is not the name of a file in this folder.")
    path = root.resolve()
    for part in parts:
        path = path / part
        try:
            mode = path.lstat().st_mode
        except OSError as error:
            raise UserError(f"{name[:80]}: {error.strerror}.") from error
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise UserError(
                f"{name[:80]}: is a link or not a regular file, which the page won't read."
            )
    return path


def new_name(typed: object, fallback: str) -> str:
    """A folder name from what was typed: only letters, digits, space, - and _.

    Args:
        typed: anything.
        fallback: used if nothing is left of it.
    """
    text = unicodedata.normalize("NFC", str(typed or ""))[:1000]
    name = _UNSAFE.sub(" ", text).strip(" -_")[:MAX_NAME].strip(" -_")
    name = " ".join(name.split())
    if not name or atomic.RESERVED_NAME.fullmatch(name):
        return fallback
    return name


def _file_stem(sent: str) -> str:
    """The name of an uploaded file without its suffix: keeps everything that a file name allows,
    since tempo and key are read from it ("92.5bpm", "F#m")."""
    text = unicodedata.normalize("NFC", sent)[:1000]
    plain = "".join(
        letter if letter.isprintable() and letter not in _FORBIDDEN else " " for letter in text
    )
    name = " ".join(plain.split()).encode()[:MAX_STEM_BYTES].decode(errors="ignore").strip(" .-")
    if not name or atomic.RESERVED_NAME.fullmatch(name.partition(".")[0].strip()):
        return "audio"
    return name


def take_uploads(paths: Sequence[str], cache: Path, target: Path) -> list[str]:
    """Copies uploaded files into a folder.

    Args:
        paths: where the server has put them.
        cache: the folder that it puts them into.
        target: created if needed; a file whose name is taken by other content gets another name.

    Returns:
        The names of the files in `target`.

    Raises:
        UserError: too many, too large, not audio, or not from the cache; nothing was copied.
    """
    if not paths:
        raise UserError("Choose or drop audio files first.")
    if len(paths) > MAX_FILES:
        raise UserError(f"{len(paths)} files: the page takes at most {MAX_FILES} at once.")
    home, total = cache.resolve(), 0
    for given in paths:
        path = Path(given)
        is_sent = path.resolve().is_relative_to(home) and path.resolve() == path.absolute()
        if not is_sent or not path.is_file():
            raise UserError(f"{path.name[:80]}: was not uploaded to this page.")
        if path.suffix.lower() not in AUDIO_SUFFIXES:
            raise UserError(f"{path.name[:80]}: is not audio ({', '.join(AUDIO_SUFFIXES)}).")
        total += path.stat().st_size
    if total > MAX_UPLOAD_BYTES:
        raise UserError(
            f"{total >> 20} MB: the page takes at most {MAX_UPLOAD_BYTES >> 20} MB at once; put "
            "the files into a subfolder of the audio folder instead."
        )
    target.mkdir(parents=True, exist_ok=True)
    return [_copy(Path(given), target) for given in paths]


def _copy(path: Path, target: Path) -> str:
    suffix, stem = path.suffix.lower(), _file_stem(path.stem)
    number, final = 1, target / f"{stem}{suffix}"
    while final.exists():
        if atomic.sha256_file(final) == atomic.sha256_file(path):
            return final.name
        number += 1
        final = target / f"{stem} {number}{suffix}"
    atomic.write_file(final, lambda temporary: shutil.copyfile(path, temporary))
    return final.name


def delete_folder(root: Path, wanted: object, typed: object) -> str:
    """Deletes a folder directly below `root`.

    Args:
        root: the only place where the page deletes.
        typed: its name, as typed to confirm.

    Returns:
        The folder's name.

    Raises:
        UserError: no such folder, another name was typed, or a command is using it.
    """
    name = find(folders_of(root), wanted)
    if not isinstance(typed, str) or typed.strip() != name:
        raise UserError(f"{name}: type its name to confirm; nothing was deleted.")
    folder = inside(root, name)
    if locks.in_use(folder):
        raise UserError(f"{name}: is in use by a command; stop that first.")
    try:
        atomic.remove_folder(folder)
    except OSError as error:
        raise UserError(f"{name}: cannot be deleted ({error.strerror}).") from error
    return name
