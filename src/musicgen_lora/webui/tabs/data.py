"""Data: from a folder or dropped files to a dataset whose captions one has read."""

from __future__ import annotations

from typing import Any

import gradio as gr

from musicgen_lora.errors import UserError
from musicgen_lora.webui import edits
from musicgen_lora.webui.drawing import player
from musicgen_lora.webui.forms import changed, form_of
from musicgen_lora.webui.page import Page, chosen
from musicgen_lora.webui.safety import (
    AUDIO_SUFFIXES,
    MAX_FILES,
    MAX_UPLOAD_BYTES,
    folders_of,
    id_of,
    new_name,
    take_uploads,
)
from musicgen_lora.webui.workspace import METADATA, choices, trained_entries, warnings_of

HEADERS = ("File", "Caption", "Tempo", "Key", "Seconds", "Warnings")
N_EXAMPLES = 24
MAX_ROWS = 2_000


def build(page: Page, demo: gr.Blocks) -> None:
    """Builds the tab."""
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            _build_preparation(page, demo)
        with gr.Column(scale=2, min_width=300):
            _build_table(page, demo)


def _build_preparation(page: Page, demo: gr.Blocks) -> None:
    """What is read, and into which dataset."""
    say, work = page.words, page.workspace
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
    folder = gr.Dropdown([], label=say("Or a folder"), elem_id="audio-folder")
    name = gr.Textbox(label=say("Name of the dataset"), max_length=60, elem_id="dataset-name")
    own = frozenset(("input_dir", "output_dir"))
    form = form_of("prepare", own)
    with gr.Accordion(say("Advanced settings"), open=False):
        fields = page.fields(form, "prepare")
    go = gr.Button(say("Prepare"), variant="primary", elem_id="prepare")
    example = gr.Button(say("Make example beats"), elem_id="example")

    def prepare(files: list[str] | None, wanted: Any, typed: str, *values: Any) -> Any:
        if files:
            title = new_name(typed, "beats")
            source = work.audio / title
            take_uploads(files, page.uploads, source)
        elif wanted:
            source = work.audio_folder(wanted)
            title = new_name(typed, new_name(source.name, "beats"))
        else:
            raise UserError("Choose or drop audio files first.")
        target = work.datasets / title
        settings = {"input_dir": str(source), "output_dir": str(target)} | changed(form, values)
        page.submit("prepare", settings, title, target)
        return gr.update(value=None)

    def make_example(typed: str, *values: Any) -> None:
        title = new_name(typed, "example")
        target = work.datasets / title
        settings = {"create_example": True, "num_samples": N_EXAMPLES, "output_dir": str(target)}
        page.submit("prepare", settings | changed(form, values), title, target)

    go.click(page.guarded(prepare), [drop, folder, name, *fields], drop, api_visibility="private")
    example.click(page.guarded(make_example), [name, *fields], None, api_visibility="private")
    demo.load(
        lambda: chosen([("—", ""), *choices(list(work.audio_folders()))], ""),
        None,
        folder,
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )


def _build_table(page: Page, demo: gr.Blocks) -> None:
    """What a dataset has, its captions to be edited."""
    say, work = page.words, page.workspace
    dataset = gr.Dropdown([], label=say("Dataset"), elem_id="dataset")
    headers = [say(name) for name in HEADERS]
    table = gr.Dataframe(
        [],
        headers=headers,
        type="array",
        datatype="str",
        column_count=len(headers),
        static_columns=[0, 4, 5],
        column_widths=["18%", "36%", "11%", "12%", "11%", "12%"],
        wrap=True,
        show_search="search",
        interactive=True,
        max_height=420,
        buttons=[],
        label=say("Click a row to hear it; write into captions, tempi and keys"),
        elem_id="clips",
    )
    heard = gr.HTML(elem_id="clip-player")
    with gr.Row():
        save = gr.Button(say("Save the table"), variant="primary", elem_id="save-clips")
        reload = gr.Button(say("Read it again"), elem_id="reload-clips")
    with gr.Accordion(say("All captions at once"), open=False):
        with gr.Row():
            find = gr.Textbox(label=say("Find"), max_lines=1, elem_id="find")
            put = gr.Textbox(label=say("Replace by"), max_lines=1, elem_id="replace")
            replace = gr.Button(say("Replace in all"), elem_id="replace-all")
        with gr.Row():
            prefix = gr.Textbox(
                label=say("Word in front, such as a trigger word"), max_lines=1, elem_id="prefix"
            )
            put_first = gr.Button(say("Put in front of all"), elem_id="prefix-all")
    gr.Markdown(
        say(
            "Captions made by the program follow a corrected tempo or key when the dataset "
            "is prepared again; what you wrote stays."
        )
    )
    names = gr.State("")

    def rows(wanted: Any) -> list[list[str]]:
        if not wanted:
            return []
        folder = work.dataset(wanted)
        warned = warnings_of(folder)
        found = []
        for entry in trained_entries(folder)[:MAX_ROWS]:
            seconds = entry.get("duration_s")
            length = f"{seconds:.1f}" if isinstance(seconds, (int, float)) else ""
            told = "; ".join(warned.get(str(entry.get("source")), []))
            found.append([*edits.row_of(entry), length, told])
        return found

    def hear(wanted: Any, at: gr.SelectData) -> str:
        row = at.row_value
        if not wanted or not row or not row[0]:
            return ""
        file = str(row[0])
        address = f"{page.address('clip')}/{wanted}/{id_of(file)}"
        work.clip(wanted, id_of(file))
        return player(address, file, details=str(row[1]))

    def save_table(wanted: Any, shown: list[list[Any]]) -> list[list[str]]:
        given = [tuple("" if v is None else str(v) for v in row[:4]) for row in shown or []]
        count = edits.save_rows(work.dataset(wanted), [row for row in given if len(row) == 4])
        gr.Info(say("Clips changed: {n}", n=count), title=say("Dataset"))
        return rows(wanted)

    def replace_all(wanted: Any, what: str, by: str) -> list[list[str]]:
        count = edits.replace_in_captions(work.dataset(wanted), what, by)
        gr.Info(say("Clips changed: {n}", n=count), title=say("Dataset"))
        return rows(wanted)

    def prefix_all(wanted: Any, word: str) -> list[list[str]]:
        count = edits.prefix_captions(work.dataset(wanted), word)
        gr.Info(say("Clips changed: {n}", n=count), title=say("Dataset"))
        return rows(wanted)

    def look(before: str, wanted: Any) -> Any:
        found = choices(folders_of(work.datasets))
        ids = [identity for _, identity in found]
        is_there = wanted in ids and (work.dataset(wanted) / METADATA).is_file()
        now = repr((sorted(found), wanted, is_there))
        if now == before:
            return gr.skip(), gr.skip(), before
        # What is being prepared has no clips when it is chosen.
        came = is_there and before == repr((sorted(found), wanted, False))
        return chosen(found, wanted), rows(wanted) if came else gr.skip(), now

    quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    private: dict[str, Any] = {"api_visibility": "private"}
    seen = [dataset, table, names]
    page.timer.tick(page.guarded(look), [names, dataset], seen, **quiet)
    demo.load(lambda: look("", None), None, seen, **quiet)
    dataset.change(page.guarded(rows), dataset, table, **private)
    reload.click(page.guarded(rows), dataset, table, **private)
    table.select(page.guarded(hear), dataset, heard, **quiet)
    save.click(page.guarded(save_table), [dataset, table], table, **private)
    replace.click(page.guarded(replace_all), [dataset, find, put], table, **private)
    put_first.click(page.guarded(prefix_all), [dataset, prefix], table, **private)
