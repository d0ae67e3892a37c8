"""A process that goes with all that it has started, as a machine without power does."""

from __future__ import annotations

import contextlib
import subprocess
from typing import Any

import psutil


def kill_with_children(process: subprocess.Popen[Any]) -> None:
    """Kills a process and what it has started, which may be in sessions of its own."""
    with contextlib.suppress(psutil.NoSuchProcess):
        started = psutil.Process(process.pid)
        for one in [started, *started.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
    process.wait()
