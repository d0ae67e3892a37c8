"""The dataset's `metadata.json`: reading, checking, splitting.

A list of `{"audio": "train/x.wav", "text": "..."}` with optional fields: `texts` (variants of
the caption), `split`, `source`, `start_s`, `duration_s`, `bpm`, `key`, `tags`, and `skip`, which
takes a clip out. Users edit it by hand; unknown fields are kept.
"""

from __future__ import annotations

import hashlib
import json
import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import pyarrow as pa

from musicgen_lora import atomic
from musicgen_lora.dataset import cache as kept_tables
from musicgen_lora.dataset.cache import STATE, compute, states_of_files
from musicgen_lora.dataset.splits import normalise_split, source_of
from musicgen_lora.errors import UserError
from musicgen_lora.formats import kinds
from musicgen_lora.formats.documents import parse_json, read_bytes
from musicgen_lora.formats.kinds import check_kind, either, fields, many, named, or_null, real, text
from musicgen_lora.given import check_metadata_file
from musicgen_lora.plural import count

MAX_BYTES = 1 << 30
"""Size of a metadata file; a million clips take some 400 MB."""
MAX_S = 1e9

_SECONDS = or_null(real(0.0, MAX_S))
_TEXT = or_null(text(1 << 20))
_ENTRY = fields(
    optional={
        **dict.fromkeys(("audio", "text", "made_from"), _TEXT),
        "texts": or_null(many(text(1 << 20))),
        "source": either(_TEXT, real(-1e300, 1e300)),
        # A user may have written it as text, which is reported where it is used.
        "duration_s": either(_SECONDS, text()),
        "at_s": _SECONDS,
        "made": or_null(named(text())),
    }
)
"""The fields that `prepare` relies on; all are optional, and there may be others."""
SCHEMA = pa.schema(
    {
        "audio": pa.string(),
        "texts": pa.list_(pa.string()),
        "source": pa.string(),
        "split": pa.string(),
        "start_s": pa.float64(),
        "duration_s": pa.float64(),
        "entry": pa.large_string(),
    }
)
"""What the metadata says about a clip, as in `Clip`."""
CLIP_SCHEMA = pa.schema([*SCHEMA, *STATE])
"""All fields of a `Clip` except its folder."""
INDEX_VERSION = 2
"""Raise it when the same metadata is interpreted differently."""
INDEXED_FROM = 1_000
"""Number of clips from which the metadata is cached: fewer are read in no time."""


class Clip(NamedTuple):
    """One entry of a dataset.

    Args:
        audio: path as in the metadata, relative to the dataset's folder.
        texts: captions, at least one; training draws among them.
        source: what it was cut from; a source is never on both sides of the split.
        split: "train", "validation", or None if the metadata doesn't say.
        duration_s: its length; None means to the file's end.
        entry: the whole metadata entry as JSON, with sorted keys.
        size_bytes: of the file when the dataset was loaded; None if files were not looked at.
        mtime_ns: the file's modification time; likewise.
        ctime_ns: its change time; likewise.
        inode: its inode; likewise.
    """

    audio: str
    folder: Path
    texts: tuple[str, ...]
    source: str
    split: str | None = None
    start_s: float = 0.0
    duration_s: float | None = None
    entry: str = "{}"
    size_bytes: int | None = None
    mtime_ns: int | None = None
    ctime_ns: int | None = None
    inode: int | None = None

    @property
    def path(self) -> Path:
        """The file itself."""
        return self.folder / self.audio

    @property
    def name(self) -> str:
        """Unique in the dataset: the path, plus the window if the clip is part of a file."""
        return self.audio + window_name(self.start_s, self.duration_s)

    @property
    def fields(self) -> dict[str, Any]:
        """The whole metadata entry."""
        return json.loads(self.entry)


