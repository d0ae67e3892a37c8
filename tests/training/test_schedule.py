"""How the learning rate rises and falls."""

from __future__ import annotations

import math

import pytest

from musicgen_lora.training.schedule import learning_rate_at


def rates(schedule: str, warmup_share: float, n_steps: int = 10) -> list[float]:
    return [
        learning_rate_at(s, n_steps, peak=1.0, schedule=schedule, warmup_share=warmup_share)
        for s in range(n_steps)
    ]


def test_the_rate_warms_up_then_falls() -> None:
    assert rates("constant", 0.0) == [1.0] * 10
    assert rates("constant", 0.4) == pytest.approx([0.25, 0.5, 0.75, 1.0] + [1.0] * 6)
    assert rates("linear", 0.0) == pytest.approx([1.0 - s / 10 for s in range(10)])
    assert rates("wsd", 0.1) == pytest.approx([1.0] * 8 + [2 / 3, 1 / 3])
    cosine = [(1 + math.cos(math.pi * s / 8)) / 2 for s in range(8)]
    assert rates("cosine", 0.2) == pytest.approx([0.5, 1.0, *cosine])
    # Every step moves something, the very first and the very last too.
    for schedule in ("constant", "linear", "cosine", "wsd"):
        for n_steps in (1, 2, 100):
            assert min(rates(schedule, 0.05, n_steps)) > 0.0
