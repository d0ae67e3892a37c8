"""Long work as jobs: each is a process of one of our commands, and all that is known of it is in
its own folder. The page, its tabs, other browsers and a restarted server read these folders and see
the same; a job needs none of them to continue.

One job runs at a time and the others wait; one that generates may be asked to start alongside.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from musicgen_lora import atomic
from musicgen_lora.atomic import LOCK_FILE
from musicgen_lora.errors import UserError
from musicgen_lora.webui.work.job import (
    BESIDE_FILE,
    END_FILE,
    JOB_FILE,
    LOG_FILE,
    PAGE_COMMANDS,
    SETTINGS_FILE,
    STOP_FILE,
    WORKING_FILE,
    Job,
    process_of,
    read_job,
)
from musicgen_lora.webui.work.processes import send

SHARING = ("generate",)
"""Commands that need no exclusive folder: they may queue for a folder that another job writes to,
and may run alongside one."""
MAX_WAITING = 5
KEPT = 200
"""Ended jobs whose folders are kept."""
LOG_BYTES = 64 << 10
"""Size of the end of the log that the page shows."""
_ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}")


def start_supervisor(place: Path) -> None:
    """Starts the process that waits for a job's turn, and outlives whoever started it."""
    line = [sys.executable, "-m", "musicgen_lora.webui.work.supervisor", str(place)]
    with open(place / LOG_FILE, "ab") as log:
        started = subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            close_fds=True,
        )
    # Without a wait it would stay a zombie for as long as the server lives.
    threading.Thread(target=started.wait, daemon=True).start()


