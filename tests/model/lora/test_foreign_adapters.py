"""Adapters that PEFT of other versions wrote, with fields that have come and gone since, or other
tools: loaded as what they are, or refused in one line that names the field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import EVERYWHERE, draw_adapter, merged_by_peft
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from musicgen_lora.config import GenerateSettings, MergeSettings
from musicgen_lora.errors import UserError
from musicgen_lora.export.merge import merge_adapters
from musicgen_lora.generation.generate import generate_audio
from musicgen_lora.given import ADAPTER_CONFIG
from musicgen_lora.model.base.loading import load_base
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.lora.adapter import load_adapter
from musicgen_lora.model.lora.facts import FACTS_FILE

FIRST = {
    "bias": "none",
    "enable_lora": None,
    "fan_in_fan_out": False,
    "inference_mode": True,
    "lora_alpha": 16,
    "lora_dropout": 0.05,
    "merge_weights": False,
    "modules_to_save": None,
    "peft_type": "LORA",
    "r": 4,
    "target_modules": ["q_proj", "v_proj"],
    "task_type": None,
}
"""A config as PEFT 0.2 wrote it."""
SINCE: dict[str, dict[str, Any]] = {
    "0.3": {"base_model_name_or_path": None, "init_lora_weights": True},
    "0.4": {"layers_to_transform": None, "layers_pattern": None, "revision": None},
    "0.5": {"auto_mapping": {"base_model_class": "X", "parent_library": "transformers"}},
    "0.6": {"rank_pattern": {}, "alpha_pattern": {}},
    "0.7": {"loftq_config": {}, "megatron_config": None, "megatron_core": "megatron.core"},
    "0.8": {"use_rslora": False},
    "0.9": {"use_dora": False, "layer_replication": None},
    "0.14": {"eva_config": None, "exclude_modules": None, "lora_bias": False},
    "0.15": {"corda_config": None, "trainable_token_indices": None},
    "0.17": {"target_parameters": None, "use_qalora": False, "qalora_group_size": 16},
    "9.9": {"use_something_new": False, "something_new": None, "peft_version": "9.9.0"},
}
"""Fields that later versions wrote as well."""


def config_as_of(version: str) -> dict[str, Any]:
    config = dict(FIRST)
    for since, fields in SINCE.items():
        config |= fields
        if since == version:
            break
    return config


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    """An adapter of another tool: PEFT's two files."""
    root = tmp_path_factory.mktemp("foreign")
    folder = draw_adapter(
        tiny_model_dir, root / "plain", target_modules=["q_proj", "v_proj"], lora_alpha=16
    )
    (folder / FACTS_FILE).unlink()
    return folder


@pytest.fixture(scope="module")
def expected(plain: Path, tiny_model_dir: Path) -> dict[str, torch.Tensor]:
    """The base with that adapter merged."""
    return merged_by_peft(tiny_model_dir, plain)


def with_config(folder: Path, copy: Path, config: dict[str, Any]) -> Path:
    copy.mkdir()
    (copy / ADAPTER_CONFIG).write_text(json.dumps(config))
    weights = "adapter_model.safetensors"
    (copy / weights).write_bytes((folder / weights).read_bytes())
    return copy


@pytest.mark.parametrize("version", ["0.2", "0.4", "0.7", "0.9", "0.15", "9.9"])
def test_configs_of_all_versions_give_the_same_adapter(
    version: str, plain: Path, expected, tiny_model_dir: Path, tmp_path: Path
) -> None:
    older = with_config(plain, tmp_path / "older", config_as_of(version))
    found = merged_by_peft(tiny_model_dir, older)
    assert all(torch.equal(expected[name], tensor) for name, tensor in found.items())


