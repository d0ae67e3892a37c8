"""Folders that lie elsewhere: whatever pyarrow or fsspec has a file system for, named by a URL.

Arrow's own are S3 (and what speaks its protocol), Google's, Azure's and HDFS; the others are
fsspec's, where their library is installed. Keys come from where those libraries look for them,
never from the URL: that is printed and recorded.

Nothing is read in place. What is needed is copied, to a folder of this user's cache or for as long
as a task takes, and what is made is written under another name and then has its own.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.fs as pafs

from musicgen_lora import atomic
from musicgen_lora.errors import RunError, UserError
from musicgen_lora.runtime.cache import cache_root

CHUNK = 1 << 22


class FileState(NamedTuple):
    """A file, here or in a remote folder: whether it is still the one that was read."""

    size_bytes: int
    mtime_ns: int


class Remote:
    """A folder that a URL names.

    Raises:
        UserError: nothing here can read such URLs.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._system, path = _file_system(self.url)
        self._root = path.rstrip("/")
        self._made: set[str] = set()

    def states(self, folder: str = "") -> dict[str, FileState]:
        """What lies below a folder, by path; empty where there is no such folder.

        Raises:
            UserError: it can't be listed.
        """
        place = self._place(folder) if folder else self._root
        selector = pafs.FileSelector(place, recursive=True, allow_not_found=True)
        with self._told(folder):
            found = self._system.get_file_info(selector)
        return {
            PurePosixPath(info.path).relative_to(self._root).as_posix(): FileState(
                info.size or 0, info.mtime_ns or 0
            )
            for info in found
            if info.type == pafs.FileType.File
        }

    def state(self, name: str) -> FileState | None:
        """A file there; None where there is none.

        Raises:
            UserError: it can't be looked at.
        """
        with self._told(name):
            info = self._system.get_file_info(self._place(name))
        if info.type != pafs.FileType.File:
            return None
        return FileState(info.size or 0, info.mtime_ns or 0)

    def delete(self, name: str) -> None:
        """Removes a file there.

        Raises:
            RunError: it can't be removed.
        """
        try:
            self._system.delete_file(self._place(name))
        except FileNotFoundError:
            return
        except (OSError, pa.ArrowException) as error:
            raise RunError(f"{self.url}/{name}: cannot be removed ({_reason(error)}).") from error

    def fetch(self, name: str, to: Path) -> None:
        """Copies a file here, whole or not at all.

        Raises:
            UserError: it isn't there, or can't be read.
            RunError: the disk here is full.
        """

        def write(temporary: Path) -> None:
            with self._told(name):
                source = self._system.open_input_stream(self._place(name))
            with source, open(temporary, "wb") as file:
                while chunk := self._read(source, name):
                    file.write(chunk)

        atomic.write_file(to, write)

    def _read(self, source: Any, name: str) -> bytes:
        with self._told(name):
            return source.read(CHUNK)

    def put(self, path: Path, name: str) -> None:
        """Copies a file there, whole or not at all: object stores have it when it is closed, and
        other file systems when it is renamed.

        Raises:
            RunError: it can't be written.
        """
        place = self._place(name)
        is_store = isinstance(self._system, _STORES)
        aside = place if is_store else f"{place}.{secrets.token_hex(4)}.part"
        try:
            self._make(place.rpartition("/")[0], is_store)
            with open(path, "rb") as file:
                self._write(file, aside)
            if not is_store:
                self._system.move(aside, place)
        except (OSError, pa.ArrowException) as error:
            raise RunError(f"{self.url}/{name}: cannot be written ({_reason(error)}).") from error

    def _write(self, file: IO[bytes], place: str) -> None:
        sink = self._system.open_output_stream(place)
        try:
            shutil.copyfileobj(file, sink, CHUNK)
        except BaseException:
            # A store takes what is closed for whole, and there is no other way to end it.
            with suppress(OSError, pa.ArrowException):
                sink.close()
                self._system.delete_file(place)
            raise
        sink.close()

    def _make(self, folder: str, is_store: bool) -> None:
        """Makes a folder, once; a store has none."""
        if not is_store and folder not in self._made:
            self._system.create_dir(folder, recursive=True)
            self._made.add(folder)

    def _place(self, name: str) -> str:
        """The path of a file; names of a dataset's metadata lead nowhere else.

        Raises:
            UserError: it is outside the folder.
        """
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts or "\\" in name or not parts:
            raise UserError(f"{name} points outside {self.url}.")
        return f"{self._root}/{'/'.join(parts)}"

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            where = f"{self.url}/{name}".rstrip("/")
            raise UserError(f"{where}: cannot be read ({_reason(error)}).") from error


_STORES: tuple[Any, ...] = tuple(
    getattr(pafs, name)
    for name in ("S3FileSystem", "GcsFileSystem", "AzureFileSystem")
    if hasattr(pafs, name)
)
"""Where a file is there when it is closed and not before, and a rename is a copy."""


def _file_system(url: str) -> tuple[pafs.FileSystem, str]:
    try:
        return pafs.FileSystem.from_uri(url)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        first = error
    try:
        import fsspec

        system, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError, OSError) as error:
        said = _reason(error if isinstance(error, (ImportError, OSError)) else first)
        raise UserError(
            f"{url}: can't be opened ({said}); give a folder, or a URL that pyarrow or fsspec "
            "knows, such as s3://bucket/beats."
        ) from error
    return pafs.PyFileSystem(pafs.FSSpecHandler(system)), path


def _reason(error: Exception) -> str:
    """What went wrong, without what stores add for their own support."""
    return " ".join(str(error).split("Detail:")[0].split())[:200]


def url_hash(url: str) -> str:
    """A folder's name for what a URL names."""
    return hashlib.sha256(url.encode()).hexdigest()[:16]


def cache_folder(url: str) -> Path:
    """Where a remote dataset's shards are kept, to be trained from."""
    return cache_root() / "remote" / url_hash(url)
