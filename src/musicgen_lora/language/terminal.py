"""The language of a command, by its words and by what its terminal can show."""

from __future__ import annotations

import io
import itertools
import os
import re
import sys

from musicgen_lora.language.choice import VARIABLE, choose
from musicgen_lora.language.translate import translated

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


def unboxed(text: str, command: str) -> str:
    """What tyro says of a wrong flag in a box of English, as one line in the user's language; as it
    is where it has no translation, or in English where it is more than of a wrong word."""
    # Its title stands in the box's upper edge, or above a line where there are no edges.
    lines = [line.strip("│ ") for line in text.splitlines()[1:]]
    lines = lines[1:] if lines and not lines[0].strip("-") else lines
    inside = itertools.takewhile(lambda line: line.strip("─-╰╯"), lines)
    english = " ".join(inside)
    said = translated(english)
    if said == english and not english.startswith("invalid choice"):
        return text
    return f"{command}: {said} ({command} --help)\n"
