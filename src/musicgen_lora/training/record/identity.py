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
"""So many captions, of so many letters at most, go with an adapter."""
MAX_NAMED = 2_000
"""Held-out clips that a run names; a training looks at no more windows than 200 by default."""
REPEATABLE = {
    # The data are told by their content, wherever they lie by now.
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
"""Settings that may differ between a run and its resumption."""


def run_identity(settings: TrainSettings, base: str, clips: Clips, ids: Sequence[str]) -> str:
    """Hash of settings, base and data: runs of equal hashes give equal results."""
    plain = _of_the_run(plain_settings(settings))
    texts = clips.column("texts")
    columns = (pa.array(ids), texts.flatten(), clips.column("source"), clips.column("split"))
    data = [
        *map(_column_hash, columns),
        hashlib.sha256(texts.value_lengths().to_numpy().astype("<i8")).hexdigest(),
    ]
    content = json.dumps([DRAWS_VERSION, plain, base, data], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _of_the_run(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a run's settings that its resumption must share."""
    kept = {name: value for name, value in plain.items() if name not in REPEATABLE}
    # A folder is the same one whichever way it is named; hub ids are no folders.
    path = str(kept.get("model_path"))
    return kept | {"model_path": str(Path(path).resolve())} if Path(path).is_dir() else kept


def what_differs(
    settings: TrainSettings, base: str, earlier: dict[str, Any], earlier_base: object
) -> str:
    """Why a run of another identity is not gone on with, in words.

    Args:
        base: fingerprint of the base.
        earlier: the settings of that run, as JSON has them.
        earlier_base: fingerprint of its base.
    """
    before = _of_the_run(earlier)
    changed = [
        f"--{name} {shortened(value)} (was {shortened(before[name])})"
        for name, value in _of_the_run(plain_settings(settings)).items()
        if name in before and before[name] != value
    ]
    if changed:
        return f"other settings: {', '.join(changed)}"
    if base != earlier_base:
        return "a base model of other weights"
    return "other clips, captions or splits"


def _column_hash(column: Any) -> str:
    """SHA-256 of a column of strings, by their lengths (-1 where there is none) and their bytes: as
    JSON a hundred thousand take a tenth of a second."""
    lengths = compute.binary_length(column).fill_null(-1).to_numpy().astype("<i8")
    _, offsets, values = column.buffers()
    kind = np.int64 if pa.types.is_large_string(column.type) else np.int32
    ends = np.frombuffer(offsets, kind)[column.offset : column.offset + len(column) + 1]
    digest = hashlib.sha256(lengths)
    digest.update(memoryview(values or b"")[ends[0] : ends[-1]])
    return digest.hexdigest()


def plain_settings(settings: TrainSettings) -> dict[str, Any]:
    """Settings as JSON has them."""
    values = dataclasses.asdict(settings)
    return {name: str(v) if isinstance(v, Path) else v for name, v in values.items()}


def data_facts(
    settings: TrainSettings,
    clips: Clips,
    ids: Sequence[str],
    train: np.ndarray,
    held_out: np.ndarray,
) -> dict[str, Any]:
    """What a run used of its dataset: evaluation finds the held-out clips here. Up to `MAX_NAMED`
    of them are named, evenly spread; who else was held out, one hash tells (`held_out_bound`), so
    that what every adapter carries doesn't grow with the dataset.

    Args:
        clips: long enough to be used.
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
    """Some of the captions that are trained on, each once: what the adapter may be asked for. Of a
    clip with several it is the first."""
    rng = np.random.default_rng(seed_of("captions", seed))
    rows = rng.permutation(train)[: 4 * CAPTIONS_KEPT]
    texts = compute.list_element(clips.take(rows).column("texts"), 0).to_pylist()
    return [text for text in dict.fromkeys(texts) if len(text) <= LONGEST_KEPT][:CAPTIONS_KEPT]
