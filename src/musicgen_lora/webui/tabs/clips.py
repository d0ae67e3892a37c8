"""The clips of a dataset as a table: each can be heard; caption, tempo and key can be edited."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from musicgen_lora.errors import UserError
from musicgen_lora.webui import edits
from musicgen_lora.webui.page import PRIVATE, QUIET, Page, chosen, quiet
from musicgen_lora.webui.players import Side, player
from musicgen_lora.webui.safety import folders_of, id_of
from musicgen_lora.webui.workspace import (
    METADATA,
    REPORT,
    choices,
    prepared,
    trained_entries,
    warnings_of,
    written_at,
)

HEADERS = ("File", "Caption", "Tempo", "Key", "Length", "Warnings", "Waveform")
CHANGED = "The dataset has changed since this table was loaded: reload the table."
UNSAVED = "The table has unsaved changes: save it, or reload it to discard them."
MADE = "Clips: {clips}, minutes: {minutes}, files left out: {left_out}."
MAX_ROWS = 2_000
_MARK = re.compile(r'data-of="([0-9a-f]+)" data-read="((?:[0-9a-f]{8} ){2}[0-9a-f]{8})"')
Rows = list[list[str]]


class ClipTable:
    """The handlers for the clips of a dataset."""

    def __init__(self, page: Page) -> None:
        self._page, self._work = page, page.workspace

    def rows(self, wanted: Any) -> Rows:
        if not wanted:
            return []
        folder = self._work.dataset(wanted)
        warned = warnings_of(folder)
        found = []
        for entry in trained_entries(folder)[:MAX_ROWS]:
            seconds = entry.get("duration_s")
            length = f"{seconds:.1f}" if isinstance(seconds, (int, float)) else ""
            told = "; ".join(warned.get(str(entry.get("source")), []))
            row = edits.row_of(entry)
            wave = f"{self._page.address('clip')}/{wanted}/{id_of(row[0])}/wave"
            # The row itself carries what it was loaded as: a server forgets, and tables get sorted.
            marks = f'data-of="{wanted}" data-read="{edits.mark_of(row)}"'
            image = f'<img class="wave" {marks} loading="lazy" src="{wave}">'
            found.append([*row, length, told, image])
        return found

    def hear(self, wanted: Any, at: gr.SelectData) -> str:
        """A player for the selected row."""
        row = at.row_value
        if not wanted or not row or not row[0]:
            return ""
        name, length = str(row[0]), str(row[4]) if len(row) > 4 else ""
        path = self._work.clip(wanted, id_of(name))
        address = f"{self._page.address('clip')}/{wanted}/{id_of(name)}"
        seconds = float(length) if length.replace(".", "", 1).isdecimal() else 0.0
        side = Side(name, address, at=written_at(path))
        return player([side], name, self._page.words, details=str(row[1]), duration_s=seconds)

    def save(self, wanted: Any, shown: list[list[Any]]) -> Rows:
        rows, found = _as_read(shown)
        marks = {name: mark for name, (_, mark) in found.items()}
        return self._told(wanted, edits.save_rows(self._work.dataset(wanted), rows, marks))

    def choose(self, wanted: Any, shown: list[list[Any]]) -> Any:
        """The chosen dataset, its rows, when they were written, and no notice; the previous one
        stays while the table has unsaved changes of it."""
        before = _unsaved(shown)
        if before and before == wanted:
            return (gr.skip(),) * 4
        if before in map(id_of, folders_of(self._work.datasets)):
            gr.Warning(self._page.words(UNSAVED))
            return before, *(gr.skip(),) * 3
        return gr.skip(), *self._dated(wanted, self.rows(wanted))

    def replace(self, wanted: Any, shown: list[list[Any]], what: str, by: str) -> Rows:
        _check_saved(shown)
        count = edits.replace_in_captions(self._work.dataset(wanted), what, by)
        return self._told(wanted, count)

    def prefix(self, wanted: Any, shown: list[list[Any]], word: str) -> Rows:
        _check_saved(shown)
        return self._told(wanted, edits.prefix_captions(self._work.dataset(wanted), word))

    def delete(self, wanted: Any, name: Any) -> Any:
        """Deletes a dataset whose name was typed, then chooses another one."""
        home = self._work.datasets
        gone = self._work.delete(home, wanted, name)
        gr.Info(self._page.words("Deleted: {name}", name=escape(gone)))
        return chosen(choices(folders_of(home)))

    def look(self, before: str, wanted: Any, read: str) -> Any:
        """The datasets that exist, the rows of one that was just made, and whether the table is
        older than its dataset."""
        found, say = choices(folders_of(self._work.datasets)), self._page.words
        at = self.written(wanted) if wanted in [identity for _, identity in found] else 0
        # A dataset that is still being prepared has no clips when it is chosen.
        came, is_old = bool(at) and read == "0", read not in ("", "0", str(at))
        names = repr(sorted(found))
        now = "\n".join([names, repr((wanted, came, is_old))])
        if now == before:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip(), before
        # Only if the list is another: of one that is gone, nothing is chosen instead.
        is_listed = before.partition("\n")[0] == names
        choose = gr.skip() if is_listed else self._page.still_chosen(found, wanted)
        rows, stamp = (self.rows(wanted), str(at)) if came else (gr.skip(), gr.skip())
        return choose, rows, stamp, quiet(say(CHANGED)) if is_old and at else "", now

    def told(self, before: str, wanted: Any) -> Any:
        """A line on what a dataset was made from, with its report, if it has changed."""
        work, say = self._work, self._page.words
        is_there = wanted in map(id_of, folders_of(work.datasets))
        folder = work.dataset(wanted) if is_there else None
        at = written_at(folder / REPORT) if folder else 0
        now = f"{wanted} {at}"
        if now == before:
            return gr.skip(), before
        if folder is None or not at:
            return "", now
        address = f"{self._page.address('preparation')}/{wanted}?at={at}"
        report = say("Report: what to fix first, and what was left out")
        line = escape(say(MADE, **_summary(folder)))
        return f'<p>{line} <a href="{address}" target="_blank">{report}</a></p>', now

    def written(self, wanted: Any) -> int:
        """When a dataset's metadata was written, in nanoseconds; 0 if there is none."""
        return written_at(self._work.dataset(wanted) / METADATA) if wanted else 0

    def dated(self, handler: Callable[..., Rows]) -> Callable[..., Any]:
        """Wraps a handler to also return when its rows were written, and to clear the stale
        notice."""

        def run(wanted: Any, *values: Any) -> Any:
            return self._dated(wanted, handler(wanted, *values))

        return self._page.guarded(run)

    def _dated(self, wanted: Any, rows: Rows) -> tuple[Rows, str, str]:
        return rows, str(self.written(wanted)), ""

    def _told(self, wanted: Any, count: int) -> Rows:
        say = self._page.words
        gr.Info(say("Clips changed: {n}", n=count))
        return self.rows(wanted)


