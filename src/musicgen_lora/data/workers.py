"""A few processes that work on files made by others: one that crashes or hangs costs its file.

`concurrent.futures` gives up the whole pool when one of its processes dies, and can't end a single
one that hangs. Decoders of strangers' files do both, so each process here has a pipe of its own, a
task at a time, and a time limit that starts anew with each sign of life.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

LIMIT_S = 60.0
"""A task that gives no sign of life for so long is ended."""
START_S = 120.0
"""A process may take so long to start: the libraries are large, disks slow."""

Work = Callable[[Any, Callable[[], None]], Any]
"""A module's function of (task, sign of life)."""


@dataclass(frozen=True)
class Failure:
    """What a task came to that gave no result; `reason` follows the name of its file."""

    reason: str


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    task: int | None = None
    deadline: float = 0.0


def run_tasks(
    work: Work, tasks: Sequence[Any], n_workers: int, limit_s: float = LIMIT_S
) -> Iterator[tuple[int, Any]]:
    """Runs `work` on each task and yields (index of the task, result or `Failure`) as they end.

    Args:
        work: a module's function; what it raises ends its process and becomes a `Failure`.
        tasks: picklable.
        n_workers: processes; 0 works in this one, where nothing limits a task.
        limit_s: seconds without a sign of life after which a task is ended.
    """
    if not n_workers:
        for index, task in enumerate(tasks):
            yield index, work(task, lambda: None)
        return
    # A server that has imported the libraries once forks each process in milliseconds.
    has_server = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if has_server else "spawn")
    if has_server:
        context.set_forkserver_preload([work.__module__])
    waiting = list(range(len(tasks)))[::-1]
    workers: list[_Worker] = []
    try:
        while waiting or workers:
            while waiting and len(workers) < n_workers:
                workers.append(_start(context, work))
            for worker in [w for w in workers if w.task is None]:
                if not waiting:
                    _end(worker)
                    workers.remove(worker)
                    continue
                worker.task = waiting.pop()
                worker.deadline = time.monotonic() + START_S
                try:
                    worker.pipe.send(tasks[worker.task])
                except BrokenPipeError:
                    # Died before it began; `wait` sees the closed pipe.
                    continue
            if not workers:
                break
            rest_s = max(0.0, min(w.deadline for w in workers) - time.monotonic())
            ready = wait([worker.pipe for worker in workers], rest_s)
            for worker in list(workers):
                index = worker.task
                assert index is not None
                if worker.pipe in ready:
                    kind, value = _receive(worker)
                    if kind == "alive":
                        worker.deadline = time.monotonic() + limit_s
                        continue
                    worker.task = None
                    if kind == "dead":
                        _end(worker)
                        workers.remove(worker)
                    yield index, value
                elif time.monotonic() >= worker.deadline:
                    _end(worker)
                    workers.remove(worker)
                    yield index, Failure(f"took more than {limit_s:g} s; given up.")
    finally:
        for worker in workers:
            _end(worker)


def _start(context: Any, work: Work) -> _Worker:
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(work, theirs), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _receive(worker: _Worker) -> tuple[str, Any]:
    try:
        return worker.pipe.recv()
    except (EOFError, ConnectionResetError):
        worker.process.join(5.0)
        code = worker.process.exitcode
        return "dead", Failure(f"crashed the reader (exit code {code}).")


def _end(worker: _Worker) -> None:
    worker.pipe.close()
    worker.process.kill()
    worker.process.join(5.0)


def _serve(work: Work, pipe: Connection) -> None:
    """What a process does until its pipe closes."""
    # Ctrl-C reaches every process of a terminal; only the first one knows what to save.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(("alive", None))
            result = work(task, lambda: pipe.send(("alive", None)))
        except BaseException as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            pipe.send(("dead", Failure(f"could not be worked on ({reason}).")))
            # Without a traceback: the reason is on its way.
            sys.stderr.flush()
            raise SystemExit(1) from error
        pipe.send(("done", result))
