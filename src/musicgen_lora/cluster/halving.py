"""A batch of things that costs its workers their lives is worked on in halves, and those in halves,
until the one is alone that kills them: it costs itself, and no other.

What its parts give is joined. So a batch comes to the same whether its workers died by chance, for
lack of memory, or of something in it, which is then all that is missing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from musicgen_lora.cluster.engine import TRIES, Engine, TaskOptions
from musicgen_lora.runtime.workers import Failure, Work

Row = TypeVar("Row")
LIMIT_S = 600.0
"""For one clip of the longest kind, on a busy machine."""
ON_GPU = TaskOptions(LIMIT_S, on_gpu=True)
PART_TRIES = 1
"""A part that can be halved is halved at once: its workers may die of it each time."""


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
class _Part(Generic[Row]):
    """Rows of a batch, from a place in it on."""

    batch: int
    start: int
    rows: list[Row]

    def halves(self) -> list[_Part[Row]]:
        middle = len(self.rows) // 2
        first, second = self.rows[:middle], self.rows[middle:]
        return [
            _Part(self.batch, self.start, first),
            _Part(self.batch, self.start + middle, second),
        ]


@dataclass(frozen=True)
class _Tasks(Sequence[Any]):
    """The tasks of batches, each made when it is handed out."""

    batches: Sequence[Any]
    task_of: Callable[[Any], Any]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: Any) -> Any:
        return self.task_of(self.batches[index])


def run_halving(
    engine: Engine,
    batches: Sequence[list[Row]],
    whole: BatchWork[Row],
    part: BatchWork[Row],
    join: Callable[[list[Any]], Any],
) -> Iterator[Outcome[Row]]:
    """Works on batches, and by their parts on those that cost their workers their lives.

    Args:
        whole: what is done with a batch.
        part: what is done with a part of one.
        join: makes of what parts have given, in their order, what the batch would have.

    Yields:
        What came of each batch, as they end.
    """
    parts: list[_Part[Row]] = []
    tasks = _Tasks(batches, whole.task_of)
    for index, found in engine.run(whole.work, tasks, ON_GPU):
        rows = batches[index]
        if not isinstance(found, Failure):
            yield Outcome(rows, found, [])
        elif len(rows) == 1:
            yield Outcome([], None, [(rows[0], found)])
        else:
            parts += _Part(index, 0, rows).halves()
    n_open = Counter(one.batch for one in parts)
    done: dict[int, list[tuple[_Part[Row], Any]]] = defaultdict(list)
    while parts:
        halves: list[_Part[Row]] = []
        for one, found in _run_parts(engine, part, parts):
            if isinstance(found, Failure) and len(one.rows) > 1:
                halves += one.halves()
                n_open[one.batch] += 1
                continue
            done[one.batch].append((one, found))
            n_open[one.batch] -= 1
            if not n_open[one.batch]:
                yield _joined(done.pop(one.batch), join)
        parts = halves


def _run_parts(
    engine: Engine, part: BatchWork[Row], parts: Sequence[_Part[Row]]
) -> Iterator[tuple[_Part[Row], Any]]:
    """Parts and what came of each; a row that is alone is given up as late as a whole batch."""
    several = [one for one in parts if len(one.rows) > 1]
    alone = [one for one in parts if len(one.rows) == 1]
    for some, tries in ((several, PART_TRIES), (alone, TRIES)):
        tasks = _Tasks([one.rows for one in some], part.task_of)
        for index, found in engine.run(part.work, tasks, replace(ON_GPU, tries=tries)):
            yield some[index], found


def _joined(parts: list[tuple[_Part[Row], Any]], join: Callable[[list[Any]], Any]) -> Outcome[Row]:
    rows: list[Row] = []
    found: list[Any] = []
    faults: list[tuple[Row, Failure]] = []
    for one, given in sorted(parts, key=lambda pair: pair[0].start):
        if isinstance(given, Failure):
            faults.append((one.rows[0], given))
        else:
            rows += one.rows
            found.append(given)
    return Outcome(rows, join(found) if found else None, faults)
