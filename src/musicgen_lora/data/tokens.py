"""Token shards: what the codec made of the audio, apart from captions and splits.

`data_dir/tokens/<codec fingerprint>/` holds pairs of `<shard>.npy` (uint16 `[frames, K]`, clip
after clip, memory-mapped by every reader) and `<shard>.parquet` (a row a clip: `id`, `offset`,
`n_frames`). The parquet is renamed into place last: a shard without one does not exist. A
clip's id is the SHA-256 of its file's bytes (and its window, where it is part of a file), so
editing captions or renaming files costs nothing, and resuming is making the missing clips.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from filelock import FileLock
from transformers import MusicgenForConditionalGeneration

from musicgen_lora import atomic
from musicgen_lora.audio.files import probe, read_audio
from musicgen_lora.data import kept_tables
from musicgen_lora.data.metadata import Clip, Clips, window_name
from musicgen_lora.errors import UserError
from musicgen_lora.model.codec import codec_fingerprint, encode_waveforms
from musicgen_lora.model.musicgen import model_shape

CLIPS_PER_SHARD = 250
"""Also what an interruption costs at most."""
BATCH_S = 60.0
"""Seconds of audio that a GPU encodes together."""
GPU_READERS = 2
HASHES_FILE = "hashes.arrow"
HASHES_VERSION = "1"
HASHES = pa.schema(
    {"audio": pa.string(), "size_bytes": pa.int64(), "mtime_ns": pa.int64(), "sha256": pa.string()}
)
"""Of audio files, as they were when they were read."""


class TokenStore:
    """Random access to the codes of a folder of shards."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._maps: dict[str, np.ndarray] = {}
        self._shards: list[str] = []
        self._offsets: list[int] = []
        self._lengths: list[int] = []
        rows: list[str] = []
        for index in sorted(folder.glob("*.parquet")):
            ids, offsets, lengths = _read_index(index)
            rows += ids
            self._shards += [index.stem] * len(ids)
            self._offsets += offsets
            self._lengths += lengths
        self._rows = {clip_id: row for row, clip_id in enumerate(rows)}

    def __contains__(self, clip_id: str) -> bool:
        return clip_id in self._rows

    def n_frames(self, clip_id: str) -> int:
        """Length of a clip in codec frames."""
        return self._lengths[self._rows[clip_id]]

    def codes(self, clip_id: str) -> np.ndarray:
        """Codes of a clip, `[T, K]` uint16, a view of the mapped file."""
        row = self._rows[clip_id]
        shard, offset = self._shards[row], self._offsets[row]
        if shard not in self._maps:
            self._maps[shard] = _map_shard(self._folder / f"{shard}.npy")
        return self._maps[shard][offset : offset + self._lengths[row]]


def _read_index(path: Path) -> tuple[list[str], list[int], list[int]]:
    """Ids of a shard's clips, their offsets and lengths.

    Raises:
        UserError: it is not a shard's index.
    """
    try:
        # Of one file; `read_table` is made for many, and takes three times as long.
        with pq.ParquetFile(path) as file:
            table = file.read()
        return tuple(table[name].to_pylist() for name in ("id", "offset", "n_frames"))
    except (pa.ArrowException, OSError, KeyError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())
    return UserError(
        f"{path}: not readable as a token shard ({reason}); delete {path.parent}, and it is made "
        "again."
    )


def _map_shard(path: Path) -> np.ndarray:
    """The codes of a shard, `[frames, K]` uint16, mapped.

    Raises:
        UserError: it is missing, damaged, or something else (a pickle, for one).
    """
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise _unreadable(path, error) from error


def clip_ids(clips: Sequence[Clip], data_dir: Path) -> list[str]:
    """Ids of clips. File hashes are remembered by size and time of change (those of the moment
    when the dataset was loaded), so that a second run does not read the audio again."""
    clips, path = Clips.of(clips), data_dir / "tokens" / HASHES_FILE
    kept = kept_tables.read_table(path, HASHES_VERSION, HASHES)
    if kept is None:
        kept = HASHES.empty_table()
    files, sizes, times, digests = (kept[name].to_pylist() for name in HASHES.names)
    rows = {audio: row for row, audio in enumerate(files)}
    hashes: list[str] = []
    changed = False
    states = (clips.column(name) for name in ("audio", "size_bytes", "mtime_ns"))
    for audio, size, time in zip(*states, strict=True):
        row = rows.setdefault(audio, len(files))
        if row == len(files) or sizes[row] != size or times[row] != time:
            digest = atomic.sha256_file(data_dir / audio)
            for column, value in zip(
                (files, sizes, times, digests), (audio, size, time, digest), strict=True
            ):
                column[row : row + 1] = [value]
            changed = True
        hashes.append(digests[row])
    if changed:
        kept_tables.keep_table(
            path, HASHES_VERSION, pa.table([files, sizes, times, digests], schema=HASHES)
        )
    windows = map(window_name, clips.column("start_s"), clips.column("duration_s"))
    return list(map(operator.add, hashes, windows))


