"""Who works on tasks that know nothing of each other: this process, a few of this machine's, or
those of a Ray cluster. Whoever has such tasks is given an `Engine` and doesn't ask which it is.

A task is small (paths, words, numbers), its work is a module's function, and what it makes is a
file that is named by its content and renamed into place when it is whole. So a task may be worked
on twice, by whomever, and what a broken run leaves is what the next one need not make.
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
"""A task whose worker has died as often is given up: it may be what kills them."""


@dataclass(frozen=True)
class TaskOptions:
    """What each task of a run is given.

    Args:
        limit_s: seconds without a sign of life after which it is ended.
        on_gpu: its work is a model's, which is given a GPU where there are some.
        tries: workers that it may cost until it is given up, where they can die of what is no
            fault of theirs.
        on_share: told how far tasks of this machine's processes are, by those that say so.
    """

    limit_s: float = LIMIT_S
    on_gpu: bool = False
    tries: int = TRIES
    on_share: OnShare = lambda index, share: None


DEFAULT_OPTIONS = TaskOptions()


class Engine(Protocol):
    """Works on tasks."""

    def run(
        self, work: Work, tasks: Sequence[Any], options: TaskOptions = DEFAULT_OPTIONS
    ) -> Iterator[tuple[int, Any]]:
        """Yields (index of the task, result or `Failure`) as they end.

        Args:
            work: a module's function of (task, sign of life).
            tasks: picklable.

        Raises:
            RunError, OSError: what the next task would meet too, such as a full disk.
        """
        ...


@dataclass(frozen=True)
class Processes:
    """Processes of this machine, which tell how they died: a task is tried once, whatever its
    options allow, and asks nobody for a GPU.

    Args:
        n_workers: how many; 0 works in this one.
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
        ray: address of a Ray cluster, `local` or `auto`; None for this machine's processes.

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
    """`Engine.run`, with how many tasks are done ("files cut") on the console, and how much of
    those that take long."""
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
