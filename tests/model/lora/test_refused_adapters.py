"""Adapters that are refused: of another base, damaged, or not whole."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from adapters import rename_tensors
from tiny import make_tiny_musicgen

from musicgen_lora import atomic
from musicgen_lora.atomic import MANIFEST
from musicgen_lora.errors import UserError
from musicgen_lora.given import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from musicgen_lora.model.base.loading import load_base
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.lora.adapter import load_adapter, read_adapter
from musicgen_lora.model.lora.facts import FACTS_FILE


def test_an_adapter_of_another_base_is_refused(adapter: Path, tmp_path: Path) -> None:
    other = load_base(make_tiny_musicgen(tmp_path / "other", seed=1))
    with pytest.raises(UserError, match="adapter: this adapter was trained on another base"):
        load_adapter(BaseModel(other), adapter)


def test_an_adapter_of_the_same_base_before_its_weights_changed_is_told_so(
    adapter: Path, tmp_path: Path
) -> None:
    named = json.loads((adapter / FACTS_FILE).read_text())["base"]["path"]
    other = load_base(make_tiny_musicgen(tmp_path / "other", seed=1))
    with pytest.raises(UserError, match="adapter: this adapter was trained on another version of"):
        load_adapter(BaseModel(other, named), adapter)


def test_an_adapter_of_another_size_is_refused_without_facts_too(
    adapter: Path, tmp_path: Path
) -> None:
    (adapter / FACTS_FILE).unlink()
    wide = load_base(make_tiny_musicgen(tmp_path / "wide", hidden_size=64))
    with pytest.raises(UserError, match="adapter: does not fit this base model") as raised:
        load_adapter(BaseModel(wide), adapter)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("rename", "said"),
    [
        # As a PEFT of the decoder alone names them, and as other trainers do.
        (lambda name: name.replace("model.decoder.model.", "model.model."), "40 of 40 tensors"),
        (lambda name: name.replace("base_model.model.", ""), "40 of 40 tensors"),
        (lambda name: name.replace("fc1", "fc9"), "4 of 40 tensors"),
        (lambda name: None if "fc1" in name else name, "4 of 40 tensors"),
        (lambda name: None, "40 of 40 tensors"),
    ],
    ids=["foreign", "kohya", "some foreign", "some missing", "empty"],
)
def test_tensors_that_fit_no_layer_and_layers_without_tensors_are_counted(
    rename: Callable[[str], str | None], said: str, tiny_model_dir: Path, adapter: Path
) -> None:
    rename_tensors(adapter, rename)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with pytest.raises(UserError, match=rf"adapter_model\.safetensors: {said}") as raised:
            load_adapter(BaseModel.load(tiny_model_dir), adapter)
    assert "\n" not in str(raised.value)


def test_a_config_that_names_fewer_layers_than_the_weights_is_refused(
    tiny_model_dir: Path, adapter: Path
) -> None:
    config = json.loads((adapter / ADAPTER_CONFIG).read_text())
    (adapter / ADAPTER_CONFIG).write_text(json.dumps(config | {"target_modules": ["q_proj"]}))
    with pytest.raises(UserError, match=r"32 of 40 tensors .* fit no layer \(.*lora_A"):
        load_adapter(BaseModel.load(tiny_model_dir), adapter)


def test_an_adapter_that_adapts_no_layer_is_refused(tiny_model_dir: Path, adapter: Path) -> None:
    """A prompt that was learned goes through PEFT's own forward pass, which nothing here calls."""
    prompt = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 2, "task_type": "SEQ_2_SEQ_LM"}
    (adapter / ADAPTER_CONFIG).write_text(json.dumps(prompt))
    with pytest.raises(UserError, match="only adapters of type LORA are supported"):
        load_adapter(BaseModel.load(tiny_model_dir), adapter)


@pytest.mark.parametrize("file", [ADAPTER_CONFIG, ADAPTER_WEIGHTS, FACTS_FILE, MANIFEST])
def test_a_manifest_beside_an_adapter_is_checked(file: str, tmp_path: Path, adapter: Path) -> None:
    best = tmp_path / "best_model"
    (adapter / "README.md").write_text("card")
    atomic.publish_folder(best, lambda to: shutil.copytree(adapter, to, dirs_exist_ok=True))
    # The card is there to be edited.
    (best / "README.md").write_text("mine")
    read_adapter(best)
    content = bytearray((best / file).read_bytes())
    content[len(content) // 2] ^= 1
    (best / file).write_bytes(content)
    with pytest.raises(UserError, match=r"not what training wrote .*delete .*manifest\.json"):
        read_adapter(best)
    if file == ADAPTER_WEIGHTS:
        (best / MANIFEST).unlink()
        read_adapter(best)


def test_a_pickled_adapter_is_refused(tiny_model_dir: Path, adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(UserError, match="pickled adapters are refused"):
        load_adapter(BaseModel.load(tiny_model_dir), adapter)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("adapter_model.safetensors", b"\x08\0\0\0\0\0\0\0torn", "not readable as safetensors"),
        ("adapter_model.safetensors", b"", "not readable as safetensors"),
        ("adapter_config.json", b"{torn", "line 1: not valid JSON"),
        ("adapter_config.json", b"{}", "peft_type = None: only adapters of type LORA"),
        ("adapter_config.json", b"[]", "should be an object"),
        ("adapter_config.json", b'{"peft_type": "NOTHING"}', "peft_type = 'NOTHING'"),
        (FACTS_FILE, b"{torn", "line 1: not valid JSON"),
        (FACTS_FILE, b'{"format_version": 1}', "not readable as adapter facts"),
        (FACTS_FILE, b'{"format_version": "1"}', "not readable as adapter facts"),
        (FACTS_FILE, b'{"format_version": 99}', "newer than this release"),
    ],
)
def test_a_damaged_adapter_is_named(
    file: str, content: bytes, said: str, tiny_model_dir: Path, adapter: Path
) -> None:
    (adapter / file).write_bytes(content)
    with pytest.raises(UserError, match=said) as raised:
        load_adapter(BaseModel.load(tiny_model_dir), adapter)
    assert str(adapter) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_folders_that_are_no_adapter_are_named(tiny_model_dir: Path, tmp_path: Path) -> None:
    model = load_base(tiny_model_dir)
    with pytest.raises(UserError, match="gone: no such adapter folder"):
        load_adapter(BaseModel(model), tmp_path / "gone")
    with pytest.raises(UserError, match=r"no adapter_config\.json in it"):
        load_adapter(BaseModel(model), tiny_model_dir)
