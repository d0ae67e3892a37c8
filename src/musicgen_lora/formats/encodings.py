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

COMMON_HANGUL = frozenset(
    "이다는에의을를가하고한지기로인사도리어나서시스아대자부일정라해전그수상과원제들있니은게적안보여주오"
    "구장동만요모비트음악드럼느낌으운두베힙합곡우른템포조루프파슬픈피목명설컬타신패킥네클럽"
)
COMMON_HAN = frozenset(
    "的鼓乐低琴不唱片个器分拍哈段动感成和电出滚克节模放律合配大风加里调件曲情长请来踩贝度暗黑没滑击练切派"
    "或打带超流波三底采古吉留会过频快开管高铃灵浩钢本机了到人基础码点慢能国军环可魂歌林巴次变方号单强保南"
    "非其帮词都据布更八拉典部爵柔雷岸金车级笛萨铺鬼多半编边集秒含前库符空描掉连每好静复取格倍对回闭力夹键"
    "东明二定量日清简飘亮口两六老轻丁碟洞木匪诺冷氛幻奋胶沉琶鲁科班菲垫伴暴测果及进去告并警解内代名录就把"
)
"""Common syllables, and common characters of Chinese about music that have the same rows of bytes:
which of them a text has more of tells EUC-KR from GB18030."""
MIN_HANGUL, MIN_HANGUL_SHARE = 2, 0.3
"""Common syllables that Korean text has at least."""
MAX_KANA_SHARE = 0.2
"""Share of kana, which GB2312 has where EUC-JP does, above which a text is Japanese."""
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
            if encoding != "gb18030" or (_is_chinese(text) and not _is_neighbours(text)):
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


def _is_neighbours(text: str) -> bool:
    """Whether what was decoded as Chinese is rather Korean (EUC-KR) or Japanese (EUC-JP), whose
    bytes are common Chinese characters too."""
    pairs = [letter.encode("gb2312", errors="ignore") for letter in text if not letter.isascii()]
    words = [pair for pair in pairs[:MAX_JUDGED] if len(pair) == 2 and pair[0] >= 0xA4]
    kana = sum(pair[0] <= 0xA5 for pair in words)
    hangul = [pair.decode("euc-kr") for pair in words if 0xB0 <= pair[0] <= 0xC8]
    common = sum(syllable in COMMON_HANGUL for syllable in hangul)
    chinese = sum(letter in COMMON_HAN for letter in text[:MAX_JUDGED])
    is_korean = (
        len(hangul) >= 0.9 * len(words)
        and common >= max(MIN_HANGUL, MIN_HANGUL_SHARE * len(words))
        and common > chinese
    )
    return is_korean or kana > MAX_KANA_SHARE * len(words)
