"""Data: from a folder or dropped files to a dataset; its clips are in `clips`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from musicgen_lora.errors import UserError
from musicgen_lora.webui.forms import Setting, changed, form_of
from musicgen_lora.webui.kept import Kept, wanted
from musicgen_lora.webui.page import PRIVATE, Page, chosen, side_by_side
from musicgen_lora.webui.safety import (
    AUDIO_SUFFIXES,
    MAX_FILES,
    MAX_UPLOAD_BYTES,
    new_name,
    take_uploads,
)
from musicgen_lora.webui.tabs import clips, start
from musicgen_lora.webui.workspace import choices

N_EXAMPLES = 24


def build(page: Page) -> None:
    start.build(page)
    side_by_side(page, _build_preparation, clips.build)


def _build_preparation(page: Page) -> None:
    say, work, kept = page.words, page.workspace, Kept(page)
    drop = gr.File(
        file_count="multiple",
        file_types=list(AUDIO_SUFFIXES),
        label=say("Drop audio here"),
        elem_id="drop",
        height=160,
    )
    gr.Markdown(
        say("At most {n} files and {gb} GB at once.", n=MAX_FILES, gb=MAX_UPLOAD_BYTES >> 30)
    )
    folder = gr.Dropdown([], label=say("Or choose a folder"), elem_id="audio-folder")
    name = gr.Textbox(label=say("Dataset name"), max_length=60, elem_id="dataset-name")
    form = form_of("prepare", frozenset(("input_dir", "output_dir")))
    fields = kept.advanced(form, "prepare")
    go = gr.Button(say("Prepare"), variant="primary", elem_id="prepare")
    example = gr.Button(say("Make example beats"), elem_id="example")

    preparing = Preparing(page, form)
    go.click(
        page.guarded(preparing.prepare, "prepare"),
        [drop, folder, name, *fields],
        drop,
        **PRIVATE,
    )
    example.click(
        page.guarded(preparing.make_example, "prepare"),
        [name, *fields],
        None,
        **PRIVATE,
    )
    kept.keep([folder, name, *fields], listed=[folder])

    def folders(before: Any) -> Any:
        found = [("—", ""), *choices(list(work.audio_folders()))]
        return chosen(found, wanted(before, "audio-folder"))

    page.watches.when_opened(folders, [kept.state], [folder])


class Preparing:
    """Requests to the `prepare` command.

    Args:
        form: of the settings under "advanced".
    """

    def __init__(self, page: Page, form: list[Setting]) -> None:
        self._page, self._form = page, form

    def prepare(self, files: list[str] | None, chosen_id: Any, typed: str, *values: Any) -> Any:
        """Starts preparing what was dropped, or a folder; clears the drop area."""
        work, page = self._page.workspace, self._page
        if files:
            title = new_name(typed, "beats")
            source = work.audio / title
            self._check_is_of(title, source)
            take_uploads(files, page.uploads, source)
        elif chosen_id:
            source = work.audio_folder(chosen_id)
            title = new_name(typed, "")
            if title:
                self._check_is_of(title, source)
            else:
                title = self._own_name(new_name(source.name, "beats"), source)
        else:
            raise UserError("Choose or drop audio files first.")
        target = work.datasets / title
        folders = {"input_dir": str(source), "output_dir": str(target)}
        page.submit("prepare", folders | changed(self._form, values), title, target)
        return gr.update(value=None)

    def _check_is_of(self, title: str, source: Path) -> None:
        """Raises a UserError if a dataset of that name was made from another folder, whose clips
        would be marked as gone."""
        made_of = self._page.workspace.jobs.made_of(self._page.workspace.datasets / title)
        if made_of not in (None, source):
            raise UserError(f"{title}: was made from {made_of}; choose another name.")

    def _own_name(self, title: str, source: Path) -> str:
        """The first of `title`, `title 2` and so on that isn't a dataset of another folder: names
        that differ only in punctuation, or are in different folders, give the same title."""
        work, name, number = self._page.workspace, title, 1
        while work.jobs.made_of(work.datasets / name) not in (None, source):
            number += 1
            name = f"{title} {number}"
        return name

    def make_example(self, typed: str, *values: Any) -> None:
        """Starts making example beats."""
        work, page = self._page.workspace, self._page
        title = new_name(typed, "example")
        target = work.datasets / title
        settings = {"create_example": True, "num_samples": N_EXAMPLES, "output_dir": str(target)}
        page.submit("prepare", settings | changed(self._form, values), title, target)
