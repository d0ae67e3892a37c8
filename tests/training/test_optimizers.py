"""Optimizers by name, the average of the weights, and the state of both."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from musicgen_lora.errors import UserError
from musicgen_lora.training.ema import EMA
from musicgen_lora.training.optimizers import (
    RATE_SHARE,
    make_optimizers,
    optimizer_state,
    restore_optimizers,
)
from musicgen_lora.training.schedule import learning_rate_at

LIBRARIES = {"prodigy": "prodigyopt", "adamw8bit": "bitsandbytes"}
NAMES = ["adamw", "muon", "prodigy", "adamw8bit"]


def weights(seed: int) -> list[tuple[str, nn.Parameter]]:
    torch.manual_seed(seed)
    shapes = {
        "decoder.model.decoder.layers.0.fc1.weight": (80, 70),
        "decoder.model.decoder.layers.0.fc1.bias": (80,),
        "decoder.lm_heads.0.weight": (64, 80),
    }
    return [(name, nn.Parameter(torch.randn(shape))) for name, shape in shapes.items()]


def step(optimizers, parameters, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _, parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    for optimizer in optimizers:
        optimizer.step()


def make(name: str, parameters):
    if name in LIBRARIES:
        pytest.importorskip(LIBRARIES[name])
    rate = 1.0 if name == "prodigy" else 1e-2
    return make_optimizers(name, parameters, learning_rate=rate, weight_decay=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_restored_through_a_file_an_optimizer_steps_on_as_before(name: str) -> None:
    parameters = weights(0)
    optimizers = make(name, parameters)
    for seed in range(3):
        step(optimizers, parameters, seed)
    tensors, values = optimizer_state(optimizers)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    values = json.loads(json.dumps(values, allow_nan=False))
    copies = [(name, nn.Parameter(p.detach().clone())) for name, p in parameters]
    others = make(name, copies)
    restore_optimizers(others, tensors, values)
    for seed in range(3, 6):
        step(optimizers, parameters, seed)
        step(others, copies, seed)
    for (_, one), (_, two) in zip(parameters, copies, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_stepped(name: str) -> None:
    parameters = weights(0)
    before = [parameter.detach().clone() for _, parameter in parameters]
    optimizers = make(name, parameters)
    step(optimizers, parameters, 0)
    for old, (_, new) in zip(before, parameters, strict=True):
        assert not torch.equal(old, new)


@pytest.mark.parametrize("warmup_share", [0.0, 0.05, 0.3])
def test_prodigy_finds_a_rate_that_learns_in_a_short_run(warmup_share: float) -> None:
    """Least squares of noisy batches through two factors, as an adapter has them, under training's
    schedule. The rate that it finds competes with AdamW's best of four."""

    def loss_after(name: str, rate: float) -> float:
        generator = torch.Generator().manual_seed(0)
        target = torch.randn(40, 30, generator=generator) * 0.05
        down = nn.Parameter(torch.randn(4, 30, generator=generator) / 30**0.5)
        up = nn.Parameter(torch.zeros(40, 4))
        (optimizer,) = make_optimizers(
            name, [("a", down), ("b", up)], learning_rate=rate, weight_decay=0.01
        )
        for number in range(100):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(
                    number, 100, peak=rate, schedule="cosine", warmup_share=warmup_share
                )
            x = torch.randn(16, 30, generator=generator)
            noise = torch.randn(16, 40, generator=generator) * 0.3
            optimizer.zero_grad()
            (x @ target.T + noise - x @ down.T @ up.T).square().mean().backward()
            optimizer.step()
        return float(
            (target - up.detach() @ down.detach()).square().mean() / target.square().mean()
        )

    pytest.importorskip("prodigyopt")
    best = min(loss_after("adamw", rate) for rate in (1e-4, 1e-3, 3e-3, 1e-2))
    assert best < 0.95
    assert 1.0 - loss_after("prodigy", 1.0) > 0.5 * (1.0 - best)


