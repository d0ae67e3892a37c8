"""Batches of items; a batch that kills its workers is retried item by item, so that a fatal item
costs only itself.

The items' results are joined. So a batch gives the same result whether its workers died by chance,
for lack of memory, or because of one item, which is then all that is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from musicgen_lora.cluster.engine import Engine, TaskOptions
from musicgen_lora.runtime.workers import Failure, Work

Row = TypeVar("Row")
LIMIT_S = 600.0
"""Enough for one of the longest clips on a busy machine."""
ON_GPU = TaskOptions(LIMIT_S, on_gpu=True)


@dataclass(frozen=True)
class BatchWork(Generic[Row]):
    """The work done on rows.

    Args:
        work: a model's work on a task; returns its result.
        task_of: makes the task of some rows.
    """

    work: Work
    task_of: Callable[[list[Row]], Any]


@dataclass(frozen=True)
class Outcome(Generic[Row]):
    """The outcome of a batch.

    Args:
        rows: the batch's rows in their order, without those at fault.
        found: the result for these; None if there are none.
        faults: rows that killed their workers even alone.
    """

    rows: list[Row]
    found: Any
    faults: list[tuple[Row, Failure]]


@dataclass(frozen=True)
class _Tasks(Sequence[Any]):
    """The tasks of batches, each built when it is handed out."""

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
    """Works on batches, and row by row on those that killed their workers.

    Args:
        whole: the work on a batch.
        alone: the work on a single row.
        join: combines the results of rows, in their order, into that of the batch.

    Yields:
        The outcome of each batch, as they end.
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
