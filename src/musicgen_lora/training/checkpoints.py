"""Checkpoints that survive a power cut, and finding the newest sound one.

`checkpoints/step-000100/` holds the trained weights (for LoRA the adapter's own files, which
inference loads as they are), `optimizer.safetensors`, `state.json` and `manifest.json` with
the hash of each. All randomness is a function of the step, so no generator state is kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from musicgen_lora import atomic
from musicgen_lora.errors import UserError

FORMAT_VERSION = 1
OPTIMIZER_FILE = "optimizer.safetensors"
STATE_FILE = "state.json"


def save_checkpoint(
    folder: Path,
    step: int,
    *,
    save_weights: Callable[[Path], None],
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    keep: int,
) -> Path:
    """Writes `step-<step>` and removes all but the `keep` newest up to it.

    Args:
        folder: `output_dir/checkpoints`.
        step: optimizer steps done.
        save_weights: writes the trained weights into a folder.
        optimizer: its tensors are kept.
        state: further values, JSON.
        keep: how many checkpoints stay.
    """

    def fill(staging: Path) -> None:
        save_weights(staging)
        tensors = {
            f"{index}.{name}": value
            for index, values in optimizer.state_dict()["state"].items()
            for name, value in values.items()
        }
        save_file(tensors, staging / OPTIMIZER_FILE)
        content = {"format_version": FORMAT_VERSION, "step": step, **state}
        (staging / STATE_FILE).write_text(json.dumps(content, indent=2), encoding="utf-8")

    path = folder / f"step-{step:06d}"
    atomic.publish_folder(path, fill)
    found = _checkpoints(folder)
    # Later ones are damaged ones that this run has come back from.
    at = found.index(path) + 1
    for stale in [*found[: max(0, at - keep)], *found[at:]]:
        atomic.remove_folder(stale)
    return path


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
        UserError: written by a later release.
    """
    state = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
    if state["format_version"] > FORMAT_VERSION:
        raise UserError(f"{checkpoint}: made by a newer release; update this one to resume.")
    return state


def restore_optimizer(checkpoint: Path, optimizer: torch.optim.Optimizer) -> None:
    """Puts a checkpoint's optimizer tensors back."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in load_file(checkpoint / OPTIMIZER_FILE).items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
