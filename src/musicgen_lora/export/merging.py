"""Adapters folded into a base's weights, each with a strength.

A strength s of an adapter means W + s (M - W), where M is the weight that PEFT merges: 0 is the
base, 1 the adapter as it was trained, its alpha folded in, and several adapters add what each of
them changes of the base. For a plain LoRA M - W is its scaled product; DoRA, whose M depends on W,
is on that line as well. Sums are taken in float64 and rounded once, so that an adapter of strength
1 gives PEFT's merged weight to the bit, and two halves of an adapter give the adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn
from transformers import MusicgenForConditionalGeneration

from musicgen_lora.errors import RunError, UserError
from musicgen_lora.model.lora.adapter import AdapterFiles, load_adapter

NAME = "default"
"""Of an adapter within PEFT."""
_PREFIX = "base_model.model."
Change = Callable[[], Tensor]
"""Gives what an adapter of strength 1 adds to a weight, float64."""


@dataclass(frozen=True)
class Part:
    """An adapter and its strength, 0 to 2."""

    files: AdapterFiles
    strength: float


@torch.no_grad()
def merge_into(model: MusicgenForConditionalGeneration, parts: Sequence[Part]) -> set[str]:
    """Merges adapters into a base's weights. One of them at a time is held in float64.

    Args:
        model: in float32 without an adapter; changed in place.
        parts: adapters of this base. Those of strength 0 are looked at, and change nothing.

    Returns:
        Names of the weights that were merged.

    Raises:
        UserError: an adapter doesn't belong to this base, or changes what no checkpoint has room
            for.
        RunError: a merged weight is not finite.
    """
    weights = dict(model.named_parameters(remove_duplicate=False))
    changes: dict[str, list[tuple[float, Change]]] = {}
    for part in parts:
        for name, change in _changes(model, part.files, weights):
            if part.strength:
                changes.setdefault(name, []).append((part.strength, change))
    for name, made in changes.items():
        total = weights[name].double()
        for strength, change in made:
            total = total + strength * change()
        weights[name].copy_(total)
        if not bool(weights[name].isfinite().all()):
            raise RunError(f"{name}: is not finite once merged; lower --strength.")
    return set(changes)


def _changes(
    model: MusicgenForConditionalGeneration, files: AdapterFiles, weights: dict[str, nn.Parameter]
) -> list[tuple[str, Change]]:
    """What an adapter changes, with the names of the weights. Layers keep what they need for that
    when the adapter is off the model again."""
    whole = {
        name.removeprefix(_PREFIX).replace(".base_layer", ""): tensor
        for name, tensor in files.tensors.items()
        if "lora_" not in name
    }
    before = {name: weights[name].detach().clone() for name in whole if name in weights}
    adapted = load_adapter(model, files)
    base: Any = adapted.get_base_model()
    changes: list[tuple[str, Change]] = []
    for name, layer in base.named_modules():
        if isinstance(layer, LoraLayer) and NAME in layer.scaling:
            changes += _layer_changes(files, name, layer)
    own = {
        name: wrapper.original_module
        for name, wrapper in base.named_modules()
        if isinstance(wrapper, ModulesToSaveWrapper)
    }
    unloaded: Any = adapted
    unloaded.unload()
    for name, module in own.items():
        # PEFT leaves the adapter's there.
        model.set_submodule(name, module)
    with torch.no_grad():
        for name, tensor in before.items():
            # PEFT writes an adapter's biases into the base, and embeddings saved with it.
            weights[name].copy_(tensor)
            if not torch.equal(tensor, whole[name]):
                changes.append((name, _difference(tensor, whole[name])))
    _check_nothing_is_shared(files, {name for name, _ in changes}, weights)
    return changes


def _layer_changes(files: AdapterFiles, name: str, layer: Any) -> list[tuple[str, Change]]:
    changes: list[tuple[str, Change]] = [(f"{name}.weight", lambda: _weight_change(layer))]
    if layer.lora_bias.get(NAME):
        if layer.get_base_layer().bias is None:
            raise UserError(
                f"{files.folder}: lora_bias: {name} has no bias of its own that the adapter's "
                "could be added to; play it as an adapter (generate --lora_model_path)."
            )
        bias = layer.scaling[NAME] * layer.lora_B[NAME].bias.double()
        changes.append((f"{name}.bias", lambda: bias))
    return changes


def _weight_change(layer: Any) -> Tensor:
    if not layer.use_dora[NAME]:
        return layer.get_delta_weight(NAME).double()
    base = layer.get_base_layer()
    before = base.weight.detach().clone()
    layer.merge(adapter_names=[NAME])
    merged = base.weight.detach().clone()
    layer.merged_adapters.clear()
    base.weight.copy_(before)
    return merged.double() - before.double()


def _difference(before: Tensor, after: Tensor) -> Change:
    return lambda: after.double() - before.double()


def _check_nothing_is_shared(
    files: AdapterFiles, changed: set[str], weights: dict[str, nn.Parameter]
) -> None:
    """An adapter sits on one of the layers that share a weight; merged, it would be on all."""
    for name in sorted(changed):
        others = [key for key, p in weights.items() if p is weights[name] and key != name]
        if others:
            raise UserError(
                f"{files.folder}: adapts {name}, whose weight is also that of {others[0]}; merged, "
                "it would change both. Play it as an adapter (generate --lora_model_path)."
            )
