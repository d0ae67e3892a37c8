"""A LoRA adapter on its base during training: how it is made, saved and resumed.

It is saved in PEFT's format (`adapter_config.json`, `adapter_model.safetensors`), for the plain
base whatever its initialisation.
"""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from peft import PeftModel, get_peft_model
from safetensors.torch import save_file
from torch import nn

from musicgen_lora.formats.tensors import read_tensors
from musicgen_lora.given import ADAPTER_WEIGHTS
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.cpu.lora_linear import fuse_products
from musicgen_lora.model.lora import initial
from musicgen_lora.model.lora.initial import Tensors
from musicgen_lora.model.lora.spec import LoraSpec
from musicgen_lora.runtime.quiet import quiet_libraries


class TrainableLora:
    """Fresh LoRA layers (Hu et al., 2021) in a base, which don't change any prediction yet.

    Args:
        base: changed in place; its own weights stay frozen. PiSSA and OLoRA move a part of them
            into the adapter, see `initial`.
        base_name: the base's name for the adapter's config; if empty, the model's path.

    Raises:
        UserError: the initialisation can't make this adapter, or DoRA can adapt none of the layers.
    """

    def __init__(self, base: BaseModel, spec: LoraSpec, base_name: str = "") -> None:
        self.rank, self.narrow = spec.rank, spec.beyond_rank(base.hf)
        with quiet_libraries():
            adapted = get_peft_model(base.hf, spec.peft_config(base.hf))  # pyright: ignore[reportArgumentType]
        assert isinstance(adapted, PeftModel)
        adapted.peft_config["default"].base_model_name_or_path = base_name or base.path
        fuse_products(base.hf)
        self.peft = adapted
        from_base = spec.init in initial.FROM_BASE
        self._first = initial.adapter_tensors(adapted) if from_base else None
        named = adapted.named_modules()
        self._dropouts = [m for name, m in named if name.endswith("lora_dropout.default")]

    @cached_property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that the optimizer steps."""
        return [p for p in self.peft.parameters() if p.requires_grad]

    @property
    def left_out(self) -> list[str]:
        """The layers that DoRA can't adapt."""
        config: Any = self.peft.peft_config["default"]
        return sorted(config.exclude_modules or [])

    def train_mode(self, on: bool) -> None:
        """Switches the adapter's dropout. The decoder's own stays off, as in audiocraft."""
        for dropout in self._dropouts:
            dropout.train(on)

    @contextlib.contextmanager
    def base_alone(self) -> Iterator[None]:
        """A context in which the model predicts like the plain base."""
        if self._first is None:
            with self.peft.disable_adapter():
                yield
            return
        # With the adapter off, the model would be the residual base.
        trained = initial.adapter_tensors(self.peft)
        initial.put_tensors(self.peft, self._first)
        try:
            yield
        finally:
            initial.put_tensors(self.peft, trained)

    def save(self, folder: Path, *, metadata: dict[str, Any] | None = None) -> None:
        """Writes config and weights into a folder, see `save_adapter`."""
        save_adapter(self.peft, folder, started=self._first, metadata=metadata)

    def load(self, folder: Path) -> None:
        """Resumes from what `save` wrote. If the initial tensors were taken out of the base, the
        base becomes the residual that belongs to them."""
        tensors = read_tensors(folder / ADAPTER_WEIGHTS)
        if self._first is not None:
            tensors, first = initial.split_plain_lora(tensors)
            initial.move_start(self.peft, self._first, first)
            self._first = first
        initial.put_tensors(self.peft, tensors)


def save_adapter(
    adapted: PeftModel,
    folder: Path,
    *,
    started: Tensors | None = None,
    metadata: dict[str, Any] | None = None,
) -> None:
    """Writes an adapter in PEFT's format, for the plain base whatever its initialisation.

    Args:
        folder: where `adapter_config.json` and `adapter_model.safetensors` go.
        started: its initial tensors, if they were taken out of the base (`initial`).
        metadata: goes into the weights' header as JSON, under `musicgen_lora`.
    """
    tensors = initial.adapter_tensors(adapted)
    config: Any = copy.deepcopy(adapted.peft_config["default"])
    if started is not None:
        tensors = initial.as_plain_lora(tensors, started)
        config.lora_alpha *= 2**0.5 if config.use_rslora else 2
        config.r *= 2
    # PEFT keeps a set, whose order varies between processes.
    config.exclude_modules = sorted(config.exclude_modules) if config.exclude_modules else None
    # Loading replaces the weights: to initialise them again would be useless, or harmful.
    config.init_lora_weights, config.inference_mode = True, True
    base = type(adapted.get_base_model())
    names = {"base_model_class": base.__name__, "parent_library": base.__module__}
    config.save_pretrained(str(folder), auto_mapping_dict=names)
    # A single entry: safetensors writes several in random order, and files would differ.
    header = {"format": "pt"}
    if metadata is not None:
        header = {"musicgen_lora": json.dumps(metadata, sort_keys=True)}
    save_file(tensors, folder / ADAPTER_WEIGHTS, metadata=header)
