"""Files and folders that are either whole or absent, whatever moment the power fails.

Everything is written under a temporary name in the same folder, flushed to the disk and
renamed. A reader never sees half of anything.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from musicgen_lora.errors import DISK_FAULTS, RunError

STAGING_PREFIX = ".staging-"
MANIFEST = "manifest.json"
LONG_LIST = 1_000
_FLAT = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
_INDENTED = json.JSONEncoder(ensure_ascii=False, allow_nan=False, indent=2)


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
    """A disk that fails while `final` is made is one line, whichever library meets it."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = getattr(error, "errno", None)
        # numpy and safetensors give no number; a missing right or a wrong path has another one.
        if number is not None and number not in DISK_FAULTS:
            raise
        reason = (number and os.strerror(number)) or " ".join(str(error).split())
        raise RunError(
            f"{final}: cannot be written ({reason}); what was there before is untouched."
        ) from error


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write(temporary path)`, then puts the result in place of `path`.

    Raises:
        RunError: the disk is full or broken; `path` is as before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Processes of several machines may share the folder, and their numbers.
    temporary = path.with_name(f"{STAGING_PREFIX}{secrets.token_hex(4)}-{path.name}")
    try:
        with _told(path):
            write(temporary)
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as readable JSON; NaN is refused, since it is not JSON."""
    text = _readable(value, "\n") + "\n"
    write_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _readable(value: Any, margin: str) -> str:
    """JSON with an indent of two, but an item of a long list on one line: indenting ten thousand
    takes a third of a second each time."""
    if isinstance(value, dict) and value:
        begin, end, inner = "{", "}", f"{margin}  "
        items = [f"{_FLAT.encode(str(name))}: {_readable(v, inner)}" for name, v in value.items()]
    elif isinstance(value, list) and len(value) >= LONG_LIST:
        begin, end, inner = "[", "]", f"{margin}  "
        items = [_FLAT.encode(item) for item in value]
    else:
        return _INDENTED.encode(value).replace("\n", margin)
    return begin + inner + f",{inner}".join(items) + margin + end


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def publish_folder(final: Path, fill: Callable[[Path], object]) -> None:
    """Calls `fill(staging folder)`, adds a manifest of hashes, and puts the folder in place of
    `final`, whose former content is removed only when the new one is whole.

    Raises:
        RunError: the disk is full or broken; `final` is as before.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    staging = final.with_name(f"{STAGING_PREFIX}{os.getpid()}-{final.name}")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        with _told(final):
            fill(staging)
            files = sorted(path for path in staging.rglob("*") if path.is_file())
            manifest = {str(path.relative_to(staging)): sha256_file(path) for path in files}
            (staging / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
            for path in [*files, staging / MANIFEST]:
                with open(path, "rb+") as file:
                    os.fsync(file.fileno())
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


def remove_folder(folder: Path) -> None:
    """Removes a published folder: at any moment it is whole or has lost its name."""
    staging = folder.with_name(f"{STAGING_PREFIX}{os.getpid()}-{folder.name}")
    os.rename(folder, staging)
    shutil.rmtree(staging)


def retired_name(final: Path) -> Path:
    """Where the former content of a published folder waits while the new one moves in."""
    return final.with_name(f".retired-{final.name}")


def manifest_faults(folder: Path) -> list[str]:
    """Names of the files of a published folder that are missing or altered; the manifest's own
    name where that can't be read. Empty for a sound folder."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return [MANIFEST]
    if not isinstance(manifest, dict) or not manifest:
        return [MANIFEST]
    return [
        name
        for name, digest in manifest.items()
        if not (folder / name).is_file() or sha256_file(folder / name) != digest
    ]


def sweep(folder: Path) -> None:
    """Clears what an interrupted write left in `folder`: stale staging goes; a retired folder
    whose successor never arrived comes back. Call it only under the folder's lock."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.name.startswith(STAGING_PREFIX):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        elif path.name.startswith(".retired-"):
            successor = path.with_name(path.name.removeprefix(".retired-"))
            if successor.exists():
                shutil.rmtree(path)
            else:
                os.rename(path, successor)
