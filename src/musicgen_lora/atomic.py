"""Files and folders that are either whole or absent, whenever the power fails.

Everything is written under a temporary name in the same folder, flushed to the disk and
renamed. A reader never sees half of anything.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from musicgen_lora.errors import DISK_FAULTS, RunError, UserError
from musicgen_lora.formats.documents import read_json
from musicgen_lora.formats.kinds import named, text

STAGING_PREFIX = ".staging-"
READY_PREFIX = ".ready-"
RETIRED_PREFIX = ".retired-"
OBSOLETE_FILE = ".obsolete.json"
MANIFEST = "manifest.json"
RESERVED_NAME = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)")
"""File names that Windows takes for devices, with any suffix."""
TORCH_WRITER = "inline_container.cc"
"""Part of torch's error message when it can't write a file."""
LONGEST_NAME, LONGEST_SUFFIX = 100, 16
"""Bytes up to which staging keeps a name or suffix: disks allow 255, encrypted ones 143."""
CARD_FILE = "README.md"
"""Not in the manifest: it is prose, which people edit and `evaluate` adds to."""
LOCK_FILE = ".lock"
"""In a folder that a process uses (`runtime.locks`); not in the manifest either."""


def fsync_folder(folder: Path) -> None:
    """Makes renames inside `folder` durable; a no-op where folders can't be opened (Windows)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _told(final: Path) -> Iterator[None]:
    """Reports a disk that fails while `final` is made in one line, whichever library meets it."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and TORCH_WRITER not in str(error):
            raise
        number = getattr(error, "errno", None)
        # Libraries give no number; missing permissions or a wrong path have another one.
        if number is not None and number not in DISK_FAULTS:
            if isinstance(error, OSError) and error.filename is not None:
                # Report this, not the temporary name beside it.
                error.filename = str(final)
            raise
        reason = (number and os.strerror(number)) or " ".join(str(error).split())
        raise RunError(
            f"{final}: cannot be written ({reason}); what was there before is untouched."
        ) from error


@contextmanager
def _named_as_in(final: Path, staging: Path) -> Iterator[None]:
    """Makes errors about a staging folder name the final place instead."""
    try:
        yield
    except UserError as error:
        error.args = (str(error).replace(str(staging), str(final)),)
        raise
    except OSError as error:
        if isinstance(error.filename, str):
            error.filename = error.filename.replace(str(staging), str(final))
        raise


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write(temporary path)`, then puts the result in place of `path`.

    Raises:
        RunError: the disk is full or broken; `path` is as before.
    """
    write_files({path: write})