class Clips(Sequence[Clip]):
    """Clips as Arrow columns: a `Clip` is made only when accessed, since making a hundred thousand
    of them takes longer, and more memory, than everything else before the first step.

    Args:
        table: of `CLIP_SCHEMA`.
        rows: rows of the table, in order; None for all.
    """

    def __init__(self, table: pa.Table, folder: Path, rows: np.ndarray | None = None) -> None:
        self._table, self._folder = table, folder
        self._rows = np.arange(table.num_rows) if rows is None else rows

    @classmethod
    def of(cls, clips: Sequence[Clip]) -> Clips:
        """Converts any sequence of clips from one dataset."""
        if isinstance(clips, Clips):
            return clips
        columns = {name: [getattr(clip, name) for clip in clips] for name in CLIP_SCHEMA.names}
        (folder,) = {clip.folder for clip in clips} or {Path()}
        return cls(pa.table(columns, schema=CLIP_SCHEMA), folder)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Clip: ...

    @overload
    def __getitem__(self, index: slice) -> Clips: ...

    def __getitem__(self, index: int | slice) -> Clip | Clips:
        if isinstance(index, slice):
            return Clips(self._table, self._folder, self._rows[index])
        row = int(self._rows[index])
        return self._clip(*(self._table[name][row].as_py() for name in CLIP_SCHEMA.names))

    def __iter__(self) -> Iterator[Clip]:
        return map(self._clip, *(self.column(name).to_pylist() for name in CLIP_SCHEMA.names))

    def _clip(self, audio: str, texts: list[str], *others: Any) -> Clip:
        return Clip(audio, self._folder, tuple(texts), *others)

    def take(self, rows: Sequence[int] | np.ndarray) -> Clips:
        """The clips of these rows."""
        return Clips(self._table, self._folder, self._rows[np.asarray(rows, np.int64)])

    def column(self, name: str) -> Any:
        """A field of all clips as an Arrow array."""
        chunks = self._table[name]
        # `combine_chunks` copies even a single chunk.
        whole = chunks.chunk(0) if chunks.num_chunks == 1 else chunks.combine_chunks()
        is_whole = len(self) == len(whole) and bool((np.diff(self._rows, prepend=-1) == 1).all())
        return whole if is_whole else whole.take(pa.array(self._rows))

    def names(self) -> list[str]:
        """`Clip.name` of all clips."""
        return list(map(operator.add, self.column("audio").to_pylist(), self.window_names()))

    def window_names(self) -> list[str]:
        """`window_name` of all clips."""
        starts, lengths = self.column("start_s"), self.column("duration_s")
        if lengths.null_count == len(self) and not np.asarray(starts).any():
            return [""] * len(self)
        return list(map(window_name, starts.to_pylist(), lengths.to_pylist()))


def parts_sentence(clips: Clips) -> str:
    """A sentence that says how many clips are parts of files, or "": otherwise nobody would notice
    that the rest of those files is not used."""
    n = sum(map(bool, clips.window_names()))
    if not n:
        return ""
    return f"Parts of files (start_s and duration_s in the metadata): {count(n, 'clip')}."


def window_name(start_s: float, duration_s: float | None) -> str:
    """What distinguishes a part of a file from other parts; "" for the whole file."""
    if start_s == 0.0 and duration_s is None:
        return ""
    return f"@{start_s:.10g}+{duration_s or 0.0:.10g}"


def read_entries(path: Path) -> list[dict[str, Any]]:
    """The raw entries of a metadata file.

    Raises:
        UserError: missing, not JSON, not a list of objects, or a field that we write has the wrong
            type.
    """
    entries = _parse(path, _read(path))
    for number, entry in enumerate(entries, 1):
        check_kind(entry, _ENTRY, f"{path}: entry {number}")
    return entries


def _read(path: Path) -> bytes:
    if not os.path.isfile(path):
        raise UserError(f"{path}: no such metadata file; make one with prepare_data.py.")
    return read_bytes(path, MAX_BYTES)


def _parse(path: Path, content: bytes) -> list[dict[str, Any]]:
    entries = parse_json(content, path, unique_keys=True)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f'{path}: must be a list of objects like {{"audio": ..., "text": ...}}.')
    return entries


