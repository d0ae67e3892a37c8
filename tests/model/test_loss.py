"""The loss against references that share no code with it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from musicgen_lora.model.base.loading import load_base
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.delays import Delays
from musicgen_lora.model.loss import (
    CPU_ROWS,
    codebook_cross_entropies,
)
from musicgen_lora.model.text.states import EncodedText

SPECIAL = 64


def our_loss(model, codes, n_frames, texts):
    hidden = BaseModel(model).states(codes, texts)
    sums, counts = codebook_cross_entropies(
        hidden, list(model.decoder.lm_heads), codes, n_frames, BaseModel(model).shape.delays
    )
    return (sums.sum(0) / counts.sum(0)).mean(), sums, counts


def loss_by_hand(model, codes, n_frames, texts, delays):
    """One clip, one codebook, one step at a time, the sequence written out as a table."""
    states, mask = texts
    per_codebook_sum = [0.0] * len(delays)
    per_codebook_n = [0] * len(delays)
    for b in range(len(codes)):
        length = int(n_frames[b])
        table = [[SPECIAL] * (length + 1) for _ in delays]
        for k, delay in enumerate(delays):
            for t in range(length):
                if t + delay + 1 <= length:
                    table[k][t + delay + 1] = int(codes[b, k, t])
        inputs = torch.tensor(table)[:, :-1]
        memory = model.enc_to_dec_proj(states[b : b + 1]) * mask[b : b + 1, :, None]
        logits = model.decoder(
            input_ids=inputs,
            encoder_hidden_states=memory,
            encoder_attention_mask=mask[b : b + 1],
        ).logits
        for k, delay in enumerate(delays):
            for step in range(delay, length):
                target = table[k][step + 1]
                row = logits[k, step].double().numpy()
                log_z = np.log(np.exp(row - row.max()).sum()) + row.max()
                per_codebook_sum[k] += log_z - row[target]
                per_codebook_n[k] += 1
    means = [s / n for s, n in zip(per_codebook_sum, per_codebook_n, strict=True)]
    return sum(means) / len(means), per_codebook_n


@pytest.fixture(params=["mono", "stereo"])
def model(request, tiny_model_dir: Path, tiny_stereo_dir: Path):
    return load_base(tiny_model_dir if request.param == "mono" else tiny_stereo_dir)


def random_batch(model, lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    n_codebooks = BaseModel(model).shape.n_codebooks
    codes = torch.randint(0, 64, (len(lengths), n_codebooks, max(lengths)), generator=generator)
    states = torch.randn(len(lengths), 5, 24, generator=generator)
    mask = torch.ones(len(lengths), 5, dtype=torch.long)
    return codes, torch.tensor(lengths), EncodedText(states, mask)


@torch.no_grad()
@pytest.mark.parametrize("lengths", [[30, 30], [40, 17, 9], [5]])
def test_loss_equals_the_delayed_sequence_built_by_hand(model, lengths):
    codes, n_frames, (states, mask) = random_batch(model, lengths)
    mask[0, 3:] = 0
    texts = EncodedText(states * mask[..., None], mask)
    delays = [0, 1, 2, 3] if BaseModel(model).shape.n_channels == 1 else [0, 0, 1, 1, 2, 2, 3, 3]
    loss, _, counts = our_loss(model, codes, n_frames, texts)
    expected, expected_counts = loss_by_hand(model, codes, n_frames, texts, delays)
    assert counts.sum(0).tolist() == expected_counts
    assert loss.item() == pytest.approx(expected, abs=1e-6)


@torch.no_grad()
def test_loss_equals_transformers_forward_with_hand_delayed_labels(model):
    """transformers shifts labels right by itself but never delays them."""
    codes, n_frames, texts = random_batch(model, [25, 25])
    shape = BaseModel(model).shape
    labels = torch.full((2, 25, shape.n_codebooks), -100)
    inputs = torch.full((2, shape.n_codebooks, 25), SPECIAL)
    for k, delay in enumerate(shape.delays):
        for step in range(25):
            if step - delay >= 0:
                labels[:, step, k] = codes[:, k, step - delay]
            if step - 1 - delay >= 0:
                inputs[:, k, step] = codes[:, k, step - 1 - delay]
    output = model(
        encoder_outputs=(texts.states,),
        attention_mask=texts.mask,
        decoder_input_ids=inputs.reshape(-1, 25),
        labels=labels,
    )
    loss, _, _ = our_loss(model, codes, n_frames, texts)
    assert loss.item() == pytest.approx(output.loss.item(), abs=1e-6)


@torch.no_grad()
def test_frames_past_a_clips_length_change_nothing(model):
    codes, n_frames, texts = random_batch(model, [30, 12])
    before = our_loss(model, codes, n_frames, texts)[1]
    codes[1, :, 12:] = 0
    after = our_loss(model, codes, n_frames, texts)[1]
    assert torch.equal(before, after)


@torch.no_grad()
def test_a_prediction_never_sees_its_target_or_what_comes_later(model):
    codes, _, texts = random_batch(model, [20])
    logits = BaseModel(model).logits(codes, texts)
    delays = BaseModel(model).shape.delays
    for k, delay in enumerate(delays):
        for t in (3, 11):
            changed = codes.clone()
            for other, other_delay in enumerate(delays):
                first_hidden = t + delay - other_delay
                if first_hidden < 20:
                    changed[:, other, max(first_hidden, 0) :] = 63
            again = BaseModel(model).logits(changed, texts)
            assert torch.allclose(again[:, k, t], logits[:, k, t], atol=1e-5)


@torch.no_grad()
def test_uniform_logits_cost_ln_v(tiny_model_dir: Path):
    model = load_base(tiny_model_dir)
    for head in model.decoder.lm_heads:
        head.weight.zero_()
    loss, _, _ = our_loss(model, *random_batch(model, [10]))
    assert loss.item() == pytest.approx(math.log(64), abs=1e-6)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_losses_and_gradients_of_the_heads_equal_torchs_cross_entropy(
    dtype: torch.dtype, frozen: bool
):
    """More rows than a CPU takes at a time, in clips of two lengths."""
    generator = torch.Generator().manual_seed(0)
    n_frames, delays = torch.tensor([CPU_ROWS + 9, 20]), Delays([0, 1])
    total = int(n_frames.max())
    heads = [torch.nn.Linear(6, 50, bias=False, dtype=dtype) for _ in delays]
    for head in heads:
        torch.nn.init.normal_(head.weight, generator=generator)
        head.requires_grad_(not frozen)
    codes = torch.randint(0, 50, (2, 2, total), generator=generator)
    hidden = torch.randn(2, total, 6, generator=generator).to(dtype).requires_grad_()
    weights = torch.rand(2, 2, generator=generator)
    expected = torch.zeros(2, 2)
    for k, (head, delay) in enumerate(zip(heads, delays, strict=True)):
        for clip, length in enumerate(n_frames.tolist()):
            logits = head(hidden[clip, delay:length]).float()
            losses = cross_entropy(logits, codes[clip, k, : length - delay], reduction="sum")
            expected[clip, k] = losses
    sums, counts = codebook_cross_entropies(hidden, heads, codes, n_frames, delays)
    assert counts.tolist() == [[CPU_ROWS + 9, CPU_ROWS + 8], [20, 19]]
    assert torch.allclose(sums, expected, rtol=1e-5)
    variables = [hidden] if frozen else [hidden, *(head.weight for head in heads)]
    ours = torch.autograd.grad((sums * weights).sum(), variables)
    theirs = torch.autograd.grad((expected * weights).sum(), variables)
    for one, other in zip(ours, theirs, strict=True):
        error = (one - other).float().norm() / other.float().norm()
        assert error < (1e-6 if dtype == torch.float32 else 2.0**-7)
    frames, _ = codebook_cross_entropies(hidden, heads, codes, n_frames, delays, by_frame=True)
    assert torch.allclose(frames.sum(dim=2), sums, rtol=1e-5)
    assert frames[1, 1, 18] > 0.0
    assert not frames[1, 1, 19:].any()
    with torch.no_grad():
        again, _ = codebook_cross_entropies(hidden, heads, codes, n_frames, delays)
    assert torch.equal(again, sums)


def test_a_frozen_head_under_autocast_passes_the_gradient_on_that_a_trained_one_does():
    generator = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(6, 50, bias=False)
    codes = torch.randint(0, 50, (1, 1, 30), generator=generator)
    hidden = torch.randn(1, 30, 6, generator=generator).requires_grad_()
    found = []
    for frozen in (False, True):
        head.requires_grad_(not frozen)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            sums, _ = codebook_cross_entropies(
                hidden, [head], codes, torch.tensor([30]), Delays([0])
            )
        found.append(torch.autograd.grad(sums.sum(), hidden)[0])
    assert found[0].dtype == found[1].dtype == torch.float32
    assert torch.allclose(*found, rtol=2.0**-6, atol=1e-3)


def test_a_code_without_a_chance_has_a_loss_and_a_gradient_and_nan_stays_nan():
    head = torch.nn.Linear(2, 3, bias=False).requires_grad_(False)
    head.weight.copy_(torch.tensor([[200.0, 0.0], [0.0, 0.0], [0.0, 0.0]]))
    hidden = torch.tensor([[[1.0, 0.0], [torch.nan, 0.0]]], requires_grad=True)
    for frame, expected in ((0, 87.3365), (1, torch.nan)):
        states = hidden[:, frame : frame + 1]
        sums, _ = codebook_cross_entropies(
            states, [head], torch.ones(1, 1, 1, dtype=torch.long), torch.tensor([1]), Delays([0])
        )
        assert sums.item() == pytest.approx(expected, abs=1e-3, nan_ok=True)
        if frame == 0:
            assert torch.autograd.grad(sums.sum(), hidden)[0][0, 0, 0].item() == 200.0
