"""The language of a command, by its words and by what its terminal can show."""

from __future__ import annotations

import io
import os
import re
import sys

from musicgen_lora.language.choice import VARIABLE, choose

SAMPLE = "中文，"


def speak(words: list[str]) -> list[str]:
    """Takes `--language` out of a command's words and speaks that language, or the system's, in so
    far as the terminal has its letters.

    Raises:
        UserError: it names no language.
    """
    for stream in (sys.stdout, sys.stderr):
        # Letters that its encoding lacks are spelled out, instead of ending the command.
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
                "letters; set PYTHONUTF8=1 where it can show them.",
                file=sys.stderr,
            )
    return left