class Jobs:
    """The jobs of a folder.

    Args:
        folder: holds a folder for each job; created if needed.
        start: called with a job's folder to have it run.
    """

    def __init__(self, folder: Path, start: Callable[[Path], None] = start_supervisor) -> None:
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._start = start
        # Cache: an ended job doesn't change any more, and there may be hundreds.
        self._ended: dict[str, Job] = {}

    def submit(
        self,
        command: str,
        settings: dict[str, Any],
        *,
        title: str,
        folder: Path,
        language: str = "en",
    ) -> Job:
        """Starts a command in a process of its own, or queues it.

        Args:
            settings: of the command, as in YAML. They are passed in a file: what is typed is never
                part of a command line.

        Raises:
            UserError: too many are waiting, or another job has that folder.
        """
        if command not in PAGE_COMMANDS:
            raise UserError(f"{command}: the page has no such command.")
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
        with self.locked():
            every = self.all()
            before = [job for job in every if not job.is_over]
            is_held = any(job.folder == folder.resolve() for job in before)
            if is_held and command not in SHARING:
                raise UserError(
                    f"{folder.name}: another job is still writing there; wait, or stop it."
                )
            if sum(job.status == "waiting" for job in before) >= MAX_WAITING:
                raise UserError("Busy: too many jobs are waiting; wait, or cancel one.")
            place = self.folder / name
            facts = {
                "command": command,
                "title": title,
                "folder": str(folder.resolve()),
                "language": language,
                "created": time.time(),
                "number": 1 + max((job.number for job in every), default=0),
            }
            try:
                place.mkdir()
                content = yaml.safe_dump({command: settings}, allow_unicode=True, sort_keys=False)
                (place / SETTINGS_FILE).write_text(content, encoding="utf-8")
                atomic.write_json(place / JOB_FILE, facts)
            except (OSError, UserError):
                # Without both files it is not a job, and nothing would clean it up.
                shutil.rmtree(place, ignore_errors=True)
                raise
        self._start(place)
        self._forget_old()
        return self.get(name)

    def again(self, job_id: str) -> Job:
        """Starts an ended job's command again with the same settings; training resumes from its
        last checkpoint.

        Raises:
            UserError: no such job, or it has not ended.
        """
        job = self.get(job_id)
        if not job.is_over:
            raise UserError(f"{job.title}: has not ended yet.")
        return self.submit(
            job.command,
            self._settings(job),
            title=job.title,
            folder=job.folder,
            language=job.language,
        )

    def stop(self, job_id: str, *, by_force: bool = False) -> None:
        """Cancels a waiting job; asks a running one to save and end, or ends it at once `by_force`.

        Raises:
            UserError: no such job, or it has ended.
        """
        with self.locked():
            job, place = self.get(job_id), self.folder / job_id
            if job.is_over:
                raise UserError(f"{job.title}: has already ended.")
            (place / STOP_FILE).touch()
            process = process_of(place / WORKING_FILE)
            if process is not None:
                number = signal.SIGTERM
                if by_force:
                    number = getattr(signal, "SIGKILL", signal.SIGTERM)
                send(*process[:2], number)

    def start_beside(self, job_id: str) -> None:
        """Has a generating job start alongside the running one, as soon as no other one generates.

        Raises:
            UserError: no such job, it doesn't generate, or it is no longer waiting.
        """
        with self.locked():
            job = self.get(job_id)
            if job.status != "waiting" or job.command not in SHARING:
                raise UserError(f"{job.title}: is no longer waiting.")
            (self.folder / job_id / BESIDE_FILE).touch()

    def all(self) -> list[Job]:
        """All jobs, the newest first."""
        names = [entry.name for entry in os.scandir(self.folder) if _ID.fullmatch(entry.name)]
        found = [self._read(name) for name in names]
        return sorted((job for job in found if job), key=lambda job: job.place, reverse=True)

    def get(self, job_id: str) -> Job:
        """One job.

        Raises:
            UserError: there is none of that id.
        """
        job = self._read(job_id) if _ID.fullmatch(job_id) else None
        if job is None:
            raise UserError("No such job.")
        return job

    def uses(self, folder: Path) -> bool:
        """Whether a job that has not ended reads or writes a folder, or something below it."""
        places = [
            place
            for job in self.all()
            if not job.is_over
            for place in (job.folder, *_paths(self._settings(job)))
        ]
        return any(folder in (place, *place.parents) for place in places)

    def made_of(self, dataset: Path) -> Path | None:
        """The folder of audio that a dataset was last prepared from; None if no job knows."""
        for job in self.all():
            if job.command == "prepare" and job.folder == dataset:
                with contextlib.suppress(UserError):
                    given = self._settings(job).get("input_dir")
                    return None if given is None else Path(given)
        return None

    def _settings(self, job: Job) -> dict[str, Any]:
        path = self.folder / job.id / SETTINGS_FILE
        try:
            return dict(yaml.safe_load(path.read_text(encoding="utf-8"))[job.command])
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
            raise UserError(f"{path}: unreadable; start it again from its tab.") from error

    def log(self, job_id: str) -> str:
        """The last lines that a job's command has printed.

        Raises:
            UserError: no such job.
        """
        try:
            with open(self.folder / self.get(job_id).id / LOG_FILE, "rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_BYTES))
                return file.read().decode("utf-8", "replace")
        except OSError:
            return ""

    def last_line(self, job_id: str) -> str:
        """The last line that a job's command has printed; "" before its first."""
        return (self.log(job_id).strip().splitlines() or [""])[-1]

    def locked(self) -> FileLock:
        """A lock held while deciding which job starts next; never for long."""
        return FileLock(self.folder / LOCK_FILE, timeout=30.0)

    def is_turn(self, job_id: str) -> bool:
        """Whether a waiting job may start: nothing runs and no older one waits or, if it starts
        alongside, no other one generates. Call under `locked`."""
        others = [job for job in self.all() if not job.is_over and job.id != job_id]
        mine = self.get(job_id)
        if mine.is_beside:
            playing = [job for job in others if job.command in SHARING]
            others = [job for job in playing if job.is_beside or job.status != "waiting"]
        return not any(job.status != "waiting" or job.place < mine.place for job in others)

    def command_line(self, job_id: str) -> list[str]:
        job, settings = self.get(job_id), self.folder / job_id / SETTINGS_FILE
        line = [sys.executable, "-m", "musicgen_lora.cli", job.command, "--config", str(settings)]
        return [*line, "--language", job.language]

    def _read(self, name: str) -> Job | None:
        place = self.folder / name
        if name in self._ended:
            if (place / END_FILE).is_file():
                return self._ended[name]
            del self._ended[name]
        job = read_job(place)
        if job is not None and job.code is not None:
            self._ended[name] = job
        return job

    def _forget_old(self) -> None:
        for job in [job for job in self.all() if job.is_over][KEPT:]:
            atomic.remove_folder(self.folder / job.id)


def _paths(settings: dict[str, Any]) -> Iterator[Path]:
    """The paths among settings; the page writes only absolute ones."""
    for value in settings.values():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, str) and os.path.isabs(each):
                yield Path(each)
