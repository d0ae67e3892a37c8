"""A dataset's metadata while a program and a person both write it.

A preparation takes minutes, in which a person may well edit captions. So the dataset is locked
against other programs, and what stands in the file is read again and merged before each write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from musicgen_lora import atomic
from musicgen_lora.dataset.metadata import read_entries, write_entries
from musicgen_lora.prepare.rerun.succession import CUT_ANEW, Entry, mark
from musicgen_lora.prepare.words.captions import MADE_FIELD

_MISSING = object()


class SharedMetadata:
    """The entries of a metadata file, written over and over; the dataset must be locked.

    Raises:
        UserError: the file is there and is no metadata.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.exists = path.exists()
        self._first: list[Entry] = read_entries(path) if self.exists else []
        self._intended = list(self._first)
        self._digest = self._look()
        self.was_edited = False
        """Whether somebody changed the file since it was read."""

    @property
    def entries(self) -> list[Entry]:
        """The entries as they were read."""
        return list(self._intended)

    def write(self, entries: Sequence[Entry]) -> list[Entry]:
        """Writes entries, with the changes that somebody made in the file since it was read.

        Returns:
            What stands in the file now.

        Raises:
            UserError: the file is no metadata any more; nothing is written.
        """
        merged = list(entries)
        # What was edited before the last write stands in the file, and not in what is given.
        self.was_edited |= self._look() != self._digest
        if self.was_edited and self.path.exists():
            theirs = read_entries(self.path)
            merged = merge_entries(self._intended, merged, theirs, self._first)
        write_entries(self.path, merged)
        self._intended, self._digest = list(entries), self._look()
        return merged

    def _look(self) -> str:
        return atomic.sha256_file(self.path) if self.path.exists() else ""


def merge_entries(
    base: Sequence[Entry],
    ours: Sequence[Entry],
    theirs: Sequence[Entry],
    first: Sequence[Entry],
) -> list[Entry]:
    """Our entries with the changes from `base` to `theirs`: fields edited, entries taken out,
    entries added. An entry that they edited and we dropped stays, marked `skip`.

    Args:
        base: as we meant to write them the last time.
        ours: as we mean to write them now.
        theirs: as they stand in the file.
        first: as we read them. An editor may have held the file open since then and know nothing of
            what we wrote meanwhile: what is as it was at first is no change of theirs.
    """
    before, now, own, read = map(_by_name, (base, theirs, ours, first))
    merged = []
    for name, entry in own.items():
        if name not in now and name in before and name in read:
            continue
        if name in now:
            entry = _with_edits(entry, now[name], (before.get(name, {}), read.get(name, {})))
        merged.append(entry)
    for name, entry in now.items():
        if name in own or entry in (before.get(name), read.get(name)):
            continue
        merged.append(mark(entry, CUT_ANEW) if name in before else entry)
    return merged


def _with_edits(
    entry: Entry, edited: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]]
) -> Entry:
    """The entry with the fields that are none of the earlier ones."""
    merged = dict(entry)
    for name in {*edited, *(name for each in earlier for name in each)}:
        value = edited.get(name, _MISSING)
        if name == MADE_FIELD or any(value == each.get(name, _MISSING) for each in earlier):
            continue
        if value is _MISSING:
            merged.pop(name, None)
        else:
            merged[name] = value
    return merged


def _by_name(entries: Sequence[Entry]) -> dict[str, Entry]:
    """The entries by a name of their own, also where a person listed one twice."""
    named: dict[str, Entry] = {}
    for entry in entries:
        name = repr([entry.get("audio"), entry.get("start_s")])
        while name in named:
            name += "+"
        named[name] = entry
    return named
