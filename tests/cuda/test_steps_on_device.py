"""A training step on the card against the same step on the CPU in fp32."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
import torch
from peft.tuners import lora

from musicgen_lora.config import TrainSettings
from musicgen_lora.dataset.batches import Batch, WindowSampler
from musicgen_lora.dataset.packed import PackedTokens
from musicgen_lora.model.base.loading import load_base
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.cpu.switch import enable
from musicgen_lora.model.lora.quantise import quantise_decoder
from musicgen_lora.runtime.precision import DTYPES
from musicgen_lora.training.checkpoints import LoopState, Trained, restore, save_checkpoint
from musicgen_lora.training.memory import checkpoint_layers
from musicgen_lora.training.optimizers import make_optimizers
from musicgen_lora.training.packed.captured import CapturedGradients, DeviceData, step_totals
from musicgen_lora.training.packed.draws import Draws
from musicgen_lora.training.step import Learner, optimise_step
from musicgen_lora.training.weights import LoraWeights

CPU = torch.device("cpu")
CAPTIONS = ["hip hop 808 beat", None, "dark trap drums with bass and 808"]
LENGTHS = [40, 23, 31]


def make_batch(seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 64, (len(LENGTHS), 4, max(LENGTHS)), generator=generator)
    return Batch(codes, torch.tensor(LENGTHS), list(CAPTIONS))


class Rig:
    """A tiny model, trained whole or by an adapter that already does something, and its steps."""

    def __init__(
        self, folder: Any, device: torch.device, precision: str, trainable: str, model: Any = None
    ) -> None:
        self.model = load_base(folder) if model is None else model
        self.base = BaseModel(self.model, folder)
        self.text = self.base.text
        self.base.to(device, precision, trained=trainable == "full")
        enable(self.model, precision)
        torch.manual_seed(0)
        if trainable == "lora":
            settings = TrainSettings(lora_rank=4, lora_alpha=8)
            self.weights = LoraWeights(self.base, settings, "x")
        else:
            self.model.decoder.requires_grad_(True)
        self.named = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, parameter in self.named:
                if "lora_" in name:
                    value = 0.1 * torch.randn(parameter.shape, generator=generator)
                    parameter.copy_(value)
        self.parameters = [parameter for _, parameter in self.named]
        self.optimizers = make_optimizers(
            "adamw", self.named, learning_rate=1e-3, weight_decay=0.01
        )
        self.autocast = DTYPES[precision] if trainable == "full" and precision != "fp32" else None
        self.scaler = None
        if precision == "fp16" and device.type == "cuda":
            self.scaler = torch.amp.GradScaler(device.type)
        self.gradients: dict[str, torch.Tensor] = {}

    def step(self, batches: list[Batch]) -> Any:
        """One step; keeps the gradients that it took."""
        delays = self.base.delays
        totals = sum(delays.n_predicted(batch.n_frames).sum(0) for batch in batches)
        learner = Learner(
            self.base,
            self.parameters,
            self.optimizers,
            max_grad_norm=1e9,
            scaler=self.scaler,
            autocast=self.autocast,
        )
        with self._watched():
            return optimise_step(learner, batches, totals, "")

    @contextlib.contextmanager
    def _watched(self):
        optimizer = self.optimizers[0]

        def keep(*_: Any) -> None:
            self.gradients = {
                n: p.grad.detach().float().cpu() for n, p in self.named if p.grad is not None
            }

        handle = optimizer.register_step_pre_hook(keep)
        yield
        handle.remove()


def cosine(one: Rig, other: Rig) -> float:
    def flat(rig: Rig) -> torch.Tensor:
        return torch.cat([rig.gradients[name].flatten() for name, _ in one.named])

    return float(torch.nn.functional.cosine_similarity(flat(one), flat(other), dim=0))


@pytest.mark.parametrize("trainable", ["lora", "full"])
@pytest.mark.parametrize(
    ("precision", "loss_within", "cosine_from"),
    [("fp32", 1e-5, 0.99999), ("bf16", 2e-2, 0.98), ("fp16", 5e-3, 0.99)],
)
def test_a_step_is_that_of_the_cpu(
    tiny_model_dir, device, trainable, precision, loss_within, cosine_from
):
    if precision == "fp16" and device.type == "cpu":
        pytest.skip("fp16 with a scaler is for cards")
    reference = Rig(tiny_model_dir, CPU, "fp32", trainable)
    rig = Rig(tiny_model_dir, device, precision, trainable)
    expected, found = reference.step([make_batch()]), rig.step([make_batch()])
    assert found.codebooks == pytest.approx(expected.codebooks, rel=loss_within)
    assert set(rig.gradients) == set(reference.gradients) != set()
    assert cosine(rig, reference) > cosine_from


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_a_quantised_base_trains_near_the_plain_one(tiny_model_dir, device, bits):
    pytest.importorskip("bitsandbytes")
    if device.type == "cpu" and bits == "8bit":
        pytest.skip("8 bits are for cards")
    reference = Rig(tiny_model_dir, CPU, "fp32", "lora").step([make_batch()])
    model = load_base(tiny_model_dir)
    quantise_decoder(model, bits, device=device, dtype=torch.bfloat16)
    rig = Rig(tiny_model_dir, device, "bf16", "lora", model)
    assert rig.step([make_batch()]).codebooks == pytest.approx(reference.codebooks, rel=0.2)
    assert all(bool(gradient.any()) for gradient in rig.gradients.values())


def test_layers_that_are_computed_twice_give_the_same_gradients(tiny_model_dir, device):
    plain, twice = (Rig(tiny_model_dir, device, "fp32", "lora") for _ in range(2))
    checkpoint_layers(twice.model)
    plain.step([make_batch()])
    twice.step([make_batch()])
    for name, gradient in plain.gradients.items():
        torch.testing.assert_close(twice.gradients[name], gradient)


def test_lora_layers_are_those_of_peft(tiny_model_dir, device):
    rig = Rig(tiny_model_dir, device, "fp32", "lora")
    layer: Any = rig.model.decoder.model.decoder.layers[0].fc1
    x = torch.randn(3, 7, layer.in_features, generator=torch.Generator().manual_seed(0)).to(device)
    torch.testing.assert_close(layer(x), lora.Linear.forward(layer, x))
    assert type(layer) is not lora.Linear


def test_text_is_encoded_in_fp32_whatever_the_precision(tiny_model_dir, device):
    """T5 overflows in fp16."""
    precision = "bf16" if device.type == "cpu" else "fp16"
    reference = Rig(tiny_model_dir, CPU, "fp32", "lora")
    rig = Rig(tiny_model_dir, device, precision, "lora")
    encoder: Any = rig.model.text_encoder
    encoder.to(device)
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}
    assert {p.dtype for p in rig.model.decoder.lm_heads.parameters()} == {DTYPES[precision]}
    expected, _ = reference.text.batch(CAPTIONS)
    states, mask = rig.text.batch(CAPTIONS, device)
    torch.testing.assert_close(states.cpu(), expected, atol=1e-5, rtol=1e-4)
    assert mask.sum(1).tolist()[1] == 0


def test_a_run_that_was_resumed_is_equal_to_the_bit(tiny_model_dir, device, tmp_path):
    def fresh() -> Rig:
        return Rig(tiny_model_dir, device, "bf16", "lora")

    whole, first, second = fresh(), fresh(), fresh()
    for step in range(4):
        whole.step([make_batch(step)])
    for step in range(2):
        first.step([make_batch(step)])
    state, second_state = LoopState(3, step=2), LoopState(3)
    path = save_checkpoint(tmp_path, state, Trained(first.weights, first.optimizers), keep=1)
    restore(path, second_state, Trained(second.weights, second.optimizers))
    assert second_state == state
    for step in range(2, 4):
        second.step([make_batch(step)])
    for (name, ours), (_, theirs) in zip(second.named, whole.named, strict=True):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize("trainable", ["lora", "full"])
def test_a_captured_step_is_the_plain_one(tiny_model_dir, device, trainable):
    """On the CPU nothing is captured, and the two are the same code."""
    rig = Rig(tiny_model_dir, device, "fp32", trainable)
    lengths = np.array([60, 40, 25])
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 64, (int(lengths.sum()), 4)).astype(np.uint16)
    texts = [["hip hop beat", "trap"], ["808 bass"], ["dark drums"]]
    tokens = PackedTokens(codes, lengths, texts, np.zeros(3, bool), 64, 50.0, "x")
    data = DeviceData(tokens, rig.text, 40, device)
    results = []
    for capture in (False, device.type == "cuda"):
        gradients = CapturedGradients(rig.base, data, 2, autocast=None, capture=capture)
        drawn = Draws(tokens, data.captions, WindowSampler(40, 1, 0.3))
        for step in range(3):
            gradients.zero_gradients()
            draws = drawn.step(step, 2, 2)
            for draw in draws:
                gradients.add(draw, step_totals(draws, rig.base.delays))
        found = {name: p.grad.clone() for name, p in rig.named}
        results.append((gradients.codebooks.clone(), found))
        for parameter in rig.parameters:
            parameter.grad = None
    torch.testing.assert_close(results[1][0], results[0][0])
    for name, gradient in results[0][1].items():
        torch.testing.assert_close(results[1][1][name], gradient, atol=1e-6, rtol=1e-4)


def test_memory_that_runs_out_is_told_and_nothing_is_changed(tiny_model_dir, device):
    """Really provoked on a card, whose memory is bounded for the moment of the step."""
    if device.type != "cuda":
        pytest.skip("a CPU's memory can't be bounded for a step")
    rig = Rig(tiny_model_dir, device, "fp32", "lora")
    rig.step([make_batch()])
    before = [p.detach().clone() for p in rig.parameters]
    codes = torch.zeros(512, 4, 1_500, dtype=torch.long)
    huge = Batch(codes, torch.full((512,), 1_500), ["hip hop"] * 512)
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction((total - free + (1 << 28)) / total)
    try:
        assert rig.step([huge]) is None
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    for ours, was in zip(rig.parameters, before, strict=True):
        assert torch.equal(ours, was)
    assert rig.step([make_batch()]) is not None
