"""Evaluate: what an adapter changed, measured by the command, its report in the page."""

from __future__ import annotations

from typing import Any

import gradio as gr

from musicgen_lora.webui.forms import changed, form_of
from musicgen_lora.webui.page import PRIVATE, QUIET, Page, chosen
from musicgen_lora.webui.safety import id_of
from musicgen_lora.webui.workspace import adapter_names, choices

REPORT = "evaluation/report.html"


def build(page: Page, demo: gr.Blocks) -> None:
    """Builds the tab."""
    say, work = page.words, page.workspace
    with gr.Row():
        run = gr.Dropdown([], label=say("Run"), elem_id="evaluate-run")
        count = gr.Slider(1, 16, value=4, step=1, label=say("Prompts"), elem_id="evaluate-prompts")
        compare = gr.Checkbox(True, label=say("Compare with the base"), elem_id="compare")
    own = frozenset(("lora_model_path", "output_dir", "data_dir", "other_data_dir", "num_prompts"))
    form = form_of("evaluate", own)
    with gr.Accordion(say("Advanced settings"), open=False):
        fields = page.fields(form, "evaluate")
    go = gr.Button(say("Evaluate"), variant="primary", elem_id="evaluate")
    shown = gr.HTML(elem_id="report")
    seen, listed = gr.State(""), gr.State("")

    def evaluate(wanted: Any, prompts: Any, side: bool, *values: Any) -> None:
        adapter, folder = work.adapter(wanted), work.run(wanted)
        settings = {
            "base_model_path": work.base_of(wanted),
            "lora_model_path": str(adapter),
            "output_dir": str(folder / "evaluation"),
            "num_prompts": int(prompts),
            "compare": bool(side),
            **changed(form, values),
        }
        page.submit("evaluate", settings, folder.name, folder / "evaluation")

    def look(before: str, names_before: str, wanted: Any) -> Any:
        names = adapter_names(work.runs)
        now = repr(sorted(names))
        runs = gr.skip() if now == names_before else chosen(choices(names), wanted)
        if wanted not in map(id_of, names):
            wanted = id_of(names[0]) if names else None
        return runs, now, *show(before, wanted)

    def show(before: str, wanted: Any) -> Any:
        if not wanted:
            return say("No report yet."), ""
        report = work.run(wanted) / REPORT
        if not report.is_file():
            return f'<p class="quiet">{say("No report yet.")}</p>', f"none {wanted}"
        now = f"{wanted} {report.stat().st_mtime_ns}"
        if now == before:
            return gr.skip(), before
        address = f"{page.address('report')}/{wanted}"
        frame = (
            f'<iframe class="report" sandbox="allow-scripts allow-downloads" '
            f'src="{address}?at={report.stat().st_mtime_ns}" '
            f'title="{say("Report")}"></iframe>'
            f'<a href="{address}" target="_blank">{say("Report in a window of its own")}</a>'
        )
        return frame, now

    inputs = [run, count, compare, *fields]
    go.click(page.guarded(evaluate), inputs, None, **PRIVATE)
    outputs = [run, listed, shown, seen]
    page.timer.tick(page.guarded(look), [seen, listed, run], outputs, **QUIET)
    demo.load(page.guarded(lambda: look("", "", None)), None, outputs, **QUIET)
    run.change(page.guarded(show), [seen, run], [shown, seen], **QUIET)
