"""A cache of an evaluation's results next to its report: a killed evaluation resumes, and one with
other settings does not recompute clips and losses that they do not affect.

An entry's key is a hash of everything that determines its values. Entries computed together share
a safetensors file, named by the hash of its bytes, so any change to the file is detected.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from musicgen_lora import atomic
from musicgen_lora.errors import UserError
from musicgen_lora.formats.documents import read_bytes

FOLDER = "cache"
"""Name of the cache's folder, inside the report's folder."""
MAX_BYTES = 256 << 20
"""Total size of all files; the oldest are deleted first. A minute of stereo takes 50 KB."""
MAX_FILE_BYTES = 64 << 20
_NAME = re.compile(r"[a-z]+-[0-9a-f]{40}\.safetensors")
Arrays = dict[str, np.ndarray]


def key_of(*facts: Any) -> str:
    """The key of a result that these facts determine; they are plain values or bytes."""
    digest = hashlib.sha256()
    for fact in facts:
        content = fact if isinstance(fact, bytes) else json.dumps(fact, sort_keys=True).encode()
        digest.update(f"{len(content)}:".encode())
        digest.update(content)
    return digest.hexdigest()[:40]


class Store:
    """Entries by key.

    Args:
        folder: holds the files; created on the first write. None keeps nothing on disk.
    """

    def __init__(self, folder: Path | None = None, *, max_bytes: int = MAX_BYTES) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        self._entries: dict[str, Arrays] = {}
        self._sizes: dict[Path, int] = {}
        self.damaged: list[str] = []
        """Names of files that were changed since they were written, and are deleted."""
        self.reused: Counter[str] = Counter()
        """Number of cache hits by kind."""
        self.made: Counter[str] = Counter()
        """Number of entries added by kind."""
        if folder is not None and folder.is_dir():
            atomic.sweep(folder)
            self._read(folder)

    def _read(self, folder: Path) -> None:
        files = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
        for path in sorted(files, key=lambda path: path.stat().st_mtime_ns):
            tensors = _sound(path)
            if tensors is None:
                self.damaged.append(path.name)
                path.unlink()
                continue
            self._sizes[path] = path.stat().st_size
            for name, value in tensors.items():
                key, _, part = name.partition(".")
                self._entries.setdefault(key, {})[part] = value

    def get(self, kind: str, key: str) -> Arrays | None:
        """Return an entry's arrays by name; None if there is no such entry."""
        found = self._entries.get(key)
        if found is not None:
            self.reused[kind] += 1
        return found

    def put(self, kind: str, entries: Mapping[str, Arrays]) -> None:
        """Store entries by key; when it returns, all of them are on disk in one file.

        Args:
            kind: a word of letters a to z, for people who look into the folder.

        Raises:
            RunError: the disk is full or broken.
        """
        if not entries:
            return
        self._entries |= entries
        self.made[kind] += len(entries)
        if self._folder is None:
            return
        tensors = {
            f"{key}.{part}": np.ascontiguousarray(value)
            for key, entry in entries.items()
            for part, value in entry.items()
        }
        content = save(tensors)
        path = self._folder / f"{kind}-{_digest(content)}.safetensors"
        self._make_room(len(content))
        atomic.write_bytes(path, content)
        self._sizes[path] = len(content)

    def _make_room(self, n_bytes: int) -> None:
        while self._sizes and sum(self._sizes.values()) + n_bytes > self._max_bytes:
            oldest = next(iter(self._sizes))
            oldest.unlink(missing_ok=True)
            del self._sizes[oldest]

    def told(self) -> dict[str, Any]:
        """The report's `cache`."""
        return {
            "folder": FOLDER if self._folder is not None else None,
            "reused": dict(self.reused),
            "made": dict(self.made),
            "damaged": self.damaged,
        }


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:40]


def _sound(path: Path) -> Arrays | None:
    """The arrays of a file; None if it was changed since it was written."""
    try:
        content = read_bytes(path, MAX_FILE_BYTES)
        return load(content) if path.stem.endswith(f"-{_digest(content)}") else None
    except (UserError, SafetensorError, ValueError):
        return None
