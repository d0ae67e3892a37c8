"""From audio to token shards: what a shard holds, how its clips are encoded, how it is written.

A shard is the unit of work: its clips are planned once, it is named by the hash of its contents,
written to a temporary file and renamed. Files that can't be used are reported, and cost no other
clip of the shard.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from musicgen_lora import atomic
from musicgen_lora.audio.files import MAX_READ_S, probe, read_stretch
from musicgen_lora.audio.stream import AudioStream, ends_early
from musicgen_lora.console import OnStep
from musicgen_lora.dataset.clip_ids import is_as_listed
from musicgen_lora.dataset.metadata import Clip
from musicgen_lora.errors import AudioError, audio_unread
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.runtime.allocator import keep_freed_memory
from musicgen_lora.runtime.locks import lost
from musicgen_lora.runtime.pool import torch_threads

CLIPS_PER_SHARD = 250
"""Clips per shard; an interruption loses no more than these."""
BATCH_S = 60.0
"""Seconds of audio that a GPU encodes at once."""
GPU_READERS = 2


class UnencodedClips(AudioError):
    """Clips that could not be encoded; all others were.

    Args:
        reasons: by the clips' names; each names the file.
    """

    def __init__(self, reasons: Mapping[str, str]) -> None:
        self.reasons = dict(reasons)
        first = next(iter(self.reasons.values()))
        if len(self.reasons) == 1:
            super().__init__(first)
        else:
            super().__init__(
                f"{len(self.reasons)} clips can't be encoded (all others are); replace their files "
                f'or take them out ("skip": true in their entries). The first: {first}'
            )


@dataclass(frozen=True)
class Encoded:
    """Clips that were encoded, in the order of their shard.

    Args:
        codes: `[T, K]` uint16 each.
        reasons: why other clips could not be encoded, by their ids.
    """

    ids: list[str] = field(default_factory=list)
    codes: list[np.ndarray] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)

    @classmethod
    def joined(cls, parts: Sequence[Encoded]) -> Encoded:
        """The parts of a shard joined in order."""
        whole = cls()
        for part in parts:
            whole.ids.extend(part.ids)
            whole.codes.extend(part.codes)
            whole.reasons.update(part.reasons)
        return whole

    def write(self, folder: Path) -> None:
        """Writes the shard, unless it has no clips."""
        if self.ids:
            write_shard(folder, self.ids, self.codes)


class ShardPlan(Sequence[list[tuple[str, Clip]]]):
    """The clips to encode, as one list of (id, clip) per shard.

    Args:
        rows: of the clips to encode; copies are encoded once.
    """

    def __init__(self, clips: Sequence[Clip], ids: Sequence[str], rows: Sequence[int]) -> None:
        self._clips, self._ids = clips, ids
        seen: dict[str, int] = {}
        for row in rows:
            seen.setdefault(ids[row], row)
        self._rows = list(seen.values())
        self.n_clips = len(self._rows)

    def __len__(self) -> int:
        return -(-self.n_clips // CLIPS_PER_SHARD)

    @overload
    def __getitem__(self, index: int) -> list[tuple[str, Clip]]: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[list[tuple[str, Clip]]]: ...

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        rows = self._rows[CLIPS_PER_SHARD * index : CLIPS_PER_SHARD * (index + 1)]
        if not rows:
            raise IndexError(index)
        return [(self._ids[row], self._clips[row]) for row in rows]


Encode = Callable[[ShardPlan, BaseModel, Path, OnStep], dict[str, str]]
"""Makes the shards of a plan in a folder, like `encode_here`."""


def encode_here(plan: ShardPlan, model: BaseModel, folder: Path, on_clip: OnStep) -> dict[str, str]:
    """Makes the shards of a plan in this process's threads.

    Returns:
        Why clips could not be encoded, by their ids.
    """
    reasons: dict[str, str] = {}
    n_done = 0
    with encoders(model) as pool:
        for rows in plan:
            on_shard = partial(_add, on_clip, n_done, plan.n_clips)
            reasons |= encode_shard(rows, model, folder, pool, on_shard)
            n_done += len(rows)
    return reasons


def _add(on_clip: OnStep, before: int, total: int, n: int) -> None:
    on_clip(before + n, total)


@contextmanager
def encoders(model: BaseModel) -> Iterator[ThreadPoolExecutor]:
    """Starts the threads that encode. On a CPU there are as many as torch uses, each with torch
    limited to one: a clip's layers are too small to share. A GPU is used if there is one; then a
    few threads read files while it works, and the codec is moved back from it at the end.
    """
    codec = model.codec.module
    home = codec.device
    on_gpu = home.type != "cpu" or torch.cuda.is_available()
    if on_gpu and home.type == "cpu":
        codec.to("cuda")
    if not on_gpu:
        keep_freed_memory()
    try:
        with torch_threads(GPU_READERS if on_gpu else torch.get_num_threads()) as pool:
            yield pool
    finally:
        codec.to(home)


def encode_shard(
    rows: Sequence[tuple[str, Clip]],
    model: BaseModel,
    folder: Path,
    pool: ThreadPoolExecutor,
    on_clip: Callable[[int], None],
) -> dict[str, str]:
    """Encodes the clips of a shard, (id, clip) each, and writes it.

    Returns:
        Why clips could not be encoded, by their ids; the shard holds the others.
    """
    encoded = encode_rows(rows, model, pool, on_clip)
    encoded.write(folder)
    return encoded.reasons


def encode_rows(
    rows: Sequence[tuple[str, Clip]],
    model: BaseModel,
    pool: ThreadPoolExecutor,
    on_clip: Callable[[int], None],
) -> Encoded:
    """Encodes clips, (id, clip) each; a GPU takes clips of similar lengths in batches."""
    device = model.codec.module.device
    batches = [[row] for row in rows] if device.type == "cpu" else _like_lengths(rows)
    futures = [pool.submit(_encode_batch, batch, model) for batch in batches]
    found: dict[str, np.ndarray | AudioError] = {}
    for batch, future in zip(batches, futures, strict=True):
        found.update(zip((clip_id for clip_id, _ in batch), future.result(), strict=True))
        on_clip(len(found))
    encoded = Encoded()
    # In the plan's order, regardless of the order of encoding.
    for clip_id, _ in rows:
        codes = found[clip_id]
        if isinstance(codes, AudioError):
            encoded.reasons[clip_id] = str(codes)
        else:
            encoded.ids.append(clip_id)
            encoded.codes.append(codes)
    return encoded


def _encode_batch(
    rows: Sequence[tuple[str, Clip]], model: BaseModel
) -> Sequence[np.ndarray | AudioError]:
    """The codes of each clip, (id, clip), or why its file can't be used."""
    try:
        codes = encode_clips([clip for _, clip in rows], model)
        for clip_id, clip in rows:
            _check_unchanged(clip_id, clip)
        return codes
    except AudioError as error:
        if len(rows) == 1:
            return [error]
        return [found for row in rows for found in _encode_batch([row], model)]


