"""Token shards as tasks for an engine: one task makes one shard, wherever it runs.

A task names the model by its path, and each process loads it once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from musicgen_lora.cluster.batches import BatchWork, run_batches
from musicgen_lora.cluster.engine import Engine
from musicgen_lora.console import OnStep
from musicgen_lora.dataset.encoding import (
    Encode,
    Encoded,
    ShardPlan,
    encode_rows,
    encode_shard,
    encoders,
    shard_name,
)
from musicgen_lora.dataset.metadata import Clip
from musicgen_lora.errors import RunError
from musicgen_lora.model.base_model import BaseModel


@dataclass(frozen=True)
class ShardTask:
    """A shard to make.

    Args:
        folder: where the shards go, named by the codec's fingerprint.
        rows: (id, clip) each.
    """

    model_path: str
    folder: Path
    rows: list[tuple[str, Clip]]


def encode_by(engine: Engine) -> Encode:
    """Returns an `Encode` that has an engine make the shards."""

    def encode(plan: ShardPlan, model: BaseModel, folder: Path, on_clip: OnStep) -> dict[str, str]:
        reasons: dict[str, str] = {}
        n_done = 0

        def task_of(rows: list[tuple[str, Clip]]) -> ShardTask:
            return ShardTask(model.path, folder.absolute(), rows)

        def join(parts: list[Encoded]) -> dict[str, str]:
            whole = Encoded.joined(parts)
            whole.write(folder)
            return whole.reasons

        jobs = BatchWork(make_shard, task_of), BatchWork(encode_part, task_of)
        for made in run_batches(engine, plan, *jobs, join):
            reasons |= made.found or {}
            reasons |= {i: f"{clip.path}: {why.reason}" for (i, clip), why in made.faults}
            n_done += len(made.rows) + len(made.faults)
            on_clip(n_done, plan.n_clips)
        return reasons

    return encode


def make_shard(task: ShardTask, alive: Callable[[], None]) -> dict[str, str]:
    """Makes a shard, unless it already exists.

    Returns:
        Why clips could not be encoded, by their ids.
    """
    name = shard_name(task.folder, [clip_id for clip_id, _ in task.rows])
    if (task.folder / f"{name}.parquet").exists():
        return {}
    model = loaded_model(task.model_path, task.folder.name)
    alive()
    with encoders(model) as pool:
        return encode_shard(task.rows, model, task.folder, pool, lambda _: alive())


def encode_part(task: ShardTask, alive: Callable[[], None]) -> Encoded:
    """Encodes some clips of a shard; the caller writes it once it has all of them."""
    model = loaded_model(task.model_path, task.folder.name)
    alive()
    with encoders(model) as pool:
        return encode_rows(task.rows, model, pool, lambda _: alive())


def loaded_model(path: str, fingerprint: str) -> BaseModel:
    """The model of a task, loaded once in each process.

    Raises:
        RunError: its codec is not the run's.
    """
    model = _model(path)
    if model.codec.fingerprint != fingerprint:
        raise RunError(
            f"{path}: a machine of the cluster has a different codec under this path; put the same "
            "files on all of them."
        )
    return model


@lru_cache(1)
def _model(path: str) -> BaseModel:
    return BaseModel.load(path)
