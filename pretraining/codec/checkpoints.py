"""Checkpoints of the codec's training, and the folder that transformers reads.

A checkpoint is written under a temporary name and renamed once it is complete; tensors are in
safetensors, numbers in JSON.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import EncodecFeatureExtractor, EncodecModel

from pretraining.codec.quantiser import ResidualQuantiser

N_KEPT = 2


def save(
    folder: Path,
    parts: Mapping[str, nn.Module | torch.optim.Optimizer],
    step: int,
    elapsed_s: float,
) -> None:
    """Writes `folder/step-000000/` and drops all but the newest checkpoints."""
    staging = folder / "staging"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    for name, part in parts.items():
        tensors = part.state_dict() if isinstance(part, nn.Module) else _optimizer_tensors(part)
        contiguous = {key: tensor.contiguous() for key, tensor in tensors.items()}
        save_file(contiguous, staging / f"{name}.safetensors")
    facts = {"step": step, "elapsed_s": elapsed_s}
    (staging / "state.json").write_text(json.dumps(facts), encoding="utf-8")
    staging.rename(folder / f"step-{step:06d}")
    for old in sorted(folder.glob("step-*"))[:-N_KEPT]:
        shutil.rmtree(old)


def newest_step(folder: Path) -> int:
    """Step of the newest checkpoint; 0 if there is none."""
    return max((int(path.name.removeprefix("step-")) for path in folder.glob("step-*")), default=0)


def load_newest(
    folder: Path, parts: Mapping[str, nn.Module | torch.optim.Optimizer]
) -> tuple[int, float]:
    """Fills the parts from the newest checkpoint; returns its step and the seconds trained."""
    checkpoints = sorted(folder.glob("step-*"))
    if not checkpoints:
        return 0, 0.0
    newest = checkpoints[-1]
    for name, part in parts.items():
        tensors = load_file(newest / f"{name}.safetensors")
        if isinstance(part, nn.Module):
            part.load_state_dict(tensors)
        else:
            _fill_optimizer(part, tensors)
    facts = json.loads((newest / "state.json").read_text(encoding="utf-8"))
    return facts["step"], facts["elapsed_s"]


def export(model: EncodecModel, quantiser: ResidualQuantiser, folder: Path) -> None:
    """Writes the codec for `EncodecModel.from_pretrained`, in half precision.

    The configuration still names float32, in which transformers then loads it: the codec
    should run in single precision.
    """
    copy = EncodecModel(model.config)
    copy.load_state_dict(model.state_dict())
    quantiser.export(copy)
    staging = folder.with_name(folder.name + ".staging")
    shutil.rmtree(staging, ignore_errors=True)
    copy.half().save_pretrained(staging)
    config_path = staging / "config.json"
    config = json.loads(config_path.read_text(encoding="utf-8"))
    config["dtype"] = "float32"
    config_path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    EncodecFeatureExtractor(
        feature_size=1, sampling_rate=model.config.sampling_rate, chunk_length_s=None
    ).save_pretrained(staging)
    # A folder can't be renamed onto another that has files.
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    staging.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": value for i, entry in state.items() for name, value in entry.items()}


def _fill_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".")
        state.setdefault(int(index), {})[name] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
