"""A few processes that work on untrusted files: one that crashes or hangs costs only its file.

`concurrent.futures` gives up the whole pool when one of its processes dies, and can't kill a single
one that hangs. Decoders of strangers' files do both, so each process here has a pipe of its own,
one task at a time, and a time limit that restarts with each sign of life.

A fault that would hit every other file too (a full disk, a folder that can't be written to) isn't
blamed on the current file: it ends the run.
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
"""A task that gives no sign of life for this long is killed."""
START_S = 120.0
"""A process may take this long to start: the libraries are large, and disks slow."""

RUN_FAULTS = DISK_FAULTS | RIGHTS_FAULTS | {errno.EMFILE, errno.ENFILE}
"""Error numbers of faults that the next file would meet too. Readers report what is wrong with a
file as an `AudioError`, so these come from writing."""
FIRST_LOADED = "musicgen_lora.runtime.fork_server"
"""Loaded by the server that forks the processes before it loads their work's module."""
MAX_SOCKET_FOLDER_BYTES = 60
"""A socket's path has at most 104 bytes, of which multiprocessing adds some thirty."""


class SignOfLife(Protocol):
    """Called by a task's work now and then; `share` is the part of the task done, 0 to 1."""

    def __call__(self, share: float | None = None, /) -> None: ...


OnShare = Callable[[int, float], None]
"""Called with (index of the task, share of it that is done)."""
Work = Callable[[Any, SignOfLife], Any]
"""A module-level function of (task, sign of life)."""


@dataclass(frozen=True)
class Failure:
    """The outcome of a task without a result; `reason` is printed after the name of its file."""

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
        work: a module-level function; what it raises ends its process and becomes a `Failure`.
        tasks: picklable.
        n_workers: processes; 0 runs tasks in this one, without a time limit.
        limit_s: seconds without a sign of life after which a task is killed.
        on_share: told how far along tasks are, by those that report it.

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
    """Gives each idle process a waiting task, starts as many processes as can be used, and ends
    those without a task."""
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
            # It died before it began; `wait` will see the closed pipe.
            continue


def _start(context: Any, work: Work) -> _Worker:
    ours, theirs = context.Pipe()
    # A server that forks it has the environment of whoever was its first caller.
    process = context.Process(target=_serve, args=(work, theirs, dict(os.environ)), daemon=True)
    try:
        with _plain_main(), _signals_blocked(), _short_temporary_folder():
            process.start()
    except OSError as error:
        if "AF_UNIX" not in str(error):
            raise
        raise UserError(
            f"{tempfile.gettempdir()}: this path is too long for temporary files; set TMPDIR to a "
            "shorter one."
        ) from error
    theirs.close()
    return _Worker(process, ours)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """A context in which started processes get these environment variables."""
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
    """A context with an empty main module. multiprocessing makes each process import its caller's
    main module: a script without a `__main__` guard would run again in each of them."""
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
    """A context in which started processes never see Ctrl-C, or a SIGTERM or SIGHUP sent to the
    whole group, not even while their libraries load: only the first process knows what to save, and
    it ends the others."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # Starting the resource tracker would unblock them.
    resource_tracker.ensure_running()
    stops = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _short_temporary_folder() -> Iterator[None]:
    """A context with a temporary folder whose path is short enough for multiprocessing's socket."""
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
        return "dead", Failure(f"crashed its reader (exit code {code}).")


def _end(worker: _Worker) -> None:
    worker.pipe.close()
    worker.process.kill()
    worker.process.join(5.0)


def _serve(work: Work, pipe: Connection, environment: Mapping[str, str]) -> None:
    """The main loop of a process, until its pipe closes."""
    os.environ.clear()
    os.environ.update(environment)
    # Where signals can't be blocked, Ctrl-C reaches every process of a terminal.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            task = pipe.recv()
            pipe.send(("alive", None))
            _work_on(work, task, pipe)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            # Nobody wants the result any more.
            os._exit(0)


def _work_on(work: Work, task: Any, pipe: Connection) -> None:
    """Works on a task and sends its outcome; after an error the process ends."""
    try:
        pipe.send(("done", work(task, lambda share=None: pipe.send(("alive", share)))))
    except (BrokenPipeError, ConnectionResetError):
        raise
    except BaseException as error:
        pipe.send(outcome_of(error))
        # Without a traceback: the reason has been sent.
        sys.stderr.flush()
        raise SystemExit(1) from error


def outcome_of(error: BaseException) -> tuple[str, Any]:
    """The outcome of a task's error, in any engine: "fault" and an exception that ends the run, or
    "dead" and a `Failure`, which costs only the task."""
    if isinstance(error, RunError):
        return "fault", RunError(str(error))
    if isinstance(error, OSError) and error.errno in RUN_FAULTS:
        return "fault", OSError(error.errno, error.strerror, error.filename)
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return "dead", Failure(f"could not be processed ({reason}).")


def _end_with_parent() -> None:
    """Ends this process when the one that started it is gone, even in the middle of a task."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(0)
