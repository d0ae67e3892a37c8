"""How a text encoder reads prompts and captions, and what their author should know of it.

All words outside its vocabulary are the same unknown word to it, and it reads nothing after its
512th token. Neither raises an error, so both would go unnoticed: prompts that differ only in
unknown words give the same audio, and captions that differ only in them teach nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from musicgen_lora.model.text.wording import HAN, chinese_part, english_of

T5_TOKENIZER = Path(__file__).resolve().parents[2] / "assets" / "tiny_beats" / "tokenizer.json"
"""All of Meta's MusicGens read text with T5, as the embedded base does."""
MAX_TEXT_TOKENS = 512
MAX_SHOWN = 3
"""Most examples in a sentence."""
PLAIN = re.compile(r"[A-Za-z0-9\s,.;:!?'\"()\[\]#/&+%$@*=_-]*")
"""Characters that T5 certainly knows, so that ordinary English needs no tokenizer."""
WORD = re.compile(r"[⺀-鿿豈-﫿가-힣]|[^\W_]+(?:['\u2019][^\W_]+)*|[^\w\s]")
"""A word for counting: one Chinese, Japanese or Korean character, a run of letters, or one sign."""


@dataclass(frozen=True)
class Reading:
    """How the encoder reads a text.

    Args:
        text: as its author wrote it.
        english: the encoder's input: the same text, or with its Chinese in English.
        unknown: words of `english` that the encoder doesn't know, without repeats.
        n_words: words in `english`.
        n_unknown: how many of these the encoder doesn't know.
        n_tokens: of `english`; 0, uncounted, if it is clearly short enough.
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
        encode: turns texts into token ids.
        unknown_id: id of the unknown token.
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
        # Each token has at least one character, except the last one and the space at the start.
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
    """Sentences about texts that the encoder doesn't read as written; empty if there are none.

    Args:
        reader: makes the reader, and is called only if a text needs it.
        noun: "prompt" or "caption".
        place_of: where a text comes from, for the few that are named; "" quotes the text instead.
    """
    every = dict.fromkeys(texts)
    # Two quick checks spare most texts of a large dataset the tokenizer.
    odd = [t for t in every if len(t) >= MAX_TEXT_TOKENS - 2 or not PLAIN.fullmatch(t)]
    if not odd:
        return []
    readings = [reading for reading in map(reader().read, odd) if not reading.is_plain]
    return [
        *_translated(
            [r for r in readings if HAN.search(r.text) and r.english != r.text], len(every), noun
        ),
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
        f"reads this English, translated by a list of music words: {shown}{_more(len(kinds))}. If "
        f"that is not what you mean, write the {noun} in English."
    ]


def _unknown(readings: Sequence[Reading], n_all: int, noun: str) -> list[str]:
    if not readings:
        return []
    words = list(dict.fromkeys(word[:40] for reading in readings for word in reading.unknown))
    n_words = sum(reading.n_words for reading in readings)
    n_unknown = sum(reading.n_unknown for reading in readings)
    shown = " ".join(words[: 5 * MAX_SHOWN]) + " ..." * (len(words) > 5 * MAX_SHOWN)
    return [
        f"{_share(len(readings), n_all, noun)} partly unknown to the text encoder, {n_unknown} of "
        f"{n_words} words: {shown}. To it they are all the same word; write plain English."
    ]


def _cut(readings: Sequence[Reading], noun: str, place_of: Callable[[str], str]) -> list[str]:
    sentences = []
    for reading in readings[:MAX_SHOWN]:
        place = place_of(reading.text)
        name = f"{place}: its {noun}" if place else f"The {noun} “{reading.text[:40]} ...”"
        sentences.append(
            f"{name} has {reading.n_tokens} tokens, and the text encoder reads only the first "
            f"{MAX_TEXT_TOKENS}. Shorten it."
        )
    if len(readings) > MAX_SHOWN:
        sentences.append(f"{len(readings) - MAX_SHOWN} more {noun}s are too long as well.")
    return sentences


def _share(n_some: int, n_all: int, noun: str) -> str:
    if n_all == 1:
        return f"The {noun} is"
    return f"{n_some} of {n_all} {noun}s {'is' if n_some == 1 else 'are'}"


def _more(n_kinds: int) -> str:
    return f"; and {n_kinds - MAX_SHOWN} more" if n_kinds > MAX_SHOWN else ""
