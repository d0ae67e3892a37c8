"""The switch of what is quick on a CPU: whatever the order, the same model comes out."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch

from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.cpu.attention import NAME
from musicgen_lora.model.cpu.lora_linear import LoraAttention, LoraLinear, _one_weight
from musicgen_lora.model.cpu.switch import enable
from musicgen_lora.model.lora.adapter import load_adapter
from musicgen_lora.model.lora.spec import LoraSpec
from musicgen_lora.model.lora.trainable import TrainableLora
from musicgen_lora.model.text.states import EncodedText

CPU = torch.device("cpu")
SPEC = LoraSpec(rank=4, alpha=8)


def move(model: BaseModel) -> None:
    model.to(CPU, "bf16")


def switch_on(model: BaseModel) -> None:
    enable(model.hf, "bf16")


def adapt(model: BaseModel) -> None:
    torch.manual_seed(0)
    lora = TrainableLora(model, SPEC)
    with torch.no_grad():
        for parameter in lora.parameters:
            parameter.normal_(0.0, 0.2)


def states_and_gradients(model: BaseModel) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 64, (2, 4, 20), generator=generator)
    text = torch.randn(2, 3, 24, generator=generator)
    texts = EncodedText(text, torch.ones(2, 3, dtype=torch.long))
    states = model.states(codes, texts)
    trained = [p for p in model.hf.parameters() if p.requires_grad]
    return [states.detach(), *torch.autograd.grad(states.float().square().sum(), trained)]


@pytest.mark.parametrize("steps", list(permutations([move, switch_on, adapt])))
def test_moving_switching_and_adapting_may_come_in_any_order(
    steps: tuple[Callable[[BaseModel], None], ...], tiny_model_dir: Path
) -> None:
    expected, found = BaseModel.load(tiny_model_dir), BaseModel.load(tiny_model_dir)
    for step in (move, switch_on, adapt):
        step(expected)
    for step in steps:
        step(found)
    # Moving may have taken weights apart that lay together.
    switch_on(found)
    for name, parameter in found.hf.decoder.named_parameters():
        dtype = torch.float32 if "lora_" in name else torch.bfloat16
        assert parameter.dtype == dtype, name
    layer: Any = found.layers[0]
    assert type(layer.fc1) is LoraLinear
    attention = layer.self_attn
    assert type(attention) is LoraAttention
    together = [attention.q_proj, attention.k_proj, attention.v_proj]
    assert _one_weight(together, torch.zeros(1, 32, dtype=torch.bfloat16)) is not None
    pairs = zip(states_and_gradients(found), states_and_gradients(expected), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_switching_on_again_changes_nothing(tiny_model_dir: Path) -> None:
    model = BaseModel.load(tiny_model_dir)
    for step in (move, switch_on, adapt):
        step(model)
    before = {name: p.data_ptr() for name, p in model.hf.named_parameters()}
    switch_on(model)
    assert {name: p.data_ptr() for name, p in model.hf.named_parameters()} == before


def test_an_adapter_that_is_only_played_keeps_pefts_layers(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    TrainableLora(BaseModel.load(tiny_model_dir), SPEC).save(tmp_path)
    model = BaseModel.load(tiny_model_dir)
    load_adapter(model, tmp_path)
    enable(model.hf, "fp32")
    layer: Any = model.layers[0]
    assert type(layer.fc1) is not LoraLinear
    assert model.hf.decoder.config._attn_implementation != NAME
