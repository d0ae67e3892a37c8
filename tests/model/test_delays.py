"""The delay pattern against tables written by hand, and as a round trip."""

from __future__ import annotations

import pytest
import torch

from musicgen_lora.model.delays import Delays
from musicgen_lora.model.shape import Shape

MONO, STEREO = Delays.of(4, 1), Delays.of(8, 2)


def test_codebook_k_loses_its_last_k_frames() -> None:
    codes = torch.arange(6).repeat(1, 4, 1)
    assert MONO.delay(codes, 9)[0].tolist() == [
        [9, 0, 1, 2, 3, 4],
        [9, 9, 0, 1, 2, 3],
        [9, 9, 9, 0, 1, 2],
        [9, 9, 9, 9, 0, 1],
    ]


def test_all_columns_hold_all_frames() -> None:
    codes = torch.arange(2).repeat(1, 3, 1)
    delays = Delays.of(3, 1)
    assert delays.delay(codes, 9, delays.n_steps(2) + 1)[0].tolist() == [
        [9, 0, 1, 9, 9],
        [9, 9, 0, 1, 9],
        [9, 9, 9, 0, 1],
    ]


def test_stereo_delays_pair_up() -> None:
    assert STEREO == (0, 0, 1, 1, 2, 2, 3, 3)
    with pytest.raises(ValueError, match="pairs"):
        Delays.of(7, 2)


@pytest.mark.parametrize("delays", [MONO, STEREO, Delays([2, 0, 5])])
@pytest.mark.parametrize("n_frames", [0, 1, 3, 40])
def test_what_is_delayed_comes_back(delays: Delays, n_frames: int) -> None:
    codes = torch.randint(0, 64, (2, len(delays), n_frames))
    n_steps = delays.n_steps(n_frames)
    for spare in (0, 7):
        delayed = delays.delay(codes, 64, n_steps + 1 + spare)
        assert delayed.shape == (2, len(delays), n_steps + 1 + spare)
        assert int((delayed != 64).sum()) == codes.numel()
        assert torch.equal(delays.undelay(delayed, n_frames), codes)


@pytest.mark.parametrize("delays", [MONO, STEREO])
@pytest.mark.parametrize("n_frames", [1, 3, 4, 20])
def test_states_speak_of_the_targets_beside_them(delays: Delays, n_frames: int) -> None:
    """Tried with states that hold nothing but the number of their step."""
    codes = torch.arange(n_frames).expand(2, len(delays), n_frames)
    hidden = torch.arange(n_frames)[None, :, None].expand(2, n_frames, 1)
    pairs = zip(delays.states(hidden), delays.targets(codes), strict=True)
    counts = delays.n_predicted(torch.tensor([n_frames, n_frames]))
    for k, (states, targets) in enumerate(pairs):
        assert states.shape[:2] == targets.shape
        assert targets.shape[1] == int(counts[0, k])
        for step, frame in zip(states[0, :, 0].tolist(), targets[0].tolist(), strict=True):
            assert int(delays.frames_at(step)[k]) == frame


@pytest.mark.parametrize("delays", [MONO, STEREO, Delays([0])])
def test_the_shortest_clip_is_the_first_in_which_each_codebook_is_predicted(
    delays: Delays,
) -> None:
    lengths = torch.tensor([delays.shortest, delays.shortest - 1])
    fewest = delays.n_predicted(lengths).min(dim=1).values
    assert fewest.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("seconds", "least", "n_frames"),
    [(10.0, 1, 500), (0.001, 1, 1), (0.001, 4, 4), (0.25, 4, 12), (0.27, 1, 14)],
)
def test_seconds_are_frames_and_never_none(seconds: float, least: int, n_frames: int) -> None:
    assert Shape(4, 1, MONO, 2048, 32_000, 50.0).frames(seconds, least) == n_frames
