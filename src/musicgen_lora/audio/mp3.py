"""Finds the true length of an MP3 by counting its frames, whatever its header says.

An MP3 states its length in its first frame (Xing, Info or VBRI), which holds no sound. Editors cut
that frame off, stream recorders never write it, and joined files keep that of their first part. A
decoder then estimates and stops too early: of 13.6 s it gave 5.7. Here frames are counted header by
header, and if there are more than the file says, the decoder gets a corrected first frame.

Sources: ISO/IEC 11172-3 and 13818-3 for the headers; the Xing frame as LAME writes it.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import BinaryIO

from musicgen_lora.errors import AudioError

KBPS = {
    1: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
"""Rates in Hz by the header's version bits: MPEG 1, 2 and 2.5."""
LAYER_3 = 1
LEAST_INFO_BYTES = 192
"""Least size of a first frame with a length: decoders expect 120 bytes after up to 36."""
SEARCH_BYTES = 1 << 16


@dataclass(frozen=True)
class Head:
    """Bytes that replace the first ones of a file.

    Args:
        content: what the decoder sees.
        n_replaced: how many bytes of the file it replaces.
        claimed_s: length in the file's own header; None if it has none.
        n_samples: samples per channel, counted if the header has no length; a decoder that
            estimates at least as many doesn't need the head. None in all other cases.
    """

    content: bytes
    n_replaced: int
    claimed_s: float | None
    n_samples: int | None = None


@dataclass(frozen=True)
class Frame:
    """What a frame's header says."""

    n_bytes: int
    sample_rate: int
    n_channels: int
    is_mpeg1: bool

    @property
    def n_samples(self) -> int:
        return 1152 if self.is_mpeg1 else 576

    @property
    def kind(self) -> tuple[int, int]:
        return self.sample_rate, self.n_channels

    @property
    def info_offset(self) -> int:
        """Offset of a Xing tag in a frame without sound."""
        if self.is_mpeg1:
            return 4 + (32 if self.n_channels == 2 else 17)
        return 4 + (17 if self.n_channels == 2 else 9)


def parse_header(header: bytes) -> Frame | None:
    """The frame that begins with these four bytes; None if they don't begin one of layer III."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    rate_index, kbps_index = header[2] >> 2 & 3, header[2] >> 4
    if version == 1 or layer != LAYER_3 or rate_index == 3 or kbps_index in (0, 15):
        return None
    is_mpeg1 = version == 3
    sample_rate = RATES[version][rate_index]
    kbps = KBPS[1 if is_mpeg1 else 2][kbps_index]
    n_bytes = (144_000 if is_mpeg1 else 72_000) * kbps // sample_rate + (header[2] >> 1 & 1)
    return Frame(n_bytes, sample_rate, 1 if header[3] >> 6 == 3 else 2, is_mpeg1)


def mended_head(file: BinaryIO, n_file: int) -> Head | None:
    """The first bytes that an MP3 should have; None if its own are fine, or it isn't an MP3.

    Args:
        file: buffered, at any position.

    Raises:
        AudioError: the sample rate or the number of channels changes inside, as in joined files;
            decoders stop there. The message lacks the file's name.
    """
    start = _tag_bytes(file, 0)
    first = parse_header(_bytes_at(file, start, 4))
    if first is None:
        # Some taggers leave zeros between the tag and the sound, and a recorded stream begins
        # within a frame.
        start = _next_frame(file, start, n_file, None)
        first = parse_header(_bytes_at(file, start, 4))
    if first is None:
        return None
    frame = _bytes_at(file, start, first.n_bytes)
    is_info, told = _told_count(frame, first)
    sound = start + first.n_bytes if is_info else start
    n_frames = count_frames(file, sound, n_file, first)
    if n_frames < 2 or (told is not None and n_frames <= told):
        return None
    if told is None:
        return Head(_info_frame(frame[:4], n_frames), sound, None, n_frames * first.n_samples)
    claimed_s = told * first.n_samples / first.sample_rate
    if frame[first.info_offset :][:4] not in (b"Xing", b"Info"):
        return Head(_info_frame(frame[:4], n_frames), sound, claimed_s)
    return Head(_corrected(frame, first, n_frames, n_file - start), sound, claimed_s)


def _corrected(frame: bytes, first: Frame, n_frames: int, n_bytes: int) -> bytes:
    """A Xing frame with other lengths. Its other fields are kept, such as the encoder's delay."""
    at = first.info_offset + 8
    has_bytes = frame[at - 1] & 2
    fields = struct.pack(">II", n_frames, n_bytes) if has_bytes else struct.pack(">I", n_frames)
    return frame[:at] + fields + frame[at + len(fields) :]


