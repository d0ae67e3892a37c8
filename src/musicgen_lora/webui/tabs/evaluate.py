"""Evaluate: what adapters changed, measured by the command, its report in the page."""

from __future__ import annotations

from typing import Any

import gradio as gr

from musicgen_lora.errors import UserError
from musicgen_lora.webui.forms import Setting, changed, form_of
from musicgen_lora.webui.page import PRIVATE, QUIET, Page, chosen
from musicgen_lora.webui.safety import id_of
from musicgen_lora.webui.workspace import adapter_names, choices

REPORT = "evaluation/report.html"
OWN = frozenset(("lora_model_path", "output_dir", "data_dir", "other_data_dir", "num_prompts"))


def build(page: Page, demo: gr.Blocks) -> None:
    """Builds the tab."""
    say = page.words
    with gr.Row():
        runs = gr.Dropdown([], multiselect=True, label=say("Runs"), elem_id="evaluate-runs")
        count = gr.Slider(1, 16, value=4, step=1, label=say("Prompts"), elem_id="evaluate-prompts")
        compare = gr.Checkbox(True, label=say("Compare with the base"), elem_id="compare")
    form = form_of("evaluate", OWN)
    with gr.Accordion(say("Advanced settings"), open=False):
        fields = page.fields(form, "evaluate")
    go = gr.Button(say("Evaluate"), variant="primary", elem_id="evaluate")
    run = gr.Dropdown([], label=say("Report of"), elem_id="evaluate-run")
    shown = gr.HTML(elem_id="report")
    seen, listed = gr.State(""), gr.State("")
    measuring = Measuring(page, form)
    go.click(page.guarded(measuring.start), [runs, count, compare, *fields], None, **PRIVATE)
    outputs = [runs, run, listed, shown, seen]
    inputs = [seen, listed, runs, run]
    page.timer.tick(page.guarded(measuring.look), inputs, outputs, **QUIET)
    first = page.guarded(lambda: measuring.look("", "", None, None))
    demo.load(first, None, outputs, **QUIET)
    run.change(page.guarded(measuring.show), [seen, run], [shown, seen], **QUIET)


class Measuring:
    """What is asked of the `evaluate` command, and what has come of it.

    Args:
        page: that asks.
        form: of the settings behind "advanced".
    """

    def __init__(self, page: Page, form: list[Setting]) -> None:
        self._page, self._work, self._form = page, page.workspace, form

    def start(self, wanted: Any, prompts: Any, side: Any, *values: Any) -> None:
        """Starts a job for each run that was chosen; they take turns."""
        ids = wanted if isinstance(wanted, list) else []
        if not ids:
            raise UserError("Choose a run first.")
        common = {
            "num_prompts": int(prompts),
            "compare": bool(side),
            **changed(self._form, values),
        }
        for each in ids:
            folder = self._work.run(each)
            settings = common | {
                "base_model_path": self._work.base_of(each),
                "lora_model_path": str(self._work.adapter(each)),
                "output_dir": str(folder / "evaluation"),
            }
            self._page.submit("evaluate", settings, folder.name, folder / "evaluation")

    def look(self, before: str, names_before: str, several: Any, wanted: Any) -> Any:
        """The runs there are, and the report of the one that is chosen."""
        names = adapter_names(self._work.runs)
        found, now = choices(names), repr(sorted(names))
        ids = [identity for _, identity in found]
        runs = run = gr.skip()
        if now != names_before:
            kept = [each for each in several or [] if each in ids]
            runs, run = gr.update(choices=found, value=kept or ids[:1]), chosen(found, wanted)
        if wanted not in ids:
            wanted = ids[0] if ids else None
        return runs, run, now, *self.show(before, wanted)

    def show(self, before: str, wanted: Any) -> Any:
        """A run's report, if it is another than before."""
        say = self._page.words
        if not wanted:
            return f'<p class="quiet">{say("No report yet.")}</p>', ""
        report = self._work.run(wanted) / REPORT
        if not report.is_file():
            return f'<p class="quiet">{say("No report yet.")}</p>', f"none {wanted}"
        at = report.stat().st_mtime_ns
        now = f"{wanted} {at}"
        if now == before:
            return gr.skip(), before
        address = f"{self._page.address('report')}/{id_of(self._work.run(wanted).name)}"
        frame = (
            f'<iframe class="report" sandbox="allow-scripts allow-downloads" '
            f'src="{address}?at={at}" title="{say("Report")}"></iframe>'
            f'<a href="{address}" target="_blank">{say("Report in a window of its own")}</a>'
        )
        return frame, now
