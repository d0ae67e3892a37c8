"""Renaming a run, along with what it records of its own place."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from musicgen_lora.errors import UserError
from musicgen_lora.runtime import locks
from musicgen_lora.training.record.run import FINISHED, Run
from musicgen_lora.training.record.run_folder import PREVIOUS
from musicgen_lora.webui.safety import find, folders_of, inside, new_name


def rename_run(runs: Path, wanted: object, typed: object) -> str:
    """Renames a finished run.

    Args:
        runs: the folder of all runs.
        typed: its new name, as a person typed it.

    Returns:
        The new name.

    Raises:
        UserError: no such run, it isn't finished, a command is using it, or the name is empty or
            taken.
    """
    old, new = find(folders_of(runs), wanted), new_name(typed, "")
    if not new:
        raise UserError("Enter the run's new name.")
    source, target = inside(runs, old), runs / new
    run = Run.read(source)
    if run is None or run.status != FINISHED:
        # Resuming it would look for it under its old name, and start over.
        raise UserError(f"{old}: can be renamed once it is finished.")
    if os.path.lexists(target):
        raise UserError(f"{new}: already exists; choose another name.")
    if locks.in_use(source):
        raise UserError(f"{old}: is in use by a command; stop that first.")
    os.rename(source, target)
    for folder in (target, *(target / PREVIOUS).glob("*/")):
        found = Run.read(folder)
        if found is not None:
            replace(found, output_dir=str(target.resolve())).write(folder)
    return new
