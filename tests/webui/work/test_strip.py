"""The strip says what became of a job, and how to resume one that is not done."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from musicgen_lora.webui.words import Words
from musicgen_lora.webui.work.job import Job
from musicgen_lora.webui.work.strip import strip


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("train", "interrupted", "It can resume from its last checkpoint"),
        ("generate", "interrupted", "What is done is kept; Resume does the rest."),
        ("generate", "stopped", "What is done is kept"),
        ("generate", "failed", "Jobs, below, has the full output."),
        ("generate", "finished", '<span class="line"></span>'),
        ("prepare", "finished", "what was left out"),
    ],
)
def test_how_to_go_on(command: str, status: Any, said: str) -> None:
    job = Job("1", command, "<b>", Path("x"), "en", 1.0, status)
    html = strip([job], Words("en"), {})
    assert said in html
    assert "&lt;b&gt;" in html
    assert ('data-act="go on" data-job="1"' in html) == (status != "finished")


def test_why_a_job_failed_is_said_beside_it() -> None:
    """Above all for one that can't be resumed: its dataset may be gone."""
    html = strip([of(1, "train", "failed")], Words("en"), {"1": ["no file <b>"]})
    assert '<span class="line">no file &lt;b&gt; Jobs, below,' in html
    assert ">Try again</button>" in html
    assert "checkpoint" not in html


def test_of_those_that_are_over_the_one_that_ended_last_is_shown() -> None:
    """A job that waited and was cancelled began later than the one that it waited for."""
    done = replace(of(1, "prepare", "finished"), ended=9.0)
    cancelled = replace(of(2, "prepare", "cancelled"), ended=5.0)
    assert "finished" in strip([cancelled, done], Words("en"), {})


def test_one_that_failed_is_shown_until_something_was_started_since() -> None:
    """The jobs that were queued behind it hid it."""
    failed = replace(of(1, "generate", "failed"), created=1.0, ended=4.0)
    queued = replace(of(2, "generate", "running"), created=2.0)
    last = replace(queued, status="finished", ended=6.0)
    later = replace(of(3, "train", "running"), created=5.0)
    for jobs, statuses in (
        ([queued, failed], ["failed", "running"]),
        ([last, failed], ["failed", "finished"]),
        ([later, last, failed], ["running"]),
    ):
        html = strip(jobs, Words("en"), {})
        assert re.findall('data-status="([a-z]+)"', html) == statuses


STEP = (
    "step {0}/{1}  epoch {2}  loss {3}  rate {4}  {5} tokens/s  {6} GB  {7} s left",
    ("30", "180", "10.00", "3.1", "1.93e-03", "4078", "1.34", "537"),
)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_how_far_a_job_is_and_how_long_it_will_take(language: Any) -> None:
    """As its command reports it, in the language that it was started in."""
    template, values = STEP
    line = Words(language).line(template.format(*values))
    job = Job("1", "train", "x", Path("x"), language, 1.0, "running")
    html = strip([job], Words("en"), {"1": [line, "taking a training step ..."]})
    assert '<progress max="180" value="30"' in html
    assert 'data-act="stop" data-job="1"' in html
    assert "30 of 180, about 9 min left" in html
    assert "taking a training step" in html
    line = Words(language).line("losses, windows: 17 of 24 (71 %)")
    html = strip([job], Words("en"), {"1": [line]})
    assert '<progress max="100" value="71"' in html
    waiting = Job("2", "prepare", "y", Path("y"), "en", 1.0, "waiting")
    assert "It starts when the running job ends;" in strip([waiting, job], Words("en"), {})


def of(number: int, command: str, status: Any, *, is_beside: bool = False) -> Job:
    return Job(
        str(number), command, "x", Path("x"), "en", float(number), status, is_beside=is_beside
    )


def test_what_plays_may_begin_beside_what_runs_which_is_said_once() -> None:
    training = of(1, "train", "running")
    waiting = [
        of(4, "train", "waiting"),
        of(3, "generate", "waiting"),
        of(2, "generate", "waiting"),
    ]
    html = strip([*waiting, training], Words("en"), {"1": ["step 3/9  1 s left"]})
    assert html.count("Start now runs it alongside: both get slower") == 1
    assert html.count('data-act="begin"') == 2
    assert "graphics card" in html
    assert 'data-act="begin" data-job="4"' not in html
    # Beside another one that plays there is nothing to win.
    assert "begin" not in strip([waiting[1], of(1, "generate", "running")], Words("zh"), {})
    asked = of(3, "generate", "waiting", is_beside=True)
    html = strip([asked, of(2, "generate", "running"), training], Words("en"), {})
    assert "once nothing else is generating" in html
    assert 'data-act="begin"' not in html


def test_each_of_two_that_run_says_how_far_it_is() -> None:
    both = [of(2, "generate", "running", is_beside=True), of(1, "train", "running")]
    printed = {"1": ["step 3/9  1 s left"], "2": ["a clip: (50 %)"]}
    html = strip(both, Words("en"), printed)
    assert html.index('max="9" value="3"') < html.index("1 s left<") < html.index('value="50"')
