"""Checkpoints that survive a power cut, and finding the newest intact one. docs/architecture.md
lists what they hold; all randomness is a function of the step, so no generator state is saved."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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
from musicgen_lora.training.ema import EMA
from musicgen_lora.training.optimizers import optimizer_state, restore_optimizers
from musicgen_lora.training.weights import Weights

FORMAT_VERSION = 2
OPTIMIZER_FILE = "optimizer.safetensors"
AVERAGE_FILE = "average.safetensors"
STATE_FILE = "state.json"
IDENTITY = "identity"
"""Under this name, the loop's `other` has the identity of the run."""
_NUMBER = real(-1e300, 1e300)
_STATE = fields(
    {
        "step": integer(0, 10**12),
        "best": or_null(fields({"step": integer(0, 10**12), "loss": _NUMBER})),
        "optimizer": named(either(_NUMBER, truth)),
    },
    {
        "validations_since_best": integer(0, 10**12),
        "batch_size": integer(1, 10**9),
        "scale": or_null(named(or_null(_NUMBER))),
    },
)


@dataclass
class LoopState:
    """The state of a training besides weights, optimizers and average: what `state.json` holds.

    Args:
        batch_size: from the settings, smaller once memory has run out.
        step: optimizer steps done.
        best: `step`, `loss` and `codebooks` of the best validation so far.
        n_worse: validations since the best one.
        scale: state of fp16's `GradScaler`.
        other: whatever else the run needs to resume.
    """

    batch_size: int
    step: int = 0
    best: dict[str, Any] | None = None
    n_worse: int = 0
    scale: dict[str, Any] | None = None
    other: dict[str, Any] = field(default_factory=dict)

    def content(self) -> dict[str, Any]:
        """Returns the content of `state.json`, without the step."""
        found = {name: getattr(self, own) for own, name in _OWN.items()}
        return {n: v for n, v in found.items() if n != "scale" or v is not None} | self.other

    def load(self, content: dict[str, Any]) -> None:
        """Takes over the values of a checkpoint's `state.json`; those it lacks stay."""
        self.step = content["step"]
        for own, name in _OWN.items():
            if name in content:
                setattr(self, own, content[name])
        taken = {*_OWN.values(), "step", "format_version", "optimizer"}
        self.other = {name: value for name, value in content.items() if name not in taken}


_OWN = {
    "best": "best",
    "n_worse": "validations_since_best",
    "batch_size": "batch_size",
    "scale": "scale",
}
"""Names of the fields in `state.json`."""


@dataclass(frozen=True)
class Trained:
    """What a training changes."""

    weights: Weights
    optimizers: Sequence[torch.optim.Optimizer]
    ema: EMA | None = None


def save_checkpoint(folder: Path, state: LoopState, trained: Trained, *, keep: int) -> Path:
    """Writes `step-<step>` and removes all but the `keep` newest checkpoints up to it and the best
    one. Called in all processes, since each may hold a shard; the first one writes.

    Args:
        folder: `output_dir/checkpoints`.
        keep: how many of the newest checkpoints stay, this one included.
    """
    weights, average = trained.weights, trained.ema.means if trained.ema is not None else None
    gathered = weights.gather()
    tensors, values = optimizer_state(trained.optimizers, weights.whole)
    numbered = {str(index): weights.whole(mean) for index, mean in enumerate(average or [])}
    path = folder / step_name(state.step)
    if processes.rank() > 0:
        return path

    def fill(staging: Path) -> None:
        weights.save(staging, gathered)
        save_file(tensors, staging / OPTIMIZER_FILE)
        if average is not None:
            save_file(numbered, staging / AVERAGE_FILE)
        content = {
            "format_version": FORMAT_VERSION,
            "step": state.step,
            "optimizer": values,
            **state.content(),
        }
        (staging / STATE_FILE).write_text(json.dumps(content, indent=2), encoding="utf-8")

    atomic.publish_folder(path, fill)
    found = _checkpoints(folder)
    # Later checkpoints are damaged: this run resumed from before them.
    at = found.index(path) + 1
    best = state.best["step"] if state.best is not None else None
    for stale in [*found[: max(0, at - keep)], *found[at:]]:
        if stale.name != step_name(best):
            atomic.remove_folder(stale)
    return path


def step_name(step: int | None) -> str:
    """The name of a step's folder; empty for None."""
    return "" if step is None else f"step-{step:06d}"


def _checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, by step."""
    found = [path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdecimal()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def newest_checkpoint(folder: Path, say: Callable[[str], None]) -> Path | None:
    """The newest checkpoint whose files all match its manifest; damaged ones are reported through
    `say` and skipped."""
    for path in reversed(_checkpoints(folder)):
        faults = atomic.manifest_faults(path)
        if not faults:
            return path
        say(f"{path}: damaged ({', '.join(faults)}); trying the previous checkpoint.")
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
            f"{checkpoint}: written by {age} release; resume with that release, or start over with "
            "--resume never"
        )
    check_kind(state, _STATE, path)
    return state


def restore(checkpoint: Path, state: LoopState, trained: Trained) -> None:
    """Restores weights, optimizers, average and loop state from a checkpoint.

    Args:
        state: is overwritten.
        trained: is overwritten; must have the parameters that were saved.

    Raises:
        UserError: the checkpoint has other parameters, or is damaged.
    """
    content = read_state(checkpoint)
    own = state.other.get(IDENTITY)
    # Those of earlier releases name no run.
    if own is not None and content.get(IDENTITY, own) != own:
        raise UserError(
            f"{checkpoint}: belongs to another run, with other settings, data or base; move it "
            "elsewhere and run the same command again."
        )
    weights, average = trained.weights, trained.ema.means if trained.ema is not None else []
    weights.load(checkpoint)
    tensors = read_tensors(checkpoint / OPTIMIZER_FILE)
    saved = read_tensors(checkpoint / AVERAGE_FILE) if trained.ema is not None else {}
    try:
        restore_optimizers(trained.optimizers, tensors, content["optimizer"], weights.part_like)
        for index, mean in enumerate(average):
            mean.copy_(weights.part_like(saved[str(index)], mean))
    except (LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(
            f"{checkpoint}: belongs to another run ({reason}); start over with --resume never"
        ) from error
    state.load(content)
