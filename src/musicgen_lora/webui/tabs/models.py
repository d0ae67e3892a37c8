"""Models: trained runs in figures, with their cards; renaming, and deleting by name."""

from __future__ import annotations

import re
from html import escape
from typing import Any

import gradio as gr

from musicgen_lora.atomic import CARD_FILE
from musicgen_lora.formats.documents import read_start
from musicgen_lora.training.record.run import Run
from musicgen_lora.training.record.run_folder import BEST_MODEL
from musicgen_lora.webui.page import PRIVATE, QUIET, Page, chosen, html_table, quiet
from musicgen_lora.webui.renames import rename_run
from musicgen_lora.webui.safety import folders_of
from musicgen_lora.webui.tabs import exports
from musicgen_lora.webui.workspace import choices

CARD_BYTES = 64 << 10
HEADS = ("Run", "Status", "Base model", "Steps", "Base loss", "Best loss", "Verdict")
_FOR_THE_HUB = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
"""The start of a card, for a hub to read."""


def build(page: Page) -> None:
    say, shelf = page.words, Shelf(page)
    table = gr.HTML(elem_id="models")
    run = gr.Dropdown([], label=say("Run"), elem_id="model")
    card = gr.HTML(elem_id="card")
    exports.build(page)
    with gr.Accordion(say("Rename"), open=False, elem_id="rename-box"):
        called = gr.Textbox(label=say("New run name"), max_lines=1, elem_id="rename-name")
        rename = gr.Button(say("Rename"), elem_id="rename")
    with gr.Accordion(say("Delete"), open=False, elem_id="delete-box"):
        typed = gr.Textbox(
            label=say("Type the run's name to delete it permanently"),
            max_lines=1,
            elem_id="delete-name",
        )
        delete = gr.Button(say("Delete"), variant="stop", elem_id="delete")
    seen = gr.State("")
    outputs = [table, run, seen]
    page.watches.always(shelf.look, [seen, run], outputs)
    page.watches.when_opened(lambda: shelf.look("", None), [], outputs)
    run.change(page.guarded(shelf.card), run, card, **QUIET)
    for button, act, field in ((rename, shelf.rename, called), (delete, shelf.delete, typed)):
        acted = button.click(page.guarded(act), [run, field], outputs, **PRIVATE)
        acted.success(lambda: "", None, field, **QUIET)


class Shelf:
    def __init__(self, page: Page) -> None:
        self._page, self._work = page, page.workspace

    def look(self, before: str, wanted: Any) -> Any:
        """The table, if it has changed."""
        names = folders_of(self._work.runs)
        html = figures(self._page, names)
        if html == before:
            return gr.skip(), gr.skip(), before
        choose = self._page.still_chosen if before else chosen
        return html, choose(choices(names), wanted), html

    def card(self, wanted: Any) -> str:
        if not wanted:
            return ""
        path = self._work.run(wanted) / BEST_MODEL / CARD_FILE
        if not path.is_file() or path.is_symlink():
            return quiet(self._page.words("No model card yet."))
        text = _FOR_THE_HUB.sub("", read_start(path, CARD_BYTES).decode("utf-8", "replace"))
        return f"<pre class='card'>{escape(text)}</pre>"

    def rename(self, wanted: Any, name: Any) -> Any:
        self._work.check_idle(self._work.run(wanted))
        new = rename_run(self._work.runs, wanted, name)
        return self._done(self._page.words("Renamed: {name}", name=escape(new)))

    def delete(self, wanted: Any, name: Any) -> Any:
        gone = self._work.delete(self._work.runs, wanted, name)
        return self._done(self._page.words("Deleted: {name}", name=escape(gone)))

    def _done(self, line: str) -> Any:
        """Reports what was done with a run, and shows the runs that exist."""
        gr.Info(line)
        return self.look("", None)


def figures(page: Page, names: list[str]) -> str:
    say, rows = page.words, []
    for name in names:
        found = Run.read(page.workspace.runs / name)
        if found is None:
            continue
        best = (found.best or {}).get("loss")
        base = (found.base_loss or {}).get("loss")
        rows.append(
            [
                name,
                say(found.status) if found.status in ("finished", "failed", "interrupted") else "",
                str(found.base.get("path", "")),
                "" if found.steps is None else str(found.steps),
                f"{base:.3f}" if isinstance(base, float) else "",
                f"{best:.3f}" if isinstance(best, float) else "",
                say.line(found.verdict or ""),
            ]
        )
    return html_table("models", list(map(say, HEADS)), rows) if rows else quiet(say("No run yet."))
