"""The dataset's `metadata.json`: reading, checking, splitting.

A list of `{"audio": "train/x.wav", "text": "..."}` with optional fields: `texts` (variants of
the caption), `split`, `source`, `start_s`, `duration_s`, `bpm`, `key`, `tags`. A person edits it
by hand; fields that we do not know survive.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from musicgen_lora import atomic
from musicgen_lora.errors import UserError

VALIDATION_SPLITS = {"validation", "valid", "val", "dev", "test"}


@dataclass(frozen=True)
class Clip:
    """One entry of a dataset.

    Args:
        audio: path as the metadata has it, relative to the dataset's folder.
        path: the file itself.
        texts: captions, at least one; training draws among them.
        source: what it was cut from; a source is never on both sides of a split.
        split: "train", "validation", or None where the metadata doesn't say.
        start_s: where in the file it begins.
        duration_s: how long it is; None means to the file's end.
        fields: the whole entry as it stands in the metadata.
    """

    audio: str
    path: Path
    texts: tuple[str, ...]
    source: str
    split: str | None = None
    start_s: float = 0.0
    duration_s: float | None = None
    fields: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        """Unique in the dataset: the path, and the window where it is part of a file."""
        if self.start_s == 0.0 and self.duration_s is None:
            return self.audio
        return f"{self.audio}@{self.start_s:.10g}+{self.duration_s or 0.0:.10g}"


def read_entries(path: Path) -> list[dict[str, Any]]:
    """The raw entries of a metadata file.

    Raises:
        UserError: missing, not JSON, or not a list of objects.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such metadata file; make one with prepare_data.py.")
    try:
        # Some editors begin a file with a byte order mark.
        text = path.read_text(encoding="utf-8-sig")
        entries = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: not valid JSON ({error}).") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f'{path}: must be a list of objects like {{"audio": ..., "text": ...}}.')
    return entries


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def write_entries(path: Path, entries: Sequence[dict[str, Any]]) -> None:
    """Writes a metadata file, whole or not at all."""
    atomic.write_json(path, list(entries))


def load_dataset(data_dir: Path, metadata_file: str = "metadata.json") -> list[Clip]:
    """The clips of a dataset, checked.

    Raises:
        UserError: no such folder; the metadata is missing or wrong; an entry lacks a field,
            names a missing file or points outside the folder; two entries are the same clip.
    """
    if not data_dir.is_dir():
        raise UserError(f"{data_dir}: no such data folder; make one with prepare_data.py.")
    path = data_dir / metadata_file
    entries = read_entries(path)
    if not entries:
        raise UserError(f"{path}: no entries; add audio with prepare_data.py.")
    root = data_dir.resolve()
    clips = [_clip(entry, index, path, root) for index, entry in enumerate(entries)]
    seen: set[str] = set()
    for clip in clips:
        if clip.name in seen:
            raise UserError(f"{path}: {clip.name} is listed twice; remove one entry.")
        seen.add(clip.name)
    return clips


def _clip(entry: dict[str, Any], index: int, path: Path, root: Path) -> Clip:
    where = f"{path}: entry {index + 1}"
    audio = entry.get("audio")
    if not isinstance(audio, str) or not audio:
        raise UserError(f'{where} lacks "audio", the path of its file.')
    text, variants = entry.get("text"), entry.get("texts")
    # Who edits "text" by hand means it, whatever variants an earlier run had made of it.
    edited = isinstance(variants, list) and text is not None and text not in variants
    texts: Any = [text] if edited or not variants else variants
    if not isinstance(texts, list) or not all(isinstance(t, str) and t.strip() for t in texts):
        raise UserError(f'{where} ({audio}) lacks "text", its caption.')
    try:
        file = (root / audio).resolve()
    except (OSError, ValueError) as error:
        raise UserError(f"{where}: {audio!r} is not a usable path ({error}).") from error
    if not file.is_relative_to(root):
        raise UserError(f"{where}: {audio} points outside the data folder.")
    if not file.is_file():
        raise UserError(f"{where}: {audio} does not exist in {root}.")
    split = entry.get("split")
    if split is not None:
        split = "validation" if str(split).lower() in VALIDATION_SPLITS else "train"
    start_s, duration_s = entry.get("start_s") or 0.0, entry.get("duration_s")
    if not _is_number(start_s) or start_s < 0:
        raise UserError(f'{where} ({audio}): "start_s" must be a number of seconds.')
    if duration_s is not None and (not _is_number(duration_s) or duration_s <= 0):
        raise UserError(f'{where} ({audio}): "duration_s" must be a number of seconds above 0.')
    return Clip(
        audio=audio,
        path=file,
        texts=tuple(texts),
        source=str(entry.get("source") or audio),
        split=split,
        # Without a start, the duration only tells how long the file is.
        start_s=float(start_s),
        duration_s=float(duration_s) if duration_s is not None and "start_s" in entry else None,
        fields=entry,
    )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def split_clips(
    clips: Sequence[Clip], validation_fraction: float, seed: int
) -> tuple[list[Clip], list[Clip]]:
    """Training and validation clips, apart by source.

    Splits that the metadata states are kept; sources without one are held out by the hash of
    (seed, source), at least one of them, so that adding clips hardly moves the others. With
    fewer than two sources, or a fraction of 0, nothing is held out.

    Raises:
        UserError: the metadata puts one source on both sides, or leaves nothing to train on.
    """
    stated = {clip.source: clip.split for clip in clips if clip.split is not None}
    for clip in clips:
        if clip.split is not None and stated[clip.source] != clip.split:
            raise UserError(
                f"{clip.audio}: its source {clip.source!r} is in both train and validation; the "
                "validation loss would lie. Give all its clips one split."
            )
    held_out = {source for source, split in stated.items() if split == "validation"}
    open_sources = sorted({clip.source for clip in clips} - set(stated))
    if not held_out and validation_fraction > 0.0 and len(stated) + len(open_sources) > 1:
        ranked = sorted(open_sources, key=lambda source: _hash(seed, source))
        n_held_out = max(1, round(validation_fraction * len(ranked)))
        held_out = set(ranked[: min(n_held_out, len(stated) + len(ranked) - 1)])
    train = [clip for clip in clips if clip.source not in held_out]
    if not train:
        raise UserError("Every clip is in the validation split; nothing is left to train on.")
    return train, [clip for clip in clips if clip.source in held_out]


def _hash(seed: int, source: str) -> bytes:
    return hashlib.sha256(f"{seed}:{source}".encode()).digest()