def stepped_by(parameters) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Shapes of what Muon steps and of the rest."""
    muon, rest = make("muon", parameters)
    assert isinstance(muon, torch.optim.Muon)
    one, two = ([tuple(p.shape) for p in o.param_groups[0]["params"]] for o in (muon, rest))
    return one, two


@pytest.mark.parametrize(
    "name",
    [
        "decoder.lm_heads.0.lora_A.default.weight",
        "text_encoder.encoder.block.0.layer.0.SelfAttention.q.lora_A.default.weight",
        "decoder.model.decoder.layers.0.encoder_attn.q_proj.lora_A.default.weight",
    ],
)
def test_muon_without_a_matrix_to_step_is_refused_in_words(name: str) -> None:
    with pytest.raises(UserError, match="--optimizer muon is for the decoder's"):
        make("muon", [(name, nn.Parameter(torch.zeros(4, 8)))])


def test_muon_takes_the_matrices_of_the_layers_alone() -> None:
    assert stepped_by(weights(0)) == ([(80, 70)], [(80,), (64, 80)])


def test_of_an_adapter_muon_takes_its_matrices_on_the_layers() -> None:
    shapes = {
        "self_attn.q_proj.lora_A.default.weight": (4, 70),
        "self_attn.q_proj.lora_B.default.weight": (80, 4),
        "self_attn.q_proj.lora_magnitude_vector.default.weight": (80,),
        "encoder_attn.q_proj.lora_A.default.weight": (4, 71),
    }
    layer = "base_model.model.decoder.model.decoder.layers.0."
    parameters = [(layer + name, nn.Parameter(torch.ones(shape))) for name, shape in shapes.items()]
    assert stepped_by(parameters) == ([(4, 70), (80, 4)], [(80,), (4, 71)])


def test_the_average_of_known_weights() -> None:
    """By hand: the mean of all steps' weights, each counting `decay` as much as the next."""
    rng = np.random.default_rng(0)
    path = rng.normal(size=(400, 2))
    found = {}
    for decay in (0.9, 0.99, 0.999):
        parameter = nn.Parameter(torch.full((2,), 1e6))
        ema = EMA([parameter], decay)
        for number, values in enumerate(path, start=1):
            with torch.no_grad():
                parameter.copy_(torch.from_numpy(values))
            ema.update(number)
            if number in (1, 2, 60, 310, 400):
                weights = decay ** np.arange(number - 1, -1, -1.0)
                expected = weights @ path[:number] / weights.sum()
                assert ema.means[0].tolist() == pytest.approx(expected, abs=1e-5)
        found[decay] = ema.means[0]
    assert not torch.allclose(found[0.99], found[0.999], atol=1e-2)


def test_the_model_has_the_average_for_its_weights_for_a_while() -> None:
    parameter = nn.Parameter(torch.tensor([1.0]))
    ema = EMA([parameter], 0.9)
    with torch.no_grad():
        parameter.fill_(5.0)
    with ema.applied():
        assert parameter.item() == 1.0
    assert parameter.item() == 5.0
    with pytest.raises(ZeroDivisionError), ema.applied():
        raise ZeroDivisionError
    assert parameter.item() == 5.0
    ema.apply()
    assert parameter.item() == 1.0


@pytest.mark.parametrize("name", ["adamw", "muon", "adamw8bit"])
def test_the_text_encoders_share_of_the_rate_outlives_a_file(name: str) -> None:
    if name in LIBRARIES:
        pytest.importorskip(LIBRARIES[name])
    parameters = [*weights(0), ("text_encoder.shared.weight", nn.Parameter(torch.ones(4, 4)))]
    rates = {"learning_rate": 1e-2, "text_encoder_learning_rate": 1e-3, "weight_decay": 0.0}
    optimizers = make_optimizers(name, parameters, **rates)
    groups = optimizers[-1].param_groups
    assert [group.get(RATE_SHARE, 1.0) for group in groups] == pytest.approx([1.0, 0.1])
    assert [tuple(p.shape) for p in groups[1]["params"]] == [(4, 4)]
    step(optimizers, parameters, 0)
    tensors, values = optimizer_state(optimizers)
    others = make_optimizers(name, parameters, **rates)
    restore_optimizers(others, tensors, json.loads(json.dumps(values)))
    shares = [group.get(RATE_SHARE, 1.0) for group in others[-1].param_groups]
    assert shares == pytest.approx([1.0, 0.1])
