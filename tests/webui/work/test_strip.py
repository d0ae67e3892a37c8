"""The strip says what became of a job, and how to go on with one that is not done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from musicgen_lora.webui.words import Words
from musicgen_lora.webui.work.jobs import Job
from musicgen_lora.webui.work.strip import strip


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("train", "interrupted", "It can go on from its last checkpoint"),
        ("generate", "interrupted", "What is done of it stays: Jobs, Go on makes the rest."),
        ("generate", "stopped", "What is done of it stays"),
        ("generate", "failed", '<span class="line"></span>'),
        ("generate", "finished", '<span class="line"></span>'),
    ],
)
def test_how_to_go_on(command: str, status: Any, said: str) -> None:
    job = Job("1", command, "<b>", Path("x"), "en", 1.0, status)
    html = strip([job], Words("en"), "")
    assert said in html
    assert "&lt;b&gt;" in html