def _bytes_at(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)


def _tag_bytes(file: BinaryIO, at: int) -> int:
    """Length in bytes of the tags at a position: ID3v2, ID3v1 and APE; 0 if there are none."""
    begin = at
    while True:
        head = _bytes_at(file, at, 32)
        if head[:3] == b"ID3" and len(head) >= 10:
            size = 0
            for byte in head[6:10]:
                size = size << 7 | byte & 0x7F
            at += 10 + size + (10 if head[5] & 0x10 else 0)
        elif head[:8] == b"APETAGEX" and len(head) == 32:
            at += 32 + int.from_bytes(head[12:16], "little")
        elif head[:3] == b"TAG":
            at += 128
        else:
            return at - begin


def _told_count(frame: bytes, first: Frame) -> tuple[bool, int | None]:
    """Whether a first frame holds file information instead of sound, and its frame count if any."""
    tag = frame[first.info_offset :]
    if tag[:4] in (b"Xing", b"Info") and len(tag) >= 12:
        has_count = tag[7] & 1
        return True, int.from_bytes(tag[8:12], "big") if has_count else None
    if frame[36:40] == b"VBRI" and len(frame) >= 54:
        return True, int.from_bytes(frame[50:54], "big")
    return False, None


def count_frames(file: BinaryIO, at: int, n_file: int, first: Frame) -> int:
    """The number of whole frames of sound from a position on, skipping tags and damage.

    Raises:
        AudioError: see `mended_head`.
    """
    known: dict[bytes, Frame | None] = {}
    count = 0
    while at + 4 <= n_file:
        header = _bytes_at(file, at, 4)
        if header not in known:
            known[header] = parse_header(header)
        frame = known[header]
        if frame is not None and frame.kind == first.kind:
            count += at + frame.n_bytes <= n_file
            at += frame.n_bytes
            continue
        skipped = _tag_bytes(file, at)
        at = at + skipped if skipped else _next_frame(file, at, n_file, first)
    return count


def _next_frame(file: BinaryIO, at: int, n_file: int, first: Frame | None) -> int:
    """The first position from `at` on where two frames of the same kind follow each other; the
    file's size if there is none."""
    while at + 8 <= n_file:
        chunk = _bytes_at(file, at, SEARCH_BYTES)
        for match in re.finditer(rb"\xff[\xe0-\xff]", chunk):
            place = at + match.start()
            frame = parse_header(_bytes_at(file, place, 4))
            if frame is None:
                continue
            after = parse_header(_bytes_at(file, place + frame.n_bytes, 4))
            is_last = place + frame.n_bytes == n_file
            if after is not None and after.kind == frame.kind and first is not None:
                _check_kind(frame, first, file, place + frame.n_bytes + after.n_bytes)
            if first is not None and frame.kind != first.kind:
                continue
            if is_last or (after is not None and after.kind == frame.kind):
                return place
        # A header may begin with the chunk's last byte.
        at += max(1, len(chunk) - 1)
    return n_file


def _check_kind(frame: Frame, first: Frame, file: BinaryIO, at: int) -> None:
    """Rejects three frames of another kind in a row; fewer may be chance."""
    third = parse_header(_bytes_at(file, at, 4))
    if frame.kind != first.kind and third is not None and third.kind == frame.kind:
        raise AudioError(
            f"changes midway from {first.sample_rate} Hz with {first.n_channels} channels to "
            f"{frame.sample_rate} Hz with {frame.n_channels}, as joined files do; split it."
        )


def _info_frame(header: bytes, n_frames: int) -> bytes:
    """A frame without sound that says how many follow, of the same kind as `header`."""
    for kbps_index in range(1, 15):
        # No checksum, no padding.
        changed = bytes((0xFF, header[1] | 1, kbps_index << 4 | header[2] & 0x0C, header[3] & 0xC0))
        frame = parse_header(changed)
        if frame is not None and frame.n_bytes >= LEAST_INFO_BYTES:
            tag = b"Xing" + struct.pack(">II", 1, n_frames)
            content = changed.ljust(frame.info_offset, b"\0") + tag
            return content.ljust(frame.n_bytes, b"\0")
    raise AssertionError("Every kind of frame has a bit rate that is large enough.")
