"""Text of files that others saved: UTF-8, UTF-16 with its mark, GB18030 or Windows-1252.

Chinese Windows saves tables as GB18030 (GBK and GB2312 are parts of it), western editors as
Windows-1252. Both decode nearly any bytes, so a guess is made by what the text then looks like, and
the caller is told which it was.
"""

from __future__ import annotations

import codecs
import re

MIN_CHINESE_SHARE = 0.5
"""A text is Chinese where so much of what is no ASCII in it are common characters (GB2312's first
level and punctuation). Western text, where single letters have accents, pairs each with the letter
after it into rare ones."""

MAX_JUDGED = 10_000
"""Characters that are enough to tell by."""
_NO_TEXT = re.compile(rb"[\x00-\x08\x0b\x0e-\x1f\x7f]")
"""Bytes that no text has."""


def decode_text(data: bytes) -> tuple[str, str | None]:
    """The text in a file, and the encoding that was guessed; None for UTF-8 and UTF-16.

    Raises:
        UnicodeDecodeError: of none of these encodings; `start` is where UTF-8 ends.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16"), None
    try:
        return data.decode("utf-8-sig"), None
    except UnicodeDecodeError as error:
        if _NO_TEXT.search(data):
            raise
        for encoding, name in (("gb18030", "GB18030"), ("cp1252", "Windows-1252")):
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
