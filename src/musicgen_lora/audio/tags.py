"""Writes texts about a sound in each format's own form: ID3 and Vorbis comments.

libsndfile writes titles and comments, but not tempo and key, by which players and hosts sort. The
library that writes everything is under the GPL; the part needed here is small.

Sources: ID3v2.3.0 (id3.org); RFC 9639 for FLAC; RFC 3533 for Ogg's pages; Vorbis I, section 5.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

FLAC_COMMENT, FLAC_LAST = 4, 0x80
FLAC_MARK = b"fLaC"
VORBIS_COMMENT = b"\x03vorbis"
LACE = 255
MAX_LACES = 255
NO_PACKET_ENDS = 0xFFFF_FFFF_FFFF_FFFF
OGG_HEAD = struct.Struct("<4sBBQIIIB")
OGG_CRC_AT = 22


def id3_tag(frames: Mapping[str, str]) -> bytes:
    """An ID3v2.3 tag of texts by the names of their frames: TIT2, TBPM, TKEY, COMM and so on."""
    body = b"".join(_id3_frame(name, text) for name, text in frames.items())
    size = len(body)
    synchsafe = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x03\x00\x00" + synchsafe + body


def _id3_frame(name: str, text: str) -> bytes:
    # UTF-16 with a BOM, the only encoding of version 2.3 that covers all characters.
    content = text.encode("utf-16")
    if name == "COMM":
        content = b"eng" + "".encode("utf-16") + b"\0\0" + content
    content = b"\x01" + content
    return struct.pack(">4sIH", name.encode(), len(content), 0) + content


def vorbis_comments(texts: Mapping[str, str], vendor: str) -> bytes:
    """Texts by name, such as TITLE and BPM, in the form of Vorbis and FLAC."""
    lines = [f"{name}={text}".encode() for name, text in texts.items()]
    fields = [vendor.encode(), *lines]
    packed = [struct.pack("<I", len(field)) + field for field in fields]
    return packed[0] + struct.pack("<I", len(lines)) + b"".join(packed[1:])


def tag_flac(content: bytes, texts: Mapping[str, str], vendor: str) -> bytes:
    """A FLAC file with these comments in place of its own.

    Raises:
        ValueError: it is not FLAC.
    """
    if not content.startswith(FLAC_MARK):
        raise ValueError("This is not a FLAC file.")
    blocks, at, is_last = [], len(FLAC_MARK), False
    while not is_last:
        is_last, kind = bool(content[at] & FLAC_LAST), content[at] & ~FLAC_LAST
        size = int.from_bytes(content[at + 1 : at + 4], "big")
        if kind != FLAC_COMMENT:
            blocks.append((kind, content[at + 4 : at + 4 + size]))
        at += 4 + size
    # The first block must stay STREAMINFO.
    blocks.insert(1, (FLAC_COMMENT, vorbis_comments(texts, vendor)))
    written = [
        bytes([kind | (FLAC_LAST if index == len(blocks) - 1 else 0)])
        + len(block).to_bytes(3, "big")
        + block
        for index, (kind, block) in enumerate(blocks)
    ]
    return FLAC_MARK + b"".join(written) + content[at:]


@dataclass(frozen=True)
class _Page:
    """An Ogg page.

    Args:
        flags: 1 continues a packet, 2 begins and 4 ends the stream.
        position: samples up to the last packet that ends in it.
        laces: lengths of its segments.
    """

    flags: int
    position: int
    laces: bytes
    body: bytes

    def packed(self, serial: int, number: int) -> bytes:
        fields = (b"OggS", 0, self.flags, self.position, serial, number, 0, len(self.laces))
        page = OGG_HEAD.pack(*fields) + self.laces + self.body
        return page[:OGG_CRC_AT] + struct.pack("<I", _ogg_crc(page)) + page[OGG_CRC_AT + 4 :]


def tag_ogg(content: bytes, texts: Mapping[str, str], vendor: str) -> bytes:
    """An Ogg Vorbis file of one stream with these comments in place of its own. Its serial number,
    which the encoder drew at random, is replaced by a checksum of its content, so that equal sounds
    are equal files.

    Raises:
        ValueError: it is not Ogg Vorbis.
    """
    pages = list(_ogg_pages(content))
    packets, n_head = [], 0
    while len(packets) < 3 and n_head < len(pages):
        page = pages[n_head]
        packets = _joined(packets, page) if page.flags & 1 else packets + _packets(page)
        n_head += 1
    if len(packets) != 3 or not packets[1].startswith(VORBIS_COMMENT):
        raise ValueError("This is not an Ogg Vorbis file.")
    # The last bit marks the comment as complete.
    comment = VORBIS_COMMENT + vorbis_comments(texts, vendor) + b"\x01"
    first = replace(pages[0], flags=2, position=0)
    rest = pages[n_head:]
    serial = zlib.crc32(b"".join(page.body for page in pages))
    whole = [first, *_pages_of([comment, packets[2]]), *rest]
    return b"".join(page.packed(serial, number) for number, page in enumerate(whole))


def _ogg_pages(content: bytes) -> Iterator[_Page]:
    at = 0
    while at + OGG_HEAD.size <= len(content):
        mark, _, flags, position, _, _, _, n_laces = OGG_HEAD.unpack_from(content, at)
        if mark != b"OggS":
            raise ValueError("This is not an Ogg file.")
        at += OGG_HEAD.size
        laces = content[at : at + n_laces]
        at += n_laces
        yield _Page(flags, position, laces, content[at : at + sum(laces)])
        at += sum(laces)


def _packets(page: _Page) -> list[bytes]:
    """The packets of a page; the last may continue on the next."""
    packets, at, size = [], 0, 0
    for index, lace in enumerate(page.laces):
        size += lace
        if lace < LACE or index == len(page.laces) - 1:
            packets.append(page.body[at : at + size])
            at, size = at + size, 0
    return packets


def _joined(packets: list[bytes], page: _Page) -> list[bytes]:
    first, *more = _packets(page)
    return [*packets[:-1], packets[-1] + first, *more]


def _pages_of(packets: list[bytes]) -> list[_Page]:
    """The pages of header packets, which end where the last packet does."""
    laces = b"".join(
        bytes([LACE]) * (len(packet) // LACE) + bytes([len(packet) % LACE]) for packet in packets
    )
    body = b"".join(packets)
    pages, at = [], 0
    for start in range(0, len(laces), MAX_LACES):
        part = laces[start : start + MAX_LACES]
        goes_on = start > 0 and laces[start - 1] == LACE
        ends = any(lace < LACE for lace in part)
        position = 0 if ends else NO_PACKET_ENDS
        pages.append(_Page(int(goes_on), position, part, body[at : at + sum(part)]))
        at += sum(part)
    return pages


def _ogg_crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        rest = byte << 24
        for _ in range(8):
            rest = (rest << 1 ^ 0x04C1_1DB7 if rest & 0x8000_0000 else rest << 1) & 0xFFFF_FFFF
        table.append(rest)
    return tuple(table)


_CRC = _ogg_crc_table()


def _ogg_crc(page: bytes) -> int:
    """Ogg's checksum, which no library here has: zlib's polynomial without bit reflection."""
    rest = 0
    for byte in page:
        rest = (rest << 8 & 0xFFFF_FFFF) ^ _CRC[rest >> 24 ^ byte]
    return rest
