"""The output folder of a run: one trainer at a time, earlier runs kept, every figure recorded."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from musicgen_lora import atomic
from musicgen_lora.errors import RunError, UserError
from musicgen_lora.formats.documents import parse_json, read_bytes
from musicgen_lora.formats.kinds import check_kind, fields, integer, text
from musicgen_lora.runtime import locks

RUN_FILE = "run.json"
METRICS_FILE = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
BEST_MODEL = "best_model"
TRACKED = ("tensorboard", "wandb")
PREVIEWS = "previews"
BASE = "base"
"""The folder of the previews that the base plays."""
CURVES_FILE = "curves.png"
PREVIOUS = "previous"
GATHERED = ".gathered"
"""Holds an earlier run's results while they are moved."""
RESULTS = (CHECKPOINTS, BEST_MODEL, PREVIEWS, METRICS_FILE, CURVES_FILE, *TRACKED, RUN_FILE)
MADE_FROM_IT = ("generated", "evaluation")
"""Default output folders of `generate` and `evaluate` for a run's adapter."""
MAX_METRICS_BYTES = 1 << 30
_ROW = fields({"event": text()}, {"step": integer(0, 10**12)})


@contextmanager
def held(output_dir: Path) -> Iterator[None]:
    """Locks the folder for one trainer, and cleans up after a killed one.

    Raises:
        UserError: it can't be made, or another run is using it.
        RunError: the disk is full or broken.
    """
    with locks.locked(output_dir):
        _bring_back(output_dir)
        for folder in (output_dir, output_dir / CHECKPOINTS, output_dir / PREVIEWS):
            atomic.sweep(folder)
        atomic.sweep_behind_link(output_dir / BEST_MODEL)
        yield


def check_unused(output_dir: Path) -> None:
    """Checks that a trainer can start in the folder, before its libraries load, which takes
    seconds. Only the first of several processes checks, since it is the one that locks the folder.

    Raises:
        UserError: it can't be made, or another run is using it.
    """
    if os.environ.get("RANK", "0") == "0":
        with held(output_dir):
            pass


def put_aside(output_dir: Path, say: Callable[[str], None]) -> Path | None:
    """Moves an earlier run's results to `previous/<time>/`, so that none is ever overwritten,
    together with the clips and evaluations of its adapter in the default folders. They are gathered
    under a temporary name and then renamed at once; if it is killed before that, the next `held`
    moves them back.

    Args:
        output_dir: locked by the caller.
        say: takes a line about anything that can't simply be moved.

    Returns:
        Where they are now, or None if there was nothing.
    """
    if not any(os.path.lexists(output_dir / name) for name in RESULTS):
        return None
    names = [name for name in RESULTS if os.path.lexists(output_dir / name)]
    for name in MADE_FROM_IT:
        if locks.in_use(output_dir / name):
            say(f"{output_dir / name}: in use by another command, so it is not moved.")
        elif os.path.lexists(output_dir / name):
            names.append(name)
    gathered = output_dir / PREVIOUS / GATHERED
    gathered.mkdir(parents=True)
    for name in names:
        path = output_dir / name
        if path.is_symlink():
            say(
                f"{path} is a link to {path.resolve()}; the link is moved, and the new run gets a "
                "folder of its own."
            )
            # A relative link would point elsewhere from there.
            os.symlink(path.resolve(), gathered / name)
            path.unlink()
        else:
            os.rename(path, gathered / name)
    return _name_by_time(gathered)


def _name_by_time(gathered: Path) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    target = gathered.with_name(stamp)
    suffix = 1
    while target.exists():
        suffix += 1
        target = gathered.with_name(f"{stamp}-{suffix}")
    os.rename(gathered, target)
    atomic.fsync_folder(target.parent)
    return target


def _bring_back(output_dir: Path) -> None:
    """Undoes a `put_aside` that was killed midway."""
    gathered = output_dir / PREVIOUS / GATHERED
    if not gathered.is_dir():
        return
    for path in gathered.iterdir():
        if not os.path.lexists(output_dir / path.name):
            os.rename(path, output_dir / path.name)
        elif path.is_symlink():
            # The link was copied, but not yet removed.
            path.unlink()
    if any(gathered.iterdir()):
        # Another command has made a folder of that name since.
        _name_by_time(gathered)
    else:
        gathered.rmdir()


def best_model_faults(output_dir: Path) -> list[str]:
    """Names of the files that are missing or altered in `best_model`."""
    best = output_dir / BEST_MODEL
    if not best.is_dir():
        return [BEST_MODEL]
    return atomic.manifest_faults(best)


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
    return [row for row in map(_row, _lines(output_dir / METRICS_FILE)) if row is not None]


def _lines(path: Path) -> list[str]:
    return read_bytes(path, MAX_METRICS_BYTES).decode("utf-8", "replace").splitlines()


def _row(line: str) -> dict[str, Any] | None:
    """A line of the metrics; None for a torn one."""
    try:
        row = parse_json(line, METRICS_FILE)
        check_kind(row, _ROW, METRICS_FILE)
    except UserError:
        return None
    return row


def cut_metrics(output_dir: Path, step: int) -> None:
    """Drops the lines that a run resumed after `step` writes again, those of later steps and of
    the adapter's effect, and a last line that a power cut left incomplete."""
    path = output_dir / METRICS_FILE
    if not path.is_file():
        return
    kept = []
    for line in _lines(path):
        row = _row(line)
        if row is not None and row.get("step", 0) <= step and row["event"] != "effect":
            kept.append(line + "\n")
    atomic.write_bytes(path, "".join(kept).encode())