def write_entries(path: Path, entries: Sequence[dict[str, Any]]) -> None:
    """Writes a metadata file, whole or not at all."""
    atomic.write_json(path, list(entries))


def load_dataset(
    data_dir: Path, metadata_file: str = "metadata.json", *, look_at_files: bool = True
) -> Clips:
    """The clips of a dataset, checked.

    The parsed entries of a large dataset are cached in `tokens/` under the hash of the metadata:
    reading them from there is several times as fast. Every load checks that the files exist and lie
    in the folder.

    Args:
        look_at_files: False if the caller opens no audio, see `tokens.open_tokens`.

    Raises:
        UserError: no such folder; the metadata is missing or wrong; an entry lacks a field,
            names a missing file or one outside the folder; two entries are the same clip.
    """
    check_metadata_file(data_dir, metadata_file)
    path, root = data_dir / metadata_file, data_dir.resolve()
    content = _read(path)
    index = root / "tokens" / f"{path.name}.arrow"
    key = f"{INDEX_VERSION} {hashlib.sha256(content).hexdigest()}"
    table = kept_tables.read_table(index, key, SCHEMA)
    if table is None:
        table = _as_table(_parse(path, content), path)
        if table.num_rows >= INDEXED_FROM:
            kept_tables.keep_table(index, key, table)
    audio = table["audio"].combine_chunks()
    unseen = len(STATE) * [pa.nulls(len(audio), pa.int64())]
    where = partial(_where, path, content)
    for column in states_of_files(audio, where, root) if look_at_files else unseen:
        table = table.append_column(CLIP_SCHEMA.field(table.num_columns), column)
    return Clips(table, root)


def is_skipped(entry: Mapping[str, Any], where: str = "") -> bool:
    """Whether an entry is taken out: its `skip` is true or a text with the reason.

    Raises:
        UserError: it is anything else; the message begins with `where`.
    """
    skip = entry.get("skip")
    is_text = isinstance(skip, str)
    if not (skip is None or isinstance(skip, (bool, str))) or (
        is_text and skip.strip().lower() in ("true", "false", "yes", "no", "")
    ):
        raise UserError(f'{where}"skip" must be true or false, without quotes, or a reason.')
    return bool(skip)


def _where(path: Path, content: bytes, audio: str) -> str:
    """Where the metadata lists a file, for messages."""
    for number, entry in enumerate(_parse(path, content), 1):
        if entry.get("audio") == audio and not is_skipped(entry):
            return f"{path}: entry {number}"
    return str(path)


def _as_table(entries: list[dict[str, Any]], path: Path) -> pa.Table:
    """The entries as a table, one row each, without looking at the files."""
    if not entries:
        raise UserError(f"{path}: no entries; add audio with prepare_data.py.")
    rows = [
        _row(entry, f"{path}: entry {number}")
        for number, entry in enumerate(entries, 1)
        if not is_skipped(entry, f"{path}: entry {number}: ")
    ]
    if not rows:
        raise UserError(f'{path}: all of its clips are taken out by "skip"; remove it from some.')
    seen: set[str] = set()
    for audio, *_, start_s, duration_s, _ in rows:
        name = audio + window_name(start_s, duration_s)
        if name in seen:
            raise UserError(f"{path}: {name} is listed twice; remove one entry.")
        seen.add(name)
    columns = zip(zip(*rows, strict=True), SCHEMA.types, strict=True)
    return pa.Table.from_arrays([pa.array(c, kind) for c, kind in columns], schema=SCHEMA)