def _check_unchanged(clip_id: str, clip: Clip) -> None:
    """Checks that the file that was read is the one that the id names.

    Raises:
        AudioError: its bytes are others by now; other codes would be kept under the id.
        RunError: the disk is broken.
    """
    try:
        if is_as_listed(clip) or clip_id.startswith(atomic.sha256_file(clip.path)):
            return
    except OSError as error:
        raise audio_unread(clip.path, error) from error
    raise AudioError(
        f"{clip.path}: changed while it was encoded; once it is whole (is the folder still being "
        "copied or synchronised?), run the command again."
    )


def _like_lengths(rows: Sequence[tuple[str, Clip]]) -> list[list[tuple[str, Clip]]]:
    """Batches of clips of similar lengths, with up to `BATCH_S` seconds of audio in each."""
    lengths = {clip_id: _length_s(clip) for clip_id, clip in rows}
    batches: list[list[tuple[str, Clip]]] = []
    for row in sorted(rows, key=lambda row: lengths[row[0]]):
        # Sorted, so this clip is the longest so far.
        if batches and (len(batches[-1]) + 1) * lengths[row[0]] <= BATCH_S:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def _length_s(clip: Clip) -> float:
    """Seconds of a clip; 0 if its file can't be read, which encoding will report."""
    try:
        return clip.duration_s or probe(clip.path).duration_s - clip.start_s
    except AudioError:
        return 0.0


def encode_clips(clips: Sequence[Clip], model: BaseModel) -> list[np.ndarray]:
    """Codes of clips, each `[T, K]` uint16, read and resampled once."""
    waveforms = [_read_whole(clip, model.shape.sample_rate) for clip in clips]
    return [np.ascontiguousarray(codes.T) for codes in model.encode(waveforms)]


def _read_whole(clip: Clip, sample_rate: int) -> np.ndarray:
    """A clip's audio, `[C, N]`; raises an AudioError if its file was cut off before the clip's end,
    as by an interrupted copy of the dataset."""
    with AudioStream(clip.path) as stream:
        waveform = read_stretch(
            stream, sample_rate, start_s=clip.start_s, duration_s=clip.duration_s
        )
        told_s = (stream.claimed_s or 0.0) - clip.start_s
    length_s = waveform.shape[1] / sample_rate
    if ends_early(length_s, min(told_s, clip.duration_s or MAX_READ_S)):
        raise AudioError(
            f"{clip.path}: is cut off, only {length_s:.1f} of {told_s:.1f} s are left; copy it "
            f'again, or give its entry "start_s": {clip.start_s:g} and a "duration_s" up to there.'
        )
    return waveform


def write_shard(folder: Path, ids: list[str], codes: list[np.ndarray]) -> None:
    """Writes a shard.

    Args:
        folder: the codec's, named by its fingerprint.
        codes: of the clips, `[T, K]` uint16 each.

    Raises:
        RunError: the dataset is gone, and would be made again with nothing but this in it.
    """
    dataset = folder.parents[1]
    if not dataset.is_dir():
        raise lost(dataset)
    name = shard_name(folder, ids)
    lengths = [len(clip) for clip in codes]
    table = pa.table(
        {
            "id": pa.array(ids, pa.string()),
            "offset": pa.array(np.cumsum([0, *lengths[:-1]]), pa.int64()),
            "n_frames": pa.array(lengths, pa.int64()),
        }
    )
    frames = np.concatenate(codes)
    atomic.write_file(folder / f"{name}.npy", lambda temporary: np.save(temporary, frames))
    atomic.write_file(folder / f"{name}.parquet", partial(pq.write_table, table))


def shard_name(folder: Path, ids: Sequence[str]) -> str:
    """The name of the shard with these clips, in a codec's folder."""
    return hashlib.sha256("\n".join([folder.name, *ids]).encode()).hexdigest()[:24]
