"""A look at a dataset's audio files: that each is there, in the folder, and how large and old."""

from __future__ import annotations

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
from pyarrow import fs

from musicgen_lora.errors import UserError

compute: Any = pyarrow.compute
"""Whose functions are made when it is imported, unseen by a type checker."""
LOOKS, LOOKED_AT = 16, 1_000
"""Looks at files at once, and files of each: a network drive takes its time to answer."""


def states_of_files(audio: pa.StringArray, path: Path, root: Path) -> list[pa.Array]:
    """The files' sizes in bytes and times of change in ns.

    Args:
        audio: paths as the metadata has them.
        path: of the metadata, for messages.
        root: the dataset's folder, resolved.

    Raises:
        UserError: one is missing or outside the folder.
    """
    coded = audio.dictionary_encode()
    names, sizes, times = coded.dictionary, [], []
    # Whatever any system splits paths at.
    folders = compute.replace_substring_regex(names, r"[^/\\:]*$", "")
    plain = [folder for folder in folders.unique().to_pylist() if _is_plain(folder, root)]
    is_near = compute.is_in(folders, value_set=pa.array(plain, pa.string()))
    prefix = f"{root}{os.sep}"
    near = [prefix + name for name in names.filter(is_near).to_pylist()]
    batches = [near[at : at + LOOKED_AT] for at in range(0, len(near), LOOKED_AT)]
    with ThreadPoolExecutor(LOOKS) as pool:
        seen = itertools.chain.from_iterable(pool.map(_look, batches))
        for name, is_seen in zip(names.to_pylist(), is_near.to_pylist(), strict=True):
            info = next(seen) if is_seen else None
            # Only plain files have a size.
            if info is not None and info.size is not None:
                size, changed = info.size, info.mtime_ns
            else:
                try:
                    facts = _resolved(name, root).stat()
                except UserError as error:
                    row = audio.index(name).as_py()
                    raise UserError(f"{path}: entry {row + 1}: {error}") from error
                size, changed = facts.st_size, facts.st_mtime_ns
            sizes.append(size)
            times.append(changed)
    return [pa.array(values, pa.int64()).take(coded.indices) for values in (sizes, times)]


def _is_plain(folder: str, root: Path) -> bool:
    """Whether it is inside, and every file that lies in it is inside too, as no links are there."""
    try:
        inside = (root / folder).resolve()
        if not inside.is_relative_to(root):
            return False
        with os.scandir(inside) as items:
            return not any(item.is_symlink() for item in items)
    except (OSError, ValueError):
        return False


def _look(paths: list[str]) -> list[Any]:
    """What the system says of files, in Arrow, which leaves Python to other threads meanwhile."""
    try:
        return fs.LocalFileSystem().get_file_info(paths)
    except (OSError, pa.ArrowException):
        # It doesn't say of which of them: each is looked at on its own.
        return [None] * len(paths)


def _resolved(audio: str, root: Path) -> Path:
    """The file, links followed.

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
        raise UserError(f"{audio} does not exist in {root}.")
    return file
