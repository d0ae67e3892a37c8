"""What becomes of the codes of a packed file's windows: loops, and wrong tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from musicgen_lora.training.packed.captured import with_wrong_tokens, within_loop


def test_each_round_of_a_loop_begins_at_the_frame_nearest_to_its_tempo():
    periods = torch.tensor([99.6, 100.5, 33.37, 500.0], dtype=torch.float64)
    within = within_loop(500, periods).numpy()
    for row, period in zip(within, periods.tolist(), strict=True):
        begins = np.flatnonzero(row == 0)
        rounds = np.arange(len(begins))
        assert np.abs(begins - rounds * period).max() <= 0.5
        np.testing.assert_array_equal(np.diff(row)[np.diff(row) != 1] < 0, True)
        assert row.max() <= np.ceil(period)


def test_wrong_tokens_are_those_of_another_moment():
    """A function of the seeds; the share is drawn for each window, up to the most."""
    codes = torch.arange(64 * 4 * 500).view(64, 4, 500)
    seeds = torch.arange(64) * 7919
    heard = with_wrong_tokens(codes, seeds, 0.4)
    assert torch.equal(heard, with_wrong_tokens(codes, seeds, 0.4))
    assert torch.equal(heard[3:5], with_wrong_tokens(codes[3:5], seeds[3:5], 0.4))
    assert torch.equal(heard // 500, codes // 500), "of another codebook or clip"
    shares = (heard != codes).float().mean((1, 2))
    assert shares.min() < 0.03
    assert 0.36 < shares.max() <= 0.43
    assert shares.mean() == pytest.approx(0.2, abs=0.05)
    moments = (heard % 500)[heard != codes].float()
    assert torch.histc(moments, 10, 0, 500).div(len(moments)).sub(0.1).abs().max() < 0.01
