"""How long a training will take, from a trial of a few steps by the `train` command itself."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from musicgen_lora.config import TrainSettings

N_STEPS, VALIDATED = 6, 3
"""Steps of a trial, and the one after which it validates; it also validates after the last."""
TRIAL: dict[str, Any] = {
    "max_steps": N_STEPS,
    "num_epochs": N_STEPS * 1000,
    "validate_every": VALIDATED,
    "save_every": N_STEPS,
    "previews": "off",
    "resume": "never",
}
"""What a trial changes in a training's settings."""


@dataclass(frozen=True)
class Trial:
    """What a trial measured.

    Args:
        around_s: seconds of everything else: loading, encoding, the base's turn, saving.
        memory_bytes: peak memory.
    """

    step_s: float
    validation_s: float
    around_s: float
    memory_bytes: int
    n_train: int

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], wall_s: float, n_train: int) -> Trial | None:
        """Reads the rows of a trial's `metrics.jsonl`; None if it has not done its steps.

        Args:
            wall_s: from the command's start to its end.
        """
        times = {
            row["step"]: row["elapsed_s"]
            for row in rows
            if row["event"] == "train" and isinstance(row.get("elapsed_s"), (int, float))
        }
        if sorted(times) != list(range(1, N_STEPS + 1)):
            return None
        between = {step: times[step] - times[step - 1] for step in range(2, N_STEPS + 1)}
        validated_s = between.pop(VALIDATED + 1)
        step_s = statistics.median(between.values())
        memory = [row.get("peak_memory_bytes") for row in rows]
        return cls(
            step_s=step_s,
            validation_s=max(0.0, validated_s - step_s),
            around_s=max(0.0, wall_s - times[N_STEPS]),
            memory_bytes=max((each for each in memory if isinstance(each, int)), default=0),
            n_train=n_train,
        )

    def n_steps(self, settings: Mapping[str, Any]) -> int:
        """Steps of a training on the same clips.

        Args:
            settings: as in YAML; missing ones have their defaults.
        """
        plain = TrainSettings(**settings)
        steps = self._per_epoch(plain) * plain.num_epochs
        return min(steps, plain.max_steps or steps)

    def _per_epoch(self, settings: TrainSettings) -> int:
        per_step = settings.batch_size * settings.gradient_accumulation_steps
        return math.ceil(self.n_train / per_step)

    def seconds(self, settings: Mapping[str, Any]) -> float:
        """Seconds of a training on the same clips, without previews, if it is not stopped early."""
        plain, n_steps = TrainSettings(**settings), self.n_steps(settings)
        n_validations = n_steps / (plain.validate_every or self._per_epoch(plain))
        return self.around_s + n_steps * self.step_s + n_validations * self.validation_s
