"""The process around a job's command: waits for its turn, starts it, records how it ended.

It belongs to no server and no browser, so a queue continues when all of them are closed. `python -m
musicgen_lora.webui.work.supervisor JOB_FOLDER`
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from musicgen_lora import atomic
from musicgen_lora.webui.work.job import (
    END_FILE,
    LOG_FILE,
    STOP_FILE,
    WAITING_FILE,
    WORKING_FILE,
    note_process,
)
from musicgen_lora.webui.work.jobs import Jobs

LOOK_EVERY_S = 0.3


def supervise(place: Path) -> int:
    """Runs a job when its turn has come; returns its exit code, 0 for one that was cancelled."""
    # The command is stopped by its own pid; a server's Ctrl-C is meant for neither.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    jobs = Jobs(place.parent)
    note_process(place / WAITING_FILE, os.getpid())
    while (process := _start_in_turn(jobs, place)) is None:
        if (place / STOP_FILE).exists():
            _end(place, 0)
            return 0
        time.sleep(LOOK_EVERY_S)
    began = time.monotonic()
    code = process.wait()
    _end(place, code, time.monotonic() - began)
    return code


def _start_in_turn(jobs: Jobs, place: Path) -> subprocess.Popen[bytes] | None:
    with jobs.locked():
        if (place / STOP_FILE).exists() or not jobs.is_turn(place.name):
            return None
        with open(place / LOG_FILE, "ab") as log:
            process = subprocess.Popen(
                jobs.command_line(place.name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # In a group of its own, which a forced stop kills as a whole.
                start_new_session=True,
                env=os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"},
            )
        note_process(place / WORKING_FILE, process.pid)
        if jobs.get(place.name).is_beside:
            _end_first(process.pid)
        return process


def _end_first(pid: int) -> None:
    """Makes Linux kill this process, not the training alongside, if memory runs out."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/oom_score_adj").write_text("1000", encoding="ascii")


def _end(place: Path, code: int, took_s: float | None = None) -> None:
    atomic.write_json(place / END_FILE, {"code": code, "at": time.time(), "took_s": took_s})


if __name__ == "__main__":
    sys.exit(min(abs(supervise(Path(sys.argv[1]))), 255))
