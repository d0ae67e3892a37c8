"""A dataset has the clips of one folder: folders whose names give the same title are kept apart."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the page's libraries are not installed")

from musicgen_lora import atomic
from musicgen_lora.errors import UserError
from musicgen_lora.webui.tabs.data import Preparing
from musicgen_lora.webui.work.job import END_FILE
from musicgen_lora.webui.work.jobs import Jobs


def test_two_folders_of_like_names_make_two_datasets(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path / "jobs", start=lambda place: None)
    made: list[str] = []

    def submit(command: str, settings: dict[str, Any], title: str, target: Path) -> None:
        made.append(title)
        job = jobs.submit(command, settings, title=title, folder=target)
        atomic.write_json(jobs.folder / job.id / END_FILE, {"code": 0, "at": 0.0})

    work = SimpleNamespace(
        jobs=jobs, datasets=tmp_path / "datasets", audio=tmp_path / "audio", audio_folder=Path
    )
    page: Any = SimpleNamespace(workspace=work, submit=submit, uploads=tmp_path)
    preparing = Preparing(page, [])
    for folder in ("/a/Beats!", "/a/Beats?", "/b/Beats!", "/a/Beats?", "/a/Beats!"):
        preparing.prepare(None, folder, "")
    assert made == ["Beats", "Beats 2", "Beats 3", "Beats 2", "Beats"]
    preparing.prepare(None, "/a/Beats!", "Beats")
    with pytest.raises(UserError, match="Beats: was made from /a/Beats!; choose another name"):
        preparing.prepare(None, "/c", "Beats")
    with pytest.raises(UserError, match="Beats: was made from"):
        preparing.prepare(["a.wav"], None, "Beats")
    assert not work.audio.exists()
