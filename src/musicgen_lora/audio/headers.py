"""Handles headers without their file's length, left by programs that write to a pipe or crash.

libsndfile reads most such files to the end, but not a WAV or AU with length 0, a CAF with length
"unknown" (which its standard allows), or an MP3 with no frame count or a wrong one. For these it is
given a corrected header; the file isn't changed.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from musicgen_lora.audio import mp3
from musicgen_lora.audio.mp3 import Head
from musicgen_lora.errors import AudioError, audio_unread

MAX_HEAD_BYTES = 1 << 20
"""Longer headers are left alone."""
STREAMED = 0x7FFF0000
"""Programs that write to a pipe, and don't know the length, put this or more in the header."""
MP3_EXTENSIONS = (".mp3", ".mp2", ".mpga")
OTHER_MAGICS = (b"RIFF", b"RIFX", b"RF64", b"FORM", b"fLaC", b"OggS", b".snd", b"caff", b"riff")
"""First bytes of files in other formats that may have an MP3 extension."""
FIRST_PAGE, LAST_PAGE = 2, 4
"""Flags of an Ogg page."""
TO_THE_END = 0xFFFFFFFF
"""The length that libsndfile reads as "to the end of the file"."""


def find_head(path: Path) -> Head | None:
    """What libsndfile should see instead of a file's first bytes; None if they are fine.

    Raises:
        AudioError: unreadable, or of a kind that would be read only in part.
    """
    try:
        with open(path, "rb") as file:
            n_file = os.fstat(file.fileno()).st_size
            magic = file.read(12)
            if magic[:4] in (b"RIFF", b"RIFX") and magic[8:] == b"WAVE":
                return _wav_head(file, n_file, ">" if magic[:4] == b"RIFX" else "<")
            if magic[:4] == b".snd":
                return _au_head(file, n_file)
            if magic[:4] == b"caff":
                return _caf_head(file, n_file)
            if magic[:4] == b"OggS":
                _check_ogg(file)
            elif _is_mp3(path, magic):
                return mp3.mended_head(file, n_file)
    except OSError as error:
        raise audio_unread(path, error) from error
    except AudioError as error:
        raise AudioError(f"{path}: {error}") from error
    return None


def may_be_mp3(path: Path) -> bool:
    """Whether a file's name or its first bytes call for the MP3 decoder.

    Raises:
        AudioError: unreadable.
    """
    return _is_mp3(path, _beginning(path))


def _is_mp3(path: Path, beginning: bytes) -> bool:
    # A recorded stream begins in the middle of a frame.
    is_named = path.suffix.lower() in MP3_EXTENSIONS and beginning[:4] not in OTHER_MAGICS
    return is_named or beginning[:3] == b"ID3" or beginning[:1] == b"\xff"


def _beginning(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(64)
    except OSError as error:
        raise audio_unread(path, error) from error


def told_share(path: Path) -> float:
    """The size in the header of a WAV, W64, AIFF or AU, relative to the file's: 2 for a file of
    which only half was copied. 1 for other formats, and if the header doesn't know.

    Raises:
        AudioError: unreadable.
    """
    head = _beginning(path).ljust(64, b"\0")
    told = {
        b"RIFF": ("<I", 4, 8),
        b"RIFX": (">I", 4, 8),
        b"FORM": (">I", 4, 8),
        # 64-bit sizes; RF64's is in the ds64 chunk, which comes first.
        b"RF64": ("<Q", 20, 8),
        b"riff": ("<Q", 16, 0),
        # The size excludes the header, whose length varies.
        b".snd": (">I", 8, int.from_bytes(head[4:8], "big")),
    }.get(head[:4])
    if told is None:
        return 1.0
    form, at, n_before = told
    (size,) = struct.unpack_from(form, head, at)
    is_known = size < STREAMED or (form == "<Q" and size < 1 << 62)
    return max(1.0, (size + n_before) / path.stat().st_size) if is_known else 1.0


def lacks_end(path: Path) -> bool:
    """Whether an Ogg ends within a page, or with a page that isn't marked as the last, so that the
    rest is missing. An Ogg has no length field that would show this.

    Raises:
        AudioError: unreadable.
    """
    try:
        with open(path, "rb") as file:
            if file.read(4) != b"OggS":
                return False
            for flags, page_end in deque(_ogg_pages(file), 1):
                return page_end is None or not flags & LAST_PAGE
            return True
    except OSError as error:
        raise audio_unread(path, error) from error


class HeadedFile:
    """A file with its first bytes replaced, with the methods that soundfile needs.

    libsndfile calls this from C, where a disk error would be printed and lost: it is kept in
    `error` instead, and looks like the end of the file.
    """

    def __init__(self, path: Path, head: Head) -> None:
        self.error: OSError | None = None
        self._head = head
        # Buffered, because decoders read a few bytes at a time.
        self._file = open(path, "rb")  # noqa: SIM115
        self._n_bytes = len(head.content) + os.fstat(self._file.fileno()).st_size - head.n_replaced
        self._at = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._n_bytes}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, count: int) -> bytes:
        n_head = len(self._head.content)
        content = self._head.content[self._at : self._at + count]
        if len(content) < count:
            try:
                self._file.seek(self._head.n_replaced + max(0, self._at - n_head))
                content += self._file.read(count - len(content))
            except OSError as error:
                self.error = error
        self._at += len(content)
        return content

    def close(self) -> None:
        self._file.close()


