"""Adapters on a base, each with a strength: the only place that turns them into weights, see
"Decoding" in docs/architecture.md. DoRA's merged weight depends on the base's, and is interpolated
linearly from strength 0 to 1 as well. The base's own weights are never modified: a mixture replaces
them for a while, and then the same tensors are put back."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn

from musicgen_lora.errors import RunError, UserError
from musicgen_lora.given import check_strength
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.lora.adapter import AdapterFiles, load_adapter, read_adapter

NAME = "default"
"""PEFT's name for the adapter."""
_PREFIX = "base_model.model."
WeightChange = Callable[[], Tensor]
"""Returns what an adapter at strength 1 adds to a weight, float64."""
NOTHING = 1e-6
"""Largest change of a weight, as a share of the largest weight, that is rounding: DoRA's."""
_replaced: set[int] = set()
"""Ids of the parameters that currently hold a mixture."""


@dataclass(frozen=True)
class MixedAdapter:
    """An adapter analysed on its base, with a strength.

    Args:
        changes: its changes, by the names of the base's weights.
        strength: 0 to 2.
    """

    files: AdapterFiles
    changes: Mapping[str, WeightChange]
    strength: float = 1.0

    def at(self, strength: float) -> MixedAdapter:
        """The same adapter at another strength, without reading it again.

        Raises:
            UserError: not from 0 to 2.
        """
        check_strength(strength)
        return dataclasses.replace(self, strength=strength)


def read_part(
    model: BaseModel, adapter: Path | AdapterFiles, strength: float = 1.0
) -> MixedAdapter:
    """Reads an adapter and works out how it changes a base.

    Args:
        model: the base, without an adapter on it; it is the same to the bit afterwards.
        adapter: its folder, or what was read from it.
        strength: 0 to 2.

    Raises:
        UserError: no adapter there, a damaged one, one of another base, one with changes that can't
            be merged, or a strength out of range.
    """
    check_strength(strength)
    files = read_adapter(adapter) if isinstance(adapter, Path) else adapter
    return MixedAdapter(files, _changes(model, files), strength)


class Mixture:
    """The weights that a base plays with: its own, plus what adapters add to them.

    Args:
        model: the base for which the parts were read, in float32; without parts, any model.
        parts: adapters. Those at strength 0 change nothing.
    """

    def __init__(self, model: BaseModel, parts: Sequence[MixedAdapter] = ()) -> None:
        self._hf, self.parts = model.hf, tuple(parts)
        self._changes: dict[str, list[tuple[float, WeightChange]]] = {}
        for part in parts:
            for name, change in part.changes.items():
                if part.strength:
                    self._changes.setdefault(name, []).append((part.strength, change))

    @property
    def names(self) -> set[str]:
        """Names of the weights that differ from the base's."""
        return set(self._changes)

    def weight(self, name: str) -> Tensor:
        """A mixed weight of `names`, on the device of the base's own.

        Raises:
            RunError: it is not finite.
        """
        return self._mixed(name, self._weights()[name])

    @contextlib.contextmanager
    def on(self, modules: Iterable[nn.Module] | None = None) -> Iterator[None]:
        """A context in which the model has the mixture's weights: losses, text states and decoders
        made within are the mixture's. Afterwards the base's own tensors are restored.

        Args:
            modules: parts of the model (default: all of it). Only their weights are mixed, which
                takes the memory of those that the adapters change.

        Raises:
            RunError: a weight is not finite.
            RuntimeError: they hold a mixture already.
        """
        own = {id(parameter) for module in modules or () for parameter in module.parameters()}
        weights = {
            name: weight
            for name, weight in self._weights().items()
            if modules is None or id(weight) in own
        }
        mixed = {name: self._mixed(name, weight) for name, weight in weights.items()}
        golden = {name: weight.data for name, weight in weights.items()}
        _replaced.update(map(id, weights.values()))
        for name, weight in weights.items():
            weight.data = mixed[name]
        try:
            yield
        finally:
            for name, weight in weights.items():
                weight.data = golden[name]
            _replaced.difference_update(map(id, weights.values()))

    def merge(self) -> None:
        """Makes the mixture the model's own weights, permanently."""
        for name, weight in self._weights().items():
            weight.data = self._mixed(name, weight)

    @property
    def is_nothing(self) -> bool:
        """Whether every weight is the base's after all: quickly told if one is not."""
        return all(
            bool((self._mixed(name, weight) - weight).abs().max() <= NOTHING * weight.abs().max())
            for name, weight in self._weights().items()
        )

    def _weights(self) -> dict[str, nn.Parameter]:
        if not self._changes:
            return {}
        found = dict(self._hf.named_parameters(remove_duplicate=False))
        return {name: found[name] for name in self._changes}

    # Outside inference mode, whose tensors could never be a parameter's data again.
    @torch.inference_mode(False)
    @torch.no_grad()
    def _mixed(self, name: str, weight: nn.Parameter) -> Tensor:
        if id(weight) in _replaced:
            raise RuntimeError(f"{name} holds a mixture already; end that first.")
        total = weight.double()
        for strength, change in self._changes[name]:
            total = total + strength * change().to(weight.device)
        mixed = total.to(weight.dtype)
        if not bool(mixed.isfinite().all()):
            raise RunError(f"{name}: is not finite after merging; lower --strength.")
        return mixed


