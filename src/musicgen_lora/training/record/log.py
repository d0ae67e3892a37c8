"""The log of a run: rows for `metrics.jsonl` and the trackers, lines for the terminal."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, TextColumn

from musicgen_lora import heartbeat
from musicgen_lora.console import working
from musicgen_lora.language.translate import translated, word
from musicgen_lora.runtime import processes
from musicgen_lora.training.record import run_folder
from musicgen_lora.training.record.run import Run
from musicgen_lora.training.step import StepResult

Tracker = Callable[[int, dict[str, float]], None]
"""Takes a step number and its figures."""
TENSORBOARD = "tensorboard"
WANDB = "wandb"


@contextmanager
def open_trackers(
    names: Sequence[str], output_dir: Path, run: Run, first_step: int
) -> Iterator[list[Tracker]]:
    """Opens the trackers of a run for the duration of the context.

    Args:
        names: "tensorboard" (into `output_dir/tensorboard`) or "wandb" (into `output_dir/wandb`,
            offline unless WANDB_MODE says otherwise).
        first_step: steps done before; anything that an interrupted run logged later is dropped.
    """
    with ExitStack() as stack:
        trackers: list[Tracker] = []
        if TENSORBOARD in names:
            from torch.utils.tensorboard import SummaryWriter

            writer = SummaryWriter(str(output_dir / TENSORBOARD), purge_step=first_step + 1)
            stack.callback(writer.close)

            def to_tensorboard(step: int, figures: dict[str, float]) -> None:
                for name, value in figures.items():
                    writer.add_scalar(name, value, step)

            trackers.append(to_tensorboard)
        if WANDB in names:
            import wandb  # pyright: ignore[reportMissingImports]

            tracked = wandb.init(
                project="musicgen-lora",
                # A resumed run continues its own curve.
                id=f"{run.identity}-{run.started}",
                resume="allow",
                dir=str(output_dir),
                config=run.settings,
                mode=os.environ.get("WANDB_MODE", "offline"),
            )
            stack.callback(tracked.finish)
            trackers.append(lambda step, figures: tracked.log(figures, step=step))
        yield trackers


def figures_of(row: dict[str, Any]) -> dict[str, float]:
    """The numbers of a row, named `event/name`, or `event/name_0` and so on for a list."""
    figures: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, list):
            figures.update({f"{row['event']}/{name}_{index}": v for index, v in enumerate(value)})
        elif name != "step" and type(value) in (int, float):
            figures[f"{row['event']}/{name}"] = value
    return figures


@dataclass(frozen=True)
class RunLog:
    """Records the figures and messages of a run; only the first process writes."""

    console: Console
    output_dir: Path
    trackers: Sequence[Tracker]

    def record(self, row: dict[str, Any]) -> None:
        """Adds a row to `metrics.jsonl`."""
        if processes.rank() == 0:
            run_folder.append_metrics(self.output_dir, row)
            for tracker in self.trackers:
                tracker(row["step"], figures_of(row))

    def say(self, line: str, *, warns: bool = False) -> None:
        self.console.print(line, style="yellow" if warns else None)


@dataclass(frozen=True)
class StepReport:
    """The figures of one step.

    Args:
        epoch: epochs done after it, as a fraction.
        n_frames: codec frames that it trained on.
        memory_bytes: peak so far.
    """

    result: StepResult
    step: int
    epoch: float
    rate: float
    n_frames: int
    memory_bytes: int


class StepLog:
    """Progress through the steps: a bar in a terminal, otherwise a line now and then.

    Args:
        begun: steps done by earlier runs.
    """

    def __init__(self, log: RunLog, *, begun: int, n_steps: int, frame_rate: float) -> None:
        self._log, self._begun, self._n_steps = log, begun, n_steps
        self._frame_rate, self._frames_read = frame_rate, 0
        self._began = self._said = time.monotonic()
        self._open = ExitStack()
        self._bar = Progress(
            *Progress.get_default_columns(),
            TextColumn("{task.fields[figures]}"),
            console=log.console,
            disable=not log.console.is_terminal or processes.rank() > 0,
        )

    def __enter__(self) -> StepLog:
        # On a CPU, a single step of a large model takes long.
        self._open.enter_context(working(self._log.console, "taking a training step"))
        self._bar.start()
        self._task = self._bar.add_task(
            word("training"), total=self._n_steps, completed=self._begun, figures=""
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        self._open.close()

    def tell(self, report: StepReport) -> None:
        """Records a step and shows it."""
        result, done = report.result, report.step
        self._frames_read += report.n_frames
        elapsed = time.monotonic() - self._began
        row = {
            "event": "train",
            "step": done,
            "epoch": round(report.epoch, 4),
            "loss": result.loss,
            "codebooks": result.codebooks,
            "learning_rate": report.rate,
            # None for an infinite norm, an overflow at which fp16's scaler skips the step.
            "grad_norm": result.grad_norm if math.isfinite(result.grad_norm) else None,
            "audio_s_per_s": self._frames_read / self._frame_rate / elapsed,
            "tokens_per_s": self._frames_read * len(result.codebooks) / elapsed,
            "peak_memory_bytes": report.memory_bytes,
            "elapsed_s": round(elapsed, 3),
        }
        self._log.record(row)
        line = (
            f"loss {result.loss:.3f}  rate {report.rate:.2e}  {row['tokens_per_s']:.0f} tokens/s  "
            f"{report.memory_bytes / 1e9:.2f} GB"
        )
        self._bar.update(self._task, completed=done, figures=translated(line))
        is_due = done % 10 == 0 or time.monotonic() - self._said >= heartbeat.SILENCE_S
        if self._log.console.is_terminal or not (
            is_due or done in (self._n_steps, self._begun + 1)
        ):
            return
        self._said = time.monotonic()
        left_s = elapsed / (done - self._begun) * (self._n_steps - done)
        self._log.say(
            f"step {done}/{self._n_steps}  epoch {row['epoch']:.2f}  {line}  {left_s:.0f} s left"
        )
