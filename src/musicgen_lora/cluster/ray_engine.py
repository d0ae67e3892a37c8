"""Tasks on the machines of a Ray cluster.

Plain Ray tasks, a few more in flight than there are slots: the driver holds no more than those,
however many are planned, and an autoscaler sees that there is work. A worker or machine that dies
loses only its current task, which is handed out again. A task that has cost three workers waits
until all others are done: whatever killed them may have passed by then, and the task has its
machine's memory to itself. Machines that leave, as spot instances do, don't count against their
tasks.

Ray's ports admit anyone who reaches them, and they listen on all of a machine's addresses. So a
cluster started here requires a token, made for this run alone. No usage data is sent to Ray's
makers, and no dashboard is started.
"""

from __future__ import annotations

import enum
import faulthandler
import itertools
import logging
import os
import pickle
import secrets
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from musicgen_lora import __version__
from musicgen_lora.cluster.engine import DEFAULT_OPTIONS, TaskOptions
from musicgen_lora.console import plain_console
from musicgen_lora.errors import RunError, UserError
from musicgen_lora.plural import count
from musicgen_lora.runtime.garbage import no_garbage
from musicgen_lora.runtime.workers import START_S, Failure, Work, outcome_of
from musicgen_lora.urls import copies

TRIES_AMONG_OTHERS = 3
"""A task whose worker has died this often is tried again when all others are done, by itself."""
MACHINES = 20
"""A task that has lost this many machines is given up as well: it may be what kills them."""
QUEUED = 2
"""Tasks in flight for each slot, so that none waits for the driver."""
WAIT_S = 5.0
STARTS = 2
"""Attempts to start Ray: a machine too busy to start it in time usually succeeds the second time,
when its files are in memory."""
NO_NODE_S = 600.0
"""How long a cluster may have no slot: an autoscaler begins with none."""
OBJECT_STORE_BYTES = 200 << 20
"""Results are paths, names and codes; Ray would take a third of the memory."""
LOCAL_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    # Suppresses a warning that tasks without a GPU keep their environment.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # On a busy machine, its workers would otherwise starve, as those of --num_workers don't.
    "RAY_worker_niceness": "0",
}
"""Settings of a cluster started here; Ray reads them when it is imported."""


class _Died(enum.Enum):
    """What died while working on a task."""

    WORKER = "worker"
    MEMORY = "memory"
    MACHINE = "machine"


@dataclass
class _Running:
    index: int
    packed: bytes
    deaths: Counter[_Died] = field(default_factory=Counter)

    @property
    def n_workers(self) -> int:
        """Workers that the task has cost."""
        return self.deaths[_Died.WORKER] + self.deaths[_Died.MEMORY]

    def given_up(self, options: TaskOptions) -> Failure | None:
        """Why it is given up; None if it may be tried again."""
        n_memory = self.deaths[_Died.MEMORY]
        if self.n_workers >= options.tries and n_memory:
            return Failure(
                f"killed {count(self.n_workers, 'worker')} ({n_memory} for lack of memory); give "
                "the machines more memory, or fewer CPUs (ray start --num-cpus)."
            )
        if self.n_workers >= options.tries:
            return Failure(
                f"killed {count(self.n_workers, 'worker')}, or took more than "
                f"{options.limit_s:g} s."
            )
        if self.deaths[_Died.MACHINE] >= MACHINES:
            return Failure(f"was on {MACHINES} machines that disappeared.")
        return None


@dataclass(frozen=True)
class _Shared:
    """What all tasks of a run share.

    Args:
        version: of this package on the driver.
        folder: that relative paths start from.
        proofs: files of this run beside its copies of what URLs name.
        limit_s: seconds without a sign of life after which a task is killed.
    """

    work: Work
    version: str
    folder: str
    proofs: tuple[Path, ...]
    limit_s: float


@contextmanager
def joined_cluster(address: str) -> Iterator[RayEngine]:
    """Joins a cluster, or starts one on this machine.

    Args:
        address: `local` starts one that ends with this context, `auto` joins the one that runs
            here, and HOST:PORT another one that this machine is a node of.

    Raises:
        UserError: there is none.
    """
    if address.startswith("ray://"):
        raise UserError(
            f"--ray {address}: Ray Client is not supported; run the command on a node of the "
            "cluster, with --ray auto."
        )
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        # A notebook that has already joined a cluster stays in it.
        yield RayEngine()
        return
    if address == "local" and "ray" not in sys.modules:
        os.environ.update(LOCAL_ENVIRONMENT)
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    if address == "local" and os.environ.get("RAY_AUTH_MODE") != "token":
        # Ray read its environment when it was imported.
        raise UserError(
            "--ray local: this program has already imported Ray without a token to protect its "
            "ports; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN first, or start a cluster and use "
            "--ray auto."
        )
    import ray

    options: dict[str, Any] = {"address": address}
    if address == "local":
        options |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
        _say_what_is_busy()
    # Ray replaces the signal handlers.
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        _init(address, options)
    finally:
        for number, handler in handlers.items():
            # Only the main thread may set handlers.
            with suppress(ValueError):
                signal.signal(number, handler)
    try:
        yield RayEngine()
    finally:
        ray.shutdown()


def _init(address: str, options: dict[str, Any]) -> None:
    import ray

    for number in range(1, STARTS + 1):
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
            return
        # Ray raises even plain Exceptions, such as when a machine is too busy to start it within
        # half a minute.
        except Exception as error:
            ray.shutdown()
            said = " ".join(str(error).split())[:200]
            if address != "local":
                raise UserError(
                    f"--ray {address}: no Ray cluster answers ({said}); start one with ray start "
                    "--head, or use --ray local."
                ) from error
            if number == STARTS:
                raise UserError(
                    f"--ray local: Ray didn't start here within half a minute ({said}); wait until "
                    "the machine is less busy, or leave --ray out."
                ) from error