def tokenise_clips(
    clips: Sequence[Clip],
    ids: Sequence[str],
    model: MusicgenForConditionalGeneration,
    data_dir: Path,
    on_clip: Callable[[int, int], None] = lambda done, total: None,
) -> TokenStore:
    """Encodes what no shard holds yet and opens the store.

    Args:
        clips: of a dataset.
        ids: of the clips, from `clip_ids`.
        model: whose codec is used; it must be in eval mode.
        data_dir: the dataset's folder; shards go to its `tokens/`.
        on_clip: called with (clips done, clips to do).

    Raises:
        AudioError: a file cannot be used. Shards finished before it stay.
    """
    folder = data_dir / "tokens" / codec_fingerprint(model)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        atomic.sweep(folder)
        # Another process may be keeping a table there, which then is made once more.
        atomic.sweep(folder.parent)
        store = TokenStore(folder)
        places = zip(ids, range(len(clips)), strict=True)
        missing = {clip_id: place for clip_id, place in places if clip_id not in store}
        rows = [(clip_id, clips[place]) for clip_id, place in missing.items()]
        if not rows:
            return store
        with _encoders(model) as pool:
            for start in range(0, len(rows), CLIPS_PER_SHARD):
                shard = rows[start : start + CLIPS_PER_SHARD]
                _encode_shard(
                    shard, model, folder, pool, lambda n, s=start: on_clip(s + n, len(rows))
                )
    return TokenStore(folder)


@contextmanager
def _encoders(model: MusicgenForConditionalGeneration) -> Iterator[ThreadPoolExecutor]:
    """Threads that encode. On a CPU as many as torch has, each with one of its own: a clip's
    layers are too small to share. With a GPU, which is used where there is one, a few that read
    files while it works; the codec comes back from it at the end."""
    codec: Any = model.audio_encoder
    home, n_threads = codec.device, torch.get_num_threads()
    on_gpu = home.type != "cpu" or torch.cuda.is_available()
    if on_gpu and home.type == "cpu":
        codec.to("cuda")
    n_workers = GPU_READERS if on_gpu else n_threads
    pool = ThreadPoolExecutor(n_workers, initializer=lambda: torch.set_num_threads(1))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(n_threads)
        codec.to(home)


def _encode_shard(
    rows: Sequence[tuple[str, Clip]],
    model: MusicgenForConditionalGeneration,
    folder: Path,
    pool: ThreadPoolExecutor,
    on_clip: Callable[[int], None],
) -> None:
    """Encodes the clips of a shard, (id, clip) each, and writes it."""
    codec: Any = model.audio_encoder
    batches = [[row] for row in rows] if codec.device.type == "cpu" else _like_lengths(rows)
    futures = [pool.submit(encode_clips, [clip for _, clip in batch], model) for batch in batches]
    ids: list[str] = []
    codes: list[np.ndarray] = []
    for batch, future in zip(batches, futures, strict=True):
        codes += future.result()
        ids += [clip_id for clip_id, _ in batch]
        on_clip(len(ids))
    write_shard(folder, ids, codes)


def _like_lengths(rows: Sequence[tuple[str, Clip]]) -> list[list[tuple[str, Clip]]]:
    """Batches of clips of like lengths, up to `BATCH_S` seconds of audio in each."""
    lengths = {
        clip_id: clip.duration_s or probe(clip.path).duration_s - clip.start_s
        for clip_id, clip in rows
    }
    batches: list[list[tuple[str, Clip]]] = []
    for row in sorted(rows, key=lambda row: lengths[row[0]]):
        # Sorted, so this clip is the longest so far.
        if batches and (len(batches[-1]) + 1) * lengths[row[0]] <= BATCH_S:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def encode_clips(
    clips: Sequence[Clip], model: MusicgenForConditionalGeneration
) -> list[np.ndarray]:
    """Codes of clips, each `[T, K]` uint16, read and resampled once."""
    rate = model_shape(model).sample_rate
    waveforms = [
        read_audio(clip.path, rate, start_s=clip.start_s, duration_s=clip.duration_s)
        for clip in clips
    ]
    return [np.ascontiguousarray(codes.T) for codes in encode_waveforms(model, waveforms)]


def write_shard(folder: Path, ids: list[str], codes: list[np.ndarray]) -> None:
    """Writes a shard.

    Args:
        folder: of a codec, named by its fingerprint.
        ids: of the clips.
        codes: of the clips, `[T, K]` uint16 each.
    """
    name = hashlib.sha256("\n".join([folder.name, *ids]).encode()).hexdigest()[:24]
    lengths = [len(clip) for clip in codes]
    table = pa.table(
        {
            "id": pa.array(ids, pa.string()),
            "offset": pa.array(np.cumsum([0, *lengths[:-1]]), pa.int64()),
            "n_frames": pa.array(lengths, pa.int64()),
        }
    )
    frames = np.concatenate(codes)

    def save_array(path: Path) -> None:
        with open(path, "wb") as file:
            np.save(file, frames)

    atomic.write_file(folder / f"{name}.npy", save_array)
    atomic.write_file(folder / f"{name}.parquet", partial(pq.write_table, table))
