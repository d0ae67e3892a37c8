"""Adapters merged into a base, or exported for other programs and people, by the commands."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from musicgen_lora.errors import UserError
from musicgen_lora.webui.page import PRIVATE, Page
from musicgen_lora.webui.safety import folders_of, new_name
from musicgen_lora.webui.words import beginning
from musicgen_lora.webui.workspace import adapter_names, choices

KINDS = {
    "peft": "an adapter to share",
    "audiocraft": "a model for audiocraft",
    "merge": "a base model with the adapters merged in",
}
"""What can be exported; the last is the `merge` command's, the others are formats of `export`."""
STRENGTHS = "0.7 0.3"


def build(page: Page) -> None:
    """Builds the export form, and the list of exported models."""
    say = page.words
    with gr.Accordion(say("Merge or export"), open=False, elem_id="export-box"):
        runs = gr.Dropdown([], multiselect=True, label=say("Runs"), elem_id="export-runs")
        strengths = gr.Textbox(
            label=say("Strength of each, 0 to 2"),
            info=say("1 is the adapter as trained; if empty, 1 for each."),
            placeholder=STRENGTHS,
            max_lines=1,
            elem_id="export-strengths",
        )
        kind = gr.Radio(
            [(say(label), name) for name, label in KINDS.items()],
            value="peft",
            label=say("Export as"),
            elem_id="export-kind",
        )
        name = gr.Textbox(label=say("Name"), max_length=60, elem_id="export-name")
        go = gr.Button(say("Export"), variant="primary", elem_id="export")
    written, seen, listed = gr.HTML(elem_id="exports"), gr.State(""), gr.State("")

    exporting = Exporting(page)
    asked = [runs, strengths, kind, name]
    go.click(page.guarded(exporting.write, "export"), asked, None, **PRIVATE)
    outputs = [runs, listed, written, seen]
    page.watches.always(exporting.look, [seen, listed, runs], outputs)
    page.watches.when_opened(lambda: exporting.look("-", "", None), [], outputs)


class Exporting:
    """Requests to `merge` and `export`."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def write(self, wanted: Any, strong: Any, what: Any, typed: Any) -> None:
        """Starts a merge or an export of the chosen runs."""
        page, work = self._page, self._page.workspace
        if what not in KINDS:
            raise UserError("Choose what to export.")
        ids = wanted if isinstance(wanted, list) else []
        if not ids:
            raise UserError("Choose a run first.")
        names = [work.run(each).name for each in ids]
        title = new_name(typed, new_name(" and ".join(names), "model"))
        target = work.models / title
        settings = {
            "model_path": work.base_of(ids[0]),
            "lora_model_path": [str(work.adapter(each)) for each in ids],
            "strength": numbers(strong),
            "output_dir": str(target),
        }
        if what == "merge":
            page.submit("merge", settings, title, target)
        else:
            page.submit("export", settings | {"format": what}, title, target)

    def look(self, before: str, names_before: str, wanted: Any) -> Any:
        """The runs that can be chosen, and the exported models."""
        page, work = self._page, self._page.workspace
        names, now = adapter_names(work.runs), _listing(page)
        key = repr(sorted(names))
        found = choices(names)
        kept = [each for each in wanted or [] if each in [identity for _, identity in found]]
        runs = gr.skip() if key == names_before else gr.update(choices=found, value=kept)
        return runs, key, gr.skip() if now == before else now, now


def numbers(typed: Any) -> list[float]:
    """Strengths as typed: separated by spaces or commas."""
    words = str(typed or "")[:200].replace(",", " ").split()
    try:
        return [float(word) for word in words]
    except ValueError as error:
        raise UserError(
            f"{beginning(' '.join(words))}: give a number for each adapter, such as {STRENGTHS}."
        ) from error


def _listing(page: Page) -> str:
    """The exported models, and where they are."""
    names = folders_of(page.workspace.models)
    rows = [
        f"<li><b>{escape(name)}</b> <code>{escape(str(page.workspace.models / name))}</code></li>"
        for name in names
    ]
    title = escape(page.words("Exported models"))
    return f"<h4>{title}</h4><ul>{''.join(rows)}</ul>" if rows else ""
