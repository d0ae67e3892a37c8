"""What a run records of itself: settings, data, versions, and the identity made of them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from musicgen_lora.config import TrainSettings
from musicgen_lora.dataset.batches import DRAWS_VERSION
from musicgen_lora.dataset.metadata import Clips, compute, held_out_bound
from musicgen_lora.formats.kinds import shortened
from musicgen_lora.runtime.seeds import seed_of

CAPTIONS_KEPT, LONGEST_KEPT = 64, 1000
"""At most this many captions, each of at most this many characters, are stored with an adapter."""
MAX_NAMED = 2_000
"""Held-out clips that a run lists; by default a training scores at most 200 windows."""
REPEATABLE = {
    # Data are identified by content, so they may have moved.
    "data_dir",
    "metadata_file",
    "from_tokens",
    "output_dir",
    "fsdp",
    "resume",
    "keep_checkpoints",
    "validate_every",
    "save_every",
    "early_stopping_patience",
    "previews",
    "preview_prompts",
    "preview_every",
    "preview_duration",
    "report_to",
}
"""Settings that may change when a run is resumed."""


def run_identity(settings: TrainSettings, base: str, clips: Clips, ids: Sequence[str]) -> str:
    """A hash of settings, base and data: runs with the same hash give the same results."""
    plain = _of_the_run(plain_settings(settings))
    texts = clips.column("texts")
    columns = (pa.array(ids), texts.flatten(), clips.column("source"), clips.column("split"))
    data = [
        *map(_column_hash, columns),
        hashlib.sha256(texts.value_lengths().to_numpy().astype("<i8")).hexdigest(),
        # Windows begin on bar lines.
        *(_numbers_hash(clips.column("entry"), name) for name in ("bpm", "first_bar_s")),
    ]
    content = json.dumps([DRAWS_VERSION, plain, base, data], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _of_the_run(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that must be the same when a run is resumed."""
    kept = {name: value for name, value in plain.items() if name not in REPEATABLE}
    # Different paths may name one folder; hub ids are not folders.
    path = str(kept.get("model_path"))
    return kept | {"model_path": str(Path(path).resolve())} if Path(path).is_dir() else kept


def what_differs(
    settings: TrainSettings, base: str, earlier: dict[str, Any], earlier_base: object
) -> str:
    """Says why a run of another identity is not resumed.

    Args:
        base: fingerprint of the base.
        earlier: settings of the earlier run, as read from JSON.
        earlier_base: fingerprint of its base.
    """
    before = _of_the_run(earlier)
    changed = [
        f"--{name} {shortened(value)} (was {shortened(before[name])})"
        for name, value in _of_the_run(plain_settings(settings)).items()
        if name in before and before[name] != value
    ]
    if changed:
        return f"different settings: {', '.join(changed)}"
    if base != earlier_base:
        return "a base model with different weights"
    return "different clips, captions, bar lines (bpm, first_bar_s) or splits"


def _numbers_hash(entries: Any, name: str) -> str:
    """SHA-256 of the numbers that metadata entries have under a name, wherever it occurs in them.
    Not parsed one by one: a million would take ten seconds."""
    after = compute.list_slice(compute.split_pattern(entries, f'"{name}": '), 1)
    found = compute.extract_regex(after.flatten(), r"^(?P<number>-?[0-9][-+.0-9eE]*)")
    # What `prepare` keeps of its own under these names are texts.
    places = compute.list_parent_indices(after).filter(found.is_valid())
    numbers = found.drop_null().field("number")
    return hashlib.sha256(places.to_numpy().astype("<i8")).hexdigest() + _column_hash(numbers)


def _column_hash(column: Any) -> str:
    """SHA-256 of a column of strings, from their lengths (-1 for null) and bytes: by way of JSON, a
    hundred thousand take a tenth of a second."""
    lengths = compute.binary_length(column).fill_null(-1).to_numpy().astype("<i8")
    _, offsets, values = column.buffers()
    kind = np.int64 if pa.types.is_large_string(column.type) else np.int32
    ends = np.frombuffer(offsets, kind)[column.offset : column.offset + len(column) + 1]
    digest = hashlib.sha256(lengths)
    digest.update(memoryview(values or b"")[ends[0] : ends[-1]])
    return digest.hexdigest()


def plain_settings(settings: TrainSettings) -> dict[str, Any]:
    """The settings as JSON values."""
    values = dataclasses.asdict(settings)
    return {name: str(v) if isinstance(v, Path) else v for name, v in values.items()}


def data_facts(
    settings: TrainSettings,
    clips: Clips,
    ids: Sequence[str],
    train: np.ndarray,
    held_out: np.ndarray,
) -> dict[str, Any]:
    """What a run used of its dataset; evaluation finds the held-out clips here. Up to `MAX_NAMED`
    of them are listed, evenly spread; a single hash (`held_out_bound`) tells which others were held
    out, so that what every adapter carries doesn't grow with the dataset.

    Args:
        clips: the clips that are long enough.
        train: rows of the clips trained on.
        held_out: rows of the clips held out.
    """
    bound = held_out_bound(clips.take(held_out), settings.seed)
    n_validation = len(held_out)
    held_out = held_out[:: max(1, -(-n_validation // MAX_NAMED))]
    chosen = clips.take(held_out)
    columns = {
        "id": [ids[row] for row in held_out],
        "name": chosen.names(),
        "audio": chosen.column("audio").to_pylist(),
        "text": compute.list_element(chosen.column("texts"), 0).to_pylist(),
        "source": chosen.column("source").to_pylist(),
    }
    validation = [
        dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
    ]
    return {
        "data_dir": str(settings.data_dir.resolve()),
        "metadata_file": settings.metadata_file,
        "fingerprint": _column_hash(clips.column("entry"))[:16],
        "n_train": len(train),
        "n_validation": n_validation,
        "validation": validation,
        "held_out_seed": settings.seed,
        "held_out_bound": bound,
        "captions": _captions(clips, train, settings.seed),
    }


def _captions(clips: Clips, train: np.ndarray, seed: int) -> list[str]:
    """A sample of the training captions without repeats, to suggest as prompts for the adapter. A
    clip with several captions gives its first."""
    rng = np.random.default_rng(seed_of("captions", seed))
    rows = rng.permutation(train)[: 4 * CAPTIONS_KEPT]
    texts = compute.list_element(clips.take(rows).column("texts"), 0).to_pylist()
    return [text for text in dict.fromkeys(texts) if len(text) <= LONGEST_KEPT][:CAPTIONS_KEPT]