def _wav_head(file: BinaryIO, n_file: int, order: str) -> Head | None:
    """A corrected header for a WAV whose data chunk claims 0 bytes but is followed by data."""
    at = 12
    while at + 8 <= min(n_file, MAX_HEAD_BYTES):
        file.seek(at)
        name, size = struct.unpack(f"{order}4sI", file.read(8))
        if name == b"data":
            rest = file.read(8)
            is_empty = size == 0 and len(rest) == 8 and not _is_chunk(rest, n_file - at - 16, order)
            return (
                _patched(file, at + 4, struct.pack(f"{order}I", TO_THE_END)) if is_empty else None
            )
        at += 8 + size + size % 2
    return None


def _is_chunk(header: bytes, n_left: int, order: str) -> bool:
    """Whether eight bytes begin a chunk that fits into the file: then the data before it really is
    empty."""
    name, size = struct.unpack(f"{order}4sI", header)
    return name.isascii() and name.decode().isprintable() and size <= n_left


def _au_head(file: BinaryIO, n_file: int) -> Head | None:
    file.seek(4)
    at, size = struct.unpack(">II", file.read(8).ljust(8, b"\0"))
    if size or at >= n_file:
        return None
    return _patched(file, 8, struct.pack(">I", TO_THE_END))


def _caf_head(file: BinaryIO, n_file: int) -> Head | None:
    at = 8
    while at + 12 <= min(n_file, MAX_HEAD_BYTES):
        file.seek(at)
        name, size = struct.unpack(">4sq", file.read(12))
        if name == b"data":
            # The edit count, four bytes, is part of the data.
            is_unknown = size in (-1, 0) and n_file - at - 12 > 4
            if not is_unknown:
                return None
            return _patched(file, at + 4, struct.pack(">q", n_file - at - 12))
        if size < 0:
            return None
        at += 12 + size
    return None


def _patched(file: BinaryIO, at: int, content: bytes) -> Head:
    file.seek(0)
    return Head(file.read(at) + content, at + len(content), None)


def _check_ogg(file: BinaryIO) -> None:
    """Rejects a file with several recordings in a row, as libsndfile reads only the first."""
    has_sound = False
    for flags, _ in _ogg_pages(file):
        begins = bool(flags & FIRST_PAGE)
        if begins and has_sound:
            raise AudioError(
                "has several recordings in a row, and only the first would be read; convert it to "
                "one WAV or FLAC."
            )
        has_sound = has_sound or not begins


def _ogg_pages(file: BinaryIO) -> Iterator[tuple[int, int | None]]:
    """The flags of an Ogg's pages and the end of each, None if it lies beyond the end of the file.
    Stops at a damaged page, which is left to libsndfile to report."""
    n_file, at = os.fstat(file.fileno()).st_size, 0
    while at + 27 <= n_file:
        file.seek(at)
        header = file.read(27)
        if header[:4] != b"OggS":
            return
        at += 27 + header[26] + sum(file.read(header[26]))
        yield header[5], at if at <= n_file else None
