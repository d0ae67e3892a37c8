"""A plot of a run's losses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from musicgen_lora import atomic
from musicgen_lora.fonts import readable, said

SMOOTHED_STEPS = 50


@readable()
def draw_curves(path: Path, rows: Sequence[dict[str, Any]], base_loss: float) -> None:
    """Training loss with its running mean, held-out losses and the base's, as a PNG.

    Args:
        base_loss: in nats per token.
    """
    from matplotlib.figure import Figure

    train = np.array([(r["step"], r["loss"]) for r in rows if r["event"] == "train"])
    held_out = np.array([(r["step"], r["loss"]) for r in rows if r["event"] == "validation"])
    figure = Figure(figsize=(7.0, 4.0), dpi=130)
    # A fixed position: finding one would draw the whole figure twice more.
    axes = figure.add_axes((0.1, 0.13, 0.87, 0.84))
    axes.spines[["top", "right"]].set_visible(False)
    axes.axhline(base_loss, color="#8a8f98", linestyle="--", label=said("base, held-out"))
    if len(train):
        axes.plot(train[:, 0], train[:, 1], color="#1971c2", alpha=0.3, linewidth=0.8)
        width = min(SMOOTHED_STEPS, len(train))
        smooth = np.convolve(train[:, 1], np.full(width, 1.0 / width), mode="valid")
        axes.plot(
            train[width - 1 :, 0], smooth, color="#1971c2", label=said("training, running mean")
        )
    if len(held_out):
        axes.plot(
            held_out[:, 0],
            held_out[:, 1],
            color="#d9480f",
            marker="o",
            label=said("held-out clips"),
        )
    axes.set_xlabel(said("training step"))
    axes.set_ylabel(said("loss (nats per token)"))
    axes.legend(frameon=False)
    atomic.write_file(path, lambda temporary: figure.savefig(temporary, format="png"))
