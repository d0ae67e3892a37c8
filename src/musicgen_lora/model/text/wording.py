"""Chinese prompts and captions in English, word by word, for a text encoder that knows no Chinese.

T5, which every MusicGen reads text with, has no Chinese characters in its vocabulary:
"暗黑陷阱鼓点" and "明亮的钢琴旋律" are the same single unknown word to it. A list of music words
covers most of what beatmakers say; it is not a translator, and anyone who knows English writes
better captions. Word order is kept: like English, Chinese puts adjectives before the noun.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

WORDS_FILE = Path(__file__).resolve().parents[2] / "assets" / "music_words.zh.txt"
HAN = re.compile(r"[㐀-䶿一-鿿豈-﫿]")
_BPM = r"(\d{2,3}(?:\.\d{1,2})?)"
_TEMPO = r"((?:[4-9]\d|[1-3]\d\d)(?:\.\d+)?)"
"""A number that beside "beat" can only be a tempo: 4 and 16 are lengths, 808 and 909 machines."""
_DIGITS = "零一二三四五六七八九"
_NUMERAL = f"([{_DIGITS}两十百]{{2,}})"


def _in_digits(match: re.Match[str]) -> str:
    """A tempo in numerals (八十五, 一百四, 一二九) in digits, after whatever precedes it; any other
    number as it was: 四四拍 is a metre, 十六拍 a length."""
    said = match[2].replace("两", "二")
    parts = re.fullmatch(rf"(?:([{_DIGITS}])百)?(零?)(?:([{_DIGITS}]?)十)?([{_DIGITS}]?)", said)
    if re.fullmatch(f"[{_DIGITS}]{{3}}", said):
        value = int("".join(str(_DIGITS.index(digit)) for digit in said))
    elif parts is not None:
        hundreds, tens, ones = (_DIGITS.index(parts[n] or "零") for n in (1, 3, 4))
        if "十" in said:
            tens = tens or 1
        elif hundreds and not parts[2]:
            # 一百四 is 140, 一百零四 is 104.
            tens, ones = ones, 0
        value = 100 * hundreds + 10 * tens + ones
    else:
        value = 0
    return f"{match[1]}{value}" if 40 <= value < 400 else match[0]


FORMS: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"升\s*([A-Ga-g])(?![a-z])"), r"\1#"),
    (re.compile(r"降\s*([A-Ga-g])(?![a-z])"), r"\1b"),
    # Signs may also come after the note, and before it as staves have them.
    (re.compile(r"(?<![A-Za-z])([A-Ga-g])\s*升(?=\s*\w*调)"), r"\1#"),
    (re.compile(r"(?<![A-Za-z])([A-Ga-g])\s*降(?=\s*\w*调)"), r"\1b"),
    (re.compile(r"(?<![A-Za-z])([#b])([A-G])(?=\s*[大小]调)"), r"\2\1"),
    (re.compile(r"(?<=[A-Ga-g#b])\s*(?:自然|和声|旋律)(?=[大小]调)"), ""),
    # A note is a capital, and A not an article.
    (re.compile(r"(?<![A-Za-z])([a-g])(?=[#b]?\s*[大小]调)"), lambda match: match[1].upper()),
    (re.compile(r"(?<![A-Za-z])A(?=\s*[大小]调)"), " in A"),
    (
        re.compile(rf"((?:速度|拍速|曲速|节奏|节拍|bpm)\s*[:=为是约]*\s*){_NUMERAL}", re.I),
        _in_digits,
    ),
    (
        re.compile(rf"(?<!第)(){_NUMERAL}(?=\s*(?:节?拍(?!手(?!鼓))|bpm))", re.IGNORECASE),
        _in_digits,
    ),
    (re.compile(rf"(?<![\d/.]){_TEMPO}\s*节拍"), r" \1拍"),
    (
        # 节奏是90年代的 and "节奏 90s" are no tempos.
        re.compile(
            rf"(?:节奏|节拍)\s*[:=为是约]*\s*{_TEMPO}(?!\d|\s*(?:年|秒|%|/|s\b))"
            r"\s*(?:拍(?!手)|bpm)?",
            re.IGNORECASE,
        ),
        r" \1 bpm ",
    ),
    (re.compile(rf"(?:每|一)分[钟鐘]?\s*{_BPM}\s*拍"), r" \1 bpm "),
    (re.compile(rf"(?<![\d/.]){_BPM}\s*拍\s*(?:/|每|一)\s*分[钟鐘]?"), r" \1 bpm "),
    (
        re.compile(
            rf"(?:速度|拍速|曲速)\s*[:=为是约]*\s*{_BPM}(?!\d)\s*(?:bpm|拍)?", re.IGNORECASE
        ),
        r" \1 bpm ",
    ),
    # 808拍手 are claps, and 16拍 are 16 beats.
    (
        re.compile(r"(?<![\d/.])((?:[4-9]\d|[1-3]\d\d)(?:\.\d+)?)\s*拍(?:子|(?!手(?!鼓)))"),
        r" \1 bpm ",
    ),
    (re.compile(r"(?<![\d/.])([1-3]?\d)\s*拍(?!手(?!鼓))"), r" \1 beats "),
    (re.compile(r"(\d/\d)\s*拍"), r" \1 time "),
)
"""Patterns for keys, tempos and metres, which word lists can't cover."""
SIGNS = re.compile("[\uff01-\uff5e\u3000-\u3003\u3008-\u3011\u3014-\u301b\u00b7\u266d\u266f]")
"""Full-width forms, brackets and signs that mean what ASCII has."""
FULL_WIDTH = re.compile("([\uff0c\uff1b\uff1a\uff01\uff1f])")
"""Full-width comma, semicolon, colon and so on, which include their own space."""
PUNCTUATION = str.maketrans(
    {"、": ", ", "。": ". ", "·": " ", "♯": "#", "♭": "b", "\uff5e": "-"}
    | dict.fromkeys("「」『』《》〈〉“”", '"')
    | dict.fromkeys("【\u3014〖〘〚", "(")
    | dict.fromkeys("】\u3015〗〙〛", ")")
)


