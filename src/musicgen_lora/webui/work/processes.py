"""Which process a pid names: pids are reused, and a page that trusted one alone would show an ended
job as running, or stop somebody else's program."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil

_PROC = Path("/proc")


def birth(pid: int) -> str | None:
    """Identifies a living process among all that have, had or will have its pid: the boot and its
    start in ticks or, without /proc, its start in seconds. None for one that has ended, including
    zombies."""
    if not 0 < pid < 2**31:
        return None
    if (_PROC / "self" / "stat").exists():
        try:
            # The name, in brackets, may contain anything.
            known = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
            state, *others = known.rpartition(")")[2].split()
            boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        except OSError:
            return None
        return None if state in "ZXx" else f"{boot} {others[18]}"
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return f"{process.create_time():.2f}"
    except psutil.Error:
        return None


def is_alive(pid: int, born: str) -> bool:
    """Whether the process of that pid and `birth` is still alive."""
    return birth(pid) == born


def send(pid: int, born: str, number: signal.Signals) -> bool:
    """Sends a signal to a process; a SIGKILL also to everything it has started in its group.

    Returns:
        Whether it was alive.
    """
    if not is_alive(pid, born):
        return False
    try:
        if number == getattr(signal, "SIGKILL", None) and os.getpgid(pid) == pid:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
