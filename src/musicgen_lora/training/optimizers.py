"""The optimizers that `--optimizer` names, and their state as tensors and plain values."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from musicgen_lora.errors import UserError

FIRST_PRODIGY_RATE = 1e-5
"""Where Prodigy's search begins: below any rate at which an adapter learns. With its own default,
1e-6, the first 20 steps of a short run do nothing."""

RATE_SHARE = "rate_share"
"""A parameter group with this entry has its own share of each step's learning rate."""


def make_optimizers(
    name: str,
    parameters: Sequence[tuple[str, nn.Parameter]],
    *,
    learning_rate: float,
    weight_decay: float,
    text_encoder_learning_rate: float | None = None,
) -> list[torch.optim.Optimizer]:
    """The optimizers that together step all parameters.

    Args:
        name: "adamw", "adamw8bit", "prodigy" or "muon".
        parameters: `(name in the model, parameter)`, on their device.
        learning_rate: peak rate.
        weight_decay: decoupled.
        text_encoder_learning_rate: peak rate of the text encoder's parameters; None for the same.

    Raises:
        UserError: no trained parameter is one that Muon steps.
    """
    share = 1.0
    if text_encoder_learning_rate is not None:
        share = text_encoder_learning_rate / learning_rate
    chosen = _groups(parameters, share)
    if name == "adamw8bit":
        from bitsandbytes.optim import AdamW8bit  # pyright: ignore[reportMissingImports]

        return [AdamW8bit(chosen, lr=learning_rate, weight_decay=weight_decay)]
    if name == "prodigy":
        prodigyopt: Any = importlib.import_module("prodigyopt")
        return [
            prodigyopt.Prodigy(
                chosen,
                lr=learning_rate,
                weight_decay=weight_decay,
                use_bias_correction=True,
                d0=FIRST_PRODIGY_RATE,
                # The safeguard leaves rate and bias correction out of the estimate's denominator
                # only. With a warm-up, and a bias correction of a third over the first hundred
                # steps, the estimate then never leaves its start.
                safeguard_warmup=False,
            )
        ]
    if name == "muon":
        matrices = [p for name, p in parameters if _is_hidden_matrix(name, p)]
        if not matrices:
            raise UserError(
                "--optimizer muon is for the decoder's self-attention and feed-forward layers, and "
                "none of them is trained; use --optimizer adamw, or train those layers too."
            )
        rest = _groups([pair for pair in parameters if not _is_hidden_matrix(*pair)], share)
        # Updates of AdamW's size (Liu et al., 2025), so that one rate serves both.
        muon = torch.optim.Muon(
            matrices, learning_rate, weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        return [muon, _adamw(rest, learning_rate, weight_decay)]
    return [_adamw(chosen, learning_rate, weight_decay)]


def _groups(parameters: Sequence[tuple[str, nn.Parameter]], share: float) -> list[dict[str, Any]]:
    """Parameter groups: one, or a separate one for a text encoder whose share is not 1."""
    if share == 1.0:
        return [{"params": [parameter for _, parameter in parameters]}]
    text = [parameter for name, parameter in parameters if name.startswith("text_encoder.")]
    rest = [parameter for name, parameter in parameters if not name.startswith("text_encoder.")]
    groups = [{"params": rest}, {"params": text, RATE_SHARE: share}]
    return [group for group in groups if group["params"]]


def _is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon trains it: a matrix of the decoder's blocks, outside their cross-attention. A
    caption says little about the next token, so cross-attention's gradient is mostly noise, and
    Muon takes a full-sized step however small the gradient."""
    return ".layers." in name and "encoder_attn" not in name and parameter.ndim == 2


def _adamw(
    groups: list[dict[str, Any]], learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    kinds = {parameter.device.type for group in groups for parameter in group["params"]}
    fused = kinds <= {"cpu", "cuda"}
    return torch.optim.AdamW(groups, lr=learning_rate, weight_decay=weight_decay, fused=fused)


def optimizer_state(
    optimizers: Sequence[torch.optim.Optimizer],
    whole: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor,
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The state of the optimizers.

    Args:
        whole: gathers a tensor of sharded weights in the first process.

    Returns:
        Tensors, and plain values that JSON can hold, both by `optimizer.parameter.name`, or
        `optimizer.group.index.name` for what an optimizer keeps in its groups.
    """
    tensors: dict[str, torch.Tensor] = {}
    values: dict[str, Any] = {}
    seen: set[int] = set()
    for number, optimizer in enumerate(optimizers):
        content = optimizer.state_dict()
        for index, state in content["state"].items():
            for name, value in _flat(state):
                if isinstance(value, torch.Tensor):
                    value = whole(value)
                    # safetensors refuses shared memory, and bitsandbytes shares its tables.
                    shared = value.data_ptr() in seen
                    seen.add(value.data_ptr())
                    tensors[f"{number}.{index}.{name}"] = value.clone() if shared else value
                elif value is not None:
                    values[f"{number}.{index}.{name}"] = value
        for index, group in enumerate(content["param_groups"]):
            for name, value in group.items():
                if type(value) in (int, float) and math.isfinite(value):
                    values[f"{number}.group.{index}.{name}"] = value
    return tensors, values


def _flat(state: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """Flattens the nested dictionary in which bitsandbytes returns its tensors; it reads them back
    flat."""
    for name, value in state.items():
        if isinstance(value, Mapping):
            yield from value.items()
        else:
            yield name, value


def restore_optimizers(
    optimizers: Sequence[torch.optim.Optimizer],
    tensors: Mapping[str, torch.Tensor],
    values: Mapping[str, Any],
    part_like: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = lambda tensor, like: tensor,
) -> None:
    """Restores what `optimizer_state` returned.

    Args:
        part_like: gives this process's shard of a tensor, split like a parameter.
    """
    for number, optimizer in enumerate(optimizers):
        groups = optimizer.state_dict()["param_groups"]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        state: dict[int, dict[str, Any]] = {}
        for key, value in [*tensors.items(), *values.items()]:
            owner, index, name = key.split(".", 2)
            if int(owner) != number:
                continue
            if index == "group":
                at, name = name.split(".", 1)
                groups[int(at)][name] = value
            else:
                if isinstance(value, torch.Tensor):
                    value = part_like(value, parameters[int(index)])
                state.setdefault(int(index), {})[name] = value
        optimizer.load_state_dict({"state": state, "param_groups": groups})
