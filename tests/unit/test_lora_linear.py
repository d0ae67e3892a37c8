"""LoRA layers in few products: equal to PEFT's own forward pass, on which they call here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model_state_dict
from peft.tuners import lora

from musicgen_lora.model.adapter import add_lora
from musicgen_lora.model.lora_linear import LoraLinear
from musicgen_lora.model.musicgen import load_base
from musicgen_lora.model.targets import target_pattern

Results = list[torch.Tensor]


def adapted_model(folder: Path, **changes: Any) -> Any:
    """A tiny model whose adapter does something, on layers with and without bias."""
    model = load_base(folder)
    pattern = target_pattern(model, targets=("attention", "feed_forward", "text_projection"))
    adapted: Any = add_lora(model, base_name="x", rank=4, alpha=12, pattern=pattern, **changes)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.normal_(0.0, 0.3)
    return adapted


def layers_of(adapted: Any) -> list[Any]:
    model = adapted.get_base_model()
    return [model.decoder.model.decoder.layers[0].fc1, model.enc_to_dec_proj]


def results(forward: Any, layer: Any, dtype: torch.dtype, *, needs_input_grad: bool) -> Results:
    """Output and gradients of the parameters, and of the input, if wanted."""
    torch.manual_seed(2)
    inputs = torch.randn(3, 7, layer.in_features)
    weights = torch.randn(3, 7, layer.out_features)
    x = inputs.to(dtype).requires_grad_(needs_input_grad)
    layer.zero_grad()
    out = forward(layer, x)
    (out * weights.to(dtype)).sum().backward()
    trained = [p.grad for p in layer.parameters() if p.requires_grad]
    assert len(trained) == 2
    found = [out.detach(), *trained] + ([x.grad] if needs_input_grad else [])
    return [tensor.float() for tensor in found if tensor is not None]


def relative_error(found: torch.Tensor, true: torch.Tensor) -> float:
    return float((found - true).norm() / true.norm())


@pytest.mark.parametrize("needs_input_grad", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("kind", ["lora", "rslora"])
def test_output_and_gradients_equal_pefts(
    kind: str, dropout: float, needs_input_grad: bool, tiny_model_dir: Path
) -> None:
    adapted = adapted_model(tiny_model_dir, kind=kind, dropout=dropout).train()
    for layer in layers_of(adapted):
        assert type(layer) is LoraLinear
        options = {"dtype": torch.float32, "needs_input_grad": needs_input_grad}
        ours = results(LoraLinear.forward, layer, **options)
        theirs = results(lora.Linear.forward, layer, **options)
        assert len(ours) == len(theirs) == 3 + needs_input_grad
        for one, other in zip(ours, theirs, strict=True):
            assert relative_error(one, other) < 1e-6
        adapted.eval()
        without = results(LoraLinear.forward, layer, **options)
        adapted.train()
        assert torch.equal(ours[0], without[0]) == (dropout == 0.0)


def test_in_bf16_it_is_as_near_to_fp32_as_pefts(tiny_model_dir: Path) -> None:
    adapted = adapted_model(tiny_model_dir)
    for layer in layers_of(adapted):
        layer.base_layer.weight.data = layer.base_layer.weight.data.bfloat16().float()
        exact = results(lora.Linear.forward, layer, torch.float32, needs_input_grad=True)
        layer.base_layer.to(torch.bfloat16)
        ours = results(LoraLinear.forward, layer, torch.bfloat16, needs_input_grad=True)
        theirs = results(lora.Linear.forward, layer, torch.bfloat16, needs_input_grad=True)
        for true, one, other in zip(exact, ours, theirs, strict=True):
            error, usual = relative_error(one, true), relative_error(other, true)
            assert 0.0 < error < 1.5 * usual + 2.0**-8


def test_an_adapter_that_is_off_or_merged_leaves_the_layer_to_peft(tiny_model_dir: Path) -> None:
    adapted = adapted_model(tiny_model_dir)
    layer = layers_of(adapted)[0]
    x = torch.randn(2, 5, layer.in_features)
    with torch.no_grad():
        on = layer(x)
        with adapted.disable_adapter():
            assert torch.equal(layer(x), layer.base_layer(x))
        layer.merge()
        assert torch.allclose(layer(x), on, atol=1e-5)
        layer.unmerge()


def test_half_precision_and_dora_keep_pefts_forward(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = layers_of(adapted_model(tiny_model_dir))[0]
    layer.base_layer.to(torch.float16)
    calls = []
    original = lora.Linear.forward
    monkeypatch.setattr(
        lora.Linear, "forward", lambda *a, **k: calls.append(1) or original(*a, **k)
    )
    layer(torch.randn(2, 5, layer.in_features, dtype=torch.float16))
    assert calls == [1]
    assert type(layers_of(adapted_model(tiny_model_dir, kind="dora"))[0]) is lora.Linear


def test_parameters_keep_the_names_that_peft_gives_them(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = get_peft_model_state_dict(adapted_model(tiny_model_dir))
    monkeypatch.setattr("musicgen_lora.model.adapter.use_few_products", lambda adapted: None)
    theirs = get_peft_model_state_dict(adapted_model(tiny_model_dir))
    assert list(ours) == list(theirs)