@dataclass(frozen=True)
class _Words:
    """The list of music words.

    Args:
        english: English by Chinese word; "" for a word that is dropped.
        longest: length of the longest Chinese word in characters.
        simplified: simplified characters by the code of the traditional one.
    """

    english: dict[str, str]
    longest: int
    simplified: dict[int, str]


@cache
def _words() -> _Words:
    english: dict[str, str] = {}
    simplified: dict[int, str] = {}
    section = ""
    for line in WORDS_FILE.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif section == "traditional":
            simplified |= {ord(old): new for old, new in (pair.split("=") for pair in line.split())}
        elif "=" in line and not line.startswith("#"):
            chinese, meant = line.split("=")
            english |= dict.fromkeys(chinese.split(), meant.strip())
    return _Words(english, max(map(len, english)), simplified)


def chinese_part(text: str) -> str:
    """The part of a text from its first Chinese character to its last."""
    places = [found.start() for found in HAN.finditer(text)]
    return text[places[0] : places[-1] + 1] if places else ""


def english_of(text: str) -> str:
    """Translates the Chinese in a text into English, and writes its full-width signs and its ♯ and
    ♭ as English does; a text without any stays as it is.

    Characters that the list doesn't know are kept, as few as possible. A word of one character
    counts only if what follows is known too, since it may be the start of some other word.
    """
    if text.isascii() or not (HAN.search(text) or SIGNS.search(text)):
        return text
    text = FULL_WIDTH.sub(r"\1 ", text).translate(PUNCTUATION)
    text = unicodedata.normalize("NFKC", text).translate(_words().simplified)
    for form, meant in FORMS:
        text = form.sub(meant, text)
    words = _words_of(text)
    pieces: list[str] = []
    place = 0
    while place < len(text):
        word = words[place]
        meant = text[place]
        if word is not None:
            said, *more = _words().english[word].split() or [""]
            # Two words for one sound, as for a gliding 808 bass, must not say "bass" twice.
            is_said = bool(pieces) and pieces[-1].split()[-1:] == [said]
            meant = f" {' '.join(more if is_said else [said, *more])} "
        pieces.append(meant)
        place += len(word or text[place])
    tidy = " ".join("".join(pieces).split())
    return re.sub(r" ([,.;:!?])", r"\1", tidy)


def _words_of(text: str) -> list[str | None]:
    """The word of the list to take at each character, found from the end: what leaves the fewest
    characters unknown, then the fewest words, then the longest first."""
    known = _words()
    found: list[str | None] = [None] * len(text)
    costs = [(0, 0)] * (len(text) + 1)
    """Unknown characters and words from each character to the end."""
    for place in reversed(range(len(text))):
        rest = costs[place + 1]
        is_chinese = HAN.match(text[place]) is not None
        costs[place] = (rest[0] + is_chinese, rest[1])
        if not is_chinese and not text[place].isalnum():
            continue
        after = place + 1
        ends_well = after == len(text) or not HAN.match(text[after]) or found[after] is not None
        for length in range(1, min(known.longest, len(text) - place) + 1):
            word = text[place : place + length]
            unknown, n_words = costs[place + length]
            if word not in known.english or (length == 1 and not ends_well):
                continue
            if found[place] is None or (unknown, n_words + 1) <= costs[place]:
                found[place], costs[place] = word, (unknown, n_words + 1)
    return found
