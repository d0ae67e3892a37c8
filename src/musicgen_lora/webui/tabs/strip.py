"""The strip of jobs above all tabs: what runs, what waits, and how to stop or resume it."""

from __future__ import annotations

from typing import Any

import gradio as gr

from musicgen_lora.errors import UserError
from musicgen_lora.webui.labels import with_labels
from musicgen_lora.webui.page import PRIVATE, QUIET, Page, chosen, quiet
from musicgen_lora.webui.safety import NO_LONGER
from musicgen_lora.webui.work.job import Job
from musicgen_lora.webui.work.strip import BEGIN, GO_ON, STOP, shown_of, strip

SHOWN = 15
TELLING = ("running", "stopping", "failed")
"""States of jobs whose last lines are shown."""
PRESSED = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-act]");
  if (button) trigger("click", { act: button.dataset.act, job: button.dataset.job });
});
"""
"""Tells the server which button of which job was pressed."""
TO_THE_END = """() => requestAnimationFrame(() => {
  const output = document.querySelector("#job-log textarea");
  output.scrollTop = output.scrollHeight;
})"""
"""From there on Gradio follows the output; one that grew while hidden is at its beginning."""
LOG_LINES = 200
PROGRESS_LINES = 30
"""Within these a command reports its progress again."""


def build(page: Page) -> None:
    """Builds the strip and has it follow the jobs' folders."""
    say, jobs = page.words, page.workspace.jobs
    shown = gr.HTML(quiet("…"), elem_id="strip", js_on_load=PRESSED)
    with gr.Accordion(say("Jobs"), open=False, elem_id="jobs") as box:
        picked = gr.Dropdown([], label=say("Job"), elem_id="job")
        with gr.Row():
            stop = gr.Button(say("Stop and save, or cancel"), elem_id="job-stop")
            force = gr.Button(say("Force stop"), variant="stop", elem_id="job-force")
            resume = gr.Button(say("Resume or run again"), elem_id="job-resume")
        log = gr.Textbox(label=say("Output"), lines=8, max_lines=8, elem_id="job-log")
    seen = gr.State("")
    box.expand(None, None, None, js=TO_THE_END, **QUIET)

    def look(before: str, job_id: str | None) -> Any:
        # Long jobs stay listed however many clips were generated alongside.
        found = [job for at, job in enumerate(jobs.all()) if at < SHOWN or not job.is_over]
        lines = [line for line in _log(job_id, found).splitlines() if line.strip()]
        said = {job.id: _said(job, page) for job in shown_of(found) if job.status in TELLING}
        html = strip(found, say, said)
        options = [
            (f"{say(job.status)} · {say(job.command)} · {job.title}", job.id) for job in found
        ]
        now = repr((html, options, lines[-1:], job_id))
        if now == before:
            return gr.skip(), gr.skip(), gr.skip(), before
        return html, chosen(options, job_id), "\n".join(lines[-LOG_LINES:]), now

    def _log(job_id: str | None, found: list[Job]) -> str:
        return jobs.log(job_id) if job_id in [job.id for job in found] else ""

    outputs = [shown, picked, log, seen]
    page.watches.always(look, [seen, picked], outputs)
    page.watches.when_opened(lambda: look("", None), [], outputs)
    picked.change(look, [seen, picked], outputs, **QUIET)

    def stop_it(job_id: Any) -> None:
        jobs.stop(str(job_id))

    def end_it(job_id: Any) -> None:
        jobs.stop(str(job_id), by_force=True)

    def go_on(job_id: Any) -> None:
        jobs.again(str(job_id))

    def press(at: gr.EventData) -> None:
        asked = getattr(at, "_data", None)
        act, job_id = map((asked if isinstance(asked, dict) else {}).get, ("act", "job"))
        acts = {STOP: jobs.stop, GO_ON: jobs.again, BEGIN: jobs.start_beside}
        if act not in acts:
            raise UserError(NO_LONGER)
        acts[act](str(job_id))

    pressed = shown.click(page.guarded(press), None, None, **PRIVATE)
    pressed.then(look, [seen, picked], outputs, **QUIET)
    for button, act in ((stop, stop_it), (force, end_it), (resume, go_on)):
        acted = button.click(page.guarded(act), picked, None, **PRIVATE)
        acted.then(look, [seen, picked], outputs, **QUIET)


def _said(job: Job, page: Page) -> list[str]:
    """The last lines of a job's command; if it failed, why, in the page's words."""
    lines = page.workspace.jobs.log(job.id).strip().splitlines()[-PROGRESS_LINES:]
    if job.status != "failed":
        return lines
    why = lines[-1].removeprefix(f"musicgen-lora {job.command}: ") if lines else ""
    return [with_labels(why, job.command, page.words)]