def _summary(folder: Path) -> dict[str, str]:
    """How many clips and minutes a preparation made, and how many files it left out."""
    known = prepared(folder).get("summary")
    known = known if isinstance(known, dict) else {}
    names = {"clips": "clips", "minutes": "minutes", "left_out": "dropped_files"}
    return {name: str(known.get(key, "?")) for name, key in names.items()}


def _as_read(shown: list[list[Any]]) -> tuple[list[edits.Row], dict[str, tuple[str, str]]]:
    """Rows of a table as a browser sends them; and by name, which dataset each was loaded from, and
    as what."""
    given = [["" if v is None else str(v) for v in row] for row in shown or []]
    whole = [row for row in given if len(row) == len(HEADERS)]
    found = {row[0]: (mark[1], mark[2]) for row in whole if (mark := _MARK.search(row[-1]))}
    return [(row[0], row[1], row[2], row[3]) for row in whole], found


def _unsaved(shown: list[list[Any]]) -> str:
    """Id of the dataset whose rows have been changed in a table; "" if none."""
    rows, found = _as_read(shown)
    read = ((edits.mark_of(row), *found[row[0]]) for row in rows if row[0] in found)
    return next((dataset for now, dataset, mark in read if now != mark), "")


def _check_saved(shown: list[list[Any]]) -> None:
    """Raises a UserError if reloading a table would discard what was typed into it."""
    if _unsaved(shown):
        raise UserError(UNSAVED)


