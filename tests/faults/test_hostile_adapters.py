"""Adapters that somebody else made: what they name, and what they would have run."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import add_lora
from harm.hostile import change
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from safetensors.torch import load_file, save_file

from musicgen_lora.errors import UserError
from musicgen_lora.formats.tensors import read_shapes
from musicgen_lora.model.base.loading import load_base
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.lora.adapter import load_adapter, read_adapter
from musicgen_lora.model.lora.config import read_adapter_config
from musicgen_lora.model.lora.facts import FACTS_FILE
from musicgen_lora.model.lora.trainable import save_adapter

LAYERS = r"decoder\.model\.decoder\.layers\."


@pytest.fixture
def adapter(model: Any, tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    save_adapter(add_lora(copy.deepcopy(model), base_name="x", rank=2, alpha=4), folder)
    return folder


def refused(model: Any, adapter: Path, said: str) -> None:
    with pytest.raises(UserError, match=said) as raised:
        load_adapter(BaseModel(copy.deepcopy(model)), adapter)
    assert str(adapter) in str(raised.value)


@pytest.mark.parametrize("field", ["target_modules", "exclude_modules"])
def test_an_expression_that_never_ends(field: str, model: Any, adapter: Path) -> None:
    change(adapter / "adapter_config.json", **{field: "([a-z_.0-9]+)+!"})
    if field == "target_modules":
        refused(model, adapter, "this base model has no such modules")
    else:
        load_adapter(BaseModel(copy.deepcopy(model)), adapter)


@pytest.mark.parametrize("field", ["rank_pattern", "alpha_pattern", "layers_pattern"])
def test_expressions_where_names_are_meant(field: str, model: Any, adapter: Path) -> None:
    pattern = "([a-z_.0-9]+)+!"
    value = [pattern] if field == "layers_pattern" else {pattern: 2}
    change(adapter / "adapter_config.json", **{field: value})
    refused(model, adapter, f"adapter_config.json: {field}")


def test_a_rank_that_the_weights_do_not_have(model: Any, adapter: Path) -> None:
    change(adapter / "adapter_config.json", r=200_000)
    refused(model, adapter, "r = 200000")
    change(adapter / "adapter_config.json", r=30_000)
    refused(model, adapter, "r = 30000: its weights have rank 2 at most")
    change(adapter / "adapter_config.json", r=2, rank_pattern={"fc1": 30_000})
    refused(model, adapter, "r = 30000: its weights have rank 2 at most")


def test_what_peft_would_import(model: Any, adapter: Path) -> None:
    change(adapter / "adapter_config.json", megatron_config={"a": 1}, megatron_core="megatron.x")
    refused(model, adapter, "megatron_co.*: is not supported")


def test_an_adapter_that_is_not_finite(model: Any, adapter: Path) -> None:
    tensors = load_file(adapter / "adapter_model.safetensors")
    name = next(name for name in tensors if "lora_B" in name)
    tensors[name][0, 0] = torch.inf
    save_file(tensors, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    refused(model, adapter, "lora_B.* has values that are not finite")


@pytest.mark.parametrize(
    "targets",
    [
        {"target_modules": rf"{LAYERS}\d+\.(self_attn|encoder_attn)\.(q_proj|v_proj)"},
        {"target_modules": rf"({LAYERS}0\.fc[12])|(enc_to_dec_proj)"},
        {"target_modules": r".*\.(q_proj|fc1)$", "exclude_modules": r".*\.layers\.0\..*"},
        {"target_modules": ["q_proj", "fc1"], "exclude_modules": ["self_attn.q_proj"]},
        {"target_modules": ["decoder.model.decoder.layers.0.fc1", "lm_heads.1"]},
        {"target_modules": ["q_proj"], "layers_to_transform": [1]},
        {"target_modules": ["q_proj"], "layers_to_transform": 0, "layers_pattern": "layers"},
        {"target_modules": ["q"], "layers_to_transform": [0], "layers_pattern": ["block"]},
    ],
)
def test_targets_are_those_of_peft(targets: dict[str, Any], model: Any, adapter: Path) -> None:
    change(adapter / "adapter_config.json", **targets)
    names = [name for name, _ in model.named_modules()]
    expected = {
        name
        for name in names
        if bool(check_target_module_exists(LoraConfig(**targets), name)) and name
    }
    shapes = read_shapes(adapter / "adapter_model.safetensors")
    path = adapter / "adapter_config.json"
    read = read_adapter_config(path, json.loads(path.read_text()), names, shapes)
    assert read.target_modules == expected
    assert expected, "the case is empty"
    assert {name for name in names if check_target_module_exists(read, name)} == expected


def test_an_expression_that_looks_ahead_stands_for_the_modules_with_weights(
    model: Any, adapter: Path
) -> None:
    tensors = load_file(adapter / "adapter_model.safetensors")
    change(adapter / "adapter_config.json", target_modules=r"(?!audio)decoder.*\.(.*_proj|fc\d)")
    read: Any = load_adapter(BaseModel(copy.deepcopy(model)), adapter)
    names = {name for name, _ in read.named_parameters() if ".lora_A" in name}
    assert len(names) == sum(".lora_A" in name for name in tensors)


def test_a_document_too_large_for_what_it_is(adapter: Path) -> None:
    with open(adapter / FACTS_FILE, "wb") as file:
        file.truncate(180 << 20)
    with pytest.raises(UserError, match="too large for such a file"):
        read_adapter(adapter)


@pytest.mark.parametrize(
    "change",
    [{"task_type": ""}, {"task_type": "SPEECH"}, {"bias": "some"}],
    ids=str,
)
def test_what_peft_does_not_take_is_one_line(
    tmp_path: Path, tiny_model_dir: Path, change: dict[str, str]
) -> None:
    adapted = add_lora(load_base(tiny_model_dir), base_name="x", rank=2, alpha=4)
    save_adapter(adapted, tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=r"adapter_config\.json") as raised:
        load_adapter(BaseModel.load(tiny_model_dir), tmp_path / "adapter")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", [torch.int8, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_weights_that_are_not_numbers_as_they_stand(
    kind: torch.dtype, model: Any, adapter: Path
) -> None:
    tensors = load_file(adapter / "adapter_model.safetensors")
    odd = {name: (100 * tensor).to(kind) for name, tensor in tensors.items()}
    save_file(odd, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    refused(model, adapter, f"has type {str(kind).removeprefix('torch.')}.*save the adapter in")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_float_type(kind: torch.dtype, model: Any, adapter: Path) -> None:
    tensors = load_file(adapter / "adapter_model.safetensors")
    kept = {name: tensor.to(kind) for name, tensor in tensors.items()}
    save_file(kept, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    load_adapter(BaseModel(copy.deepcopy(model)), adapter)
