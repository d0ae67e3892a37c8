"""Token shards as tasks for an engine: one task makes one shard, wherever it is worked on.

A task names the model by its path, and each process loads it once. A shard that costs its workers
their lives is made again in halves, and those in halves, until the clip is alone that kills them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

from musicgen_lora.cluster.engine import Engine
from musicgen_lora.console import OnStep
from musicgen_lora.dataset.encoding import Encode, ShardPlan, encode_shard, encoders, shard_name
from musicgen_lora.dataset.metadata import Clip
from musicgen_lora.dataset.tokens import find_codes
from musicgen_lora.errors import RunError
from musicgen_lora.model.musicgen import MusicGen
from musicgen_lora.runtime.workers import Failure, Work

Row = TypeVar("Row")
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
    """The tasks of shards, each made when it is handed out."""

    shards: Sequence[Any]
    task_of: Callable[[Any], Any]

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, index: Any) -> Any:
        return self.task_of(self.shards[index])


def run_halving(
    engine: Engine,
    work: Work,
    shards: Sequence[list[Row]],
    task_of: Callable[[list[Row]], Any],
    left_of: Callable[[list[Row]], list[Row]],
) -> Iterator[tuple[list[Row], Any]]:
    """Works on shards, and in halves on those that cost their workers their lives.

    Args:
        engine: works.
        work: on a task; gives its result.
        shards: clips of each.
        task_of: the task of a shard's clips.
        left_of: the clips that are still to do of a shard whose worker died.

    Yields:
        Clips, and what came of them; a `Failure` of one clip alone.
    """
    while shards:
        halves: list[list[Row]] = []
        for index, found in engine.run(work, _Tasks(shards, task_of), LIMIT_S, on_gpu=True):
            if not isinstance(found, Failure):
                yield shards[index], found
                continue
            left = left_of(shards[index])
            if len(left) < 2:
                yield left, found
                continue
            middle = len(left) // 2
            halves += [left[:middle], left[middle:]]
        shards = halves


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
