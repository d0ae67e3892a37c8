"""Models: what was trained, in figures and by its card; deletion with the name typed."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from musicgen_lora.errors import UserError
from musicgen_lora.formats.documents import read_start
from musicgen_lora.training.record.run_folder import BEST_MODEL
from musicgen_lora.webui.page import PRIVATE, QUIET, Page, chosen
from musicgen_lora.webui.safety import delete_folder, folders_of
from musicgen_lora.webui.workspace import choices, run_of

CARD_BYTES = 64 << 10
HEADS = ("Run", "State", "Base model", "Steps", "Base's loss", "Best loss", "In words")


def build(page: Page, demo: gr.Blocks) -> None:
    """Builds the tab."""
    say, work = page.words, page.workspace
    table = gr.HTML(elem_id="models")
    run = gr.Dropdown([], label=say("Run"), elem_id="model")
    card = gr.HTML(elem_id="card")
    with gr.Accordion(say("Delete"), open=False, elem_id="delete-box"):
        typed = gr.Textbox(
            label=say("Type the run's name to delete it for good"),
            max_lines=1,
            elem_id="delete-name",
        )
        delete = gr.Button(say("Delete"), variant="stop", elem_id="delete")
    seen = gr.State("")

    def look(before: str, wanted: Any) -> Any:
        names = folders_of(work.runs)
        html = figures(page, names)
        if html == before:
            return gr.skip(), gr.skip(), before
        return html, chosen(choices(names), wanted), html

    def show(wanted: Any) -> str:
        if not wanted:
            return ""
        path = work.run(wanted) / BEST_MODEL / "README.md"
        if not path.is_file() or path.is_symlink():
            return f'<p class="quiet">{say("No card yet.")}</p>'
        text = read_start(path, CARD_BYTES).decode("utf-8", "replace")
        return f"<pre class='card'>{escape(text)}</pre>"

    def delete_run(wanted: Any, name: str) -> Any:
        folder = work.run(wanted)
        if any(
            not job.is_over and folder in (job.folder, *job.folder.parents)
            for job in work.jobs.all()
        ):
            raise UserError(f"{folder.name}: in use by a command; stop it first.")
        gone = delete_folder(work.runs, wanted, name)
        gr.Info(say("Deleted: {name}", name=escape(gone)), title=say("Models"))
        return look("", None)

    outputs = [table, run, seen]
    page.timer.tick(look, [seen, run], outputs, **QUIET)
    demo.load(lambda: look("", None), None, outputs, **QUIET)
    run.change(page.guarded(show), run, card, **QUIET)
    delete.click(
        page.guarded(delete_run),
        [run, typed],
        outputs,
        **PRIVATE,
    ).then(lambda: "", None, typed, **QUIET)


def figures(page: Page, names: list[str]) -> str:
    """A table of the runs."""
    say, rows = page.words, []
    for name in names:
        found = run_of(page.workspace.runs / name)
        if found is None:
            continue
        best = (found.best or {}).get("loss")
        base = (found.base_loss or {}).get("loss")
        cells = [
            name,
            say(found.status) if found.status in ("finished", "failed", "interrupted") else "",
            str(found.base.get("path", "")),
            "" if found.steps is None else str(found.steps),
            f"{base:.3f}" if isinstance(base, float) else "",
            f"{best:.3f}" if isinstance(best, float) else "",
            say.line(found.verdict or ""),
        ]
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    if not rows:
        return f'<p class="quiet">{escape(say("No run yet."))}</p>'
    head = "".join(f"<th>{escape(say(each))}</th>" for each in HEADS)
    body = "".join(rows)
    return f'<table class="models"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
