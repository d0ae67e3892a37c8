"""Token shards: the audio encoded by the codec, independent of captions and splits.

docs/architecture.md describes their layout on disk. Clips are identified by their audio
(`dataset.clip_ids`), and resuming means encoding the missing ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from musicgen_lora import atomic
from musicgen_lora.console import OnStep
from musicgen_lora.dataset import cache as kept_tables
from musicgen_lora.dataset.clip_ids import kept_ids
from musicgen_lora.dataset.encoding import Encode, ShardPlan, UnencodedClips, encode_here
from musicgen_lora.dataset.metadata import Clip, compute
from musicgen_lora.errors import RIGHTS_FAULTS, UserError, audio_unread
from musicgen_lora.formats.arrays import ArrayFile, open_array
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.runtime.locks import staying

MOST_OPEN = 100
"""Shards open at once: systems allow 256 or 1,024 open files."""
MAX_CODES = 1 << 16
MAX_INDEX_BYTES = 64 << 20
"""Largest index of a shard; an index takes 80 bytes per clip."""
INDEX_FILE = "index.arrow"
INDEX_VERSION = 1
INDEX = pa.schema(
    {"id": pa.string(), "shard": pa.string(), "offset": pa.int64(), "n_frames": pa.int64()}
)
"""Columns of the index of a folder's shards."""


class TokenStore(Sequence[np.ndarray]):
    """Codes of clips, `[T, K]` uint16 each, in the clips' order.

    Args:
        index: one row of `INDEX` per clip.
        n_codes: entries of a codebook, V.
    """

    def __init__(self, folder: Path, index: pa.Table, n_codes: int = MAX_CODES) -> None:
        self._folder, self._index, self._n_codes = folder, index, n_codes
        self._offsets = index["offset"].to_numpy()
        self.n_frames: np.ndarray = index["n_frames"].to_numpy()
        """Lengths of the clips in codec frames, `[clips]`."""

    def __len__(self) -> int:
        return len(self._index)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...

    @overload
    def __getitem__(self, index: slice) -> TokenStore: ...

    def __getitem__(self, index: int | slice) -> np.ndarray | TokenStore:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        path = self._folder / f"{self._index['shard'][index].as_py()}.npy"
        start = int(self._offsets[index])
        try:
            clip = _open_shard(path).rows(start, start + int(self.n_frames[index]))
        except (OSError, ValueError) as error:
            # What is put in its place must be opened anew.
            _open_shard.cache_clear()
            if isinstance(error, OSError):
                raise audio_unread(path, error) from error
            raise _unreadable(path, error) from error
        if len(clip) != self.n_frames[index] or clip.max(initial=0) >= self._n_codes:
            raise _unreadable(path, "it doesn't hold what its index says")
        return clip

    def take(self, rows: Sequence[int] | np.ndarray) -> TokenStore:
        """The codes of these clips."""
        index = self._index.take(pa.array(rows, pa.int64()))
        return TokenStore(self._folder, index, self._n_codes)


def find_codes(
    folder: Path, clip_ids: Sequence[str], n_codes: int = MAX_CODES
) -> tuple[TokenStore, np.ndarray]:
    """Looks clips up in a folder's shards.

    Args:
        n_codes: entries of a codebook, V.

    Returns:
        The codes that were found, and the rows of the clips that aren't in any shard.
    """
    index = _read_indexes(folder)
    rows = compute.index_in(pa.array(clip_ids, pa.string()), value_set=index["id"])
    return TokenStore(folder, index.take(rows.drop_null()), n_codes), np.flatnonzero(rows.is_null())


def _read_indexes(folder: Path) -> pa.Table:
    """Reads the indexes of all shards into one table, `INDEX`, which is cached: opening hundreds of
    files takes longer than reading them.

    Raises:
        UserError: a file is not a shard's index.
    """
    paths = sorted(folder.glob("*.parquet"))
    states = [
        (path.name, state.st_size, state.st_mtime_ns) for path in paths for state in [path.stat()]
    ]
    key = hashlib.sha256(json.dumps([INDEX_VERSION, states]).encode()).hexdigest()
    table = kept_tables.read_table(folder / INDEX_FILE, key, INDEX)
    if table is None:
        table = pa.concat_tables([INDEX.empty_table(), *map(_read_index, paths)]).combine_chunks()
        if len(paths) > 1:
            kept_tables.keep_table(folder / INDEX_FILE, key, table)
    return table


