"""A batch of things that costs its workers their lives is worked on one by one: what kills them
costs itself, and no other.

What they give is joined. So a batch comes to the same whether its workers died by chance, for lack
of memory, or of something in it, which is then all that is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from musicgen_lora.cluster.engine import Engine, TaskOptions
from musicgen_lora.runtime.workers import Failure, Work

Row = TypeVar("Row")
LIMIT_S = 600.0
"""For one clip of the longest kind, on a busy machine."""
ON_GPU = TaskOptions(LIMIT_S, on_gpu=True)


@dataclass(frozen=True)
class BatchWork(Generic[Row]):
    """What is done with rows.

    Args:
        work: a model's, on a task; gives its result.
    """

    work: Work
    task_of: Callable[[list[Row]], Any]


@dataclass(frozen=True)
class Outcome(Generic[Row]):
    """What came of a batch.

    Args:
        rows: of the batch, in its order, without those at fault.
        found: of these; None where there are none.
        faults: rows that cost their workers their lives even alone.
    """

    rows: list[Row]
    found: Any
    faults: list[tuple[Row, Failure]]


@dataclass(frozen=True)
class _Tasks(Sequence[Any]):
    """The tasks of batches, each made when it is handed out."""

    batches: Sequence[Any]
    task_of: Callable[[Any], Any]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: Any) -> Any:
        return self.task_of(self.batches[index])


def run_batches(
    engine: Engine,
    batches: Sequence[list[Row]],
    whole: BatchWork[Row],
    alone: BatchWork[Row],
    join: Callable[[list[Any]], Any],
) -> Iterator[Outcome[Row]]:
    """Works on batches, and one by one on the rows of those that cost their workers their lives.

    Args:
        whole: what is done with a batch.
        alone: what is done with one of its rows.
        join: makes of what rows have given, in their order, what the batch would have.

    Yields:
        What came of each batch, as they end.
    """
    again: list[list[Row]] = []
    for index, found in engine.run(whole.work, _Tasks(batches, whole.task_of), ON_GPU):
        rows = batches[index]
        if not isinstance(found, Failure):
            yield Outcome(rows, found, [])
        elif len(rows) == 1:
            yield Outcome([], None, [(rows[0], found)])
        else:
            again.append(rows)
    for rows in again:
        tasks = _Tasks([[row] for row in rows], alone.task_of)
        ended = dict(engine.run(alone.work, tasks, ON_GPU))
        pairs = [(row, ended[place]) for place, row in enumerate(rows)]
        given = [(row, found) for row, found in pairs if not isinstance(found, Failure)]
        yield Outcome(
            [row for row, _ in given],
            join([found for _, found in given]) if given else None,
            [(row, found) for row, found in pairs if isinstance(found, Failure)],
        )
