"""What is wrong with a flag, in one line; tyro prints a box of many, with Python's types."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Sequence

from musicgen_lora.config.kinds import with_point
from musicgen_lora.misspelt import nearest
from musicgen_lora.urls import as_list


def flag_error(box: str, names: Sequence[str]) -> str:
    """Turns tyro's complaint about a flag into one line; one that is unknown here stays in its
    words.

    Args:
        names: of the settings that have a flag.
    """
    # The title is in the box's upper edge, or above a line if there are no edges.
    lines = [line.strip("│ ") for line in box.splitlines()[1:]]
    lines = lines[1:] if lines and not lines[0].strip("-") else lines
    inside = itertools.takewhile(lambda line: line.strip("─-╰╯"), lines)
    said = " ".join(inside)
    if match := re.fullmatch(r"Unrecognized options: (.*)", said):
        return _unknown(match[1], names)
    if match := re.fullmatch(r"Missing value for argument '(.*)'\. Expected .*", said):
        return f"{match[1]} needs a value."
    if match := re.fullmatch(r"invalid choice '(.*)' for argument '(.*)'\. .*\((.*)\)\.", said):
        # If a setting may be None, their order changes from run to run.
        choices = sorted(re.findall(r"'(.*?)'", match[3]), key=lambda name: (name == "None", name))
        return f"{match[2]} {match[1]}: must be one of {', '.join(choices)}."
    if match := re.fullmatch(r"Error parsing (\S+): .*", said):
        return _unreadable(match[1], said, lines)
    return said


def _unknown(words: str, names: Sequence[str]) -> str:
    """The line for words that no flag takes."""
    first = words.partition(", ")[0]
    if not first.startswith("-"):
        return f"{first}: doesn't belong to a flag; put text of several words in quotes."
    # To tyro, --prompt is nearest to --negative_prompt.
    flag = first.partition("=")[0]
    if near := nearest(flag.strip("-").replace("-", "_"), names):
        return f"{flag}: no such flag; did you mean --{near}?"
    return f"{first}: no such flag; --help lists them."


def _unreadable(flag: str, said: str, lines: Sequence[str]) -> str:
    """The line for a value of the wrong type."""
    value = said.rpartition(": ")[2] if said.endswith("'") else said[said.rfind("[") :]
    try:
        shown = " ".join(as_list(ast.literal_eval(value.rstrip("."))))
    except (ValueError, SyntaxError, TypeError):
        shown = value.strip("[].").replace("'", "").replace(",", "")
    # As the help has it, in which a list of numbers is "[FLOAT [FLOAT ...]]".
    form = next((line for line in lines if line.startswith(f"{flag} ")), "")
    if "FLOAT" in form:
        if point := with_point(shown):
            return f"{flag} {shown}: must be a number; write a point: {point}."
        return f"{flag} {shown}: must be a number."
    if "INT" in form:
        return f"{flag} {shown}: must be a whole number."
    return f"{flag} {shown}: can't be read; see --help for what goes there."
