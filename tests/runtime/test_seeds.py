"""Seeds of independent draws."""

from __future__ import annotations

import itertools

import pytest
import torch

from musicgen_lora.runtime import processes
from musicgen_lora.runtime.seeds import seed_of
from musicgen_lora.training.trainer import dropout_of


def test_every_part_decides_and_their_order_too() -> None:
    users = (0, 1, 2**32, 2**32 + 1, 2**63 - 1)
    parts = [
        *itertools.product(("dropout", "start"), users, range(50), range(4)),
        ("dropout", 1),
        ("dropout", "1"),
        (1, "dropout"),
        ("dropout1",),
    ]

    seeds = {seed_of(*part) for part in parts}

    assert len(seeds) == len(parts)
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_a_seed_is_the_same_in_every_process() -> None:
    assert seed_of("dropout", 0, 1, 0) == 786889842


def test_seeds_that_torch_would_take_for_one_are_two() -> None:
    """torch's CPU generator reads 32 bits: 0 and 2^32 are the same seed to it."""

    def draw(user: int) -> torch.Tensor:
        return torch.rand(8, generator=torch.Generator().manual_seed(seed_of("clip", user)))

    assert not torch.equal(draw(0), draw(2**32))


def test_dropout_masks_follow_seed_step_and_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def mask(seed: int, step: int, rank: int) -> tuple[bool, ...]:
        monkeypatch.setattr(processes, "rank", lambda: rank)
        with dropout_of(seed, step):
            torch.rand(3)
        with dropout_of(seed, step):
            return tuple((torch.nn.functional.dropout(torch.ones(64), 0.5) > 0).tolist())

    places = list(itertools.product((0, 1, 12345, 2**32), (0, 1, 2**24), (0, 1)))
    assert len({mask(*place) for place in places}) == len(places)
    assert mask(12345, 1, 1) == mask(12345, 1, 1)