def build(page: Page) -> None:
    say, clips = page.words, ClipTable(page)
    dataset = gr.Dropdown([], label=say("Dataset"), elem_id="dataset")
    told, told_of = gr.HTML(elem_id="clips-report"), gr.State("")
    table = _table(page)
    heard = gr.HTML(elem_id="clip-player")
    with gr.Row():
        save = gr.Button(say("Save the table"), variant="primary", elem_id="save-clips")
        reload = gr.Button(say("Reload the table"), elem_id="reload-clips")
    old = gr.HTML(elem_id="clips-old")
    shown = [table, gr.State(""), old]
    changing = _build_bulk(page, clips, [dataset, table], shown)
    gr.Markdown(
        say(
            "When the dataset is prepared again, generated captions follow corrected tempos and "
            "keys; what you wrote stays."
        )
    )
    seen = gr.State("")
    looked = [dataset, *shown, seen]
    page.watches.always(clips.look, [seen, dataset, shown[1]], looked)
    page.watches.when_opened(lambda: clips.look("", None, ""), [], looked)
    telling = [clips.told, [told_of, dataset], [told, told_of]]
    page.watches.always(*telling)
    dataset.change(*telling, **QUIET)
    choosing = page.guarded(clips.choose)
    dataset.change(choosing, [dataset, table], [dataset, *shown], **PRIVATE)
    read = reload.click(clips.dated(clips.rows), dataset, shown, **PRIVATE)
    table.select(page.guarded(clips.hear), dataset, heard, **QUIET)
    saved = save.click(clips.dated(clips.save), [dataset, table], shown, **PRIVATE)
    # A page reload would silently discard it.
    table.input(None, None, None, js="() => { window.unsavedClips = true; }", **QUIET)
    for done in (read, saved, *changing, _build_deletion(page, clips, dataset)):
        done.success(None, None, None, js="() => { window.unsavedClips = false; }", **QUIET)


def _table(page: Page) -> gr.Dataframe:
    say = page.words
    return gr.Dataframe(
        [],
        headers=[say(name) for name in HEADERS],
        type="array",
        datatype=["str", "str", "str", "str", "str", "str", "html"],
        column_count=len(HEADERS),
        static_columns=[0, 4, 5, 6],
        column_widths=["125px", "210px", "75px", "90px", "90px", "100px", "110px"],
        wrap=True,
        show_search="search",
        interactive=True,
        max_height=420,
        buttons=[],
        label=say("Click a row to hear it; captions, tempos and keys can be edited"),
        elem_id="clips",
    )


def _build_deletion(page: Page, clips: ClipTable, dataset: gr.Dropdown) -> Any:
    """Builds the deletion of the chosen dataset; returns the event."""
    say = page.words
    with gr.Accordion(say("Delete the dataset"), open=False, elem_id="delete-dataset-box"):
        typed = gr.Textbox(
            label=say("Type the dataset's name to delete it permanently"),
            info=say(
                "The audio it was made from and the runs stay, but an unfinished run can't be "
                "resumed any more."
            ),
            max_lines=1,
            elem_id="delete-dataset-name",
        )
        delete = gr.Button(say("Delete"), variant="stop", elem_id="delete-dataset")
    deleted = delete.click(page.guarded(clips.delete), [dataset, typed], dataset, **PRIVATE)
    deleted.success(lambda: "", None, typed, **QUIET)
    return deleted


def _build_bulk(page: Page, clips: ClipTable, asked: list[Any], shown: list[Any]) -> list[Any]:
    """Builds the bulk edits of captions; returns the events.

    Args:
        asked: the dataset's list, and the table.
        shown: outputs of a `dated` handler.
    """
    say = page.words
    with gr.Accordion(say("Edit all captions"), open=False):
        with gr.Row():
            find = gr.Textbox(label=say("Find"), max_lines=1, elem_id="find")
            put = gr.Textbox(label=say("Replace with"), max_lines=1, elem_id="replace")
            replace = gr.Button(say("Replace in all"), elem_id="replace-all")
        with gr.Row():
            prefix = gr.Textbox(
                label=say("Word to prepend, such as a trigger word"),
                max_lines=1,
                elem_id="prefix",
            )
            put_first = gr.Button(say("Put in front of all"), elem_id="prefix-all")
    return [
        replace.click(clips.dated(clips.replace), [*asked, find, put], shown, **PRIVATE),
        put_first.click(clips.dated(clips.prefix), [*asked, prefix], shown, **PRIVATE),
    ]
