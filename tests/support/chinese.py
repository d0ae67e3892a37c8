"""What is left in English of a text or page that is to be Chinese."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest

from musicgen_lora.language.choice import choose

SAME_IN_BOTH = {
    *(
        "musicgen-lora",
        "musicgen",
        "tiny-beats",
        "LoRA",
        "token",
        "nat",
        "KL",
        "logit",
        "best_model",
        *("KAD", "FAD", "Holm", "Wilson", "McNemar", "musicnn"),
    ),
    *(
        "Beat",
        "Hz",
        "kHz",
        "dB",
        "dBFS",
        "dBTP",
        "LUFS",
        "BPM",
        "RMS",
        "hi-hat",
        "one-shot",
        "bootstrap",
    ),
    *("cpu", "bf16", "fp16", "fp32", "NaN", "MP3", "WAV", "FLAC", "trap", "beat", "hip", "hop"),
    *(
        "Em",
        "Cm",
        "major",
        "minor",
        "half-time",
        "MusicGen",
        "BS.1770-4",
        "report.json",
        "CSV",
        "UTF-8",
    ),
}
"""Names, units, words of the trade that Chinese texts have too."""


class _Texts(HTMLParser):
    """The texts of a page that are its own: names stand in <code>, captions and prompts in <b> and
    <h3>."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self._hidden = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in ("style", "code", "script")
        self.found += [value or "" for name, value in attrs if name in ("alt", "aria-label")]

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("style", "code", "script")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.found.append(data)


def english_in(text: str, *names: str) -> list[str]:
    """English words in a text, but for flags, paths, `names` and what is the same in both."""
    for name in sorted(names, key=len, reverse=True):
        text = re.sub(rf"(?<![A-Za-z]){re.escape(name)}(?![A-Za-z])", "", text)
    text = re.sub(r"--\w+|[\w./-]*[./_][\w./-]*", "", text)
    return [w for w in re.findall(r"[A-Za-z][\w-]+", text, re.ASCII) if w not in SAME_IN_BOTH]


def english_in_page(page: str, *names: str) -> list[str]:
    """The same of a page."""
    return [word for text in _Texts(page).found for word in english_in(text, *names)]


@pytest.fixture
def in_chinese() -> Iterator[None]:
    choose("zh")
    yield
    choose(None)
