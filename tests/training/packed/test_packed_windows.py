"""What becomes of the codes of a packed file's windows: loops, and wrong tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from musicgen_lora.dataset.batches import WindowSampler
from musicgen_lora.dataset.packed import PackedTokens
from musicgen_lora.training.packed.captured import with_wrong_tokens, within_loop
from musicgen_lora.training.packed.draws import Draws


@pytest.mark.parametrize(("first", "begins"), [(3.4, [3, 7]), (10.2, [0])])
def test_windows_as_long_as_their_clip_begin_on_its_bar_lines_and_lack_their_end(first, begins):
    """At most a sixth of 60 frames; a bar line later than that leaves the window where it is. What
    goes round is as long as it is asked for."""
    codes = np.arange(240, dtype=np.uint16).reshape(60, 4)
    bars = np.array([[first, 4.0]], np.float32)
    tokens = PackedTokens(codes, np.array([60]), [["a"]], np.zeros(1, bool), 256, 50.0, "", bars)
    sampler = WindowSampler(60, 1)
    places = [(epoch, 0) for epoch in range(200)]
    draw = Draws(tokens, [[1]], sampler, bar_start_share=1.0).batch(places)
    assert set(begins) <= set(draw.starts.tolist()) <= {0, 3, 7}
    assert draw.starts.max() <= 10
    np.testing.assert_array_equal(draw.n_frames, 60 - draw.starts)
    draw = Draws(tokens, [[1]], sampler, bar_start_share=1.0, loop_share=1.0).batch(places)
    assert (draw.n_frames == 60)[draw.periods < 60].all()
    assert set(draw.periods.tolist()) == ({4.0, 8.0, 16.0} if len(begins) > 1 else {60.0})


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
