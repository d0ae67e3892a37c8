"""Tasks on the machines of a Ray cluster.

Plain Ray tasks, a few more in flight than there are places to work at: the driver keeps no more
than those, however many are planned, and an autoscaler sees that there is work. A worker or a
machine that dies costs what it was working on, which is handed out again. A task that three workers
have died of waits until all others are done: so whatever ended them may have passed, and it has
the memory of its machine alone. Machines that go, as hired ones do, are no fault of their tasks.

Ray's ports let in whoever reaches them, and they listen on all of a machine's addresses. So a
cluster that is started here asks for a token, made for this run alone. Nothing is reported to
Ray's makers, and no dashboard is started.
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
"""A task whose worker has died as often is tried again when all others are done, by itself."""
MACHINES = 20
"""A task that has been on as many machines that went is given up as well: it may be what ends them.
"""
QUEUED = 2
"""Tasks in flight for each place to work at, so that none waits for the driver."""
WAIT_S = 5.0
STARTS = 2
"""A machine that was too busy to start Ray in time mostly starts it the second time, when its files
are in memory."""
NO_NODE_S = 600.0
"""So long a cluster may be without a place to work at: an autoscaler begins with none."""
OBJECT_STORE_BYTES = 200 << 20
"""Results are paths, names and codes; Ray would take a third of the memory."""
LOCAL_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    # It would say that it leaves tasks without a GPU their environment.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Its workers would wait behind all else on a busy machine, as those of --num_workers don't.
    "RAY_worker_niceness": "0",
}
"""Settings of a cluster that is started here; read when Ray is imported."""


class _Died(enum.Enum):
    """What a task lost."""

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
        """That it cost."""
        return self.deaths[_Died.WORKER] + self.deaths[_Died.MEMORY]

    def given_up(self, options: TaskOptions) -> Failure | None:
        """Why it is; None where it may be tried again."""
        n_memory = self.deaths[_Died.MEMORY]
        if self.n_workers >= options.tries and n_memory:
            return Failure(
                f"ended {count(self.n_workers, 'worker')} ({n_memory} for lack of memory); give "
                "the machines more of it, or fewer CPUs (ray start --num-cpus)."
            )
        if self.n_workers >= options.tries:
            return Failure(
                f"ended {count(self.n_workers, 'worker')}, or took more than {options.limit_s:g} s."
            )
        if self.deaths[_Died.MACHINE] >= MACHINES:
            return Failure(f"was on {MACHINES} machines that went.")
        return None


@dataclass(frozen=True)
class _Shared:
    """What all tasks of a run have in common.

    Args:
        version: of this package, where the run was started.
        folder: that relative paths are meant from.
        proofs: files of this run beside copies of what URLs name.
        limit_s: seconds without a sign of life after which a task is ended.
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
        address: `local` starts one that ends with this, `auto` joins the one that runs here, and
            HOST:PORT another that this machine is a node of.

    Raises:
        UserError: there is none.
    """
    if address.startswith("ray://"):
        raise UserError(
            f"--ray {address}: Ray's client is not used; run the command on a node of the cluster, "
            "with --ray auto."
        )
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        # A notebook has joined one, and stays in it.
        yield RayEngine()
        return
    if address == "local" and "ray" not in sys.modules:
        os.environ.update(LOCAL_ENVIRONMENT)
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    if address == "local" and os.environ.get("RAY_AUTH_MODE") != "token":
        # It has read its environment when it was imported.
        raise UserError(
            "--ray local: this program has loaded Ray itself, without a token that its ports ask "
            "for; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN before, or start a cluster and give "
            "--ray auto."
        )
    import ray

    options: dict[str, Any] = {"address": address}
    if address == "local":
        options |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
        _say_what_is_busy()
    # Ray takes the signals over.
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
        # Among others a plain Exception, where a machine is too busy to start it within half a
        # minute.
        except Exception as error:
            ray.shutdown()
            said = " ".join(str(error).split())[:200]
            if address != "local":
                raise UserError(
                    f"--ray {address}: no Ray cluster answers ({said}); start one with ray start "
                    "--head, or give --ray local."
                ) from error
            if number == STARTS:
                raise UserError(
                    f"--ray local: Ray doesn't start here ({said}), which it must within half a "
                    "minute; wait until the machine is less busy, or leave --ray out."
                ) from error


def _say_what_is_busy() -> None:
    """Says so where other programs have processors of this machine: Ray gives each of them a task
    all the same."""
    n_processors = os.cpu_count() or 1
    load = psutil.getloadavg()[0]
    n_free = max(1, n_processors - round(load))
    if n_free < n_processors:
        plain_console().print(
            f"--ray local: other programs ask for {load:.1f} of this machine's {n_processors} "
            "processors, and Ray gives each of these a task all the same. ray start --head "
            f"--num-cpus {n_free}, and then --ray auto, leaves room; prepare and tokenise have "
            "--num_workers, which costs less.",
            style="yellow",
        )


class RayEngine:
    """The cluster that this process has joined, see `Engine`."""

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
                        "the Ray cluster has had no place to work at for ten minutes; what is done "
                        "stays: start nodes, and run it again."
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
            # Those that wait first, or they would take the places of the others.
            for reference in reversed(list(running)):
                ray.cancel(reference, force=True)


def _result(reference: Any) -> Any:
    """What a task came to.

    Raises:
        RunError, OSError: what the next task would meet too.
        UserError: a node has no such package, another version, or not the data.
    """
    import ray
    from ray import exceptions

    try:
        kind, value = ray.get(reference)
    except exceptions.RayTaskError as error:
        said = str(error).strip().rpartition("\n")[2][-300:]
        raise UserError(
            f"a node of the Ray cluster can't do the work ({said}); install musicgen-lora "
            f"{__version__} with the same Python on each."
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
    """`_attempt` of what is unpickled here, and not by Ray, since that loads the libraries."""
    with no_garbage():
        given = pickle.loads(shared), pickle.loads(task)
    return _attempt(*given)


def _attempt(shared: _Shared, task: Any) -> tuple[str, Any]:
    """Works on a task, in a worker. A decoder that hangs may hold the interpreter's lock, so the
    one who ends it is the C library's timer."""
    if shared.version != __version__:
        return "unfit", f"has musicgen-lora {__version__}, this one {shared.version}"
    try:
        os.chdir(shared.folder)
    except OSError:
        return "unfit", f"has no folder {shared.folder}: the data must lie on a drive of all"

    for proof in shared.proofs:
        if not proof.exists():
            return "unfit", (
                f"has no {proof}: copies of what a URL names must lie on a drive of all; set "
                "XDG_CACHE_HOME to a folder of it"
            )

    with open(os.devnull, "w", encoding="utf-8") as nowhere:

        def end_after(seconds: float) -> None:
            faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)

        def alive(share: float | None = None, /) -> None:
            end_after(shared.limit_s)

        try:
            end_after(max(shared.limit_s, START_S))
            return "done", shared.work(task, alive)
        except Exception as error:  # noqa: BLE001 - the driver is told, and raises what it must
            return outcome_of(error)
        finally:
            faulthandler.cancel_dump_traceback_later()
