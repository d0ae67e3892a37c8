"""The output folder of a run: one trainer at a time, earlier runs kept, every figure recorded."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout

from musicgen_lora import atomic
from musicgen_lora.errors import RunError, UserError

RUN_FILE = "run.json"
METRICS_FILE = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
BEST_MODEL = "best_model"
TRACKED = ("tensorboard", "wandb")
PREVIEWS = "previews"
CURVES_FILE = "curves.png"
PREVIOUS = "previous"
LAUNCHER_GRACE_S = 5.0
"""A launcher passes on to its processes the Ctrl-C that the terminal has already sent them."""


@contextmanager
def locked(output_dir: Path) -> Iterator[None]:
    """Holds the folder for one trainer.

    Raises:
        UserError: it can't be made, or another run is using it.
    """
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(output_dir / ".lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(
            f"{output_dir}: in use by another run; wait for it or give another --output_dir."
        ) from error
    except OSError as error:
        raise UserError(f"{output_dir}: cannot be written ({error.strerror}).") from error
    try:
        atomic.sweep(output_dir)
        atomic.sweep(output_dir / CHECKPOINTS)
        yield
    finally:
        lock.release()


def check_unused(output_dir: Path) -> None:
    """Whether a trainer could start in the folder, told before its libraries load, which takes
    seconds. Of several processes the first one looks, as it is the one to hold the folder.

    Raises:
        UserError: it can't be made, or another run is using it.
    """
    if os.environ.get("RANK", "0") == "0":
        with locked(output_dir):
            pass


def read_run(output_dir: Path) -> dict[str, Any] | None:
    """What `run.json` says of the run in the folder; None where there is none."""
    try:
        run = json.loads((output_dir / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return run if isinstance(run, dict) and {"identity", "status"} <= set(run) else None


def write_run(output_dir: Path, run: dict[str, Any]) -> None:
    """Writes `run.json`, whole or not at all."""
    atomic.write_json(output_dir / RUN_FILE, run)


def put_aside(output_dir: Path) -> Path | None:
    """Moves an earlier run's results to `previous/<time>/`, so that none is ever overwritten.
    Returns where, or None if there was nothing."""
    names = [CHECKPOINTS, BEST_MODEL, PREVIEWS, METRICS_FILE, CURVES_FILE, *TRACKED, RUN_FILE]
    present = [output_dir / name for name in names if (output_dir / name).exists()]
    if not present:
        return None
    stamp = time.strftime("%Y%m%d-%H%M%S")
    target = output_dir / PREVIOUS / stamp
    suffix = 1
    while target.exists():
        suffix += 1
        target = output_dir / PREVIOUS / f"{stamp}-{suffix}"
    target.mkdir(parents=True)
    for path in present:
        os.rename(path, target / path.name)
    return target


def append_metrics(output_dir: Path, row: dict[str, Any]) -> None:
    """Adds a line to `metrics.jsonl`.

    Raises:
        RunError: the disk is full.
    """
    path = output_dir / METRICS_FILE
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror}).") from error


def read_metrics(output_dir: Path) -> list[dict[str, Any]]:
    """The rows of `metrics.jsonl`."""
    text = (output_dir / METRICS_FILE).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def cut_metrics(output_dir: Path, step: int) -> None:
    """Drops what a run resumed after `step` will write again, the lines of later steps and of the
    adapter's effect at the end, and a last line that a power cut left torn."""
    path = output_dir / METRICS_FILE
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if row.get("step", 0) <= step and row["event"] != "effect":
            kept.append(line + "\n")
    atomic.write_file(path, lambda temporary: temporary.write_text("".join(kept), encoding="utf-8"))


class StopSignals:
    """Turns the first SIGINT or SIGTERM into a request to stop after the step; the second one
    ends the process at once.

    Args:
        grace_s: a second one this soon after the first is the first again.
    """

    def __init__(self, grace_s: float = 0.0) -> None:
        self.received = 0
        self._received_at = 0.0
        self._grace_s = grace_s
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        for number in (signal.SIGINT, signal.SIGTERM):
            # Only the main thread may set handlers; a notebook's worker thread goes without.
            try:
                self._previous[number] = signal.signal(number, self._receive)
            except ValueError:
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _: FrameType | None) -> None:
        if not self.received:
            self.received, self._received_at = number, time.monotonic()
        elif time.monotonic() - self._received_at >= self._grace_s:
            os._exit(128 + number)
