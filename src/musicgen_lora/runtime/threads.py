"""How long OpenMP's threads wait awake, in processes that are ours: see "A busy machine" in
docs/architecture.md. A bounded spin costs next to nothing where cores are free
(`benchmarks/busy_machine.py`).

OpenMP reads its settings once, when torch loads it. So a process's settings have to be there before
torch is imported:

    os.environ.update(bounded_spinning())
    import torch

The commands, their workers, the tests and the benchmarks do so. A program of one's own that imports
torch before anything of this package decides for itself: by the same two lines at its start, or in
the shell, `GOMP_SPINCOUNT=1000 python program.py`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

SPIN = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}
"""GCC's OpenMP, which torch brings on Linux, counts turns (some microseconds of them); Intel's and
LLVM's, on other systems, milliseconds."""
LONG_SPIN = {"GOMP_SPINCOUNT": "10000"}
"""Where nothing else runs: decoding, whose products are short, takes a tenth less time. Where
another program comes, nearly twice as much."""
LOOKS, LOOK_S = 5, 0.001
DECIDED_BY = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""Where the user has set one of these, none is set."""


def bounded_spinning(
    environment: Mapping[str, str] | None = None, *, alone: bool = False
) -> dict[str, str]:
    """The variables to set before torch loads; none where the user's own say how to wait.

    Args:
        environment: that the process has (default: this one's).
        alone: whether it decodes where nothing else runs.
    """
    given = os.environ if environment is None else environment
    if any(name in given for name in DECIDED_BY):
        return {}
    return SPIN | LONG_SPIN if alone else dict(SPIN)


def is_alone() -> bool:
    """Whether nothing but this thread wants a core; False where the system doesn't tell."""
    loads = Path("/proc/loadavg")
    if not loads.exists():
        return False
    for _ in range(LOOKS):
        # The fourth word: how many threads run or wait for a core, and of how many.
        if int(loads.read_text(encoding="ascii").split()[3].split("/")[0]) > 1:
            return False
        time.sleep(LOOK_S)
    return True
