"""A run as it progresses: its losses, its verdict in words, and its previews beside the base's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from musicgen_lora.training.record.run import Run
from musicgen_lora.training.record.run_folder import BASE, METRICS_FILE, PREVIEWS, read_metrics
from musicgen_lora.webui.curves import curves
from musicgen_lora.webui.page import QUIET, Page, chosen
from musicgen_lora.webui.players import Side, player
from musicgen_lora.webui.safety import folders_of, id_of
from musicgen_lora.webui.work.strip import waiting
from musicgen_lora.webui.workspace import choices, preview_names, written_at

LATEST = 4
"""Number of latest steps whose previews are shown; the first ones differ least from the base."""


def build(page: Page, awaited: gr.State) -> None:
    """Builds the view of a run and has it follow the run's folder.

    Args:
        awaited: id of a run that was started and should be shown; "" for none.
    """
    say = page.words
    run = gr.Dropdown([], label=say("Run"), elem_id="run")
    shown = [
        gr.Markdown(elem_id="verdict"),
        gr.HTML(elem_id="loss"),
        gr.HTML(elem_id="previews"),
    ]
    seen, names = gr.State(""), gr.State("")
    view = Watching(page)
    outputs = [run, names, awaited, *shown, seen]
    page.watches.always(view.look, [seen, names, awaited, run], outputs)
    page.watches.when_opened(lambda: view.look("", "", "", None), [], outputs)
    run.change(page.guarded(view.show), [seen, run], [*shown, seen], **QUIET)


class Watching:
    """The view of runs."""

    def __init__(self, page: Page) -> None:
        self._page, self._work = page, page.workspace

    def look(self, before: str, listed: str, awaited: str, wanted: Any) -> Any:
        """The runs that exist, and the one that is chosen.

        Args:
            awaited: id of the run that was last started here, until it appears.
        """
        folders = folders_of(self._work.runs)
        # The order changes while a run is written to; only which runs exist counts.
        now = repr(sorted(folders))
        there = map(id_of, folders)
        if awaited and awaited in there:
            # What was started here is shown as it appears.
            runs, wanted, awaited = chosen(choices(folders), awaited), awaited, ""
        elif now == listed:
            runs = gr.skip()
        else:
            runs = self._page.still_chosen(choices(folders), wanted)
            wanted = wanted or (id_of(folders[0]) if folders else None)
        if wanted not in map(id_of, folders):
            wanted = None
        return runs, now, awaited, *self.show(before, wanted)

    def show(self, before: str, wanted: Any) -> Any:
        """A run, if another one is chosen or it has changed."""
        if not wanted:
            empty = gr.skip() if before == "none" else ""
            return empty, empty, empty, "none"
        folder = self._work.run(wanted)
        metrics = folder / METRICS_FILE
        state = metrics.stat() if metrics.is_file() else None
        previews = preview_names(folder / PREVIEWS)
        told = _told(Run.read(folder), self._page) or self._doing(folder)
        now = repr((wanted, state and (state.st_size, state.st_mtime_ns), previews, told))
        if now == before:
            return gr.skip(), gr.skip(), gr.skip(), before
        drawn = curves(read_metrics(folder) if state else [], self._page.words)
        return told, drawn, self._previews(wanted, previews), now

    def _doing(self, folder: Path) -> str:
        """What the command of a run without data is doing."""
        jobs, say = self._work.jobs, self._page.words
        job = next((job for job in jobs.all() if job.folder == folder), None)
        if job is None or job.is_over:
            return say("There is no data for it.")
        if job.status == "waiting":
            return waiting(say)
        return say(
            "The first data arrives in a minute or so. Now: {line}", line=jobs.last_line(job.id)
        )

    def _previews(self, wanted: str, names: list[str]) -> str:
        """One player per prompt: the base, then the latest steps."""
        folder = self._work.run(wanted) / PREVIEWS
        found_run = Run.read(folder.parent)
        captions = found_run.settings.get("preview_prompts") if found_run else None
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
            # A single side has no button that names it.
            alone = sides[0].name if len(sides) == 1 else ""
            found.append(player(sides, _caption(clip, captions), self._page.words, details=alone))
        return "".join(found)

    def _side_name(self, played_by: str) -> str:
        if played_by == BASE:
            return self._page.words("base")
        step = played_by.rpartition("-")[2]
        return self._page.words("step {n}", n=int(step)) if step.isdecimal() else played_by


def _caption(clip: str, captions: Any) -> str:
    """The prompt of a preview, whose file name has its beginning."""
    number, _, words = Path(clip).stem.partition("_")
    if number.isdecimal() and isinstance(captions, list) and int(number) < len(captions):
        return str(captions[int(number)])
    return words.replace("-", " ")


def _told(found: Run | None, page: Page) -> str:
    """A run in words; "" before its first data."""
    if found is None:
        return ""
    if found.verdict:
        return page.words.line(found.verdict)
    base = found.base_loss.get("loss") if found.base_loss else None
    return page.words("The base's held-out loss is {loss}.", loss=f"{base:.3f}") if base else ""