def _row(entry: dict[str, Any], where: str) -> tuple[Any, ...]:
    """The columns of `SCHEMA`."""
    audio = entry.get("audio")
    if not isinstance(audio, str) or not audio:
        raise UserError(f'{where} lacks "audio", the path of its file.')
    text, variants = entry.get("text"), entry.get("texts")
    # A "text" that was edited by hand replaces the variants that an earlier run made.
    edited = isinstance(variants, list) and text is not None and text not in variants
    texts: Any = [text] if edited or not variants else variants
    if not isinstance(texts, list) or not all(isinstance(t, str) and t.strip() for t in texts):
        raise UserError(f'{where} ({audio}) lacks "text", its caption.')
    split = normalise_split(entry.get("split"), f"{where} ({audio})")
    start_s, duration_s = entry.get("start_s") or 0.0, entry.get("duration_s")
    if not kinds.is_number(start_s) or not 0 <= start_s <= MAX_S:
        raise UserError(f'{where} ({audio}): "start_s" must be a number of seconds.')
    if duration_s is not None and (not kinds.is_number(duration_s) or not 0 < duration_s <= MAX_S):
        raise UserError(f'{where} ({audio}): "duration_s" must be a number of seconds above 0.')
    # Without a start, the duration is just the length of the file.
    duration_s = float(duration_s) if duration_s is not None and "start_s" in entry else None
    whole = json.dumps(entry, sort_keys=True, ensure_ascii=False)
    return audio, texts, source_of(entry), split, float(start_s), duration_s, whole


def split_clips(
    clips: Sequence[Clip], validation_fraction: float, seed: int
) -> tuple[Clips, Clips]:
    """The training and validation clips, split by source, see `split_rows`."""
    clips = Clips.of(clips)
    train, held_out = split_rows(clips, validation_fraction, seed)
    return clips.take(train), clips.take(held_out)


def split_rows(
    clips: Clips, validation_fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the training and of the validation clips, split by source.

    Splits stated in the metadata are kept; sources without one are held out by the hash of (seed,
    source), at least one of them, so that adding clips hardly moves the others. With fewer than
    two sources, or a fraction of 0, nothing is held out.

    Raises:
        UserError: the metadata puts one source on both sides, or leaves nothing to train on.
    """
    sources, splits = clips.column("source"), clips.column("split")
    stated: dict[str, str] = {}
    rows = np.flatnonzero(splits.is_valid())
    said = (clips.take(rows).column(name).to_pylist() for name in ("source", "split"))
    for row, source, split in zip(rows.tolist(), *said, strict=True):
        if stated.setdefault(source, split) != split:
            raise UserError(
                f"{clips[row].audio}: its source {source!r} is in both train and validation, which "
                "makes the validation loss meaningless. Give all its clips the same split."
            )
    held_out = {source for source, split in stated.items() if split == "validation"}
    open_sources = sorted(set(sources.unique().to_pylist()) - set(stated))
    if not held_out and validation_fraction > 0.0 and len(stated) + len(open_sources) > 1:
        ranked = sorted(open_sources, key=lambda source: _hash(seed, source))
        n_held_out = max(1, round(validation_fraction * len(ranked)))
        held_out = set(ranked[: min(n_held_out, len(stated) + len(ranked) - 1)])
    is_held_out = compute.is_in(sources, value_set=pa.array(held_out, pa.string())).to_numpy(False)
    if is_held_out.all():
        raise UserError("Every clip is in the validation split; nothing is left to train on.")
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)


def held_out_bound(held_out: Clips, seed: int) -> str | None:
    """A bound that tells, without a list of names, whether a source was held out by its rank: the
    largest hash of those that were, in hex. None if the metadata states the split.

    Args:
        held_out: the clips that `split_rows` held out.
    """
    if not len(held_out) or held_out.column("split").null_count < len(held_out):
        return None
    sources = held_out.column("source").unique().to_pylist()
    return max(_hash(seed, source) for source in sources).hex()


def is_held_out(clip: Clip, seed: int, bound: str | None) -> bool:
    """Whether a clip was held out from training with this seed and `held_out_bound`."""
    if bound is None:
        return clip.split == "validation"
    return clip.split is None and _hash(seed, clip.source).hex() <= bound


def _hash(seed: int, source: str) -> bytes:
    return hashlib.sha256(f"{seed}:{source}".encode()).digest()