def idle_sentence(model: BaseModel, part: MixedAdapter) -> str:
    """The sentence on an adapter that changes nothing; empty if it does."""
    if not Mixture(model, [part]).is_nothing:
        return ""
    if Mixture(model, [part.at(1.0)]).is_nothing:
        return (
            f"{part.files.folder}: changes no weight, as before the first step of its training, so "
            "the result is the base's; train it, or take another adapter."
        )
    return (
        f"{part.files.folder}: changes no weight at strength {part.strength:g}, so the result is "
        "the base's; raise --strength."
    )


def doubts(model: BaseModel, parts: Sequence[MixedAdapter]) -> list[str]:
    """Sentences on adapters that change nothing, and on such as have the same weights in two
    folders, like a run's best model and the checkpoint that it was: their strengths add up."""
    told = [line for part in parts if (line := idle_sentence(model, part))]
    for one, other in itertools.combinations(parts, 2):
        mine, others = one.files.tensors, other.files.tensors
        if mine.keys() == others.keys() and all(
            mine[name].dtype == others[name].dtype and torch.equal(mine[name], others[name])
            for name in mine
        ):
            told.append(
                f"{one.files.folder} and {other.files.folder} have the same weights: together they "
                f"are that adapter at strength {one.strength + other.strength:g}."
            )
    return told


def weight_change(layer: Any, name: str = NAME) -> Tensor:
    """What a PEFT adapter adds to the weight of its layer, float64.

    Args:
        layer: a linear layer or an embedding with a LoRA or DoRA; it is left unchanged.
        name: the adapter's name within PEFT.
    """
    base = layer.get_base_layer()
    layer.to(base.weight.device)
    if not layer.use_dora[name]:
        return layer.get_delta_weight(name).double()
    before = base.weight.detach().clone()
    layer.merge(adapter_names=[name])
    merged = base.weight.detach().clone()
    layer.merged_adapters.clear()
    with torch.no_grad():
        base.weight.copy_(before)
    return merged.double() - before.double()


def _changes(model: BaseModel, files: AdapterFiles) -> dict[str, WeightChange]:
    """An adapter's changes, by the names of the weights. They keep the layers that they need after
    the adapter has been taken off the model."""
    weights = dict(model.hf.named_parameters(remove_duplicate=False))
    whole = {
        name.removeprefix(_PREFIX).replace(".base_layer", ""): tensor
        for name, tensor in files.tensors.items()
        if "lora_" not in name
    }
    before = {name: weights[name].detach().clone() for name in whole if name in weights}
    try:
        load_adapter(model, files)
    finally:
        layers = _take_off(model.hf)
        with torch.no_grad():
            for name, tensor in before.items():
                # PEFT writes an adapter's biases and saved embeddings into the base.
                weights[name].copy_(tensor)
    changes: dict[str, WeightChange] = {}
    for name, layer in layers.items():
        changes |= _layer_changes(files, name, layer, weights)
    for name, tensor in before.items():
        if not torch.equal(tensor, whole[name].to(tensor.device)):
            changes[name] = _difference(tensor, whole[name].to(tensor.device))
    _check_nothing_is_shared(files, set(changes), weights)
    return changes


def _take_off(hf: nn.Module) -> dict[str, Any]:
    """Puts a base's own modules back in place of PEFT's, even if PEFT failed midway. Returns the
    layers that carried the adapter, by the names of the modules that they replaced."""
    layers: dict[str, Any] = {}
    for name, module in list(hf.named_modules()):
        if isinstance(module, BaseTunerLayer):
            layers[name] = module
            hf.set_submodule(name, module.get_base_layer())
        elif isinstance(module, ModulesToSaveWrapper):
            hf.set_submodule(name, module.original_module)
    # Because of this, PEFT would take the next adapter for a second one on top.
    vars(hf).pop("peft_config", None)
    return layers


def _layer_changes(
    files: AdapterFiles, name: str, layer: Any, weights: Mapping[str, nn.Parameter]
) -> dict[str, WeightChange]:
    if f"{name}.weight" not in weights:
        kind = type(layer.get_base_layer()).__name__
        raise UserError(
            f"{files.folder}: adapts {name}, a {kind} whose weight can't be merged; train it on "
            "the language model's linear layers and embeddings only."
        )
    changes: dict[str, WeightChange] = {f"{name}.weight": lambda: weight_change(layer)}
    if layer.lora_bias.get(NAME):
        if layer.get_base_layer().bias is None:
            raise UserError(
                f"{files.folder}: lora_bias: {name} has no bias to which the adapter's could be "
                "added; train the adapter without lora_bias."
            )
        bias = layer.scaling[NAME] * layer.lora_B[NAME].bias.detach().double()
        changes[f"{name}.bias"] = lambda: bias
    return changes


def _difference(before: Tensor, after: Tensor) -> WeightChange:
    return lambda: after.double() - before.double()


def _check_nothing_is_shared(
    files: AdapterFiles, changed: set[str], weights: Mapping[str, nn.Parameter]
) -> None:
    """Refuses an adapter on one of several layers that share a weight: merging changes all."""
    for name in sorted(changed):
        others = [key for key, p in weights.items() if p is weights[name] and key != name]
        if others:
            raise UserError(
                f"{files.folder}: adapts {name}, which shares its weight with {others[0]}; merging "
                "would change both. Train it on other layers."
            )