def write_files(writers: Mapping[Path, Callable[[Path], object]]) -> None:
    """Writes files that belong together: all of them or, if the disk fails, none.

    Args:
        writers: for each file, called with a temporary path in its folder.

    Raises:
        RunError: the disk is full or broken; all files are as before.
    """
    # Processes on several machines may share the folder and have the same pid.
    mark = secrets.token_hex(4)
    temporaries = {path: _staging(path, mark) for path in writers}
    try:
        for path, write in writers.items():
            with _told(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                write(temporaries[path])
                _fsync_files([temporaries[path]])
        for path, temporary in temporaries.items():
            with _told(path):
                os.replace(temporary, path)
    finally:
        for temporary in temporaries.values():
            # If that fails too, as on a read-only disk, the first fault is reported.
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
    for folder in {path.parent for path in writers}:
        fsync_folder(folder)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file whose content is known, as `write_file` does."""
    write_file(path, lambda temporary: temporary.write_bytes(content))


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as readable JSON; NaN is refused, since it is not JSON."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """What `write_json` writes."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def publish_folder(
    final: Path,
    fill: Callable[[Path], object],
    held: Callable[[Path], AbstractContextManager[object]] = nullcontext,
) -> None:
    """Calls `fill(staging folder)`, adds a manifest of hashes, and puts the folder in place of
    `final`, whose former content is removed only when the new one is whole. If `final` is a link,
    the folder that it points to is replaced, and the link stays.

    Args:
        held: holds the staging folder until it is whole, as by a lock.

    Raises:
        RunError: the disk is full or broken; `final` is as before.
    """
    final = _behind_link(final)
    staging = _staging(final, str(os.getpid()))
    shutil.rmtree(staging, ignore_errors=True)
    with _told(final):
        staging.mkdir(parents=True)
    try:
        with _told(final), _named_as_in(final, staging), held(staging):
            fill(staging)
            files = _files_below(staging)
            names = {str(path.relative_to(staging)): path for path in files}
            unlisted = (CARD_FILE, LOCK_FILE)
            manifest = {n: sha256_file(path) for n, path in names.items() if n not in unlisted}
            (staging / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
            _fsync_files([*files, staging / MANIFEST])
            fsync_folder(staging)
        retired = retired_name(final)
        if final.exists():
            shutil.rmtree(retired, ignore_errors=True)
            os.rename(final, retired)
        os.rename(staging, final)
        fsync_folder(final.parent)
        shutil.rmtree(retired, ignore_errors=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _behind_link(final: Path) -> Path:
    return Path(os.path.realpath(final)) if final.is_symlink() else final


def _files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _fsync_files(files: Sequence[Path]) -> None:
    for path in files:
        with open(path, "rb+") as file:
            os.fsync(file.fileno())


def publish_files(
    folder: Path, fill: Callable[[Path], object], obsolete: Callable[[Path], Iterable[str]]
) -> None:
    """Calls `fill(staging folder)` and, once all is on disk, moves its files into `folder`, beside
    whatever else is there; only then are the obsolete ones removed. A kill midway leaves either
    everything as it was or a folder that `sweep` completes.

    Args:
        folder: exists, and is locked by the caller.
        fill: writes the files, through this module's functions if it does much else.
        obsolete: given the staging folder, names files of `folder` to remove; rewritten ones stay.

    Raises:
        RunError: the disk is full or broken; `folder` is as before.
    """
    mark = secrets.token_hex(4)
    staging, ready = folder / f"{STAGING_PREFIX}{mark}", folder / f"{READY_PREFIX}{mark}"
    try:
        with _told(folder):
            staging.mkdir()
        with _named_as_in(folder, staging):
            fill(staging)
        with _told(folder):
            files = _files_below(staging)
            new = {path.relative_to(staging).as_posix() for path in files}
            gone = sorted(set(obsolete(staging)) - new)
            (staging / OBSOLETE_FILE).write_text(json.dumps(gone), encoding="utf-8")
            _fsync_files([*files, staging / OBSOLETE_FILE])
            os.rename(staging, ready)
            fsync_folder(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    _move_in(ready)


def _move_in(ready: Path) -> None:
    """The second half of `publish_files`, which can be repeated."""
    folder, listed = ready.parent, ready / OBSOLETE_FILE
    gone = json.loads(listed.read_text(encoding="utf-8")) if listed.exists() else []
    # Files at the top, such as a page that names the others, come last.
    files = [path.relative_to(ready) for path in _files_below(ready) if path != listed]
    for name in sorted(files, key=lambda name: (-len(name.parts), name)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(ready / name, folder / name)
    for name in gone:
        path = folder / str(name)
        if path.resolve().is_relative_to(folder.resolve()):
            path.unlink(missing_ok=True)
    fsync_folder(folder)
    shutil.rmtree(ready)


def remove_folder(folder: Path) -> None:
    """Removes a published folder: at any moment it is whole or has lost its name."""
    staging = _staging(folder, str(os.getpid()))
    os.rename(folder, staging)
    shutil.rmtree(staging)


def _staging(final: Path, mark: str) -> Path:
    """The temporary path beside `final`, with the same suffix, which libraries go by."""
    return final.with_name(f"{STAGING_PREFIX}{mark}-{_within_limit(final)}")


def _within_limit(path: Path) -> str:
    """A path's name if there is room for a prefix, else its hash."""
    name = os.fsencode(path.name)
    if len(name) <= LONGEST_NAME:
        return path.name
    suffix = path.suffix if len(os.fsencode(path.suffix)) <= LONGEST_SUFFIX else ""
    return hashlib.sha256(name).hexdigest()[:32] + suffix


def retired_name(final: Path) -> Path:
    """Where the former content of a published folder waits while the new one moves in."""
    return final.with_name(f"{RETIRED_PREFIX}{_within_limit(final)}")


def manifest_faults(folder: Path) -> list[str]:
    """Names of the files of a published folder that are missing or altered; the manifest's own name
    if that can't be read or names what is not in the folder. Empty for an intact folder."""
    try:
        manifest = read_json(folder / MANIFEST, named(text()))
        inside = [(folder / name).resolve().is_relative_to(folder.resolve()) for name in manifest]
    except (UserError, OSError, ValueError):
        return [MANIFEST]
    if not manifest or not all(inside):
        return [MANIFEST]
    return [
        name
        for name, digest in manifest.items()
        if name != CARD_FILE
        and (not (folder / name).is_file() or sha256_file(folder / name) != digest)
    ]


def sweep(folder: Path) -> None:
    """Clears what an interrupted write left in `folder`: removes stale staging, moves what was
    whole into place, and restores a retired folder whose successor never arrived. Call it only
    under the folder's lock."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        _sweep_one(path)


@contextmanager
def swept(*folders: Path) -> Iterator[None]:
    """Sweeps folders before something is made in them, and again if that fails: a worker that was
    ended with the others leaves what it was writing."""
    try:
        for folder in folders:
            sweep(folder)
        yield
    except BaseException:
        for folder in folders:
            sweep(folder)
        raise


def sweep_behind_link(final: Path) -> None:
    """Removes what `publish_folder(final)` left beside the target of the link `final`, and nothing
    else, since the rest belongs to others."""
    if not final.is_symlink():
        return
    behind = _behind_link(final)
    for path in stagings_of(behind):
        _sweep_one(path)
    if retired_name(behind).exists():
        _settle(retired_name(behind), behind)


def stagings_of(final: Path) -> list[Path]:
    """The staging folders of every `publish_folder(final)` that is running or was killed."""
    name = re.compile(rf"{re.escape(STAGING_PREFIX)}\d+-{re.escape(_within_limit(final))}")
    return [path for path in stagings_in(final.parent) if name.fullmatch(path.name)]


def stagings_in(folder: Path) -> list[Path]:
    """The staging folders in a folder, of whatever is being written there or was killed."""
    found = folder.iterdir() if folder.is_dir() else ()
    return [path for path in found if path.name.startswith(STAGING_PREFIX) and path.is_dir()]


def _sweep_one(path: Path) -> None:
    if path.name.startswith(STAGING_PREFIX):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    elif path.name.startswith(READY_PREFIX):
        _move_in(path)
    elif path.name.startswith(RETIRED_PREFIX):
        _settle(path, path.with_name(path.name.removeprefix(RETIRED_PREFIX)))


def _settle(retired: Path, successor: Path) -> None:
    """Completes a swap of folders that was interrupted between its two renames."""
    if successor.exists():
        shutil.rmtree(retired)
    else:
        os.rename(retired, successor)
