"""A job as its folder describes it: what it should do, and what came of it.

A job's status is derived on demand from its files and from whether its processes are alive, and
never stored: a stored status outlives a crash or a power cut and is then wrong.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from musicgen_lora import atomic
from musicgen_lora.errors import UserError
from musicgen_lora.formats.documents import read_json
from musicgen_lora.formats.kinds import fields, integer, one_of, or_null, real, text
from musicgen_lora.language.choice import LANGUAGES
from musicgen_lora.webui.work.processes import birth, is_alive

JOB_FILE, SETTINGS_FILE, LOG_FILE = "job.json", "settings.yaml", "log.txt"
WAITING_FILE, WORKING_FILE, END_FILE = "waiting.json", "working.json", "end.json"
STOP_FILE, BESIDE_FILE = "stop", "beside"
PAGE_COMMANDS = ("prepare", "train", "generate", "evaluate", "merge", "export")
"""The commands a job may run; each takes its settings from a file."""
START_S = 60.0
"""Time within which a job's process must have identified itself."""
STOPPED_CODES = (129, 130, 143, -1, -2, -15)
"""Exit codes of commands that were asked to stop, and saved."""
Status = Literal[
    "waiting", "running", "stopping", "finished", "stopped", "failed", "interrupted", "cancelled"
]
_JOB = fields(
    {
        "command": one_of(*PAGE_COMMANDS),
        "title": text(),
        "folder": text(),
        "language": one_of(*LANGUAGES),
        "created": real(0.0, 1e12),
    },
    {"number": integer(0, 10**12)},
)
_PROCESS = fields({"pid": integer(0, 2**31), "born": text(), "at": real(0.0, 1e12)})
_END = fields(
    {"code": integer(-1000, 1000), "at": real(0.0, 1e12)}, {"took_s": or_null(real(0.0, 1e12))}
)


@dataclass(frozen=True)
class Job:
    """A job as its folder describes it now.

    Args:
        id: name of its folder.
        folder: the one that the command writes to, absolute.
        created: when, seconds since 1970.
        code: exit code of the command; None if it has none yet.
        began: when the command started; None while it waits.
        ended: when it ended; None if unknown.
        took_s: seconds that its command ran, whatever was done to the clock; None if unknown.
        number: counts the jobs; the clock may be set back between two.
        is_beside: whether it starts alongside the running job instead of waiting for it.
    """

    id: str
    command: str
    title: str
    folder: Path
    language: str
    created: float
    status: Status
    code: int | None = None
    began: float | None = None
    ended: float | None = None
    took_s: float | None = None
    number: int = 0
    is_beside: bool = False

    @property
    def is_over(self) -> bool:
        """Whether it has ended, with nothing left to do or wait for."""
        return self.status not in ("waiting", "running", "stopping")

    @property
    def place(self) -> tuple[int, float, str]:
        """Its place in the order in which jobs were made."""
        return self.number, self.created, self.id

    @property
    def can_resume(self) -> bool:
        """Whether the same command would resume where it ended."""
        return self.is_over and self.status not in ("finished", "cancelled")


def read_job(place: Path) -> Job | None:
    """The job of a folder; None if it describes none."""
    facts = _facts(place / JOB_FILE, _JOB)
    if facts is None:
        return None
    end = _facts(place / END_FILE, _END)
    working = process_of(place / WORKING_FILE)
    return Job(
        id=place.name,
        command=facts["command"],
        title=facts["title"],
        folder=Path(facts["folder"]),
        language=facts["language"],
        created=facts["created"],
        status=_status(place, facts["created"], end, working),
        code=end["code"] if end else None,
        began=working[2] if working else None,
        ended=end["at"] if end else None,
        took_s=end.get("took_s") if end else None,
        number=facts.get("number", 0),
        is_beside=(place / BESIDE_FILE).exists(),
    )


def _status(
    place: Path, created: float, end: dict[str, Any] | None, working: tuple[int, str, float] | None
) -> Status:
    """The status that a job's files and processes imply."""
    was_asked = (place / STOP_FILE).exists()
    if end is not None:
        if working is None:
            return "cancelled" if was_asked else "failed"
        if end["code"] == 0:
            return "finished"
        if end["code"] in STOPPED_CODES:
            return "stopped"
        return "interrupted" if end["code"] < 0 else "failed"
    waiting = process_of(place / WAITING_FILE)
    is_waited_for = waiting is not None and is_alive(*waiting[:2])
    if working is not None:
        # Its supervisor is about to record how it ended, or has died with it.
        if is_alive(*working[:2]) or is_waited_for:
            return "stopping" if was_asked else "running"
        return "interrupted"
    # The clock may have been set back since.
    if is_waited_for or (waiting is None and abs(time.time() - created) < START_S):
        return "waiting"
    return "interrupted"


def note_process(path: Path, pid: int) -> None:
    atomic.write_json(path, {"pid": pid, "born": birth(pid) or "", "at": time.time()})


def process_of(path: Path) -> tuple[int, str, float] | None:
    """The pid and birth of the process that a file names, and when that was noted; None if the file
    is missing or torn."""
    found = _facts(path, _PROCESS)
    return (found["pid"], found["born"], found["at"]) if found else None


def _facts(path: Path, kind: Any) -> dict[str, Any] | None:
    """A file's object; None if the file is missing or torn."""
    try:
        return read_json(path, kind)
    except UserError:
        return None
