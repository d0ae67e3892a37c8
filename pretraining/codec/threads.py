"""The number of threads to compute with on a shared machine.

Two threads, one of which waits for its core, are far slower than one: every parallel loop ends
only when its slowest thread does.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch

PROC_STAT = Path("/proc/stat")
INTERVAL_S = 4.0
SLACK = 0.35
"""The share of a core that other processes may use while it still counts as free."""


class ThreadChooser:
    """Uses the cores that other processes leave free, at least one and `n_most` at most."""

    def __init__(self, n_most: int) -> None:
        self.n_most = n_most
        torch.set_num_threads(n_most)
        self._last = (time.monotonic(), _busy_s(), time.process_time())

    def choose(self) -> None:
        """Sets torch's number of threads by the load since the last call."""
        now = (time.monotonic(), _busy_s(), time.process_time())
        wall_s, busy_s, own_s = (new - old for new, old in zip(now, self._last, strict=True))
        if wall_s < INTERVAL_S or not PROC_STAT.exists():
            return
        self._last = now
        others = max(0.0, busy_s - own_s) / wall_s
        n_free = int((os.cpu_count() or 1) - others + SLACK)
        torch.set_num_threads(min(self.n_most, max(1, n_free)))


def _busy_s() -> float:
    """Busy seconds of all cores since the machine started; 0 if the system doesn't tell."""
    if not PROC_STAT.exists():
        return 0.0
    user, nice, system = PROC_STAT.read_text(encoding="ascii").split()[1:4]
    return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")
