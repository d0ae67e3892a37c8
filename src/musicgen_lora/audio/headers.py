"""Headers that don't know how long their file is, as programs that write to a pipe or crash leave.

libsndfile reads most of them to their end. These it doesn't: a WAV or an AU that says 0 bytes, a
CAF that says "unknown" (which its standard allows), an MP3 without a frame count or with another's.
It is given a header that knows; the file stays as it is.
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
"""A header that is longer is left alone."""
STREAMED = 0x7FFF0000
"""Programs that write to a pipe tell lengths from here on, for they don't know them."""
MP3_EXTENSIONS = (".mp3", ".mp2", ".mpga")
OTHER_MAGICS = (b"RIFF", b"RIFX", b"RF64", b"FORM", b"fLaC", b"OggS", b".snd", b"caff", b"riff")
"""How files begin that somebody has called MP3."""
FIRST_PAGE, LAST_PAGE = 2, 4
"""Flags of a page of Ogg."""
TO_THE_END = 0xFFFFFFFF
"""What libsndfile takes for "as far as the file goes"."""


def find_head(path: Path) -> Head | None:
    """What libsndfile is to see in place of a file's first bytes; None where they will do.

    Raises:
        AudioError: unreadable, or of a kind of which only a part would be read.
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
    """Whether a file's name or its first bytes call for the decoder of MP3s.

    Raises:
        AudioError: unreadable.
    """
    return _is_mp3(path, _beginning(path))


def _is_mp3(path: Path, beginning: bytes) -> bool:
    # A recording of a stream begins in the midst of a frame.
    is_named = path.suffix.lower() in MP3_EXTENSIONS and beginning[:4] not in OTHER_MAGICS
    return is_named or beginning[:3] == b"ID3" or beginning[:1] == b"\xff"


def _beginning(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(64)
    except OSError as error:
        raise audio_unread(path, error) from error


def told_share(path: Path) -> float:
    """How much of a WAV, W64, AIFF or AU its header tells of, in shares of what is there: 2 for a
    file of which half was copied. 1 for others, and where the header doesn't know.

    Raises:
        AudioError: unreadable.
    """
    head = _beginning(path).ljust(64, b"\0")
    told = {
        b"RIFF": ("<I", 4, 8),
        b"RIFX": (">I", 4, 8),
        b"FORM": (">I", 4, 8),
        # Sizes of 64 bits: RF64's in the chunk ds64, which is the first one.
        b"RF64": ("<Q", 20, 8),
        b"riff": ("<Q", 16, 0),
        # Behind a header of any length.
        b".snd": (">I", 8, int.from_bytes(head[4:8], "big")),
    }.get(head[:4])
    if told is None:
        return 1.0
    form, at, n_before = told
    (size,) = struct.unpack_from(form, head, at)
    is_known = size < STREAMED or (form == "<Q" and size < 1 << 62)
    return max(1.0, (size + n_before) / path.stat().st_size) if is_known else 1.0


def lacks_end(path: Path) -> bool:
    """Whether an Ogg ends within a page, or with one that isn't marked as its last: then what came
    after it is missing. An Ogg tells no length that this could be seen from.

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
    """A file whose first bytes are others: what soundfile needs of one to read it.

    libsndfile calls this from C, where an error of a disk would be printed and lost: it is kept in
    `error` instead, and reads as the file's end.
    """

    def __init__(self, path: Path, head: Head) -> None:
        self.error: OSError | None = None
        self._head = head
        # With a buffer, as decoders ask for a few bytes at a time.
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
    """A WAV whose data chunk says 0 bytes, with some behind it."""
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
    """Whether eight bytes begin a chunk that fits into the file: then the data before it is empty
    indeed."""
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
            # The count of edits, four bytes, is part of the data.
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
    """Refuses one recording after another in a file, of which libsndfile reads the first."""
    has_sound = False
    for flags, _ in _ogg_pages(file):
        begins = bool(flags & FIRST_PAGE)
        if begins and has_sound:
            raise AudioError(
                "has several recordings one after another, of which only the first would be read; "
                "convert it to one WAV or FLAC."
            )
        has_sound = has_sound or not begins


def _ogg_pages(file: BinaryIO) -> Iterator[tuple[int, int | None]]:
    """The flags of an Ogg's pages, and where each ends; None for one that goes on behind the file's
    end. Where a page is damaged they stop: libsndfile says what it makes of it."""
    n_file, at = os.fstat(file.fileno()).st_size, 0
    while at + 27 <= n_file:
        file.seek(at)
        header = file.read(27)
        if header[:4] != b"OggS":
            return
        at += 27 + header[26] + sum(file.read(header[26]))
        yield header[5], at if at <= n_file else None
