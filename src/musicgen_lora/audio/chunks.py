"""RIFF chunks that describe a WAV to other programs: tempo and beats, loop points, texts.

Hosts read the tempo of a loop from `acid` (Live, ACID, REAPER, FL Studio, Audacity) and its loop
points from `smpl`; libraries and players read `LIST INFO` and `bext`. python-soundfile writes only
samples and a few strings, so these chunks are added here, before the samples, because some hosts
read no further.

Sources: Microsoft, Multimedia Programming Interface and Data Specifications 1.0 (RIFF, INFO); EBU
Tech 3285 (bext); libsndfile's reader of `acid` and `smpl`, which has no specification.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

RIFF_HEAD = 12
ACID_ROOT_SET, ACID_STRETCHES = 0x02, 0x04
MIDDLE_C = 60
BEATS_PER_BAR = 4
NS_PER_S = 10**9

Chunk = tuple[bytes, bytes]
"""A chunk's four-letter name and its content."""


def read_chunks(content: bytes) -> list[Chunk]:
    """The chunks of a complete RIFF WAVE file, in order.

    Raises:
        ValueError: it is not one, or a chunk reaches beyond its end.
    """
    if content[:4] != b"RIFF" or content[8:RIFF_HEAD] != b"WAVE":
        raise ValueError("This is not a RIFF WAVE file.")
    chunks, at = [], RIFF_HEAD
    while at + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, at)
        if at + 8 + size > len(content):
            raise ValueError(f"The chunk {name!r} reaches beyond the file's end.")
        chunks.append((name, content[at + 8 : at + 8 + size]))
        at += 8 + size + size % 2
    return chunks


def _packed(name: bytes, content: bytes) -> bytes:
    return struct.pack("<4sI", name, len(content)) + content + b"\0" * (len(content) % 2)


def with_chunks(content: bytes, chunks: Iterable[Chunk]) -> bytes:
    """A WAV with these chunks before its samples, replacing its own of the same names. `PEAK` is
    removed: it holds the time of writing, which would make equal sounds unequal files."""
    added = list(chunks)
    replaced = {b"PEAK", *(name for name, _ in added)}
    kept = [chunk for chunk in read_chunks(content) if chunk[0] not in replaced]
    at = next(index for index, (name, _) in enumerate(kept) if name == b"data")
    body = b"WAVE" + b"".join(_packed(*chunk) for chunk in [*kept[:at], *added, *kept[at:]])
    return struct.pack("<4sI", b"RIFF", len(body)) + body


def acid_chunk(*, bpm: float, n_beats: int, root_pitch_class: int | None) -> Chunk:
    """Tempo and length of a loop in 4/4 that a host may stretch.

    Args:
        n_beats: quarter notes in the file.
        root_pitch_class: of its key, 0 (C) to 11 (B); None if it has none.
    """
    flags = ACID_STRETCHES | (0 if root_pitch_class is None else ACID_ROOT_SET)
    root = MIDDLE_C + (root_pitch_class or 0)
    fields = (flags, root, 0x8000, 0.0, n_beats, BEATS_PER_BAR, BEATS_PER_BAR, bpm)
    return b"acid", struct.pack("<IHHfIHHf", *fields)


def smpl_chunk(*, n_frames: int, sample_rate: int, root_pitch_class: int | None) -> Chunk:
    """One endless loop over all of a file's `n_frames` samples per channel."""
    head = (0, 0, NS_PER_S // sample_rate, MIDDLE_C + (root_pitch_class or 0), 0, 0, 0, 1, 0)
    loop = (0, 0, 0, n_frames - 1, 0, 0)
    return b"smpl", struct.pack("<9I6I", *head, *loop)


def info_chunk(texts: Mapping[str, str]) -> Chunk:
    """`LIST INFO` with texts by four-letter name, such as INAM (title), ICMT (comment)."""
    entries = [_packed(name.encode(), text.encode() + b"\0") for name, text in texts.items()]
    return b"LIST", b"INFO" + b"".join(entries)


def bext_chunk(*, description: str, originator: str) -> Chunk:
    """EBU's broadcast chunk, version 1, without a date, so that a clip doesn't depend on when it is
    made.

    Args:
        description: truncated to 256 ASCII characters, the size of the field.
        originator: truncated to 32.
    """
    texts = (text.encode("ascii", "replace") for text in (description, originator))
    # Then reference, date, time, time reference, version, UMID and reserved bytes.
    fields = struct.pack("<256s32s32s10s8sQH64s190s", *texts, b"", b"", b"", 0, 1, b"", b"")
    return b"bext", fields
