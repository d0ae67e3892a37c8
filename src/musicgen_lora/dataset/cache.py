"""Caches that speed up the start with a large dataset: tables on disk, and states of audio files.

A table is a file: the SHA-256 of the rest in hex, then an Arrow table that carries the key of what
it was made from. Deleting such a file loses nothing: the table is made again.

A file's state tells whether it is still the one that was read. Size and modification time alone
don't: archives and copying tools set that time freely. The change time (ctime) is set by the system
alone, and the inode differs if another file was put in its place. Two gaps remain: a file system
that keeps neither, and a change within the same clock tick (some milliseconds) in which the state
was read.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute

from musicgen_lora import atomic
from musicgen_lora.errors import RunError, UserError
from musicgen_lora.formats.documents import read_bytes

MAX_BYTES = 4 << 30
_DIGEST_BYTES = 64
_KEY = b"made_of"
compute: Any = pyarrow.compute
"""Its functions are created at import, so a type checker doesn't see them."""
LOOKS, LOOKED_AT = 16, 1_000
"""Threads that stat files, and files per task: a network drive answers slowly."""
STATE = pa.schema(
    {
        "size_bytes": pa.int64(),
        "mtime_ns": pa.int64(),
        "ctime_ns": pa.int64(),
        "inode": pa.int64(),
    }
)
"""A file's state. (Of 128-bit inodes, which some systems have, the lower 63 bits.)"""


def read_table(path: Path, key: str, schema: pa.Schema) -> pa.Table | None:
    """The table that was kept under a key, in memory; None if there is none, it is damaged, or it
    was made from something else."""
    try:
        content = memoryview(read_bytes(path, MAX_BYTES))
    except UserError:
        return None
    digest, body = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(body).hexdigest().encode() != digest:
        return None
    try:
        table = pa.ipc.open_file(pa.py_buffer(body)).read_all()
        # A table from another program, though its digest is right, must not read out of bounds.
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError):
        return None
    if table.schema != schema or (table.schema.metadata or {}).get(_KEY) != key.encode():
        return None
    return table.combine_chunks()


def keep_table(path: Path, key: str, table: pa.Table) -> None:
    """Keeps a table for `read_table`, whole or not at all. Concurrent processes are fine."""
    table = table.replace_schema_metadata({_KEY: key.encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    body = memoryview(sink.getvalue())

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            file.write(hashlib.sha256(body).hexdigest().encode())
            file.write(body)

    # A read-only folder or a full disk only makes the next start slower.
    with suppress(OSError, RunError):
        atomic.write_file(path, write)


def states_of_files(
    audio: pa.StringArray, where: Callable[[str], str], root: Path
) -> list[pa.Array]:
    """The files' states, one array for each column of `STATE`.

    Args:
        audio: paths as in the metadata.
        where: returns where the metadata lists a path, for messages.
        root: the dataset's folder, resolved.

    Raises:
        UserError: a file is missing or outside the folder.
    """
    coded = audio.dictionary_encode()
    names, states = coded.dictionary, []
    # The path separators of all systems.
    folders = compute.replace_substring_regex(names, r"[^/\\:]*$", "")
    plain = [folder for folder in folders.unique().to_pylist() if _is_plain(folder, root)]
    is_near = compute.is_in(folders, value_set=pa.array(plain, pa.string()))
    prefix = f"{root}{os.sep}"
    near = [prefix + name for name in names.filter(is_near).to_pylist()]
    batches = [near[at : at + LOOKED_AT] for at in range(0, len(near), LOOKED_AT)]
    with ThreadPoolExecutor(LOOKS) as pool:
        seen = itertools.chain.from_iterable(pool.map(_look, batches))
        for name, is_seen in zip(names.to_pylist(), is_near.to_pylist(), strict=True):
            state = next(seen) if is_seen else None
            if state is None:
                try:
                    state = state_of(_resolved(name, root).stat())
                except UserError as error:
                    raise UserError(f"{where(name)}: {error}") from error
            states.append(state)
    columns = zip(*states, strict=True) if states else [()] * len(STATE)
    return [pa.array(values, pa.int64()).take(coded.indices) for values in columns]


def state_of(status: os.stat_result) -> tuple[int, int, int, int]:
    """A file's state, in the order of `STATE`."""
    inode = status.st_ino & (2**63 - 1)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, inode


def _is_plain(folder: str, root: Path) -> bool:
    """Whether a folder is inside, and so are all its files because none is a link."""
    try:
        inside = (root / folder).resolve()
        if not inside.is_relative_to(root):
            return False
        with os.scandir(inside) as items:
            return not any(item.is_symlink() for item in items)
    except (OSError, ValueError):
        return False


def _look(paths: list[str]) -> list[tuple[int, int, int, int] | None]:
    """States of plain files, and None for paths that need a closer look."""
    found = []
    for path in paths:
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            found.append(None)
        else:
            found.append(state_of(status) if stat.S_ISREG(status.st_mode) else None)
    return found


def _resolved(audio: str, root: Path) -> Path:
    """The file, with links resolved.

    Raises:
        UserError: it is not usable.
    """
    try:
        file = (root / audio).resolve()
    except (OSError, ValueError) as error:
        raise UserError(f"{audio!r} is not a usable path ({error}).") from error
    if not file.is_relative_to(root):
        raise UserError(f"{audio} points outside the data folder.")
    if not file.is_file():
        raise UserError(
            f"{audio} does not exist in {root}; run prepare again on the folder with its source, "
            'or take the clip out ("skip": true in its entry).'
        )
    return file
