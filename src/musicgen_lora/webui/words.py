"""The page's words: English is the key, `assets/webui.zh.json` has the Chinese."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

from musicgen_lora.errors import UserError
from musicgen_lora.language import catalogue
from musicgen_lora.language.choice import LANGUAGES, Language
from musicgen_lora.language.translate import Translator

_CHINESE = Path(__file__).resolve().parents[1] / "assets" / "webui.zh.json"


@cache
def chinese() -> dict[str, str]:
    """Chinese by English."""
    return json.loads(_CHINESE.read_text(encoding="utf-8"))


class Words:
    """The page's words in one language."""

    def __init__(self, language: Language) -> None:
        self.language = language

    def __call__(self, english: str, **values: object) -> str:
        """A word or sentence of the page, with `{names}` filled in."""
        text = chinese()[english] if self.language == "zh" else english
        return text.format(**values) if values else text

    def duration(self, seconds: float) -> str:
        """Seconds in words, no more precise than is known."""
        if seconds < 90:
            return self("{n} s", n=max(10, int(round(seconds, -1))))
        if seconds < 5400:
            return self("{n} min", n=round(seconds / 60))
        return self("{n} h", n=f"{seconds / 3600:.1f}")

    def line(self, text: str) -> str:
        """Translates a line from a function or command: by the page's own sentences, then by the
        commands' catalogue. What neither has stays English."""
        if self.language == "zh":
            for pattern, target in _lines():
                if found := pattern.fullmatch(text):
                    return target.format(**found.groupdict())
            return _translator().word(text)
        return text

    def error(self, error: UserError | OSError) -> str:
        """Unusable input, or what the disk refuses, as a line."""
        if isinstance(error, UserError):
            return self.line(str(error))
        where = f"{error.filename}: " if error.filename else ""
        return self.line(f"{where}{error.strerror or error}.")


@cache
def _translator() -> Translator:
    return Translator(catalogue.read(catalogue.path_of("zh")))


@cache
def _lines() -> list[tuple[re.Pattern[str], str]]:
    """Patterns of the sentences with names in them, and their Chinese."""
    return [(_pattern(english), target) for english, target in chinese().items()]


def _pattern(english: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", english)
    pattern = "".join(
        f"(?P<{part}>.*)" if index % 2 else re.escape(part) for index, part in enumerate(parts)
    )
    return re.compile(pattern, re.DOTALL)


def beginning(text: str, most: int = 60) -> str:
    """A text, or as much of it as fits, with an ellipsis."""
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def preferred(accepted: str) -> Language:
    """The page's language for a browser's Accept-Language: the first one that the page has."""
    for part in accepted[:1000].split(","):
        name = part.split(";")[0].strip().lower()
        if name.startswith(LANGUAGES):
            return "zh" if name.startswith("zh") else "en"
    return "en"
