"""The processor, on which last bits depend."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

import torch


@functools.cache
def processor() -> str:
    """This computer's processor, with the instruction set that torch uses."""
    name = platform.processor() or platform.machine()
    path = Path("/proc/cpuinfo")
    if path.is_file():
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.partition(":")[2] for line in lines if "model name" in line), name)
    return f"{name.strip()} {torch.backends.cpu.get_cpu_capability()}"