@pytest.mark.parametrize(
    "fields",
    [
        {"merge_weights": True},
        {"eva_config": {"rho": 2.0, "tau": 0.99}, "init_lora_weights": "eva"},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": "orthogonal"},
        {"init_lora_weights": False},
        {"runtime_config": {"ephemeral_gpu_offload": True}},
        {"task_type": "SEQ_2_SEQ_LM"},
    ],
)
def test_how_training_began_changes_nothing(
    fields: dict[str, Any], plain: Path, expected, tiny_model_dir: Path, tmp_path: Path
) -> None:
    other = with_config(plain, tmp_path / "other", config_as_of("0.17") | fields)
    found = merged_by_peft(tiny_model_dir, other)
    assert all(torch.equal(expected[name], tensor) for name, tensor in found.items())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("init_lora_weights", "pissa"),
        ("init_lora_weights", "pissa_niter_16"),
        ("init_lora_weights", "olora"),
        ("init_lora_weights", "loftq"),
        ("init_lora_weights", "corda"),
        ("init_lora_weights", "lora_ga"),
        ("layer_replication", [[0, 2]]),
        ("alora_invocation_tokens", [1, 2]),
        ("target_parameters", ["weight"]),
        ("trainable_token_indices", [1]),
        ("use_qalora", True),
        ("enable_lora", [True, False, True]),
        ("something_new", 7),
    ],
)
def test_what_would_be_another_adapter_is_refused_by_its_name(
    field: str, value: Any, plain: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    other = with_config(plain, tmp_path / "other", config_as_of("9.9") | {field: value})
    with pytest.raises(UserError, match=field) as raised:
        load_adapter(BaseModel.load(tiny_model_dir), other)
    assert str(other) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_pissa_as_peft_saves_it_is_refused_and_says_what_to_do(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    """Its weights go on what is left of the base, not on the base."""
    config = LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights="pissa")
    adapted: Any = get_peft_model(load_base(tiny_model_dir), config)
    adapted.save_pretrained(str(tmp_path / "pissa"))
    saved = json.loads((tmp_path / "pissa" / ADAPTER_CONFIG).read_text())
    assert saved["init_lora_weights"] == "pissa"
    with pytest.raises(UserError, match="path_initial_model_for_weight_conversion"):
        load_adapter(BaseModel.load(tiny_model_dir), tmp_path / "pissa")
    first = tmp_path / "first"
    adapted.peft_config["default"].init_lora_weights = True
    adapted.save_pretrained(str(first))
    adapted.peft_config["default"].init_lora_weights = "pissa"
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.1)
    expected = {name: tensor.clone() for name, tensor in adapted.state_dict().items()}
    adapted.save_pretrained(
        str(tmp_path / "plain"), path_initial_model_for_weight_conversion=str(first)
    )
    found = merged_by_peft(tiny_model_dir, tmp_path / "plain")
    name = "decoder.model.decoder.layers.0.self_attn.q_proj"
    inner = {
        part: expected[f"base_model.model.{name}.{part}.weight"]
        for part in ("base_layer", "lora_A.default", "lora_B.default")
    }
    scale = config.lora_alpha / config.r
    product = scale * inner["lora_B.default"] @ inner["lora_A.default"]
    assert torch.allclose(found[f"{name}.weight"], inner["base_layer"] + product, atol=1e-5)


@pytest.mark.parametrize("kind", [{"use_rslora": True}, {"use_dora": True}])
def test_they_are_played_and_merged(
    kind: dict[str, Any], tiny_model_dir: Path, tmp_path: Path
) -> None:
    """On other targets, with the embeddings that PEFT saves by itself where they are adapted."""
    adapter = draw_adapter(
        tiny_model_dir, tmp_path / "a", save_embeddings=True, target_modules=EVERYWHERE, **kind
    )
    (adapter / FACTS_FILE).unlink()
    names = load_file(adapter / "adapter_model.safetensors")
    assert any(name.endswith("lm_heads.0.base_layer.weight") for name in names)
    out = merge_adapters(
        MergeSettings(
            model_path=str(tiny_model_dir), lora_model_path=[adapter], output_dir=tmp_path / "out"
        )
    )
    expected, found = merged_by_peft(tiny_model_dir, adapter), load_base(out).state_dict()
    assert all(torch.equal(expected[name], tensor) for name, tensor in found.items())

    def play(**given: Any) -> bytes:
        settings = GenerateSettings(
            prompts=["808 beat"], duration=0.2, output_dir=tmp_path / "played", **given
        )
        return generate_audio(settings)[0].read_bytes()

    base = play(base_model_path=str(tiny_model_dir))
    assert play(base_model_path=str(tiny_model_dir), lora_model_path=adapter) != base
