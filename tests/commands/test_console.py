"""What is printed about long work when there is no terminal for a bar."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from musicgen_lora import heartbeat
from musicgen_lora.cluster.engine import TaskOptions, run_shown
from musicgen_lora.console import CommandConsole, progress, working
from musicgen_lora.heartbeat import Heartbeat


class Clock:
    """The clock of a heartbeat; its thread never sees time pass."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.heartbeat = Heartbeat(lambda: self.now_s)

    def wait(self, seconds: float) -> None:
        """Lets seconds pass, with a beat for each, as the thread would."""
        for _ in range(round(seconds)):
            self.now_s += 1.0
            self.heartbeat.beat()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    own = Clock()
    monkeypatch.setattr(own.heartbeat, "_run", lambda ended: ended.wait())
    monkeypatch.setattr(heartbeat, "part", own.heartbeat.part)
    monkeypatch.setattr(heartbeat, "heard", own.heartbeat.heard)
    return own


@pytest.fixture
def console() -> CommandConsole:
    return CommandConsole(file=StringIO(), markup=False, soft_wrap=True)


def lines_of(console: Console) -> list[str]:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().splitlines()


def test_a_long_task_says_now_and_then_how_far_it_is_and_when_it_is_done(
    clock: Clock, console: Console
) -> None:
    with progress(console, "clips [encoded]") as on_step:
        for done in range(1, 11):
            clock.wait(2)
            on_step(done, 10)
    assert lines_of(console) == [
        "clips [encoded]: 2 of 10 (20 %)",
        "clips [encoded]: 4 of 10 (40 %)",
        "clips [encoded]: 7 of 10 (70 %)",
        "clips [encoded]: 9 of 10 (90 %)",
        "clips [encoded]: 10 of 10 (100 %)",
    ]


def test_a_task_that_is_done_as_it_is_told_of_is_told_once(clock: Clock, console: Console) -> None:
    with progress(console, "clips encoded") as on_step:
        on_step(2, 2)
        clock.wait(6)
    assert lines_of(console) == ["clips encoded: 2 of 2 (100 %)"]


def test_a_step_that_takes_long_says_that_it_goes_on(clock: Clock, console: Console) -> None:
    with progress(console, "clips encoded", 3) as on_step:
        on_step(1, 3)
        clock.wait(16)
    assert lines_of(console) == [
        "clips encoded: 1 of 3 (33 %)",
        "clips encoded: 1 of 3 (33 %), 10 seconds so far",
        "clips encoded: 1 of 3 (33 %), 15 seconds so far",
    ]


def test_how_far_a_long_file_is_is_told(clock: Clock, console: Console) -> None:
    class OneFile:
        """A mix of an hour."""

        def run(
            self, work: object, tasks: object, options: TaskOptions
        ) -> Iterator[tuple[int, str]]:
            for share in (0.25, 0.5, 0.998):
                options.on_share(0, share)
                clock.wait(6)
            yield 0, "analysed"
            clock.wait(6)

    assert list(run_shown(console, "files analysed", OneFile(), print, ["mix"])) == [
        (0, "analysed")
    ]
    assert lines_of(console) == [
        "files analysed: 0 of 1 (25 %)",
        "files analysed: 0 of 1 (50 %)",
        "files analysed: 0 of 1 (99 %)",
        "files analysed: 1 of 1 (100 %)",
    ]


def test_work_that_cannot_be_counted_is_told_too_the_innermost(
    clock: Clock, console: Console
) -> None:
    with working(console, "at work"):
        with working(console, "comparing files"):
            clock.wait(6)
        clock.wait(4)
    assert lines_of(console) == [
        "comparing files ... (5 seconds so far)",
        "at work ... (10 seconds so far)",
    ]


def test_a_short_one_says_nothing(clock: Clock, console: Console) -> None:
    with progress(console, "clips encoded") as on_step:
        clock.wait(4)
        on_step(1, 1)
    assert lines_of(console) == []


def test_what_others_print_is_no_silence(clock: Clock, console: Console) -> None:
    with working(console, "at work"):
        for _ in range(4):
            clock.wait(4)
            console.print("a clip")
    assert lines_of(console) == 4 * ["a clip"]


def test_a_quiet_process_says_nothing(clock: Clock) -> None:
    console = CommandConsole(file=StringIO(), quiet=True)
    with progress(console, "clips encoded") as on_step:
        clock.wait(20)
        on_step(1, 1)
    assert lines_of(console) == []


def test_a_bar_needs_no_lines(clock: Clock) -> None:
    console = CommandConsole(file=StringIO(), force_terminal=True)
    with progress(console, "clips encoded", 2) as on_step:
        on_step(1, 2)
        clock.wait(20)
    assert "so far" not in "".join(lines_of(console))


@pytest.mark.parametrize("kind", [str, Text, "progress"])
def test_a_name_of_two_lines_is_told_on_one(kind: Any, clock: Clock, console: Console) -> None:
    """Nor do its escape sequences reach the terminal."""
    name = "kick\nsnare \x1b[2J\udcff 鼓.wav"
    if kind == "progress":
        with working(console, f"reading {name}"):
            clock.wait(6)
    else:
        console.print(kind(f"Report: {name}"), style="yellow")
    (line,) = lines_of(console)
    assert r"kick\nsnare \x1b[2J\udcff 鼓.wav" in line


class NobodyReads(StringIO):
    """A pipe whose reader is gone."""

    def write(self, _: str) -> int:
        raise BrokenPipeError


def test_a_reader_that_has_gone_ends_the_work_and_not_the_heartbeat(clock: Clock) -> None:
    console = CommandConsole(file=NobodyReads())
    with working(console, "at work"):
        clock.wait(6)
        with pytest.raises(BrokenPipeError):
            console.print("a clip")


def test_a_thread_beats_while_a_library_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "SILENCE_S", 0.01)
    said = threading.Event()
    with Heartbeat().part(lambda _: "at work", lambda _: said.set()):
        assert said.wait(60.0)
