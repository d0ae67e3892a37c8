"""What every tab needs: the folders, the words, and how a handler reports errors."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr

from musicgen_lora.errors import UserError, printable
from musicgen_lora.webui.forms import Setting, check
from musicgen_lora.webui.labels import with_labels
from musicgen_lora.webui.safety import id_of
from musicgen_lora.webui.watches import Watches, all_of, inputs_of, outputs_of
from musicgen_lora.webui.words import Words
from musicgen_lora.webui.work.job import Job
from musicgen_lora.webui.work.strip import can_begin
from musicgen_lora.webui.workspace import Workspace

PRIVATE: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""Options of an event that is quick and not part of the API."""
QUIET: dict[str, Any] = {**PRIVATE, "queue": False}
"""Options of an event that only reads."""
SLIDER_WIDTH, FIELD_WIDTH = 180, 110
"""Pixels; with less, two sliders or four fields side by side on a phone are cut off."""
FILES = "/files"
"""Where the server serves files by id."""
Left = TypeVar("Left")
Right = TypeVar("Right")


@dataclass(frozen=True)
class Page:
    """The page in one language.

    Args:
        timer: ticks every few seconds while the page is open, once it has been filled.
        uploads: where Gradio puts uploaded files.
        kept: carries what the browser has kept when the page opens (`assets/webui/page.js`).
            Gradio's own `BrowserState` is still empty at that moment.
    """

    workspace: Workspace
    words: Words
    timer: gr.Timer
    uploads: Path
    watches: Watches = field(default_factory=Watches)
    kept: gr.JSON = field(default_factory=lambda: gr.JSON(visible=False))

    def guarded(self, handler: Callable[..., Any], command: str = "") -> Callable[..., Any]:
        """A handler whose UserError, or full disk, is a line on the page, not a traceback.

        Args:
            command: the one it runs, whose flags are the tab's fields.
        """

        @functools.wraps(handler)
        def run(*values: Any) -> Any:
            try:
                return handler(*values)
            except (UserError, OSError) as error:
                line = self.words.error(error)
                if command:
                    line = with_labels(line, command, self.words)
                line = escape(printable(line))
                raise gr.Error(line, print_exception=False) from error

        return run

    def start_watching(self, demo: gr.Blocks, told: gr.HTML) -> None:
        """Watches from now on, with one request per tick.

        Args:
            told: shows what can't be read.
        """
        first, again = self.watches.first, self.watches.again
        asked, shown = [told, *inputs_of(first)], [told, *outputs_of(first)]
        places = [at for at, component in enumerate(asked) if component is self.kept]
        bring = f"(...values) => window.keptFields.bring({places}, values)"
        opened = demo.load(all_of(first, self.words), asked, shown, js=bring, **QUIET)
        # Only now: a look at the still empty page, answered later, would undo what was chosen.
        opened.then(lambda: gr.Timer(active=True), None, self.timer, **QUIET)
        asked, shown = [told, *inputs_of(again)], [told, *outputs_of(again)]
        self.timer.tick(all_of(again, self.words), asked, shown, **QUIET)
        for listed in {each: None for each in outputs_of(again) if isinstance(each, gr.Dropdown)}:
            if not listed.multiselect:
                # What `still_chosen` says is over once something else is chosen.
                listed.select(lambda: gr.update(info=""), None, listed, **QUIET)

    def submit(self, command: str, settings: dict[str, Any], title: str, folder: Path) -> Job:
        """Checks the settings as the command would, then starts it as a job and says so."""
        check(command, settings)
        job = self.workspace.jobs.submit(
            command, settings, title=title, folder=folder, language=self.words.language
        )
        before = [each for each in self.workspace.jobs.all() if not each.is_over]
        said = "Started: {title}"
        if any(each.id != job.id for each in before):
            said = "Queued behind the running job: {title}"
        if can_begin(job, before):
            said = "Queued; Start now, at the top, runs it alongside the running job: {title}"
        gr.Info(self.words(said, title=escape(title)))
        return job

    def still_chosen(self, choices: list[tuple[str, str]], value: Any) -> Any:
        """As `chosen`, but if the choice is gone, nothing is chosen and the list says so: otherwise
        a click would act on another item."""
        if not value:
            return chosen(choices)
        if value in [identity for _, identity in choices]:
            # Without a value: a choice made since the look began stays.
            return gr.update(choices=choices, info="")
        gone = self.words("What was chosen here no longer exists.")
        return gr.update(choices=choices, value=None, info=gone)

    def address(self, kind: str, *names: str) -> str:
        """The address of a file, by its kind and the names that lead to it."""
        return "/".join([FILES, kind, *map(id_of, names)])

    def fields(self, form: list[Setting], prefix: str) -> list[Any]:
        """One component per setting, with its help, and a field to search them."""
        search = gr.Textbox(
            label=self.words("Search the settings"), elem_id=f"{prefix}-search", max_lines=1
        )
        made: list[Any] = []
        with gr.Row(elem_classes="settings"):
            for setting in form:
                common = {
                    "label": setting.name,
                    "info": self.words.line(setting.help),
                    "elem_id": f"{prefix}-{setting.name}",
                    "min_width": 260,
                }
                if setting.is_switch:
                    made.append(gr.Checkbox(setting.default, **common))
                elif setting.options:
                    made.append(gr.Dropdown(list(setting.options), value=setting.default, **common))
                else:
                    made.append(gr.Textbox(setting.shown, max_lines=1, max_length=1000, **common))

        def show(words: str) -> list[Any]:
            wanted = words.lower().split()
            texts = [
                f"{each.name} {each.help} {self.words.line(each.help)}".lower() for each in form
            ]
            return [gr.update(visible=all(word in text for word in wanted)) for text in texts]

        search.change(show, search, made, **QUIET)
        return made


def side_by_side(
    page: Page, left: Callable[[Page], Left], right: Callable[[Page], Right], *, wider: int = 2
) -> tuple[Left, Right]:
    """Builds two columns of a tab, the right one `wider` times as wide, and returns what they
    return."""
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            built = left(page)
        with gr.Column(scale=wider, min_width=300):
            return built, right(page)


def quiet(line: str) -> str:
    """A line in a subdued style."""
    return f'<p class="quiet">{escape(line)}</p>'


def html_table(kind: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts, with a CSS class of the page."""

    def row(cells: Sequence[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"

    body = "".join(row(cells, "td") for cells in rows)
    return f'<table class="{kind}"><thead>{row(heads, "th")}</thead><tbody>{body}</tbody></table>'


def chosen(choices: list[tuple[str, str]], value: Any = None) -> Any:
    """An update of a list: its choices, and the value if it is among them, else the first."""
    ids = [identity for _, identity in choices]
    value = value if value in ids else (ids[0] if ids else None)
    return gr.update(choices=choices, value=value, info="")
