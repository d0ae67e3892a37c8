"""A page whose jobs are never started, and what they were asked to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import yaml

from musicgen_lora.training.record.run import FINISHED, Run
from musicgen_lora.webui.page import Page
from musicgen_lora.webui.words import Words
from musicgen_lora.webui.workspace import Workspace

BASE = "tiny-beats"


def page_with_runs(root: Path) -> Page:
    """A page with two runs."""
    work = Workspace(root / "w", start=lambda place: None)
    for name in ("one", "two"):
        best = work.runs / name / "best_model"
        best.mkdir(parents=True)
        (best / "adapter_model.safetensors").write_bytes(b"x")
        (best / "adapter_config.json").write_text("{}")
        Run(FINISHED, name, base={"path": BASE}).write(work.runs / name)
    with gr.Blocks():
        return Page(work, Words("en"), gr.Timer(1), root)


def asked(page: Page) -> list[dict[str, Any]]:
    """The settings of all jobs, oldest first."""
    jobs = page.workspace.jobs
    files = [jobs.folder / job.id / "settings.yaml" for job in reversed(jobs.all())]
    return [value for file in files for value in yaml.safe_load(file.read_text()).values()]
