"""Evaluate: what adapters changed, measured by the command, with its report in the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from musicgen_lora.errors import UserError
from musicgen_lora.webui.forms import Setting, changed, form_of
from musicgen_lora.webui.kept import Kept
from musicgen_lora.webui.page import PRIVATE, QUIET, Page, chosen, quiet
from musicgen_lora.webui.safety import find, id_of, new_name
from musicgen_lora.webui.workspace import REPORT, choices

OWN = frozenset(("lora_model_path", "output_dir", "data_dir", "other_data_dir", "num_prompts"))
STRENGTHS = "strengths"
"""The setting that is not under "advanced"."""


def settings_form() -> list[Setting]:
    """The settings of the tab's form, `STRENGTHS` first."""
    return sorted(form_of("evaluate", OWN), key=lambda setting: setting.name != STRENGTHS)


def build(page: Page) -> None:
    say, kept, form = page.words, Kept(page), settings_form()
    adapters = gr.Dropdown(
        [],
        multiselect=True,
        label=say("Adapters and checkpoints"),
        info=say("Several are compared side by side in one report."),
        elem_id="evaluate-runs",
    )
    with gr.Row(elem_classes="settings"):
        strengths = gr.Textbox(
            form[0].shown,
            label=say("Strengths"),
            info=say("Such as 0.5 1 1.5; 0 is the base. If empty, 1."),
            placeholder="1",
            max_lines=1,
            max_length=100,
            elem_id="evaluate-strengths",
        )
        count = gr.Slider(
            1, 16, value=4, step=1, label=say("Number of prompts"), elem_id="evaluate-prompts"
        )
        compare = gr.Checkbox(True, label=say("Compare with the base"), elem_id="compare")
    fields = kept.advanced(form[1:], "evaluate")
    go = gr.Button(say("Evaluate"), variant="primary", elem_id="evaluate")
    report = gr.Dropdown([], label=say("Report for"), elem_id="evaluate-run")
    shown = gr.HTML(elem_id="report")
    seen, listed = gr.State(""), gr.State([])
    measuring = Measuring(page, form)
    asked = [adapters, count, compare, strengths, *fields]
    go.click(page.guarded(measuring.start, "evaluate"), asked, None, **PRIVATE)
    kept.keep([count, compare, strengths, *fields])
    outputs = [adapters, report, listed, shown, seen]
    inputs = [seen, listed, adapters, report]
    page.watches.always(measuring.look, inputs, outputs)
    page.watches.when_opened(lambda: measuring.look("", [], None, None), [], outputs)
    report.change(page.guarded(measuring.show), [seen, report], [shown, seen], **QUIET)


class Measuring:
    """Requests to the `evaluate` command, and their reports.

    Args:
        form: of the settings, `STRENGTHS` first.
    """

    def __init__(self, page: Page, form: list[Setting]) -> None:
        self._page, self._work, self._form = page, page.workspace, form

    def start(self, wanted: Any, prompts: Any, side: Any, *values: Any) -> None:
        """Starts a job that evaluates what was chosen: a run and its checkpoints in the run's
        folder, several runs in a separate folder."""
        ids = wanted if isinstance(wanted, list) else []
        if not ids:
            raise UserError("Choose an adapter first.")
        found = self._work.adapters()
        names = list(dict.fromkeys(find(found, each) for each in ids))
        settings = {
            "num_prompts": int(prompts),
            "compare": bool(side),
            **changed(self._form, values),
            "base_model_path": self._base_of(names),
            "lora_model_path": [str(found[name]) for name in names],
        }
        title, folder = self._place(names)
        self._page.submit("evaluate", settings | {"output_dir": str(folder)}, title, folder)

    def _base_of(self, names: list[str]) -> str:
        """The common base of all adapters."""
        bases = {name: self._work.base_of(id_of(_run(name))) for name in names}
        for name, base in bases.items():
            if base != bases[names[0]]:
                raise UserError(
                    f"{name}: was trained on a different base model than {names[0]}; choose "
                    "adapters of the same one."
                )
        return bases[names[0]]

    def _place(self, names: list[str]) -> tuple[str, Path]:
        runs = list(dict.fromkeys(_run(name) for name in names))
        if len(runs) == 1:
            return runs[0], self._work.runs / runs[0] / "evaluation"
        title = new_name(" and ".join(runs), "several")
        return title, self._work.evaluations / title

    def look(self, before: str, names_before: list[str], several: Any, wanted: Any) -> Any:
        """The adapters and reports that exist, and the chosen report; a new one of several runs is
        chosen as it appears."""
        names, reports = self._work.adapters(), self._work.reports()
        found, now = choices(list(names)), sorted([*names, *reports])
        ids = [identity for _, identity in found]
        told = [(Path(name).name, id_of(name)) for name in reports]
        adapters = report = gr.skip()
        if now != names_before:
            still = [each for each in several or [] if each in ids]
            adapters = gr.update(choices=found, value=still if names_before else ids[:1])
            new = [each for each in reports if names_before and each not in {*names_before, *names}]
            report = self._page.still_chosen(told, wanted)
            if new:
                wanted = id_of(new[0])
                report = chosen(told, wanted)
            elif not wanted:
                wanted = told[0][1] if told else None
        if wanted not in [identity for _, identity in told]:
            wanted = None
        return adapters, report, now, *self.show(before, wanted)

    def show(self, before: str, wanted: Any) -> Any:
        """A report, if it has changed."""
        say = self._page.words
        if not wanted:
            return quiet(say("No report yet.")), ""
        reports = self._work.reports()
        name = find(reports, wanted)
        path = reports[name] / REPORT
        if not path.is_file():
            return quiet(say("No report yet.")), f"none {wanted}"
        at = path.stat().st_mtime_ns
        now = f"{wanted} {at}"
        if now == before:
            return gr.skip(), before
        address = self._page.address("report", name)
        frame = (
            f'<iframe class="report" sandbox="allow-scripts allow-downloads" '
            f'src="{address}?at={at}" title="{say("Report")}"></iframe>'
            f'<a href="{address}" target="_blank">{say("Open the report in a new window")}</a>'
        )
        return frame, now


def _run(name: str) -> str:
    """The run of an adapter, by its name on the page."""
    return name.partition("/")[0]
