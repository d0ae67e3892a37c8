"""Remote folders named by a URL: whatever pyarrow or fsspec has a file system for.

Arrow itself supports S3 (and anything that speaks its protocol), Google Cloud Storage, Azure and
HDFS; fsspec supports others if their libraries are installed. Keys come from where those libraries
look for them, never from the URL, which is printed and recorded.

Nothing is read in place. What is needed is copied, to the user's cache or for the duration of a
task, and files are written under a temporary name and then renamed.
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
    """The state of a file, here or in a remote folder, which shows whether it has changed."""

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
        """The files below a folder, by path; empty if there is no such folder.

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
        """The state of a file there; None if there is none.

        Raises:
            UserError: it can't be read.
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
        """Downloads a file, whole or not at all.

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
        """Uploads a file, whole or not at all: in object stores it appears when it is closed, in
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
            # A store takes a closed file for complete, and there is no other way to end it.
            with suppress(OSError, pa.ArrowException):
                sink.close()
                self._system.delete_file(place)
            raise
        sink.close()

    def _make(self, folder: str, is_store: bool) -> None:
        """Makes a folder once; object stores have none."""
        if not is_store and folder not in self._made:
            self._system.create_dir(folder, recursive=True)
            self._made.add(folder)

    def _place(self, name: str) -> str:
        """The path of a file; a name from a dataset's metadata can't point elsewhere.

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
"""Systems in which a file appears only when it is closed, and renaming is copying."""


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
            f"{url}: can't be opened ({said}); use a folder, or a URL that pyarrow or fsspec "
            "knows, such as s3://bucket/beats."
        ) from error
    return pafs.PyFileSystem(pafs.FSSpecHandler(system)), path


def _reason(error: Exception) -> str:
    """The error's message, without the details that stores add for their own support."""
    return " ".join(str(error).split("Detail:")[0].split())[:200]


def url_hash(url: str) -> str:
    """A folder name derived from a URL."""
    return hashlib.sha256(url.encode()).hexdigest()[:16]


def cache_folder(url: str) -> Path:
    """The local folder for the shards of a remote dataset."""
    return cache_root() / "remote" / url_hash(url)