def _say_what_is_busy() -> None:
    """Warns if other programs are using this machine's processors, since Ray gives each processor a
    task regardless."""
    n_processors = os.cpu_count() or 1
    load = psutil.getloadavg()[0]
    n_free = max(1, n_processors - round(load))
    if n_free < n_processors:
        plain_console().print(
            f"--ray local: other programs are using {load:.1f} of this machine's {n_processors} "
            "processors, and Ray gives each processor a task regardless. To leave them room, run "
            f"ray start --head --num-cpus {n_free} and then use --ray auto; for prepare and "
            "tokenise, --num_workers costs less.",
            style="yellow",
        )


class RayEngine:
    """Runs tasks on the cluster that this process has joined, see `Engine`."""

    def run(
        self, work: Work, tasks: Sequence[Any], options: TaskOptions = DEFAULT_OPTIONS
    ) -> Iterator[tuple[int, Any]]:
        """See `Engine`."""
        import ray

        resource = "GPU" if options.on_gpu and ray.cluster_resources().get("GPU") else "CPU"
        needs = {"num_cpus": 1, "num_gpus": int(resource == "GPU"), "max_retries": 0}
        attempt: Any = ray.remote(_attempt_packed).options(**needs)
        waiting = enumerate(tasks)
        running: dict[Any, _Running] = {}
        suspects: deque[_Running] = deque()
        proofs = tuple(copy.proof for copy in copies())
        # Ray serialises the function once, and its arguments with each task.
        whole = _Shared(work, __version__, os.getcwd(), proofs, options.limit_s)
        shared = ray.put(pickle.dumps(whole))
        places_seen = time.monotonic()
        try:
            while True:
                n_places = int(ray.cluster_resources().get(resource, 0))
                places_seen = time.monotonic() if n_places else places_seen
                room = QUEUED * max(1, n_places) - len(running)
                for index, task in itertools.islice(waiting, max(0, room)):
                    one = _Running(index, pickle.dumps(task))
                    running[attempt.remote(shared, one.packed)] = one
                if not running and not suspects:
                    return
                if not running:
                    one = suspects.popleft()
                    running[attempt.remote(shared, one.packed)] = one
                ready, _ = ray.wait(list(running), timeout=WAIT_S)
                if not ready and time.monotonic() - places_seen > NO_NODE_S:
                    raise RunError(
                        "the Ray cluster has had no node to work on for ten minutes; finished work "
                        "is kept: start nodes, and run the command again."
                    )
                for reference in ready:
                    one = running.pop(reference)
                    found = _result(reference)
                    if not isinstance(found, _Died):
                        yield one.index, found
                        continue
                    one.deaths[found] += 1
                    failure = one.given_up(options)
                    if failure is not None:
                        yield one.index, failure
                    elif found is not _Died.MACHINE and one.n_workers >= TRIES_AMONG_OTHERS:
                        suspects.append(one)
                    else:
                        running[attempt.remote(shared, one.packed)] = one
        finally:
            # Waiting tasks first, or they would take the slots of the others.
            for reference in reversed(list(running)):
                ray.cancel(reference, force=True)


def _result(reference: Any) -> Any:
    """The result of a task.

    Raises:
        RunError, OSError: a fault that the next task would meet too.
        UserError: a node lacks this package or the data, or has another version.
    """
    import ray
    from ray import exceptions

    try:
        kind, value = ray.get(reference)
    except exceptions.RayTaskError as error:
        said = str(error).strip().rpartition("\n")[2][-300:]
        raise UserError(
            f"a node of the Ray cluster can't run the task ({said}); install musicgen-lora "
            f"{__version__} with the same Python on every node."
        ) from error
    except exceptions.RayError as error:
        return _died(error)
    if kind == "fault":
        raise value
    if kind == "unfit":
        raise UserError(f"a node of the Ray cluster {value}.")
    return value


def _died(error: Exception) -> _Died:
    from ray import exceptions

    if isinstance(error, exceptions.OutOfMemoryError):
        return _Died.MEMORY
    return _Died.MACHINE if isinstance(error, exceptions.NodeDiedError) else _Died.WORKER


def _attempt_packed(shared: bytes, task: bytes) -> tuple[str, Any]:
    """Unpickles the arguments here instead of in Ray, since that loads the libraries, and calls
    `_attempt`."""
    with no_garbage():
        given = pickle.loads(shared), pickle.loads(task)
    return _attempt(*given)


def _attempt(shared: _Shared, task: Any) -> tuple[str, Any]:
    """Works on a task, in a worker. A decoder that hangs may hold the interpreter's lock, so it is
    killed by a timer in C."""
    if shared.version != __version__:
        return "unfit", f"has musicgen-lora {__version__}, this one {shared.version}"
    try:
        os.chdir(shared.folder)
    except OSError:
        return "unfit", (
            f"has no folder {shared.folder}: the data must be on a drive that all nodes share"
        )

    for proof in shared.proofs:
        if not proof.exists():
            return "unfit", (
                f"has no {proof}: copies of what a URL names must be on a drive that all nodes "
                "share; set XDG_CACHE_HOME to a folder on it"
            )

    with open(os.devnull, "w", encoding="utf-8") as nowhere:

        def end_after(seconds: float) -> None:
            faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)

        def alive(share: float | None = None, /) -> None:
            end_after(shared.limit_s)

        try:
            end_after(max(shared.limit_s, START_S))
            return "done", shared.work(task, alive)
        except Exception as error:  # noqa: BLE001 - the driver is told, and raises if need be
            return outcome_of(error)
        finally:
            faulthandler.cancel_dump_traceback_later()
