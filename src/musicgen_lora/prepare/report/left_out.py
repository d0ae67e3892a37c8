"""Files that are left out, grouped by reason: 200 one-shots of a pack should take one line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console

from musicgen_lora.language.translate import filled, joined, translated, word
from musicgen_lora.plural import count
from musicgen_lora.prepare.reading.inputs import Dropped

MAX_NAMES = 3
"""Files that each line names."""
MAX_REASONS = 20
"""Reasons that the terminal lists; the report lists all."""
COPIES = "copies of files that are kept"

OF_ONE_FILE = ("is ", "has ", "was ", "goes ", "ends ", "changes ", "decodes ")
"""How reasons begin that are sentences about one file."""

_NUMBER = re.compile(r"(?<![^\s(])\d+(?:\.\d+)?(?=[\s).,]|$)")


@dataclass(frozen=True)
class LeftOut:
    """Files that are left out for one reason.

    Args:
        told: the reason; reasons that differ only in their figures are one, with the range.
        names: the files; copies with the file that they are copies of.
    """

    told: str
    names: tuple[str, ...]

    def in_one_line(self) -> str:
        """The terminal's line: the reason and the first names."""
        told = word(self.told)
        if len(self.names) == 1:
            if self.told == COPIES:
                return translated(self.names[0])
            return filled("{0}: {1}", self.names[0], told)
        names = joined(self.names[:MAX_NAMES])
        rest = len(self.names) - MAX_NAMES
        if rest > 0:
            names = filled("{0} and {1} more, in the report", names, rest)
        files, told = count(len(self.names), "file"), told.rstrip(".。")
        if self.told.startswith(OF_ONE_FILE):
            return filled("{0}, each of which {1}: {2}", word(files), told, names)
        return filled("{0}: {1}: {2}", word(files), told, names)


def by_reason(dropped: Iterable[Dropped]) -> list[LeftOut]:
    """The files by reason, the commonest first."""
    kinds: dict[str, list[Dropped]] = {}
    for drop in dropped:
        kinds.setdefault(_kind(drop), []).append(drop)
    found = []
    for drops in kinds.values():
        if drops[0].equals is not None:
            names = [f"{drop.name} ({drop.reason.rstrip('.')})" for drop in drops]
            found.append(LeftOut(COPIES, tuple(names)))
        else:
            told = _in_one([drop.reason for drop in drops])
            found.append(LeftOut(told, tuple(drop.name for drop in drops)))
    return sorted(found, key=lambda kind: -len(kind.names))


def tell_left_out(console: Console, dropped: Iterable[Dropped]) -> None:
    """Prints a line for each reason."""
    kinds = by_reason(dropped)
    for kind in kinds[:MAX_REASONS]:
        console.print(f"left out: {kind.in_one_line()}", style="yellow", soft_wrap=True)
    if len(kinds) > MAX_REASONS:
        n_more = sum(len(kind.names) for kind in kinds[MAX_REASONS:])
        console.print(f"... and {n_more} more files for other reasons, in the report.")


def _kind(drop: Dropped) -> str:
    if drop.equals is not None:
        return COPIES
    # Figures in a path are part of a name.
    return drop.reason if "/" in drop.reason else _NUMBER.sub("0", drop.reason)


def _in_one(reasons: Sequence[str]) -> str:
    """One reason for several that differ only in figures: "0.2 to 0.9 s is shorter than 1 s"."""
    if len(set(reasons)) == 1:
        return reasons[0]
    figures = zip(*(_NUMBER.findall(reason) for reason in reasons), strict=True)
    ranges = []
    for column in figures:
        least, most = min(column, key=float), max(column, key=float)
        ranges.append(least if least == most else f"{least} to {most}")
    told = iter(ranges)
    return _NUMBER.sub(lambda _: next(told), reasons[0])
