"""Engines that run independent tasks: this process, a few processes of this machine, or a Ray
cluster. Code with such tasks is given an `Engine` and doesn't ask which one.

A task is small (paths, words, numbers), its work is a module-level function, and its output is a
file named by its content and renamed into place once it is whole. So a task may safely run twice,
anywhere, and the next run need not repeat what an interrupted one finished.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from rich.console import Console

from musicgen_lora.console import progress
from musicgen_lora.extras import require_extra
from musicgen_lora.runtime.workers import LIMIT_S, OnShare, Work, run_tasks

TRIES = 6
"""A task whose worker has died this often is given up: it may be what kills them."""


@dataclass(frozen=True)
class TaskOptions:
    """Options for every task of a run.

    Args:
        limit_s: seconds without a sign of life after which a task is killed.
        on_gpu: whether its work is a model's, which gets a GPU if there is one.
        tries: workers that a task may cost before it is given up, on engines whose workers can die
            through no fault of the task.
        on_share: told how far along tasks are, on this machine's processes, by those that report
            it.
    """

    limit_s: float = LIMIT_S
    on_gpu: bool = False
    tries: int = TRIES
    on_share: OnShare = lambda index, share: None


DEFAULT_OPTIONS = TaskOptions()


class Engine(Protocol):
    """Runs tasks."""

    def run(
        self, work: Work, tasks: Sequence[Any], options: TaskOptions = DEFAULT_OPTIONS
    ) -> Iterator[tuple[int, Any]]:
        """Yields (index of the task, result or `Failure`) as they end.

        Args:
            work: a module-level function of (task, sign of life).
            tasks: picklable.

        Raises:
            RunError, OSError: a fault that the next task would meet too, such as a full disk.
        """
        ...


@dataclass(frozen=True)
class Processes:
    """Processes of this machine, whose cause of death is known: a task is tried only once, whatever
    its options allow, and no GPU is assigned to it.

    Args:
        n_workers: how many processes; 0 runs tasks in this one.
    """

    n_workers: int

    def run(
        self, work: Work, tasks: Sequence[Any], options: TaskOptions = DEFAULT_OPTIONS
    ) -> Iterator[tuple[int, Any]]:
        """See `Engine`."""
        return run_tasks(work, tasks, self.n_workers, options.limit_s, options.on_share)


@contextmanager
def open_engine(ray: str | None, n_workers: int = 0) -> Iterator[Engine]:
    """The engine that settings ask for.

    Args:
        ray: the address of a Ray cluster, `local` or `auto`; None for this machine's processes.

    Raises:
        UserError: Ray is not installed, or there is no cluster at that address.
    """
    if ray is None:
        yield Processes(n_workers)
        return
    require_extra("scale", f"--ray {ray}")
    from musicgen_lora.cluster.ray_engine import joined_cluster

    with joined_cluster(ray) as engine:
        yield engine


def run_shown(
    console: Console,
    told: str,
    engine: Engine,
    work: Work,
    tasks: Sequence[Any],
    limit_s: float = LIMIT_S,
) -> Iterator[tuple[int, Any]]:
    """`Engine.run`, showing on the console how many tasks are done ("files cut"), with partial
    progress of long ones."""
    n_done, shares = 0, dict[int, float]()
    with progress(console, told, len(tasks)) as on_task:

        def on_share(index: int, share: float) -> None:
            shares[index] = share
            on_task(n_done + sum(shares.values()), len(tasks))

        for found in engine.run(work, tasks, TaskOptions(limit_s, on_share=on_share)):
            yield found
            n_done += 1
            shares.pop(found[0], None)
            on_task(n_done + sum(shares.values()), len(tasks))
