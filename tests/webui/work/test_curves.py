"""The losses of a run: which points are drawn, by codebook, and what torn rows do."""

from __future__ import annotations

from typing import Any

from musicgen_lora.webui.curves import MAX_POINTS, curves, losses
from musicgen_lora.webui.words import Words

ROWS: list[dict[str, Any]] = [
    {"event": "base", "step": 0, "loss": 3.0, "codebooks": [2.0, 4.0]},
    {"event": "train", "step": 1, "loss": 2.5, "codebooks": [2.0, 3.0]},
    {"event": "train", "step": 2, "loss": None, "codebooks": [True, "x"]},
    {"event": "validation", "step": 2, "loss": 2.0, "codebooks": [1.0, 3.0]},
    {"event": "effect", "step": 2},
]


def test_losses_of_the_mean_and_of_a_codebook() -> None:
    mean = losses(ROWS, None)
    assert (mean.train, mean.held, mean.base) == ([(1.0, 2.5)], [(2, 2.0)], 3.0)
    second = losses(ROWS, 1)
    assert (second.train, second.held, second.base) == ([(1.0, 3.0)], [(2, 3.0)], 4.0)
    assert losses(ROWS, 5) == losses([], None)


def test_many_steps_are_means_of_stretches() -> None:
    rows = [{"event": "train", "step": step, "loss": float(step)} for step in range(1, 1001)]
    train = losses(rows, None).train
    assert len(train) <= MAX_POINTS
    assert train[0] == (2.5, 2.5)


def test_a_chart_a_codebook_with_the_bases_level() -> None:
    drawn = curves(ROWS, Words("en"))
    assert drawn.count("<svg") == 4
    assert drawn.count('class="base" points') == 3
    assert "Codebook 2" in drawn
    # Nothing is held out, or not yet: what trains is drawn in the codebooks' charts, and no chart
    # is called held out.
    alone = curves([row for row in ROWS if row["event"] != "validation"], Words("en"))
    assert alone.count('class="train" points') == 3
    assert "Held-out loss by step" in drawn
    assert "Held-out loss by step" not in alone
    assert "No steps yet" in curves([], Words("en"))
