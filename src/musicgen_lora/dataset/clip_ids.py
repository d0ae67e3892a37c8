"""A clip's id: its file's SHA-256, plus its window if it is part of the file.

Names, captions and splits are not part of it. Hashes are cached with the files' states, so that a
second run does not read the audio again.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from musicgen_lora import atomic
from musicgen_lora.dataset import cache as kept_tables
from musicgen_lora.dataset.cache import STATE, state_of
from musicgen_lora.dataset.metadata import Clip, Clips, compute

HASHES_FILE = "hashes.arrow"
HASHES_VERSION = "2"
HASHES = pa.schema([("audio", pa.string()), *STATE, ("sha256", pa.string())])
"""Columns of the hash cache: an audio file, its state when it was read, its hash."""


def is_as_listed(clip: Clip) -> bool:
    """Whether a clip's file is still in the state in which the dataset was loaded, or in none that
    is known, as a copy that nobody else knows of.

    Raises:
        OSError: it is gone.
    """
    listed = tuple(getattr(clip, name) for name in STATE.names)
    return None in listed or state_of(clip.path.stat()) == listed


def clip_ids(clips: Sequence[Clip], data_dir: Path) -> list[str]:
    """Ids of clips. File hashes are cached with the files' states when the dataset was loaded, so
    that a second run does not read the audio again."""
    clips = Clips.of(clips)
    kept = _read_hashes(data_dir)
    known = _known_files(clips, kept)
    is_known = np.ones(len(clips), bool)
    for name in STATE.names:
        is_known &= np.asarray(known[name].fill_null(-1)) == np.asarray(clips.column(name))
    hashes: list[str] = known["sha256"].to_pylist()
    fresh: dict[str, tuple[Any, ...]] = {}
    for row in np.flatnonzero(~is_known).tolist():
        clip = clips[row]
        if clip.audio not in fresh:
            digest = atomic.sha256_file(data_dir / clip.audio)
            fresh[clip.audio] = (*(getattr(clip, name) for name in STATE.names), digest)
        hashes[row] = fresh[clip.audio][-1]
    if fresh:
        is_old = compute.is_in(kept["audio"], value_set=pa.array(fresh, pa.string()))
        columns = [list(fresh), *map(list, zip(*fresh.values(), strict=True))]
        table = pa.concat_tables(
            [kept.filter(compute.invert(is_old)), pa.table(columns, schema=HASHES)]
        )
        kept_tables.keep_table(data_dir / "tokens" / HASHES_FILE, HASHES_VERSION, table)
    return list(map(operator.add, hashes, clips.window_names()))


def _read_hashes(data_dir: Path) -> pa.Table:
    path = data_dir / "tokens" / HASHES_FILE
    kept = kept_tables.read_table(path, HASHES_VERSION, HASHES)
    return HASHES.empty_table() if kept is None else kept


def _known_files(clips: Clips, kept: pa.Table) -> pa.Table:
    """Cached state and hash of each clip's file; nulls where there are none."""
    rows = compute.index_in(clips.column("audio"), value_set=kept["audio"])
    return kept.drop_columns("audio").take(rows)


def kept_ids(clips: Sequence[Clip], data_dir: Path) -> list[str]:
    """Ids of clips from the cached hashes, even if their files have changed since; a clip without a
    hash gets an id that no shard holds."""
    clips = Clips.of(clips)
    hashes = _known_files(clips, _read_hashes(data_dir))["sha256"].fill_null("").to_pylist()
    return list(map(operator.add, hashes, clips.window_names()))
