"""Attention in blocks: equal to torch's own, in itself and within a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import DynamicCache, EncoderDecoderCache

from musicgen_lora.config import TrainSettings
from musicgen_lora.given import EMBEDDED
from musicgen_lora.model.base.loading import load_base
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.cpu.attention import (
    BLOCK,
    causal_attention,
    text_attention,
    use_blocked_attention,
)
from musicgen_lora.model.cpu.switch import enable
from musicgen_lora.model.text.states import EncodedText
from musicgen_lora.training.weights import LoraWeights

LENGTHS = [1, 5, BLOCK, BLOCK + 1, 2 * BLOCK + 44]


def heads(n_steps: int, dtype: torch.dtype) -> list[torch.Tensor]:
    """Query, key, value as a decoder makes them (views of `[B, T, heads, width]`), and what the
    result is multiplied by; queries are long, so that attention is sharp."""
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(2, n_steps, 3, 8, generator=generator) for _ in range(4)]
    made[0] *= 3.0
    return [tensor.to(dtype).transpose(1, 2).requires_grad_() for tensor in made]


def result(attend: Any, parts: list[torch.Tensor]) -> list[torch.Tensor]:
    """Output and gradients."""
    query, key, value, weights = parts
    out = attend(query, key, value)
    gradients = torch.autograd.grad((out * weights.detach()).sum(), [query, key, value])
    return [tensor.detach().float() for tensor in (out, *gradients)]


def by_torch(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.4)


def in_blocks(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return causal_attention(torch.stack((query, key, value)), 0.4)


@pytest.mark.parametrize("n_steps", LENGTHS)
def test_output_and_gradients_equal_torchs(n_steps: int) -> None:
    parts = heads(n_steps, torch.float32)
    for ours, theirs in zip(result(in_blocks, parts), result(by_torch, parts), strict=True):
        assert ours.shape == theirs.shape
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n_steps", LENGTHS)
def test_in_bf16_it_is_about_as_near_to_fp32_as_torchs(n_steps: int) -> None:
    parts = heads(n_steps, torch.bfloat16)
    exact = result(by_torch, [part.detach().float().requires_grad_() for part in parts])
    found = zip(exact, result(in_blocks, parts), result(by_torch, parts), strict=True)
    for true, ours, theirs in found:
        # One step has no gradient of query and key.
        scale = true.norm() + 1e-3
        error, usual = (float((one - true).norm() / scale) for one in (ours, theirs))
        assert error < 2.0 * usual + 2.0**-7


def on_text(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return text_attention(query, key[:, :, :9], value[:, :, :9], None, 0.4)


@pytest.mark.parametrize("attend", [in_blocks, on_text])
def test_in_bf16_nothing_is_learnt_from_values_that_are_alike(attend: Any) -> None:
    """Which of them is looked at makes no difference: rounding must not look like one."""
    query, key, value, weights = heads(150, torch.bfloat16)
    alike = value[:, :, :1].detach().expand_as(value).clone().requires_grad_()
    _, *gradients = result(attend, [query, key, alike, weights])
    for gradient in gradients[:2]:
        assert gradient.abs().max() < 1e-4 * gradients[2].abs().max()


def gradients_on_the_embedded_base(trainable: str, precision: str) -> torch.Tensor:
    base = BaseModel.load(EMBEDDED)
    # In full training, weights in fp32 are multiplied in the precision.
    autocast = trainable == "full" and precision == "bf16"
    base.to(torch.device("cpu"), "fp32" if autocast else precision)
    enable(base.hf, precision)
    generator = torch.Generator().manual_seed(0)
    if trainable == "lora":
        weights = LoraWeights(base, TrainSettings(lora_rank=4, lora_alpha=8), "x")
        parameters = list(weights.parameters)
        for parameter in parameters:
            parameter.data = 0.005 * torch.randn(parameter.shape, generator=generator)
    else:
        parameters = list(base.layers.requires_grad_(True).parameters())
    codes = torch.randint(0, 2048, (2, 4, 60), generator=generator)
    text = base.encode_text(["808 beat, 140 bpm", "dark trap with gliding bass and hats"])
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        sums, _ = base.losses(codes, torch.tensor([60, 41]), text)
    gradients = torch.autograd.grad(sums.sum(), parameters)
    return torch.cat([gradient.flatten().float() for gradient in gradients])


@pytest.mark.parametrize("trainable", ["lora", "full"])
def test_gradients_on_the_embedded_base_are_those_of_fp32(trainable: str) -> None:
    """The values of all words are alike in some of its layers. What was learnt from rounding there
    went on to all layers below: their gradients' cosine was 0.3 to 0.8."""
    exact, found = (gradients_on_the_embedded_base(trainable, p) for p in ("fp32", "bf16"))
    assert torch.cosine_similarity(exact, found, dim=0) > 0.99


@pytest.mark.parametrize("kind", ["tiny_model_dir", "tiny_melody_dir"])
def test_a_model_gives_the_same_states_and_gradients(
    kind: str, request: pytest.FixtureRequest
) -> None:
    """With a caption, a shorter one, and none at all."""
    folder: Path = request.getfixturevalue(kind)
    model: Any = load_base(folder)
    shape = BaseModel(model).shape
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 64, (3, shape.n_codebooks, 150), generator=generator)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]])
    text = torch.randn(3, 4, 24, generator=generator) * mask[..., None]
    weights = torch.randn(3, 150, 32, generator=generator)
    parameters = list(model.decoder.model.decoder.layers.requires_grad_(True).parameters())
    found = []
    for install in (lambda _: None, use_blocked_attention):
        install(model)
        states = BaseModel(model).states(codes, EncodedText(text, mask))
        gradients = torch.autograd.grad((states * weights).sum(), parameters)
        found.append([states.detach(), *gradients])
    for theirs, ours in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


def test_decoding_with_a_cache_is_left_to_torch(tiny_model_dir: Path) -> None:
    model: Any = load_base(tiny_model_dir)
    use_blocked_attention(model)
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 64, (4, 6), generator=generator)
    text = torch.randn(1, 3, 32, generator=generator)
    with torch.no_grad():
        whole = model.decoder.model(
            input_ids=codes, encoder_hidden_states=text, use_cache=False
        ).last_hidden_state
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        steps = [
            model.decoder.model(
                input_ids=codes[:, step : step + 1],
                encoder_hidden_states=text,
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
            for step in range(6)
        ]
    assert torch.allclose(torch.cat(steps, dim=1), whole, atol=1e-5)
