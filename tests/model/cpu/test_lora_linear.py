"""LoRA layers in few products: equal to PEFT's own forward pass, on which they call here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import add_lora
from peft import get_peft_model_state_dict
from peft.tuners import lora

from musicgen_lora.model.base.loading import load_base
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.cpu import lora_linear
from musicgen_lora.model.cpu.attention import use_blocked_attention
from musicgen_lora.model.cpu.lora_linear import LoraAttention, LoraLinear
from musicgen_lora.model.cpu.switch import enable
from musicgen_lora.model.lora.targets import target_pattern
from musicgen_lora.model.text.states import EncodedText

Results = list[torch.Tensor]


def adapted_model(
    folder: Path,
    *,
    targets: tuple[str, ...] = ("attention", "feed_forward", "text_projection"),
    prepare: Any = lambda model: None,
    **changes: Any,
) -> Any:
    """A tiny model whose adapter does something, on layers with and without bias."""
    model = load_base(folder)
    prepare(model)
    pattern = target_pattern(model, targets=targets)
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


def in_bf16(model: Any) -> None:
    BaseModel(model).to(torch.device("cpu"), "bf16")
    enable(model, "bf16")


def product(layers: list[Any], x: torch.Tensor) -> torch.Tensor:
    """Product of layers that read x: alone, or as attention shares them."""
    if len(layers) == 1:
        return layers[0](x)
    weight = lora_linear._one_weight(layers, x)
    assert weight is not None
    return lora_linear._product(layers, x, weight)


@pytest.mark.parametrize(
    ("which", "dropout"),
    [("without bias", 0.0), ("without bias", 0.25), ("with bias", 0.25), ("shared", 0.0)],
)
def test_bf16_keeps_what_a_small_adapter_does(
    which: str, dropout: float, tiny_model_dir: Path
) -> None:
    """The product with it less that without it, along the true difference, in output and gradient.
    Rounding leaves noise, which goes by chance: it must not take the adapter with it."""
    adapted = adapted_model(tiny_model_dir, prepare=in_bf16, dropout=dropout).train()
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            # Its products are less than the steps between the base's numbers.
            parameter.data *= 3e-5
    plain, biased = layers_of(adapted)
    attention = attentions_of(adapted)[0]
    layers = {"without bias": [plain], "with bias": [biased]}.get(
        which, [attention.q_proj, attention.k_proj, attention.v_proj]
    )
    torch.manual_seed(2)
    base = layers[0].base_layer
    x = torch.randn(20_000, base.in_features).bfloat16().requires_grad_()
    weights = torch.randn(20_000, sum(layer.out_features for layer in layers)).bfloat16()

    def found() -> Results:
        x.grad = None
        torch.manual_seed(3)
        out = product(layers, x)
        (out.float() * weights).sum().backward()
        assert x.grad is not None
        return [out.detach().float(), x.grad.float()]

    mask = torch.ones_like(x, dtype=torch.float32)
    if dropout:
        torch.manual_seed(3)
        mask = torch.nn.functional.dropout(mask, dropout)
    change = torch.cat(
        [layer.lora_B["default"].weight @ layer.lora_A["default"].weight * 3.0 for layer in layers]
    ).detach()
    true = [(x.detach().float() * mask) @ change.T, (weights.float() @ change) * mask]
    on = found()
    for layer in layers:
        layer.lora_B["default"].weight.data.zero_()
    for with_it, without, expected in zip(on, found(), true, strict=True):
        difference = with_it - without
        energy = (expected * expected).sum()
        kept = float((difference * expected).sum() / energy)
        noise = float((difference - expected).std() / energy.sqrt())
        assert noise < 0.02
        assert kept == pytest.approx(1.0, abs=4 * noise + 2.0**-8)


@pytest.mark.parametrize(
    ("precision", "changes", "said"),
    [
        ("bf16", {}, None),
        ("fp32", {"kind": "dora"}, None),
        ("bf16", {"kind": "dora"}, "fc1"),
        ("fp16", {}, "q_proj"),
        ("bf16", {"targets": ("attention", "embeddings")}, "embed_tokens.0"),
    ],
)
def test_layers_that_round_before_they_add_are_named(
    precision: str, changes: dict[str, Any], said: str | None, tiny_model_dir: Path
) -> None:
    def prepare(model: Any) -> None:
        BaseModel(model).to(torch.device("cpu"), precision)
        enable(model, precision)

    adapted = adapted_model(tiny_model_dir, prepare=prepare, **changes)
    found = lora_linear.round_before_adding(adapted)
    if said is None:
        assert found == []
    else:
        assert any(name.endswith(said) for name in found)
        assert not any("base_model" in name for name in found)


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
    monkeypatch.setattr("musicgen_lora.model.lora.trainable.fuse_products", lambda model: None)
    theirs = get_peft_model_state_dict(adapted_model(tiny_model_dir))
    assert list(ours) == list(theirs)


def attentions_of(adapted: Any) -> list[Any]:
    """Self-attention and attention to the text of each layer."""
    layers = adapted.get_base_model().decoder.model.decoder.layers
    return [attention for layer in layers for attention in (layer.self_attn, layer.encoder_attn)]


def states_and_gradients(adapted: Any) -> Results:
    """The decoder's last states and the adapter's gradients, for clips with a caption, a shorter
    one and none."""
    model = adapted.get_base_model()
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 64, (3, BaseModel(model).shape.n_codebooks, 150), generator=generator)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]])
    text = torch.randn(3, 4, 24, generator=generator) * mask[..., None]
    weights = torch.randn(3, 150, 32, generator=generator)
    states = BaseModel(model).states(codes, EncodedText(text, mask))
    trained = [p for p in adapted.parameters() if p.requires_grad]
    return [states.detach(), *torch.autograd.grad((states * weights).sum(), trained)]


def test_attention_whose_layers_share_their_products_equals_pefts_and_transformers(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = adapted_model(tiny_model_dir, prepare=use_blocked_attention)
    shared = []
    original = LoraLinear.forward
    monkeypatch.setattr(
        LoraLinear, "forward", lambda self, x: shared.append(self) or original(self, x)
    )
    found = states_and_gradients(ours)
    for attention in attentions_of(ours):
        assert type(attention) is LoraAttention
        alone = [layer for layer in (attention.q_proj, attention.k_proj) if layer in shared]
        assert alone == ([] if attention.is_causal else [attention.q_proj])
    monkeypatch.setattr("musicgen_lora.model.lora.trainable.fuse_products", lambda model: None)
    theirs = adapted_model(tiny_model_dir)
    assert type(attentions_of(theirs)[0]) is not LoraAttention
    for one, other in zip(found, states_and_gradients(theirs), strict=True):
        assert relative_error(one, other) < 1e-4


@pytest.mark.parametrize("why", ["dropout", "moved apart", "switched off"])
def test_attention_is_left_to_transformers_where_its_layers_cannot_share(
    why: str, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropout = 0.4 if why == "dropout" else 0.0
    adapted = adapted_model(tiny_model_dir, prepare=use_blocked_attention, dropout=dropout).train()
    for attention in attentions_of(adapted):
        assert type(attention) is LoraAttention
        if why == "moved apart":
            weight = attention.v_proj.base_layer.weight
            weight.data = weight.data.clone()
    monkeypatch.setattr(
        "musicgen_lora.model.cpu.lora_linear.causal_attention", lambda *_: pytest.fail("shared")
    )
    if why == "switched off":
        with adapted.eval().disable_adapter(), torch.no_grad():
            codes = torch.zeros(1, 4, 5, dtype=torch.long)
            texts = EncodedText(torch.ones(1, 2, 24), torch.ones(1, 2))
            states = BaseModel(adapted.get_base_model()).states(codes, texts)
            expected = BaseModel(load_base(tiny_model_dir)).states(codes, texts)
        assert torch.allclose(states, expected, atol=1e-5)
    else:
        assert all(bool(tensor.isfinite().all()) for tensor in states_and_gradients(adapted))


def test_weights_that_lie_together_are_those_of_the_base(tiny_model_dir: Path) -> None:
    base: Any = load_base(tiny_model_dir)
    adapted = adapted_model(tiny_model_dir, prepare=use_blocked_attention)
    for name, weight in base.decoder.named_parameters():
        if name.endswith("_proj.weight"):
            found = adapted.get_base_model().decoder.get_parameter(
                name.replace(".weight", ".base_layer.weight")
            )
            assert torch.equal(found, weight)


@pytest.mark.parametrize(
    "options",
    [{"targets": ("feed_forward",), "prepare": use_blocked_attention}, {"targets": ("attention",)}],
    ids=["no adapter on it", "not in blocks"],
)
def test_other_attention_stays_transformers(options: dict[str, Any], tiny_model_dir: Path) -> None:
    adapted = adapted_model(tiny_model_dir, **options)
    assert not any(isinstance(attention, LoraAttention) for attention in attentions_of(adapted))
