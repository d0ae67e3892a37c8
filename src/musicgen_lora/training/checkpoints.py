"""Checkpoints that survive a power cut, and finding the newest sound one.

`checkpoints/step-000100/` holds the trained weights (for LoRA the adapter's own files, which
inference loads as they are), `optimizer.safetensors`, `average.safetensors` where an average of
the weights is kept, `state.json`, and `manifest.json` with the hash of each. All randomness is a
function of the step, so no generator state is kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from musicgen_lora import atomic
from musicgen_lora.errors import UserError
from musicgen_lora.formats.documents import LARGE, read_json
from musicgen_lora.formats.kinds import (
    check_kind,
    either,
    fields,
    integer,
    named,
    or_null,
    real,
    truth,
)
from musicgen_lora.formats.tensors import read_tensors
from musicgen_lora.runtime import processes
from musicgen_lora.training.optimizers import optimizer_state, restore_optimizers
from musicgen_lora.training.sharding import part_like, whole

FORMAT_VERSION = 2
OPTIMIZER_FILE = "optimizer.safetensors"
AVERAGE_FILE = "average.safetensors"
STATE_FILE = "state.json"
_NUMBER = real(-1e300, 1e300)
_STATE = fields(
    {
        "step": integer(0, 10**12),
        "best": or_null(fields({"step": integer(0, 10**12), "loss": _NUMBER})),
        "optimizer": named(either(_NUMBER, truth)),
    },
    {"validations_since_best": integer(0, 10**12), "scale": or_null(named(or_null(_NUMBER)))},
)


def save_checkpoint(
    folder: Path,
    step: int,
    *,
    save_weights: Callable[[Path], None],
    optimizers: Sequence[torch.optim.Optimizer],
    average: Sequence[torch.Tensor] | None,
    state: dict[str, Any],
    keep: int,
    best_step: int | None,
) -> Path:
    """Writes `step-<step>` and removes all but the `keep` newest up to it and the best one. Called
    in all processes, since each may hold a part; the first one writes.

    Args:
        folder: `output_dir/checkpoints`.
        step: optimizer steps done.
        save_weights: writes the trained weights into a folder.
        optimizers: their tensors and values are kept.
        average: of the weights, if there is one.
        state: further values, JSON.
        keep: how many of the newest checkpoints stay.
        best_step: the step whose checkpoint stays as well.
    """
    tensors, values = optimizer_state(optimizers)
    numbered = {str(index): whole(mean) for index, mean in enumerate(average or [])}
    path = folder / step_name(step)
    if processes.rank() > 0:
        return path

    def fill(staging: Path) -> None:
        save_weights(staging)
        save_file(tensors, staging / OPTIMIZER_FILE)
        if average is not None:
            save_file(numbered, staging / AVERAGE_FILE)
        content = {
            "format_version": FORMAT_VERSION,
            "step": step,
            "optimizer": values,
            **state,
        }
        (staging / STATE_FILE).write_text(json.dumps(content, indent=2), encoding="utf-8")

    atomic.publish_folder(path, fill)
    found = _checkpoints(folder)
    # Later ones are damaged ones that this run has come back from.
    at = found.index(path) + 1
    for stale in [*found[: max(0, at - keep)], *found[at:]]:
        if stale.name != step_name(best_step):
            atomic.remove_folder(stale)
    return path


def step_name(step: int | None) -> str:
    """Name of the folder that belongs to a step; empty for None."""
    return "" if step is None else f"step-{step:06d}"


def _checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, by step."""
    found = [path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdecimal()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def newest_checkpoint(folder: Path, say: Callable[[str], None]) -> Path | None:
    """The newest checkpoint whose every file is as its manifest says; damaged ones are named
    through `say` and passed over."""
    for path in reversed(_checkpoints(folder)):
        faults = atomic.manifest_faults(path)
        if not faults:
            return path
        say(f"{path}: damaged ({', '.join(faults)}); looking for the checkpoint before it.")
    return None


def read_state(checkpoint: Path) -> dict[str, Any]:
    """A checkpoint's `state.json`.

    Raises:
        UserError: written by another release's format, or damaged.
    """
    path = checkpoint / STATE_FILE
    state = read_json(path, max_bytes=LARGE)
    version = state.get("format_version")
    if version != FORMAT_VERSION:
        age = "a newer" if isinstance(version, int) and version > FORMAT_VERSION else "an older"
        raise UserError(
            f"{checkpoint}: made by {age} release; resume with that one, or begin anew: "
            "--resume never"
        )
    check_kind(state, _STATE, path)
    return state


def restore_training(
    checkpoint: Path,
    state: dict[str, Any],
    optimizers: Sequence[torch.optim.Optimizer],
    average: Sequence[torch.Tensor] | None,
) -> None:
    """Puts a checkpoint's optimizers and average back.

    Args:
        checkpoint: its folder.
        state: from `read_state`.
        optimizers: over the same parameters as those saved.
        average: overwritten with the one saved, where there is one.

    Raises:
        UserError: they are of other parameters.
    """
    tensors = read_tensors(checkpoint / OPTIMIZER_FILE)
    saved = read_tensors(checkpoint / AVERAGE_FILE) if average is not None else {}
    try:
        restore_optimizers(optimizers, tensors, state["optimizer"])
        for index, mean in enumerate(average or []):
            mean.copy_(part_like(saved[str(index)], mean))
    except (LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(
            f"{checkpoint}: is not of this training ({reason}); begin anew: --resume never"
        ) from error
