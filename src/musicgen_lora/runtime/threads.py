"""How long OpenMP's threads spin while they wait, in our own processes: see "A busy machine" in
docs/architecture.md. A bounded spin costs next to nothing when cores are free
(`benchmarks/busy_machine.py`).

OpenMP reads its settings once, when torch loads it. So they must be set before torch is imported:

    os.environ.update(bounded_spinning())
    import torch

The commands, their workers, the tests and the benchmarks do so. A program of your own that imports
torch before this package must do so itself: with the same two lines at its start, or in the shell,
`GOMP_SPINCOUNT=1000 python program.py`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

SPIN = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}
"""GCC's OpenMP, which torch ships on Linux, counts spins (1,000 take some microseconds); Intel's
and LLVM's, on other systems, count milliseconds."""
LONG_SPIN = {"GOMP_SPINCOUNT": "10000"}
"""For when nothing else runs: decoding, whose products are short, takes a tenth less time, but
nearly twice as much once another program starts."""
LOOKS, LOOK_S = 5, 0.001
DECIDED_BY = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""If the user has set one of these, we set none."""


def bounded_spinning(
    environment: Mapping[str, str] | None = None, *, alone: bool = False
) -> dict[str, str]:
    """The variables to set before torch loads; none if the user has chosen how threads wait.

    Args:
        environment: the process's (default: this one's).
        alone: whether it decodes while nothing else runs.
    """
    given = os.environ if environment is None else environment
    if any(name in given for name in DECIDED_BY):
        return {}
    return SPIN | LONG_SPIN if alone else dict(SPIN)


def is_alone() -> bool:
    """Whether nothing but this thread wants a core; False if the system doesn't tell."""
    loads = Path("/proc/loadavg")
    if not loads.exists():
        return False
    for _ in range(LOOKS):
        # The fourth field: the number of threads that run or wait for a core, a slash, and all.
        if int(loads.read_text(encoding="ascii").split()[3].split("/")[0]) > 1:
            return False
        time.sleep(LOOK_S)
    return True
