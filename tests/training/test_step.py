"""One optimizer step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapters import add_lora
from trainer import Cramped

from musicgen_lora.dataset.batches import Window, collate
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.delays import Delays
from musicgen_lora.training.memory import checkpoint_layers
from musicgen_lora.training.step import Learner, optimise_step

DELAYS = Delays.of(4, 1)


def gradients(
    model, batches, parameters, codebook_weights=None
) -> tuple[float, float, list[torch.Tensor]]:
    """Loss, gradient norm and gradients of a step that changes nothing."""
    found: list[torch.Tensor] = []
    optimizer = torch.optim.SGD(parameters, lr=0.0)
    optimizer.register_step_pre_hook(
        lambda *_: found.extend(p.grad.clone() for p in parameters if p.grad is not None)
    )
    learner = Learner(
        model,
        parameters,
        [optimizer],
        max_grad_norm=1e9,
        codebook_weights=codebook_weights,
    )
    totals = sum(DELAYS.n_predicted(batch.n_frames).sum(0) for batch in batches)
    result = optimise_step(learner, batches, totals, "here")
    assert result is not None
    return result.loss, result.grad_norm, found


def adapted(model: BaseModel) -> list[torch.nn.Parameter]:
    """The parameters of an adapter that does something."""
    adapter = add_lora(model, base_name="x", rank=4, alpha=8)
    parameters = [p for p in adapter.parameters() if p.requires_grad]
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in parameters:
            parameter.normal_(0.0, 0.1)
    return parameters


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_accumulation_equals_one_big_batch_on_ragged_clips(
    batch_size: int, tiny_model_dir: Path
) -> None:
    model = BaseModel.load(tiny_model_dir)
    parameters = adapted(model)
    rng = np.random.default_rng(0)
    captions = ["hip hop", None, "808 beat", "trap drums with bass", None, "dark", "808", "beat"]
    lengths = (5, 60, 9, 33, 4, 47, 12, 21)
    windows = [
        Window(rng.integers(0, 64, (n, 4)), caption)
        for n, caption in zip(lengths, captions, strict=True)
    ]
    whole = gradients(model, [collate(windows)], parameters)
    parts = [collate(windows[i : i + batch_size]) for i in range(0, 8, batch_size)]
    split = gradients(model, parts, parameters)
    assert split[0] == pytest.approx(whole[0], rel=1e-6)
    assert split[1] == pytest.approx(whole[1], rel=1e-4)
    assert len(whole[2]) == len(parameters)
    for ours, theirs in zip(split[2], whole[2], strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-6)
    means = [gradients(model, [part], parameters)[0] for part in parts]
    assert abs(sum(means) / len(means) - whole[0]) > 1e-3, "these clips tell a mean of means apart"


@pytest.fixture
def step_parts(tiny_model_dir: Path):
    """A model, a ragged batch, text and parameters that do something."""
    model = BaseModel.load(tiny_model_dir)
    parameters = adapted(model)
    rng = np.random.default_rng(0)
    batch = collate(
        [
            Window(rng.integers(0, 64, (20, 4)), "hip hop"),
            Window(rng.integers(0, 64, (35, 4)), None),
        ]
    )
    return model, [batch], parameters


def test_codebook_weights_weigh_the_gradient_and_leave_the_figures(step_parts) -> None:
    alike = gradients(*step_parts)
    assert gradients(*step_parts, [3.0, 3.0, 3.0, 3.0])[2][0].equal(alike[2][0])
    each = [gradients(*step_parts, [float(k == j) for j in range(4)]) for k in range(4)]
    weighted = gradients(*step_parts, [2.0, 1.0, 1.0, 0.0])
    assert weighted[0] == alike[0] == each[0][0]
    for index, gradient in enumerate(weighted[2]):
        one, two, three, _ = (found[2][index] for found in each)
        assert torch.allclose(gradient, (2 * one + two + three) / 4, rtol=1e-4, atol=1e-7)


def test_layers_computed_twice_give_the_same_gradient(step_parts) -> None:
    whole = gradients(*step_parts)
    model = step_parts[0]
    passes: list[int] = []
    first: Any = model.layers[0].fc1
    first.register_forward_hook(lambda *_: passes.append(1))
    checkpoint_layers(model.hf)
    twice = gradients(*step_parts)
    assert len(passes) == 2
    assert twice[:2] == whole[:2]
    assert all(one.equal(two) for one, two in zip(whole[2], twice[2], strict=True))


def test_memory_that_runs_out_changes_nothing(step_parts) -> None:
    model, batches, parameters = step_parts
    model.text = Cramped(model.text, 2)
    before = [parameter.detach().clone() for parameter in parameters]
    larger = collate([Window(np.zeros((9, 4), dtype=np.uint16), "808")] * 3)
    optimizer = torch.optim.SGD(parameters, lr=1.0)
    learner = Learner(model, parameters, [optimizer])
    result = optimise_step(learner, [*batches, larger], torch.ones(4), "here")
    assert result is None
    assert all(parameter.grad is None for parameter in parameters)
    assert all(one.equal(two) for one, two in zip(before, parameters, strict=True))
