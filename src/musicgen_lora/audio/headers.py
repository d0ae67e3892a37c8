"""Headers that don't know how long their file is, as programs that write to a pipe or crash leave.

libsndfile reads most of them to their end. These it doesn't: a WAV or an AU that says 0 bytes, a
CAF that says "unknown" (which its standard allows), an MP3 without a frame count or with another's.
It is given a header that knows; the file stays as it is.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

from musicgen_lora.audio import mp3
from musicgen_lora.audio.mp3 import Head
from musicgen_lora.errors import AudioError, audio_unread

MAX_HEAD_BYTES = 1 << 20
"""A header that is longer is left alone."""
STREAMED = 0x7FFF0000
"""Programs that write to a pipe tell lengths from here on, for they don't know them."""
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
                _check_ogg(file, n_file)
            if magic[:3] == b"ID3" or magic[:1] == b"\xff":
                return mp3.mended_head(file, n_file)
    except OSError as error:
        raise audio_unread(path, error) from error
    except AudioError as error:
        raise AudioError(f"{path}: {error}") from error
    return None


def told_share(path: Path) -> float:
    """How much of a WAV or AIFF its header tells of, in shares of what is there: 2 for a file of
    which half was copied. 1 for others, and where the header doesn't know.

    Raises:
        AudioError: unreadable.
    """
    try:
        with open(path, "rb") as file:
            n_file = os.fstat(file.fileno()).st_size
            magic, size = struct.unpack("<4sI", file.read(8).ljust(8, b"\0"))
    except OSError as error:
        raise audio_unread(path, error) from error
    if magic in (b"RIFX", b"FORM"):
        size = int.from_bytes(struct.pack("<I", size), "big")
    elif magic != b"RIFF":
        return 1.0
    return max(1.0, (size + 8) / n_file) if size < STREAMED else 1.0


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


def _check_ogg(file: BinaryIO, n_file: int) -> None:
    """Refuses one recording after another in a file, of which libsndfile reads the first."""
    at, has_sound = 0, False
    while at + 27 <= n_file:
        file.seek(at)
        header = file.read(27)
        if header[:4] != b"OggS":
            # Damage: libsndfile says what it makes of it.
            return
        begins = bool(header[5] & 2)
        if begins and has_sound:
            raise AudioError(
                "has several recordings one after another, of which only the first would be read; "
                "convert it to one WAV or FLAC."
            )
        has_sound = has_sound or not begins
        at += 27 + header[26] + sum(file.read(header[26]))
