"""Tokens follow the model's probabilities, and a clip's draws depend only on its seed."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import chisquare

from musicgen_lora.config import GenerateSettings
from musicgen_lora.generation.decoding.sampling import (
    Noise,
    Sampling,
    advice_sentence,
    sample,
    sampling_of,
)
from musicgen_lora.model.base.facts import BaseFacts

PROBABILITIES = torch.tensor([0.4, 0.25, 0.15, 0.1, 0.06, 0.04], dtype=torch.float64)
N_STEPS = 20_000


def counts_of(sampling: Sampling, seed: int = 0) -> torch.Tensor:
    """How often each token is drawn, in each of two codebooks, `[2, V]`."""
    noise = Noise([seed], (2, len(PROBABILITIES)))
    logits = PROBABILITIES.log().expand(1, 2, -1)
    drawn = torch.cat([sample(logits, sampling, noise.next()) for _ in range(N_STEPS)])
    return torch.stack([torch.bincount(drawn[:, k], minlength=6) for k in range(2)])


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (Sampling(top_k=0), 6),
        (Sampling(top_k=250), 6),
        (Sampling(top_k=3), 3),
        # The first three make 0.8 of it.
        (Sampling(top_k=0, top_p=0.79), 3),
        (Sampling(top_k=0, top_p=0.81), 4),
        (Sampling(top_k=2, top_p=0.99), 2),
        (Sampling(top_k=0, top_p=0.1), 1),
    ],
)
def test_tokens_follow_the_probabilities_of_those_that_are_kept(
    sampling: Sampling, kept: int
) -> None:
    expected = PROBABILITIES[:kept] / PROBABILITIES[:kept].sum()
    for counts in counts_of(sampling):
        assert counts[kept:].sum() == 0
        assert counts.sum() == N_STEPS
        if kept > 1:
            assert chisquare(counts[:kept].numpy(), expected.numpy() * N_STEPS).pvalue > 1e-4


def test_the_temperature_divides_the_logits() -> None:
    expected = PROBABILITIES**2 / (PROBABILITIES**2).sum()
    counts = counts_of(Sampling(top_k=0, temperature=0.5))[0]
    assert chisquare(counts.numpy(), expected.numpy() * N_STEPS).pvalue > 1e-4
    # The check can fail.
    assert chisquare(counts.numpy(), PROBABILITIES.numpy() * N_STEPS).pvalue < 1e-4


def test_codebooks_draw_apart() -> None:
    noise = Noise([0], (2, 6))
    logits = PROBABILITIES.log().expand(1, 2, -1)
    drawn = torch.cat([sample(logits, Sampling(), noise.next()) for _ in range(4000)])
    pairs = torch.bincount(drawn[:, 0] * 6 + drawn[:, 1], minlength=36).numpy()
    expected = torch.outer(PROBABILITIES, PROBABILITIES).flatten().numpy() * 4000
    assert chisquare(pairs, expected).pvalue > 1e-4


@pytest.mark.parametrize("sampling", [Sampling(top_k=1), Sampling(temperature=0.0)])
def test_greedy_takes_the_likeliest(sampling: Sampling) -> None:
    logits = torch.randn(3, 4, 9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(sample(logits, sampling, None), logits.argmax(-1))


def test_a_clips_noise_is_its_own_in_any_batch_and_at_any_position() -> None:
    together, alone = Noise([3, 7, 3], (4, 16)), Noise([7], (4, 16))
    for _ in range(2 * Noise.STEPS + 3):
        numbers, own = together.next(), alone.next()
        assert torch.equal(numbers[1], own[0])
        assert torch.equal(numbers[0], numbers[2])
        assert not torch.equal(numbers[0], numbers[1])


@pytest.mark.parametrize("top_k", [1 + 1, 5, 40])
def test_the_quick_draw_is_the_one_among_those_kept(top_k: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 2.0 * torch.randn(50, 4, 64, generator=generator)
    noise = torch.rand(50, 4, 64, generator=generator)
    drawn = sample(logits, Sampling(top_k=top_k), noise)
    allowed = logits >= logits.topk(top_k).values[..., -1:]
    race = (logits - (-noise.log()).log()).masked_fill(~allowed, -torch.inf)
    assert torch.equal(drawn, race.argmax(-1))
    assert not torch.equal(drawn, (logits - (-noise.log()).log()).argmax(-1))


def test_what_is_given_comes_before_the_bases_advice_and_that_before_the_default() -> None:
    advice = BaseFacts(advised_guidance_scale=5.0, advised_temperature=0.5)
    nothing = GenerateSettings(prompts=["a beat"], top_k=7)
    assert sampling_of(nothing, BaseFacts()) == Sampling(3.0, 7, 0.0, 1.0)
    assert sampling_of(nothing, advice) == Sampling(5.0, 7, 0.0, 0.5)
    given = GenerateSettings(prompts=["a beat"], guidance_scale=1.0, temperature=0.0)
    assert sampling_of(given, advice) == Sampling(1.0, 250, 0.0, 0.0)
    # What is taken from the base, and only that, is said.
    assert advice_sentence(nothing, advice) == (
        "As this base recommends: --guidance_scale 5 --temperature 0.5."
    )
    assert advice_sentence(given, advice) == advice_sentence(nothing, BaseFacts()) == ""
