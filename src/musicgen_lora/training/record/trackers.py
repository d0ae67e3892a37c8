"""TensorBoard and Weights & Biases, fed with the rows of `metrics.jsonl`; neither is required."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from musicgen_lora.training.record.run import Run

Track = Callable[[dict[str, Any]], None]
TENSORBOARD = "tensorboard"
WANDB = "wandb"


@contextmanager
def open_trackers(
    names: Sequence[str], output_dir: Path, run: Run, first_step: int
) -> Iterator[Track]:
    """A function that passes a row on to each tracker, while the context lasts.

    Args:
        names: "tensorboard" (into `output_dir/tensorboard`) or "wandb" (into `output_dir/wandb`,
            offline unless the environment's WANDB_MODE says otherwise).
        first_step: steps done before; what a broken run logged after them is dropped.
    """
    with ExitStack() as stack:
        logs: list[Callable[[int, dict[str, float]], None]] = []
        if TENSORBOARD in names:
            from torch.utils.tensorboard import SummaryWriter

            writer = SummaryWriter(str(output_dir / TENSORBOARD), purge_step=first_step + 1)
            stack.callback(writer.close)

            def to_tensorboard(step: int, figures: dict[str, float]) -> None:
                for name, value in figures.items():
                    writer.add_scalar(name, value, step)

            logs.append(to_tensorboard)
        if WANDB in names:
            import wandb  # pyright: ignore[reportMissingImports]

            tracked = wandb.init(
                project="musicgen-lora",
                # A resumed run goes on in its own curve.
                id=f"{run.identity}-{run.started}",
                resume="allow",
                dir=str(output_dir),
                config=run.settings,
                mode=os.environ.get("WANDB_MODE", "offline"),
            )
            stack.callback(tracked.finish)
            logs.append(lambda step, figures: tracked.log(figures, step=step))

        def track(row: dict[str, Any]) -> None:
            for log in logs:
                log(row["step"], figures_of(row))

        yield track


def figures_of(row: dict[str, Any]) -> dict[str, float]:
    """The numbers of a row, named `event/name`; of a list, `event/name_0` and so on."""
    figures: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, list):
            figures.update({f"{row['event']}/{name}_{index}": v for index, v in enumerate(value)})
        elif name != "step" and type(value) in (int, float):
            figures[f"{row['event']}/{name}"] = value
    return figures
