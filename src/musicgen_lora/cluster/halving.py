"""A batch of things that costs its workers their lives is worked on again in halves, and those in
halves, until the one is alone that kills them: it costs itself, and no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from musicgen_lora.cluster.engine import Engine
from musicgen_lora.runtime.workers import Failure, Work

Row = TypeVar("Row")
LIMIT_S = 600.0
"""For one clip of the longest kind, on a busy machine."""


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
    """Works on batches, and in halves on those that cost their workers their lives.

    Args:
        engine: works.
        work: a model's, on a task; gives its result.
        shards: clips of each.
        task_of: the task of a batch's clips.
        left_of: the clips that are still to do of a batch whose worker died.

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
