"""Work for engines: tasks that die, hang, meet a full disk, or take their time."""

from __future__ import annotations

import errno
import gc
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What loads torch is imported where it is used: workers start often.


@dataclass(frozen=True)
class Odd:
    """A task.

    Args:
        kind: what becomes of it.
        folder: where it leaves a mark for each time that it was begun.
        number: of the task.
    """

    kind: str
    folder: Path
    number: int = 0


def work_oddly(task: Odd, alive: Callable[[], None]) -> int:
    """Gives the task's number, or what its kind says."""
    marks = len(list(task.folder.glob(f"{task.number}-*")))
    (task.folder / f"{task.number}-{marks}").touch()
    if task.kind == "dies" or (task.kind == "dies once" and not marks):
        os.kill(os.getpid(), signal.SIGKILL)
    if task.kind == "hangs":
        alive()
        time.sleep(120.0)
    if task.kind == "full":
        raise OSError(errno.ENOSPC, "No space left on device", "data/x.npy")
    if task.kind == "slow":
        time.sleep(0.3)
    return task.number


def garbage_of(task: Any, alive: Callable[[], None]) -> tuple[bool, bool]:
    """Whether a worker looks for garbage, and leaves out what the libraries have made."""
    return gc.isenabled(), gc.get_freeze_count() > 0


def make_shard_on_full_disk(task: Any, alive: Callable[[], None]) -> Any:
    """As `make_shard`, but that the disk has no room where a clip's file is called "full"."""
    from full_disk import files_up_to

    from musicgen_lora.dataset import shard_tasks

    if not any(Path(clip.audio).stem == "full" for _, clip in task.rows):
        return shard_tasks.make_shard(task, alive)
    with files_up_to(64):
        return shard_tasks.make_shard(task, alive)


def make_shard_or_die(task: Any, alive: Callable[[], None]) -> Any:
    """As `make_shard`, but that a clip of which the file's name begins with "poison" kills."""
    from musicgen_lora.dataset import shard_tasks

    _die_of_poison(task)
    return shard_tasks.make_shard(task, alive)


def encode_part_or_die(task: Any, alive: Callable[[], None]) -> Any:
    """The same of `encode_part`."""
    from musicgen_lora.dataset import shard_tasks

    _die_of_poison(task)
    return shard_tasks.encode_part(task, alive)


def _die_of_poison(task: Any) -> None:
    if any(Path(clip.audio).name.startswith("poison") for _, clip in task.rows):
        os.kill(os.getpid(), signal.SIGKILL)
