"""A few processes that work on files made by others: one that crashes or hangs costs its file.

`concurrent.futures` gives up the whole pool when one of its processes dies, and can't end a single
one that hangs. Decoders of strangers' files do both, so each process here has a pipe of its own, a
task at a time, and a time limit that starts anew with each sign of life.

What no other file would escape (a disk that is full, a folder that can't be written to) is no fault
of the file at hand: it ends the run.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any, Protocol

from musicgen_lora.errors import DISK_FAULTS, RIGHTS_FAULTS, RunError, UserError
from musicgen_lora.runtime.memory import PLAIN_ALLOCATOR
from musicgen_lora.runtime.threads import bounded_spinning

LIMIT_S = 60.0
"""A task that gives no sign of life for so long is ended."""
START_S = 120.0
"""A process may take so long to start: the libraries are large, disks slow."""

RUN_FAULTS = DISK_FAULTS | RIGHTS_FAULTS | {errno.EMFILE, errno.ENFILE}
"""Error numbers of what the next file would meet too. Readers say themselves what is wrong with
the file that they read, as an `AudioError`; what is left comes from writing."""
FIRST_LOADED = "musicgen_lora.runtime.fork_server"
"""By the server that forks the processes, which then loads what they work on."""
MAX_SOCKET_FOLDER_BYTES = 60
"""A socket's path has up to 104 bytes, of which multiprocessing adds some thirty."""


class SignOfLife(Protocol):
    """Called by a task's work now and then; `share` is how much of the task is done, 0 to 1."""

    def __call__(self, share: float | None = None, /) -> None: ...


OnShare = Callable[[int, float], None]
"""Called with (index of the task, share of it that is done)."""
Work = Callable[[Any, SignOfLife], Any]
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
    work: Work,
    tasks: Sequence[Any],
    n_workers: int,
    limit_s: float = LIMIT_S,
    on_share: OnShare = lambda index, share: None,
) -> Iterator[tuple[int, Any]]:
    """Runs `work` on each task and yields (index of the task, result or `Failure`) as they end.

    Args:
        work: a module's function; what it raises ends its process and becomes a `Failure`.
        tasks: picklable.
        n_workers: processes; 0 works in this one, where nothing limits a task.
        limit_s: seconds without a sign of life after which a task is ended.
        on_share: told how far tasks are that say so.

    Raises:
        RunError, OSError: the disk is full or broken, or a folder can't be written to.
    """
    if not n_workers:
        for index, task in enumerate(tasks):
            yield index, work(task, partial(_pass_on, on_share, index))
        return
    # A server that has imported the libraries once forks each process in milliseconds.
    has_server = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if has_server else "spawn")
    if has_server:
        context.set_forkserver_preload([FIRST_LOADED, work.__module__])
    waiting = list(range(len(tasks)))[::-1]
    workers: list[_Worker] = []
    try:
        while waiting or workers:
            _hand_out(context, work, tasks, waiting, workers, n_workers)
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
                        _pass_on(on_share, index, value)
                        continue
                    if kind == "fault":
                        raise value
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


def _pass_on(on_share: OnShare, index: int, share: float | None = None) -> None:
    if share is not None:
        on_share(index, share)


def _hand_out(
    context: Any,
    work: Work,
    tasks: Sequence[Any],
    waiting: list[int],
    workers: list[_Worker],
    n_workers: int,
) -> None:
    """Gives each idle process a task that waits, starts as many as are of use, and ends those that
    there is none for."""
    n_busy = sum(worker.task is not None for worker in workers)
    while len(workers) < min(n_workers, n_busy + len(waiting)):
        with _environment(bounded_spinning() | PLAIN_ALLOCATOR):
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


def _start(context: Any, work: Work) -> _Worker:
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(work, theirs), daemon=True)
    try:
        with _plain_main(), _signals_blocked(), _short_temporary_folder():
            process.start()
    except OSError as error:
        if "AF_UNIX" not in str(error):
            raise
        raise UserError(
            f"{tempfile.gettempdir()}: too long a path for temporary files; set TMPDIR to a "
            "shorter one."
        ) from error
    theirs.close()
    return _Worker(process, ours)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """What is started meanwhile has these variables."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            if name in before:
                os.environ[name] = before[name]
            else:
                del os.environ[name]


@contextmanager
def _plain_main() -> Iterator[None]:
    """An empty main module meanwhile. multiprocessing has each process import that of its caller
    again: a script without a `__main__` guard would run once more in each of them."""
    main = sys.modules["__main__"]
    plain = ModuleType("__main__")
    plain.__spec__ = None
    sys.modules["__main__"] = plain
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """What is started meanwhile never sees Ctrl-C or a SIGTERM or SIGHUP to the whole group, not
    even while its libraries load: only the first process knows what to save, and it ends the
    others."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # It unblocks them when it is started.
    resource_tracker.ensure_running()
    stops = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _short_temporary_folder() -> Iterator[None]:
    """multiprocessing puts a socket into the temporary folder, whose path may be too long."""
    given = tempfile.tempdir
    if os.name == "posix" and len(os.fsencode(tempfile.gettempdir())) > MAX_SOCKET_FOLDER_BYTES:
        tempfile.tempdir = "/tmp" if os.access("/tmp", os.W_OK | os.X_OK) else given
    try:
        yield
    finally:
        tempfile.tempdir = given


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
    # Where signals can't be blocked, Ctrl-C reaches every process of a terminal.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            task = pipe.recv()
            pipe.send(("alive", None))
            _work_on(work, task, pipe)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            # Whoever wanted the result has gone.
            os._exit(0)


def _work_on(work: Work, task: Any, pipe: Connection) -> None:
    """Sends what a task came to; after an error the process ends."""
    try:
        pipe.send(("done", work(task, lambda share=None: pipe.send(("alive", share)))))
    except (BrokenPipeError, ConnectionResetError):
        raise
    except BaseException as error:
        pipe.send(outcome_of(error))
        # Without a traceback: the reason is on its way.
        sys.stderr.flush()
        raise SystemExit(1) from error


def outcome_of(error: BaseException) -> tuple[str, Any]:
    """What a task's error comes to, wherever it was worked on: "fault" and an exception that ends
    the run, or "dead" and a `Failure`, which costs the task alone."""
    if isinstance(error, RunError):
        return "fault", RunError(str(error))
    if isinstance(error, OSError) and error.errno in RUN_FAULTS:
        return "fault", OSError(error.errno, error.strerror, error.filename)
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return "dead", Failure(f"could not be worked on ({reason}).")


def _end_with_parent() -> None:
    """Ends this process when the one that started it has gone, whatever it is working on."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(0)
