"""Progress where nobody watches a bar."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from musicgen_lora import console as module
from musicgen_lora.console import CommandConsole, progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the module reads."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def lines_of(clock: list[float], n_steps: int, step_s: float, console: Console) -> list[str]:
    with progress(console, "clips [encoded]") as on_step:
        for done in range(1, n_steps + 1):
            clock[0] += step_s
            on_step(done, n_steps)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().splitlines()


def test_a_long_task_says_now_and_then_how_far_it_is(clock: list[float]) -> None:
    lines = lines_of(clock, 10, 2.0, CommandConsole(file=StringIO(), markup=False))
    assert lines == ["clips [encoded]: 3 of 10 (30 %)", *lines[1:]]
    assert [int(line.split()[2]) for line in lines] == [3, 6, 9]


def test_a_short_one_says_nothing(clock: list[float]) -> None:
    assert lines_of(clock, 100, 0.04, CommandConsole(file=StringIO())) == []


def test_a_quiet_process_says_nothing(clock: list[float]) -> None:
    assert lines_of(clock, 10, 2.0, CommandConsole(file=StringIO(), quiet=True)) == []
