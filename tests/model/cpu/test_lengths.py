"""Batches of many lengths run at few on a CPU, with the same losses and gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from musicgen_lora.model import base_model
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.cpu.lengths import STEP, pad_to_step
from musicgen_lora.model.loss import codebook_cross_entropies

CAPTIONS = ["hip hop 808 beat", None]


def drawn_codes(n_frames: int) -> torch.Tensor:
    return torch.randint(0, 50, (2, 4, n_frames), generator=torch.Generator().manual_seed(0))


def lengths_met(model: BaseModel) -> set[int]:
    """The lengths at which the decoder runs for batches of many."""
    met = set()

    def note(module: Any, args: Any, given: Any) -> None:
        met.add(given["input_ids"].shape[-1])

    model.hf.decoder.model.register_forward_pre_hook(note, with_kwargs=True)
    text = model.encode_text(CAPTIONS)
    for n_frames in range(2 * STEP - 9, 2 * STEP + 4):
        lengths = torch.tensor([n_frames, n_frames - 5])
        model.losses(drawn_codes(n_frames), lengths, text)
    return met


def test_in_bf16_clips_of_many_lengths_meet_the_decoder_at_few(tiny_model_dir: Path) -> None:
    model = BaseModel.load(tiny_model_dir)
    # In fp32, products are not compiled by size.
    assert len(lengths_met(model)) == 13
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert lengths_met(model) == {2 * STEP, 3 * STEP}
    assert lengths_met(model.to(torch.device("cpu"), "bf16")) == {2 * STEP, 3 * STEP}


@pytest.mark.parametrize("kind", ["tiny_model_dir", "tiny_melody_dir"])
def test_losses_and_gradients_are_those_of_the_given_length(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Rounding in bf16 would hide errors.
    monkeypatch.setattr(base_model, "pad_to_step", lambda codes, _: pad_to_step(codes, torch.half))
    model = BaseModel.load(request.getfixturevalue(kind))
    weight: Any = model.layers[0].fc1.weight
    weight.requires_grad_()
    codes, lengths = drawn_codes(STEP + 7), torch.tensor([STEP + 7, STEP - 20])
    text = model.encode_text(CAPTIONS)

    sums, counts = model.losses(codes, lengths, text)
    by_frame, _ = model.losses(codes, lengths, text, by_frame=True)
    (gradient,) = torch.autograd.grad(sums.sum(), weight)

    hidden = model.states(codes, text)
    expected, n_predicted = codebook_cross_entropies(
        hidden, model.heads, codes, lengths, model.delays, by_frame=True
    )
    (expected_gradient,) = torch.autograd.grad(expected.sum(), weight)
    assert torch.equal(counts, n_predicted)
    assert by_frame.shape == expected.shape == codes.shape
    assert torch.allclose(by_frame, expected, atol=1e-4)
    assert torch.allclose(sums, expected.sum(-1), rtol=1e-5)
    assert torch.allclose(gradient, expected_gradient, rtol=1e-3, atol=1e-4)