def _read_index(path: Path) -> pa.Table:
    try:
        if not path.is_file() or path.stat().st_size > MAX_INDEX_BYTES:
            raise _unreadable(path, "it is missing or too large for a shard's index")
        # `read_table` is made for many files, and takes three times as long for one.
        with pq.ParquetFile(path) as file:
            if file.metadata.num_rows > MAX_INDEX_BYTES:
                raise _unreadable(path, "it has too many rows")
            table = file.read(columns=[name for name in INDEX.names if name != "shard"])
        shard = pa.repeat(path.stem, table.num_rows)
        table = table.append_column("shard", shard).select(INDEX.names).cast(INDEX)
        _check_index(table, path)
        return table
    except (pa.ArrowException, OSError, ValueError, LookupError) as error:
        raise _unreadable(path, error) from error


def _check_index(table: pa.Table, path: Path) -> None:
    """Raises a UserError if clips lie outside their shard, whose size comes from its file."""
    if any(column.null_count for column in table.columns):
        raise _unreadable(path, "it has gaps")
    offsets, n_frames = (table[name].to_numpy() for name in ("offset", "n_frames"))
    codes = path.with_suffix(".npy")
    n_held = codes.stat().st_size // 2 if codes.is_file() else 0
    if (offsets < 0).any() or (n_frames < 1).any() or (n_frames > n_held - offsets).any():
        raise _unreadable(codes, "it doesn't hold the frames that its index lists")


def _unreadable(path: Path, error: Exception | str) -> UserError:
    reason = " ".join(str(error).split())[:200]
    return UserError(
        f"{path}: not readable as a token shard ({reason}); delete {path.parent}, and the tokens "
        "are made again."
    )


@lru_cache(MOST_OPEN)
def _open_shard(path: Path) -> ArrayFile:
    """Opens the codes of a shard, `[frames, K]` uint16.

    Raises:
        UserError: it is missing, damaged, or something else (a pickle, for one).
    """
    codes = open_array(path, np.uint16, 2)
    if codes is None:
        raise _unreadable(path, "it is not an array of codes")
    return codes


def open_tokens(
    clips: Sequence[Clip], model: BaseModel, data_dir: Path
) -> tuple[list[str], TokenStore]:
    """Opens the codes that clips had when they were last tokenised, without reading their files.

    Raises:
        UserError: a clip is not tokenised with this model's codec, or the model needs the audio.
    """
    if model.is_melody:
        raise UserError(
            "--from_tokens: a melody model needs the audio for its melodies; leave the flag out."
        )
    ids = kept_ids(clips, data_dir)
    folder = data_dir / "tokens" / model.codec.fingerprint
    store, lacking = find_codes(folder, ids, model.shape.special)
    if len(lacking):
        raise UserError(
            f"{data_dir}: {clips[lacking[0]].name} is not tokenised for this model "
            f"({len(lacking)} of {len(clips)} clips are not); run musicgen-lora tokenise, or leave "
            "--from_tokens out."
        )
    return ids, store


def tokenise_clips(
    clips: Sequence[Clip],
    ids: Sequence[str],
    model: BaseModel,
    data_dir: Path,
    on_clip: OnStep = lambda done, total: None,
    encode: Encode | None = None,
) -> TokenStore:
    """Encodes the clips that aren't in any shard yet.

    Args:
        ids: of the clips, from `clip_ids`.
        model: its codec is used; it must be in eval mode.
        data_dir: the dataset's folder; shards go to its `tokens/`.
        on_clip: called with (clips done, clips to do).
        encode: makes the shards; None makes them in this process.

    Returns:
        The codes of all the clips.

    Raises:
        UnencodedClips: files cannot be used. All others are encoded.
        RunError: the dataset was moved or deleted meanwhile.
    """
    folder = data_dir / "tokens" / model.codec.fingerprint
    # A dataset that is already encoded may be read-only.
    store, lacking = find_codes(folder, ids)
    if not len(lacking):
        return store
    with staying(data_dir), _held(folder):
        atomic.sweep(folder)
        # This may sweep a table that another process is writing there, which is then made again.
        atomic.sweep(folder.parent)
        store, lacking = find_codes(folder, ids, model.shape.special)
        if not len(lacking):
            return store
        plan = ShardPlan(clips, ids, lacking.tolist())
        reasons = (encode or encode_here)(plan, model, folder, on_clip)
        if reasons:
            # Only one of several copies was tried; all are reported.
            rows: list[int] = [row for row in lacking.tolist() if ids[row] in reasons]
            raise UnencodedClips({clips[row].name: reasons[ids[row]] for row in rows})
    return find_codes(folder, ids, model.shape.special)[0]


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Locks a folder of shards, so that no other process adds to it meanwhile.

    Raises:
        UserError: it is not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock").acquire()
    except OSError as error:
        if error.errno not in RIGHTS_FAULTS:
            raise
        raise UserError(
            f"{folder}: cannot be written to ({error.strerror}), and {folder.parents[1]} is not "
            "encoded for this model yet; run musicgen-lora tokenise once as a user who can write "
            "there, or train on a copy."
        ) from error
    with lock:
        yield
