"""Text in files from elsewhere: UTF-8, UTF-16 with a byte order mark, GB18030 or Windows-1252.

Chinese Windows saves tables as GB18030 (GBK and GB2312 are subsets of it), Western editors as
Windows-1252. Both decode nearly any bytes, so the encoding is guessed from what the decoded text
looks like, and the caller is told which it was.
"""

from __future__ import annotations

import codecs
import re

MIN_CHINESE_SHARE = 0.5
"""A text counts as Chinese if at least this share of its non-ASCII characters are common ones
(GB2312's first level and punctuation). In Western text decoded so, each accented letter forms a
rare character with the letter after it."""

MAX_JUDGED = 10_000
"""Non-ASCII characters that are enough to judge by."""
_NOT_WESTERN = re.compile(rb"[\x80-\xff]{4}")
"""Letters with accents are single ones among others in Western text; other alphabets' words are
made of such bytes."""
_NO_TEXT = re.compile(rb"[\x00-\x08\x0b\x0e-\x1f\x7f]")
"""Bytes that occur in no text."""


def decode_text(data: bytes) -> tuple[str, str | None]:
    """The text in a file, and the encoding if it was guessed; None for UTF-8 and UTF-16.

    Raises:
        UnicodeDecodeError: in none of these encodings; `start` is where it stops being UTF-8.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and not data.startswith(
        codecs.BOM_UTF32_LE
    ):
        return data.decode("utf-16"), None
    try:
        if (zero := data.find(b"\0")) >= 0:
            # UTF-16 and UTF-32 without a mark: as UTF-8, letters with characters 0 between them.
            raise UnicodeDecodeError("utf-8", data, zero, zero + 1, "a character 0")
        return data.decode("utf-8-sig"), None
    except UnicodeDecodeError as error:
        if _NO_TEXT.search(data):
            raise
        is_western = not _NOT_WESTERN.search(data)
        western = (("cp1252", "Windows-1252"),) if is_western else ()
        for encoding, name in (("gb18030", "GB18030"), *western):
            try:
                text = data.decode(encoding)
            except UnicodeDecodeError:
                continue
            if encoding != "gb18030" or _is_chinese(text):
                return text, name
        raise error from None


def _is_chinese(text: str) -> bool:
    others = [letter for letter in text if not letter.isascii()][:MAX_JUDGED]
    common = 0
    for letter in others:
        pair = letter.encode("gb2312", errors="ignore")
        # Rows 0xA1 to 0xD7 are punctuation, other scripts and the 3,755 common characters.
        common += len(pair) == 2 and pair[0] <= 0xD7
    return common >= MIN_CHINESE_SHARE * len(others)
