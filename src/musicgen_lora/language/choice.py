"""Which language a command speaks: the one it was told, else the system's."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Mapping
from typing import Literal

from musicgen_lora.errors import UserError

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")
VARIABLE = "MUSICGEN_LORA_LANGUAGE"
_WINDOWS_CHINESE = 0x04
"""Primary language of a Windows language identifier."""

_chosen: list[str] = []


def choose(language: str | None) -> None:
    """Sets the language of this process; None goes back to the system's.

    Raises:
        UserError: no such language.
    """
    if language is not None and language not in LANGUAGES:
        raise UserError(
            f"--language (or {VARIABLE}) {language!r}: is unknown; use one of: "
            f"{', '.join(LANGUAGES)}."
        )
    _chosen[:] = [] if language is None else [language]


def chosen_language() -> str:
    if not _chosen:
        _chosen.append(system_language(os.environ))
    return _chosen[0]


def system_language(environment: Mapping[str, str]) -> str:
    """The language that the environment or, failing that, Windows asks for.

    `VARIABLE` comes first, then what gettext looks at. A list such as "fr:zh" means the first that
    we have. LC_ALL=C, which scripts set to parse output, means English.
    """
    if environment.get("LC_ALL") in ("C", "POSIX") and not environment.get(VARIABLE):
        return "en"
    for name in (VARIABLE, "LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        for asked in environment.get(name, "").split(":"):
            language = asked.partition("_")[0].partition("-")[0].partition(".")[0].lower()
            if language in LANGUAGES:
                return language
        if environment.get(name):
            return "en"
    return "zh" if _windows_is_chinese() else "en"


def _windows_is_chinese() -> bool:
    if sys.platform != "win32":
        return False
    import ctypes

    return ctypes.windll.kernel32.GetUserDefaultUILanguage() & 0x3FF == _WINDOWS_CHINESE


SAMPLE = "中文，"


def speak(words: list[str]) -> list[str]:
    """Takes `--language` out of a command's words and speaks that language, or the system's, if the
    terminal can show its characters.

    Raises:
        UserError: it names no language.
    """
    for stream in (sys.stdout, sys.stderr):
        # Characters that its encoding lacks are escaped instead of ending the command.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    left = [part for word in words for part in re.split("(?<=^--language)=", word, maxsplit=1)]
    asked = os.environ.get(VARIABLE) or None
    while "--language" in left:
        at = left.index("--language")
        asked = left[at + 1] if at + 1 < len(left) else ""
        del left[at : at + 2]
    choose(asked)
    try:
        for stream in (sys.stdout, sys.stderr):
            SAMPLE.encode(getattr(stream, "encoding", None) or "utf-8")
    except UnicodeEncodeError as error:
        choose("en")
        if asked == "zh":
            print(
                f"--language zh: the terminal's encoding ({error.encoding}) has no Chinese "
                "characters; set PYTHONUTF8=1 if it can show them.",
                file=sys.stderr,
            )
    return left
