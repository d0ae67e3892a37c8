"""Held-out loss: each source is one observation."""

from __future__ import annotations

import numpy as np
import pytest

from musicgen_lora.evaluation.losses.held_out_loss import summarise_losses, summarise_positions


def test_windows_of_a_source_are_one_observation() -> None:
    base = np.array([[4.0, 2.0], [6.0, 2.0], [3.0, 1.0]])
    counts = np.array([[1.0, 1.0], [3.0, 3.0], [2.0, 2.0]])
    loss = summarise_losses(base * counts, 0.5 * base * counts, counts, ["a", "a", "b"], seed=0)
    assert loss["n_sources"] == 2
    assert loss["n_windows"] == 3
    assert loss["sources"][0]["base"] == pytest.approx([5.5, 2.0])
    # Pooled over frames, then the mean of the codebooks: (28 / 6 + 10 / 6) / 2.
    assert loss["mean"]["mean_base"] == pytest.approx(38 / 12)
    assert loss["mean"]["relative"] == pytest.approx(-0.5)
    assert loss["mean"]["ci_low"] is None
    assert loss["codebooks"][0]["mean_base"] == pytest.approx(28 / 6)
    assert loss["perplexity"]["base"] == pytest.approx(np.exp([28 / 6, 10 / 6]))
    assert loss["perplexity"]["adapter"] == pytest.approx(np.exp([14 / 6, 5 / 6]))


def test_the_loss_along_the_clip_is_of_the_sources_that_reach_there() -> None:
    base = np.array([[[4.0, 2.0], [2.0, 0.0]], [[6.0, 3.0], [3.0, 1.0]], [[8.0, 4.0], [4.0, 2.0]]])
    counts = np.array([[[2, 1], [1, 0]], [[2, 1], [1, 1]], [[2, 1], [1, 1]]])
    first, second = summarise_positions(
        base, 0.5 * base, counts, ["a", "b", "c"], part_s=2.0, seed=0
    )
    assert (first["from_s"], first["to_s"], second["to_s"]) == (0.0, 2.0, 4.0)
    assert (first["loss"]["n"], second["loss"]["n"]) == (3, 2)
    assert first["loss"]["mean_base"] == pytest.approx((2.0 + 3.0 + 4.0) / 3)
    # Without the source whose second codebook is not predicted there.
    assert second["loss"]["mean_base"] == pytest.approx((2.0 + 3.0) / 2)
    assert second["loss"]["relative"] == pytest.approx(-0.5)


def test_a_long_clip_is_told_in_ten_stretches() -> None:
    counts = np.full((3, 1, 25), 10.0)
    base = counts * np.arange(1.0, 26.0)
    found = summarise_positions(base, base, counts, ["a", "b", "c"], part_s=0.5, seed=0)
    assert [own["from_s"] for own in found] == [1.5 * place for place in range(9)]
    # Three parts each, and one that is left.
    means = [own["loss"]["mean_base"] for own in found]
    assert means == pytest.approx([2.0, 5.0, 8.0, 11.0, 14.0, 17.0, 20.0, 23.0, 25.0])
