"""Token shards as tasks for an engine: one task makes one shard, wherever it is worked on.

A task names the model by its path, and each process loads it once. A shard that costs its workers
their lives is made again in halves, and those in halves, until the clip is alone that kills them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from musicgen_lora.cluster.engine import Engine
from musicgen_lora.console import OnStep
from musicgen_lora.dataset.encoding import Encode, ShardPlan, encode_shard, encoders, shard_name
from musicgen_lora.dataset.metadata import Clip
from musicgen_lora.dataset.tokens import find_codes
from musicgen_lora.errors import RunError
from musicgen_lora.model.musicgen import MusicGen
from musicgen_lora.runtime.workers import Failure

LIMIT_S = 600.0
"""For one clip of the longest kind, on a busy machine."""


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


@dataclass(frozen=True)
class _Tasks(Sequence[Any]):
    """The tasks of a plan, each made when it is handed out."""

    model_path: str
    folder: Path
    shards: Sequence[list[tuple[str, Clip]]]

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, index: Any) -> Any:
        return ShardTask(self.model_path, self.folder, self.shards[index])


def encode_by(engine: Engine) -> Encode:
    """Has an engine make the shards."""

    def encode(plan: ShardPlan, model: MusicGen, folder: Path, on_clip: OnStep) -> dict[str, str]:
        reasons: dict[str, str] = {}
        n_done = 0
        shards: Sequence[list[tuple[str, Clip]]] = plan
        while shards:
            tasks, halves = _Tasks(model.path, folder.absolute(), shards), []
            for index, found in engine.run(make_shard, tasks, LIMIT_S, on_gpu=True):
                if not isinstance(found, Failure):
                    reasons |= found
                    n_done += len(shards[index])
                    on_clip(n_done, plan.n_clips)
                    continue
                left = _not_held(folder, shards[index])
                n_done += len(shards[index]) - len(left)
                if len(left) > 1:
                    middle = len(left) // 2
                    halves += [left[:middle], left[middle:]]
                elif left:
                    ((clip_id, clip),) = left
                    reasons[clip_id] = f"{clip.path}: {found.reason}"
                    n_done += 1
            shards = halves
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
    model = _model(task.model_path)
    if model.codec.fingerprint != task.folder.name:
        raise RunError(
            f"{task.model_path}: a machine of the cluster has another codec under this name; give "
            "all the same files."
        )
    alive()
    with encoders(model) as pool:
        return encode_shard(task.rows, model, task.folder, pool, lambda _: alive())


@lru_cache(1)
def _model(path: str) -> MusicGen:
    return MusicGen.load(path)
