"""What a training will take, measured beforehand on a few of its steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from musicgen_lora import atomic
from musicgen_lora.errors import UserError
from musicgen_lora.training.record.run import Run
from musicgen_lora.training.record.run_folder import METRICS_FILE, read_metrics
from musicgen_lora.webui.page import PRIVATE, Page, html_table, quiet
from musicgen_lora.webui.words import Words
from musicgen_lora.webui.work.estimate import TRIAL, Trial
from musicgen_lora.webui.work.job import Job
from musicgen_lora.webui.workspace import Workspace

PRESETS: dict[str, dict[str, Any]] = {
    "quick": {"num_epochs": 2, "lora_rank": 8, "lora_alpha": 16},
    "balanced": {},
    "thorough": {
        "num_epochs": 15,
        "lora_rank": 32,
        "lora_alpha": 64,
        "early_stopping_patience": 4,
    },
}
"""What each changes in the defaults; settings changed by hand override it."""
BATCHES = ("batch_size", "gradient_accumulation_steps")
HEADS = ("Thoroughness", "Steps", "Takes about")


def build(
    page: Page,
    settings_of: Callable[..., dict[str, Any]],
    inputs: Sequence[Any],
) -> None:
    """Builds the button and its result.

    Args:
        settings_of: settings of a training from the inputs, except its folder.
        inputs: dataset, base, preset and form of the tab.
    """
    say, work = page.words, page.workspace
    measure = gr.Button(say("Estimate time and memory"), elem_id="measure")
    told, seen = gr.HTML(elem_id="estimate"), gr.State("")

    def start(*values: Any) -> None:
        settings = settings_of(*values) | TRIAL | {"output_dir": str(work.trial)}
        if any(job.folder == work.trial and not job.is_over for job in work.jobs.all()):
            raise UserError("An estimate is already running.")
        if work.trial.exists():
            atomic.remove_folder(work.trial)
        title = say("estimate for {name}", name=Path(settings["data_dir"]).name)
        page.submit("train", settings, title, work.trial)

    def look(before: str) -> Any:
        job = _finished(work)
        now = job.id if job else ""
        return (gr.skip(), before) if now == before else (table(job, work, say), now)

    measure.click(page.guarded(start, "train"), list(inputs), None, **PRIVATE)
    page.watches.always(look, [seen], [told, seen])
    page.watches.when_opened(lambda: look("-"), [], [told, seen])


def _finished(work: Workspace) -> Job | None:
    """The last trial, once it has finished."""
    jobs = [job for job in work.jobs.all() if job.folder == work.trial]
    return jobs[0] if jobs and jobs[0].status == "finished" else None


def table(job: Job | None, work: Workspace, say: Words) -> str:
    """What each preset will take on the trial's dataset and base."""
    run = Run.read(work.trial)
    is_measured = (work.trial / METRICS_FILE).is_file()
    if job is None or job.took_s is None or run is None or not is_measured:
        return ""
    n_train = int(run.data.get("n_train") or 0)
    found = Trial.of(read_metrics(work.trial), job.took_s, n_train)
    if found is None:
        return ""
    kept = {name: run.settings[name] for name in BATCHES if name in run.settings}
    rows = []
    for name, preset in PRESETS.items():
        settings = kept | preset
        takes = say.duration(found.seconds(settings))
        rows.append((say(name), str(found.n_steps(settings)), takes))
    data = Path(str(run.data.get("data_dir", ""))).name
    said = say(
        "{data} on {base}: {step} s per step, {gb} GB; previews take extra time.",
        data=data,
        base=run.base.get("path", ""),
        step=f"{found.step_s:.2g}",
        gb=f"{found.memory_bytes / 1e9:.1f}",
    )
    return html_table("plain", list(map(say, HEADS)), rows) + quiet(said)
