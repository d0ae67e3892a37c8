"""The output folder of a run: one trainer at a time, earlier runs kept, every figure recorded."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from musicgen_lora import atomic
from musicgen_lora.errors import RunError, UserError
from musicgen_lora.formats.documents import AN_OBJECT, LARGE, parse_json, read_bytes, read_json
from musicgen_lora.formats.kinds import check_kind, fields, integer, one_of, or_null, real, text
from musicgen_lora.runtime import locks

RUN_FILE = "run.json"
METRICS_FILE = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
BEST_MODEL = "best_model"
TRACKED = ("tensorboard", "wandb")
PREVIEWS = "previews"
CURVES_FILE = "curves.png"
PREVIOUS = "previous"
GATHERED = ".gathered"
"""An earlier run's results on their way."""
RESULTS = (CHECKPOINTS, BEST_MODEL, PREVIEWS, METRICS_FILE, CURVES_FILE, *TRACKED, RUN_FILE)
MADE_FROM_IT = ("generated", "evaluation")
"""Where `generate` and `evaluate` put what they make of a run's adapter, unless told otherwise."""
MAX_METRICS_BYTES = 1 << 30
_RUN = fields(
    {"identity": text(), "status": text()},
    {
        "started": text(),
        "precision": one_of("fp32", "bf16", "fp16"),
        **dict.fromkeys(("settings", "base"), AN_OBJECT),
        "base_loss": or_null(fields({"loss": real(0.0, 1e6)})),
    },
)
"""Those of its fields that are read again."""
_ROW = fields({"event": text()}, {"step": integer(0, 10**12)})
LAUNCHER_GRACE_S = 5.0
"""A launcher passes on to its processes the Ctrl-C that the terminal has already sent them."""


@contextmanager
def locked(output_dir: Path) -> Iterator[None]:
    """Holds the folder for one trainer, and clears what a killed one left there.

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
    """Whether a trainer could start in the folder, told before its libraries load, which takes
    seconds. Of several processes the first one looks, as it is the one to hold the folder.

    Raises:
        UserError: it can't be made, or another run is using it.
    """
    if os.environ.get("RANK", "0") == "0":
        with locked(output_dir):
            pass


def read_run(output_dir: Path) -> dict[str, Any] | None:
    """What `run.json` says of the run in the folder; None where there is none, or none that could
    be gone on with: such a one is put aside like any other."""
    try:
        return read_json(output_dir / RUN_FILE, _RUN, max_bytes=LARGE)
    except UserError:
        return None


def write_run(output_dir: Path, run: dict[str, Any]) -> None:
    """Writes `run.json`, whole or not at all."""
    atomic.write_json(output_dir / RUN_FILE, run)


def put_aside(output_dir: Path, say: Callable[[str], None]) -> Path | None:
    """Moves an earlier run's results to `previous/<time>/`, so that none is ever overwritten, with
    what was played and measured of its adapter in the default folders. They are gathered under
    another name, and one rename makes them an earlier run; a kill before it leaves the run where it
    was, once `locked` has looked.

    Args:
        output_dir: held by the caller.
        say: takes a line about what does not move as it is.

    Returns:
        Where they are, or None if there was nothing.
    """
    if not any(os.path.lexists(output_dir / name) for name in RESULTS):
        return None
    names = [name for name in RESULTS if os.path.lexists(output_dir / name)]
    for name in MADE_FROM_IT:
        if locks.in_use(output_dir / name):
            say(f"{output_dir / name}: in use by another command; it stays where it is.")
        elif os.path.lexists(output_dir / name):
            names.append(name)
    gathered = output_dir / PREVIOUS / GATHERED
    gathered.mkdir(parents=True)
    for name in names:
        path = output_dir / name
        if path.is_symlink():
            say(
                f"{path} is a link to {path.resolve()}; the link moves, and the new run makes a "
                "folder of its own."
            )
            # One that is relative would lead elsewhere from there.
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
    """Undoes a `put_aside` that was killed before its end."""
    gathered = output_dir / PREVIOUS / GATHERED
    if not gathered.is_dir():
        return
    for path in gathered.iterdir():
        if not os.path.lexists(output_dir / path.name):
            os.rename(path, output_dir / path.name)
        elif path.is_symlink():
            # It was copied and not yet taken away.
            path.unlink()
    if any(gathered.iterdir()):
        # Another command has made a folder of that name since.
        _name_by_time(gathered)
    else:
        gathered.rmdir()


def is_own_run(adapter: Path, facts: dict[str, Any]) -> bool:
    """Whether an adapter lies where this user trained it, so that the folders that its facts name
    may be read and written to: the facts travel with an adapter, and could name any folder. The run
    of the same identity and data lies around it, in a folder that it knows as its own."""
    folder = Path(os.path.abspath(adapter)).parent
    run = read_run(folder)
    if run is None or run["identity"] != facts.get("identity"):
        return False
    if hasattr(os, "getuid") and (folder / RUN_FILE).stat().st_uid != os.getuid():
        return False
    own, named = run.get("data"), facts.get("data")
    if not isinstance(own, dict) or not isinstance(named, dict):
        return False
    place = folder.resolve()
    homes = [place, place.parent.parent] if place.parent.name == PREVIOUS else [place]
    same_data = own.get("data_dir") == named.get("data_dir")
    return same_data and run.get("output_dir") in [str(home) for home in homes]


def best_model_faults(output_dir: Path) -> list[str]:
    """Names of what is missing or altered in `best_model`, but for its card, which is there to be
    edited."""
    best = output_dir / BEST_MODEL
    if not best.is_dir():
        return [BEST_MODEL]
    return [name for name in atomic.manifest_faults(best) if name != "README.md"]


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
    """Drops what a run resumed after `step` will write again, the lines of later steps and of the
    adapter's effect at the end, and a last line that a power cut left torn."""
    path = output_dir / METRICS_FILE
    if not path.is_file():
        return
    kept = []
    for line in _lines(path):
        row = _row(line)
        if row is not None and row.get("step", 0) <= step and row["event"] != "effect":
            kept.append(line + "\n")
    atomic.write_file(path, lambda temporary: temporary.write_text("".join(kept), encoding="utf-8"))


class StopSignals:
    """Turns the first SIGINT, SIGTERM or SIGHUP (the terminal was closed) into a request to stop
    after the step; the second one ends the process at once.

    Args:
        grace_s: a second one this soon after the first is the first again.
    """

    def __init__(self, grace_s: float = 0.0) -> None:
        self.received = 0
        self._received_at = 0.0
        self._grace_s = grace_s
        self._previous: dict[int, Any] = {}
        self._terminals: list[int] = []

    def __enter__(self) -> StopSignals:
        self._terminals = [number for number in (1, 2) if os.isatty(number)]
        for number in self._numbers():
            # Only the main thread may set handlers; a notebook's worker thread goes without.
            try:
                self._previous[number] = signal.signal(number, self._receive)
            except ValueError:
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @staticmethod
    def _numbers() -> list[int]:
        numbers = [signal.SIGINT, signal.SIGTERM]
        # Whoever started it with nohup wants it to go on.
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        return [int(number) for number in numbers]

    def _receive(self, number: int, _: FrameType | None) -> None:
        for descriptor in self._terminals:
            # The terminal has hung up: a line printed there would be an error, and end the save.
            if not os.isatty(descriptor):
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        if not self.received:
            self.received, self._received_at = number, time.monotonic()
        elif time.monotonic() - self._received_at >= self._grace_s:
            os._exit(128 + number)
