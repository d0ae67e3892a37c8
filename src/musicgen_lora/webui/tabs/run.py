"""A run as it goes: its losses, what came of it in words, and its previews beside the base's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from musicgen_lora.training.record.run import Run
from musicgen_lora.training.record.run_folder import METRICS_FILE, PREVIEWS, read_metrics
from musicgen_lora.webui.curves import curves
from musicgen_lora.webui.page import QUIET, Page, chosen
from musicgen_lora.webui.players import Side, player
from musicgen_lora.webui.safety import folders_of, id_of
from musicgen_lora.webui.workspace import choices, preview_names, run_of, written_at

BASE = "base"
LATEST = 4
"""Steps whose previews are shown; the first ones differ least from the base."""


def build(page: Page) -> None:
    """Builds what shows a run and has it follow the run's folder."""
    say = page.words
    run = gr.Dropdown([], label=say("Run"), elem_id="run")
    shown = [
        gr.Markdown(elem_id="verdict"),
        gr.HTML(elem_id="loss"),
        gr.HTML(elem_id="previews"),
    ]
    seen, names = gr.State(""), gr.State("")
    view = Watching(page)
    outputs = [run, names, *shown, seen]
    page.watches.always(view.look, [seen, names, run], outputs)
    page.watches.when_opened(lambda: view.look("", "", None), [], outputs)
    run.change(page.guarded(view.show), [seen, run], outputs[2:], **QUIET)


class Watching:
    """What is seen of runs."""

    def __init__(self, page: Page) -> None:
        self._page, self._work = page, page.workspace

    def look(self, before: str, listed: str, wanted: Any) -> Any:
        """The runs there are, and the one that is chosen."""
        folders = folders_of(self._work.runs)
        # The order changes while a run is written to; which there are is what counts.
        now = repr(sorted(folders))
        runs = gr.skip() if now == listed else chosen(choices(folders), wanted)
        if wanted not in map(id_of, folders):
            wanted = id_of(folders[0]) if folders else None
        return runs, now, *self.show(before, wanted)

    def show(self, before: str, wanted: Any) -> Any:
        """A run, if it is another than before or has changed since."""
        if not wanted:
            return "", "", "", "none"
        folder = self._work.run(wanted)
        metrics = folder / METRICS_FILE
        state = metrics.stat() if metrics.is_file() else None
        previews = preview_names(folder / PREVIEWS)
        told = _told(run_of(folder), self._page)
        now = repr((wanted, state and (state.st_size, state.st_mtime_ns), previews, told))
        if now == before:
            return gr.skip(), gr.skip(), gr.skip(), before
        drawn = curves(read_metrics(folder) if state else [], self._page.words)
        return told, drawn, self._previews(wanted, previews), now

    def _previews(self, wanted: str, names: list[str]) -> str:
        """A player a prompt: the base, then the latest steps."""
        folder = self._work.run(wanted) / PREVIEWS
        prompts: dict[str, dict[str, str]] = {}
        for name in sorted(names):
            played_by, _, clip = name.rpartition("/")
            prompts.setdefault(clip, {})[played_by] = name
        found = []
        for clip, by in sorted(prompts.items()):
            steps = [each for each in sorted(by) if each != BASE][-LATEST:]
            place = f"{self._page.address('preview')}/{wanted}"
            sides = [
                Side(self._side_name(each), f"{place}/{id_of(name)}", at=written_at(folder / name))
                for each, name in by.items()
                if each == BASE or each in steps
            ]
            label = Path(clip).stem.partition("_")[2].replace("-", " ")
            found.append(player(sides, label, self._page.words))
        return "".join(found)

    def _side_name(self, played_by: str) -> str:
        if played_by == BASE:
            return self._page.words("base")
        step = played_by.rpartition("-")[2]
        return self._page.words("step {n}", n=int(step)) if step.isdecimal() else played_by


def _told(found: Run | None, page: Page) -> str:
    """A run in words."""
    if found is None:
        return page.words("It has not begun yet.")
    if found.verdict:
        return page.words.line(found.verdict)
    base = found.base_loss.get("loss") if found.base_loss else None
    return page.words("The base's held-out loss is {loss}.", loss=f"{base:.3f}") if base else ""
