"""What a text encoder makes of prompts and captions, and what to tell their author of it.

A word outside its vocabulary is one unknown word, whichever it is, and what comes after its 512th
token isn't read at all. Neither stops anything, so both would pass in silence: prompts that differ
in unknown words alone give the same audio, and captions that do teach nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from musicgen_lora.model.text.wording import chinese_part, english_of

T5_TOKENIZER = Path(__file__).resolve().parents[2] / "assets" / "tiny_beats" / "tokenizer.json"
"""All of Meta's MusicGens read text with T5, as the embedded base does."""
MAX_TEXT_TOKENS = 512
MAX_SHOWN = 3
"""Most examples that a sentence gives."""
PLAIN = re.compile(r"[A-Za-z0-9\s,.;:!?'\"()\[\]#/&+%$@*=_-]*")
"""Characters that T5 knows for certain, so that ordinary English needs no second look."""
WORD = re.compile(r"[⺀-鿿豈-﫿가-힣]|[^\W_]+(?:['\u2019][^\W_]+)*|[^\w\s]")
"""A word as it is counted: of Chinese and the like a character, else letters or one sign."""


@dataclass(frozen=True)
class Reading:
    """How the encoder reads a text.

    Args:
        text: as its author wrote it.
        english: what the encoder is given: equal to it, or its Chinese in English.
        unknown: words of `english` that the encoder doesn't know, each once.
        n_unknown: how many of them the encoder doesn't know.
        n_tokens: of `english`, as far as counted: 0 where it is clearly short enough.
    """

    text: str
    english: str
    unknown: tuple[str, ...]
    n_words: int
    n_unknown: int
    n_tokens: int

    @property
    def is_plain(self) -> bool:
        """Whether the text is read as it is written."""
        return self.english == self.text and not self.unknown and not self.is_cut

    @property
    def is_cut(self) -> bool:
        """Whether the end is cut off."""
        return self.n_tokens > MAX_TEXT_TOKENS


class TextReader:
    """Reads texts as a text encoder does.

    Args:
        encode: texts to the ids of their tokens.
        unknown_id: of the token that stands for what it doesn't know.
    """

    def __init__(
        self, encode: Callable[[list[str]], Sequence[Sequence[int]]], unknown_id: int | None
    ) -> None:
        self._encode, self._unknown_id = encode, unknown_id

    @classmethod
    def of(cls, tokenizer: Any) -> TextReader:
        """A reader with a base's own tokenizer, from `load_tokenizer`."""
        return cls(
            lambda texts: tokenizer(texts, verbose=False)["input_ids"], tokenizer.unk_token_id
        )

    def read(self, text: str) -> Reading:
        english = english_of(text)
        words = WORD.findall(english)
        unknown: tuple[str, ...] = ()
        if not PLAIN.fullmatch(english):
            odd = [word for word in dict.fromkeys(words) if not PLAIN.fullmatch(word)]
            unknown = tuple(
                word
                for word, ids in zip(odd, self._encode(odd) if odd else (), strict=True)
                if self._unknown_id in ids
            )
        # A token has a character at least, but for the one at the end and the space at the start.
        is_short = len(english) < MAX_TEXT_TOKENS - 2
        n_tokens = 0 if is_short else len(self._encode([english])[0])
        n_unknown = sum(word in unknown for word in words)
        return Reading(text, english, unknown, len(words), n_unknown, n_tokens)


@cache
def t5_reader() -> TextReader:
    """A reader with T5's tokenizer, for callers that have loaded no base."""
    tokenizer = Tokenizer.from_file(str(T5_TOKENIZER))
    return TextReader(
        lambda texts: [found.ids for found in tokenizer.encode_batch(texts)],
        tokenizer.token_to_id("<unk>"),
    )


def describe_readings(
    texts: Iterable[str],
    reader: Callable[[], TextReader],
    noun: str,
    place_of: Callable[[str], str] = lambda text: "",
) -> list[str]:
    """Sentences on texts that the encoder doesn't read as they are written; none where it does.

    Args:
        reader: made only where a text needs it.
        noun: "prompt" or "caption".
        place_of: where a text stands, asked for the few that are named; "" names it by its words.
    """
    every = dict.fromkeys(texts)
    # Two quick looks spare a large dataset the third.
    odd = [t for t in every if len(t) >= MAX_TEXT_TOKENS - 2 or not PLAIN.fullmatch(t)]
    if not odd:
        return []
    readings = [reading for reading in map(reader().read, odd) if not reading.is_plain]
    return [
        *_translated([r for r in readings if r.english != r.text], len(every), noun),
        *_unknown([r for r in readings if r.unknown], len(every), noun),
        *_cut([r for r in readings if r.is_cut], noun, place_of),
    ]


def _translated(readings: Sequence[Reading], n_all: int, noun: str) -> list[str]:
    if not readings:
        return []
    # Wordings of one caption differ in their English, and some in spaces or commas alone.
    kinds: dict[str, str] = {}
    for reading in readings:
        core = chinese_part(reading.text)
        english = english_of(core)
        key = re.sub(r"\W+", " ", english).casefold()
        kinds.setdefault(key, f"“{core[:80]}” = “{english[:160]}”")
    shown = "; ".join(list(kinds.values())[:MAX_SHOWN])
    return [
        f"{_share(len(readings), n_all, noun)} in Chinese, which the text encoder doesn't know. It "
        f"reads this English, made with a list of music words: {shown}{_more(len(kinds))}. Where "
        f"it is not what you mean, write the {noun} in English."
    ]


def _unknown(readings: Sequence[Reading], n_all: int, noun: str) -> list[str]:
    if not readings:
        return []
    words = list(dict.fromkeys(word[:40] for reading in readings for word in reading.unknown))
    n_words = sum(reading.n_words for reading in readings)
    n_unknown = sum(reading.n_unknown for reading in readings)
    shown = " ".join(words[: 5 * MAX_SHOWN]) + " ..." * (len(words) > 5 * MAX_SHOWN)
    return [
        f"{_share(len(readings), n_all, noun)} in part unknown to the text encoder, {n_unknown} of "
        f"{n_words} words: {shown}. It takes all of them for the same word: write plain English."
    ]


def _cut(readings: Sequence[Reading], noun: str, place_of: Callable[[str], str]) -> list[str]:
    sentences = []
    for reading in readings[:MAX_SHOWN]:
        place = place_of(reading.text)
        name = f"{place}: its {noun}" if place else f"The {noun} “{reading.text[:40]} ...”"
        sentences.append(
            f"{name} has {reading.n_tokens} tokens, of which the text encoder reads the first "
            f"{MAX_TEXT_TOKENS}; the rest is cut off. Shorten it."
        )
    if len(readings) > MAX_SHOWN:
        sentences.append(f"{len(readings) - MAX_SHOWN} more {noun}s are cut off likewise.")
    return sentences


def _share(n_some: int, n_all: int, noun: str) -> str:
    if n_all == 1:
        return f"The {noun} is"
    return f"{n_some} of {n_all} {noun}s {'is' if n_some == 1 else 'are'}"


def _more(n_kinds: int) -> str:
    return f"; and {n_kinds - MAX_SHOWN} more" if n_kinds > MAX_SHOWN else ""
