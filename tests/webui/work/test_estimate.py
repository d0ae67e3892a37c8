"""The estimate for a training follows from the times of a trial's steps."""

from __future__ import annotations

from typing import Any

import pytest

from musicgen_lora.webui.words import Words
from musicgen_lora.webui.work.estimate import N_STEPS, Trial


def rows(step_s: float, validation_s: float, first_s: float) -> list[dict[str, Any]]:
    """Rows of a trial whose validation lies between its third step and its fourth."""
    found: list[dict[str, Any]] = [{"event": "base", "step": 0, "loss": 3.0}]
    for step in range(1, N_STEPS + 1):
        at = first_s + (step - 1) * step_s + (validation_s if step > 3 else 0.0)
        found.append({"event": "train", "step": step, "elapsed_s": at, "peak_memory_bytes": 10**9})
    return found


def test_steps_validations_and_the_rest_are_told_apart() -> None:
    found = Trial.of(rows(2.0, 5.0, 4.0), wall_s=30.0, n_train=100)
    assert found is not None
    assert found.step_s == pytest.approx(2.0)
    assert found.validation_s == pytest.approx(5.0)
    # 30 s of which the steps with the validation are 4 + 5 * 2 + 5.
    assert found.around_s == pytest.approx(11.0)
    assert found.memory_bytes == 10**9
    # 100 clips in steps of 2 * 4 are 13 steps an epoch.
    assert found.n_steps({}) == 65
    assert found.seconds({}) == pytest.approx(11.0 + 65 * 2.0 + 5 * 5.0)
    assert found.n_steps({"num_epochs": 2, "batch_size": 1}) == 50
    assert found.n_steps({"max_steps": 7}) == 7


def test_a_trial_that_has_not_done_its_steps_says_nothing() -> None:
    whole = rows(2.0, 5.0, 4.0)
    assert Trial.of(whole[:-1], 30.0, 100) is None
    assert Trial.of([], 30.0, 100) is None


@pytest.mark.parametrize(
    ("seconds", "said"), [(3, "10 s"), (61, "60 s"), (125, "2 min"), (9000, "2.5 h")]
)
def test_durations_promise_no_more_than_is_known(seconds: float, said: str) -> None:
    assert Words("en").duration(seconds) == said
