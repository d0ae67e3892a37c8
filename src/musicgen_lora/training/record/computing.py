"""What a run is computed with: another chip or number of threads rounds differently, so that the
weights differ from then on. Everything else that changes a result is in the run's identity."""

from __future__ import annotations

from typing import Any

import torch

from musicgen_lora.plural import count
from musicgen_lora.runtime import processes
from musicgen_lora.runtime.processor import processor
from musicgen_lora.training.record.run import Run


def computing() -> dict[str, Any]:
    """`chip`, `threads` (None where the CPU doesn't train) and `processes`."""
    device = processes.device()
    on_cpu = device.type == "cpu"
    return {
        "chip": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "threads": torch.get_num_threads() if on_cpu else None,
        "processes": processes.world_size(),
    }


def what_changed(before: Run, now: Run) -> list[str]:
    """Says why a run that goes on won't equal an unbroken one to the last bit.

    Args:
        before: as it was recorded; what an earlier release didn't record counts as equal.
        now: as it goes on.
    """
    said = [
        f"This run was trained with {was} so far; here it goes on with {used}, so it won't quite "
        "equal an unbroken one."
        for was, used in zip(_named(before), _named(now), strict=True)
        if was is not None and used is not None and was != used
    ]
    was, used = (run.computing.get("threads") for run in (before, now))
    if was and used and was != used:
        said.append(f"To go on with as many threads as before, set OMP_NUM_THREADS={was}")
    return said


def _named(run: Run) -> list[str | None]:
    threads, several = (run.computing.get(name) for name in ("threads", "processes"))
    torch_version = run.versions.get("torch")
    return [
        run.precision,
        run.computing.get("chip"),
        None if threads is None else f"{count(threads, 'thread')}",
        None if several is None else "a single process" if several == 1 else f"{several} processes",
        None if torch_version is None else " ".join(("torch", torch_version)),
    ]
