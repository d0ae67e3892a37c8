"""Token shards as tasks for an engine: one task makes one shard, wherever it is worked on.

A task names the model by its path, and each process loads it once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from musicgen_lora.cluster.engine import Engine
from musicgen_lora.cluster.halving import run_halving
from musicgen_lora.console import OnStep
from musicgen_lora.dataset.encoding import Encode, ShardPlan, encode_shard, encoders, shard_name
from musicgen_lora.dataset.metadata import Clip
from musicgen_lora.dataset.tokens import find_codes
from musicgen_lora.errors import RunError
from musicgen_lora.model.musicgen import MusicGen
from musicgen_lora.runtime.workers import Failure


@dataclass(frozen=True)
class ShardTask:
    """A shard to make.

    Args:
        model_path: whose codec is used.
        folder: of the shards, named by the codec's fingerprint.
        rows: (id, clip) each.
    """

    model_path: str
    folder: Path
    rows: list[tuple[str, Clip]]


def encode_by(engine: Engine) -> Encode:
    """Has an engine make the shards."""

    def encode(plan: ShardPlan, model: MusicGen, folder: Path, on_clip: OnStep) -> dict[str, str]:
        reasons: dict[str, str] = {}
        n_done = 0
        work = run_halving(
            engine,
            make_shard,
            plan,
            lambda rows: ShardTask(model.path, folder.absolute(), rows),
            partial(_not_held, folder),
        )
        for rows, found in work:
            if isinstance(found, Failure):
                found = {clip_id: f"{clip.path}: {found.reason}" for clip_id, clip in rows}
            reasons |= found
            n_done += len(rows)
            on_clip(n_done, plan.n_clips)
        return reasons

    return encode


def _not_held(folder: Path, rows: list[tuple[str, Clip]]) -> list[tuple[str, Clip]]:
    """Those clips that no shard holds: a worker may have died after it had written its shard."""
    _, lacking = find_codes(folder, [clip_id for clip_id, _ in rows])
    return [rows[row] for row in lacking.tolist()]


def make_shard(task: ShardTask, alive: Callable[[], None]) -> dict[str, str]:
    """Makes a shard, unless it is there.

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


def loaded_model(path: str, fingerprint: str) -> MusicGen:
    """The model of a task, loaded once in each process.

    Raises:
        RunError: its codec is another than that of the run.
    """
    model = _model(path)
    if model.codec.fingerprint != fingerprint:
        raise RunError(
            f"{path}: a machine of the cluster has another codec under this name; give all the "
            "same files."
        )
    return model


@lru_cache(1)
def _model(path: str) -> MusicGen:
    return MusicGen.load(path)
