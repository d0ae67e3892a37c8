"""Corrections of captions, tempos and keys in a dataset's metadata, made while no command writes
there. They count as edits by hand, which a later preparation keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from musicgen_lora.dataset.caption_words import BPM_RANGE, normalise_bpm
from musicgen_lora.dataset.metadata import read_entries, write_entries
from musicgen_lora.errors import UserError
from musicgen_lora.formats.kinds import is_number
from musicgen_lora.listening.pitch.key_names import normalise_key
from musicgen_lora.runtime.locks import locked
from musicgen_lora.webui.safety import id_of
from musicgen_lora.webui.workspace import METADATA, clip_name

MAX_CAPTION = 2_000
Entry = dict[str, Any]
Row = tuple[str, str, str, str]
"""A clip's name, caption, tempo and key as the table shows them."""


def row_of(entry: Entry) -> Row:
    """An entry as the table shows it."""
    bpm = entry.get("bpm")
    tempo = f"{bpm:g}" if is_number(bpm) else ""
    caption = str(entry.get("text") or (entry.get("texts") or [""])[0])
    return (clip_name(entry), caption, tempo, str(entry.get("key") or ""))


def mark_of(row: Row) -> str:
    """A mark of what a row said when the table was loaded: one word per field."""
    return " ".join(id_of(value.strip())[:8] for value in row[1:])


def save_rows(dataset: Path, rows: Sequence[Row], read: Mapping[str, str]) -> int:
    """Writes what a person changed in the table.

    Args:
        rows: of the table; clips that aren't in it stay as they are.
        read: marks of the rows as they were loaded, by the clip's name. A field untouched since
            then is not an edit, whatever the metadata says by now.

    Returns:
        How many clips were changed.

    Raises:
        UserError: a caption is empty, a tempo is not a number, a key is unknown, a field changed in
            the table has also changed elsewhere, or a command is using the dataset; nothing was
            written.
    """
    wanted = {row[0]: row for row in rows}

    def edit(entry: Entry) -> Entry:
        before = row_of(entry)
        row = wanted.get(before[0])
        if row is None:
            return entry
        is_new = _changed(row, before, read.get(before[0], ""))
        _, caption, tempo, key = (value.strip() for value in row)
        edited = dict(entry)
        if is_new[0]:
            edited["text"] = _caption(caption, before[0])
        if is_new[1]:
            _set(edited, "bpm", _tempo(tempo, before[0]))
        if is_new[2]:
            _set(edited, "key", _key(key, before[0]))
        return edited

    return _edit_all(dataset, edit)


def _changed(row: Row, before: Row, read: str) -> list[bool]:
    """Which of caption, tempo and key a person has changed in a row.

    Args:
        before: what the metadata says.
        read: mark of the row as it was loaded.
    """
    typed, known = mark_of(row).split(), mark_of(before).split()
    found = []
    for now, there, was in zip(typed, known, read.split() or [""] * 3, strict=True):
        found.append(now not in (there, was))
        if found[-1] and there != was:
            raise UserError(f"{row[0]}: has changed since this table was loaded; reload it first.")
    return found


def replace_in_captions(dataset: Path, find: str, replacement: str) -> int:
    """Replaces text in all captions and their variants; returns how many clips were changed."""
    if not find:
        raise UserError("Enter the text to find.")
    return _edit_captions(dataset, lambda caption: caption.replace(find, replacement))


def prefix_captions(dataset: Path, prefix: str) -> int:
    """Puts a word in front of all captions that don't begin with it; returns how many clips were
    changed."""
    word = prefix.strip()
    if not word:
        raise UserError("Enter a word to put in front.")
    begins = word.rstrip(",")

    def put(caption: str) -> str:
        return caption if caption.startswith(begins) else f"{begins}, {caption}"

    return _edit_captions(dataset, put)


def _edit_captions(dataset: Path, change: Callable[[str], str]) -> int:
    def edit(entry: Entry) -> Entry:
        edited, name = dict(entry), str(entry.get("audio"))
        if isinstance(entry.get("text"), str):
            edited["text"] = _caption(change(entry["text"]), name)
        if isinstance(entry.get("texts"), list):
            edited["texts"] = [_caption(change(str(text)), name) for text in entry["texts"]]
        return edited

    return _edit_all(dataset, edit)


def _edit_all(dataset: Path, edit: Callable[[Entry], Entry]) -> int:
    path = dataset / METADATA
    with locked(dataset, wait_s=1.0):
        before = read_entries(path)
        after = [edit(entry) for entry in before]
        count = sum(old != new for old, new in zip(before, after, strict=True))
        if count:
            write_entries(path, after)
    return count


def _caption(text: str, name: str) -> str:
    caption = " ".join(text.split())
    if not caption:
        raise UserError(f"{name}: the caption is empty; say what can be heard.")
    return caption[:MAX_CAPTION]


def _tempo(text: str, name: str) -> float | int | None:
    if not text:
        return None
    bpm = normalise_bpm(text)
    if bpm is None:
        least, most = BPM_RANGE
        raise UserError(f"{name}: tempo {text[:20]!r} is not a number from {least:g} to {most:g}.")
    return int(bpm) if bpm == int(bpm) else bpm


def _key(text: str, name: str) -> str | None:
    key = normalise_key(text)
    if text and key is None:
        raise UserError(
            f'{name}: {text[:20]!r}: no such key; give one such as "C# minor", "Bb major" or "Fm".'
        )
    return key


def _set(entry: Entry, name: str, value: Any) -> None:
    if value is None:
        entry.pop(name, None)
    else:
        entry[name] = value
