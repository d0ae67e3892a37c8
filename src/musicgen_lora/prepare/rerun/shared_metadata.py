"""A dataset's metadata while both the program and the user write it.

A preparation takes minutes, during which the user may edit captions. So the dataset is locked
against other runs, and the file is read again and merged before each write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from musicgen_lora import atomic
from musicgen_lora.dataset.metadata import read_entries, write_entries
from musicgen_lora.prepare.rerun.succession import CUT_ANEW, Entry, mark
from musicgen_lora.prepare.words.captions import MADE_FIELD

_MISSING = object()


class SharedMetadata:
    """The entries of a metadata file, which is rewritten repeatedly; the dataset must be locked.

    Args:
        before_writing: called then; nothing is written if they raise.

    Raises:
        UserError: the file exists and is not metadata.
    """

    def __init__(self, path: Path, before_writing: Sequence[Callable[[], None]] = ()) -> None:
        self.path = path
        self._before_writing = before_writing
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
            The entries that are in the file now.

        Raises:
            UserError: the file is no longer metadata; nothing is written.
        """
        for check in self._before_writing:
            check()
        merged = list(entries)
        # Edits from before the last write are in the file but not in `entries`.
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
        base: the entries that we meant to write last time.
        ours: the entries that we mean to write now.
        theirs: the entries in the file.
        first: the entries as first read. An editor may have held the file open since then and not
            know what we wrote meanwhile: whatever still equals these is not a change of theirs.
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
    """The entry with those edited fields that equal none of the earlier ones."""
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
    """The entries by unique names, even if somebody listed one twice."""
    named: dict[str, Entry] = {}
    for entry in entries:
        name = repr([entry.get("audio"), entry.get("start_s")])
        while name in named:
            name += "+"
        named[name] = entry
    return named
