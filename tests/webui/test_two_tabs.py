"""After one tab changes something, another open tab neither shows it as it was nor silently acts on
it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from made_datasets import read_metadata, write_metadata

pytest.importorskip("gradio", reason="the page's library is not installed (make ui)")

import gradio as gr

from musicgen_lora.errors import UserError
from musicgen_lora.webui.page import Page
from musicgen_lora.webui.safety import id_of
from musicgen_lora.webui.tabs import generate, start
from musicgen_lora.webui.tabs.clips import CHANGED, UNSAVED, ClipTable
from musicgen_lora.webui.tabs.evaluate import Measuring, settings_form
from musicgen_lora.webui.tabs.generate import BASE_ONLY
from musicgen_lora.webui.tabs.models import Shelf
from musicgen_lora.webui.tabs.run import Watching
from musicgen_lora.webui.words import Words
from musicgen_lora.webui.work.job import note_process
from musicgen_lora.webui.workspace import Workspace, choices, preview_names

BEATS = id_of("beats")


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Page:
    """A page with a dataset and no running jobs."""
    monkeypatch.setattr(gr, "Info", lambda *_, **__: None)
    work = Workspace(tmp_path / "workspace", start=lambda place: None)
    (work.datasets / "beats").mkdir()
    write_metadata(work.datasets / "beats", [{"audio": "a.wav", "text": "trap beat"}])
    with gr.Blocks():
        return Page(work, Words("en"), gr.Timer(1), work.root / "uploads")


def test_a_table_that_is_older_than_its_dataset_says_so(page: Page) -> None:
    one, other = ClipTable(page), ClipTable(page)
    rows, read, _ = other.dated(other.rows)(BEATS)
    *_, note, seen = other.look("", BEATS, read)
    assert note == ""
    assert other.look(seen, BEATS, read)[3] == gr.skip()
    (changed,) = one.rows(BEATS)
    path = page.workspace.datasets / "beats" / "metadata.json"
    before = path.stat().st_mtime_ns
    # The tab that saves it has what it has saved.
    _, own, note = one.dated(one.save)(BEATS, [[changed[0], "a trap loop", *changed[2:]]])
    os.utime(path, ns=(before + 10**9, before + 10**9))
    assert note == ""
    assert own != read
    assert read_metadata(path.parent)[0]["text"] == "a trap loop"
    *_, note, seen = other.look(seen, BEATS, read)
    assert CHANGED in note
    assert rows[0][1] == "trap beat"
    rows, read, note = other.dated(other.rows)(BEATS)
    assert (rows[0][1], note) == ("a trap loop", "")
    assert other.look(seen, BEATS, read)[3] == ""


def test_what_is_not_saved_is_not_lost_by_another_choice(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(gr, "Warning", lambda text, **_: told.append(text))
    table, home = ClipTable(page), page.workspace.datasets
    (home / "more").mkdir()
    write_metadata(home / "more", [{"audio": "a.wav", "text": "drill"}])
    more = id_of("more")
    _, rows, read, _ = table.choose(BEATS, [])
    assert (rows[0][1], read) == ("trap beat", str(table.written(BEATS)))
    assert table.choose(more, rows)[1][0][1] == "drill"
    edited = [[rows[0][0], "a trap loop", *rows[0][2:]]]
    assert told == []
    assert table.choose(more, edited) == (BEATS, gr.skip(), gr.skip(), gr.skip())
    assert told == [UNSAVED]
    # Which the list tells in turn.
    assert table.choose(BEATS, edited) == (gr.skip(),) * 4
    for act in (
        lambda: table.prefix(BEATS, edited, "x"),
        lambda: table.replace(BEATS, edited, "t", "x"),
    ):
        with pytest.raises(UserError, match="unsaved changes"):
            act()
    assert read_metadata(home / "beats")[0]["text"] == "trap beat"
    saved = table.save(BEATS, edited)
    assert table.choose(more, saved)[1][0][1] == "drill"
    # A table whose dataset has gone can't be saved any more.
    shutil.rmtree(home / "beats")
    assert table.choose(more, edited)[1][0][1] == "drill"
    assert told == [UNSAVED]


def test_a_dataset_that_comes_is_shown_and_one_that_goes_is_told(
    page: Page,
) -> None:
    table, home = ClipTable(page), page.workspace.datasets
    (home / "new").mkdir()
    new = id_of("new")
    _, read, _ = table.dated(table.rows)(new)
    *_, seen = table.look("", new, read)
    # Its clips come once it is prepared.
    write_metadata(home / "new", [{"audio": "b.wav", "text": "drill"}])
    _, rows, read, _, seen = table.look(seen, new, read)
    assert rows[0][:2] == ["b.wav", "drill"]
    assert table.look(seen, new, read)[1] == gr.skip()
    shutil.rmtree(home / "new")
    choose, *_, seen = table.look(seen, new, read)
    # Not another one, which a click would then be about.
    assert choose["value"] is None
    assert choose["info"] == "What was chosen here no longer exists."
    # The empty choice empties the table, which is no reason to choose another one either.
    *_, seen = table.look(seen, None, read)
    assert table.look(seen, None, "0")[0] == gr.skip()
    (home / "more").mkdir()
    assert table.look(seen, None, "")[0]["info"] == ""


def test_a_look_takes_back_no_choice(page: Page) -> None:
    """It may be answered after another one was chosen."""
    found = choices(["a", "b"])
    assert page.still_chosen(found, id_of("b")) == gr.update(choices=found, info="")


def test_no_other_run_is_shown_in_place_of_one_that_has_gone(page: Page) -> None:
    runs, gone = page.workspace.runs, "What was chosen here no longer exists."
    for name in ("one", "two"):
        (runs / name / "best_model").mkdir(parents=True)
        (runs / name / "best_model" / "adapter_model.safetensors").touch()
    one, view, shelf = id_of("one"), Watching(page), Shelf(page)
    measuring = Measuring(page, settings_form())
    _, names, _, *_, seen = view.look("", "", "", None)
    _, _, measured, *_ = measuring.look("", [], None, None)
    os.rename(runs / "one", runs / "three")
    run, _, _, told, *_ = view.look(seen, names, "", one)
    assert (run["value"], run["info"], told) == (None, gone, "")
    _, model, _ = shelf.look("other", one)
    assert (model["value"], model["info"]) == (None, gone)
    adapters, report, *_ = measuring.look("", measured, [one, id_of("two")], one)
    assert adapters["value"] == [id_of("two")]
    assert (report["value"], report["info"]) == (None, gone)


def test_a_run_that_was_started_here_is_shown_as_it_comes(page: Page) -> None:
    work, view = page.workspace, Watching(page)
    (work.runs / "old").mkdir()
    old, new = id_of("old"), id_of("new")
    _, names, awaited, *_ = view.look("", "", new, old)
    assert awaited == new
    (work.runs / "new").mkdir()
    run, names, awaited, *_ = view.look("", names, awaited, old)
    assert (run["value"], awaited) == (new, "")
    # One that comes of elsewhere takes nobody away from what is looked at.
    (work.runs / "another").mkdir()
    assert "value" not in view.look("", names, awaited, new)[0]


def test_an_adapter_that_has_gone_leaves_the_base_and_says_so(page: Page) -> None:
    runs = page.workspace.runs

    def make(name: str) -> None:
        (runs / name / "best_model").mkdir(parents=True)
        (runs / name / "best_model" / "adapter_model.safetensors").touch()

    make("one")
    make("two")
    with gr.Blocks():
        generate.build(page)
    look = next(look.find for look in page.watches.again if len(look.outputs) == 3)
    *_, listed = look(None, None, None)
    make("three")
    first, second, listed = look(listed, id_of("one"), BASE_ONLY)
    assert first["value"] == id_of("three")
    assert "value" not in second
    os.rename(runs / "one", runs / "four")
    first, *_ = look(listed, id_of("one"), BASE_ONLY)
    assert first["value"] == BASE_ONLY
    assert first["info"] == "What was chosen here no longer exists."


def test_where_to_begin_is_told_until_something_is_made(page: Page) -> None:
    work = page.workspace
    with gr.Blocks():
        start.build(page)
    (look,) = page.watches.again
    shutil.rmtree(work.datasets / "beats")
    shown, seen = look.find(None)
    assert (shown["visible"], seen) == (True, True)
    assert look.find(seen)[0] == gr.skip()
    work.jobs.submit("generate", {}, title="x", folder=work.generated)
    assert look.find(seen)[0]["visible"] is False


def test_a_run_without_figures_says_what_is_done_of_it(page: Page) -> None:
    work, view = page.workspace, Watching(page)
    run = work.runs / "new"
    run.mkdir()
    assert view.show("", id_of("new"))[0] == "There is no data for it."
    job = work.jobs.submit("train", {}, title="new", folder=run)
    assert view.show("", id_of("new"))[0].startswith("It starts when the running job ends;")
    place = work.jobs.folder / job.id
    note_process(place / "working.json", os.getpid())
    (place / "log.txt").write_text("Training\nloading the libraries ...\n")
    told = "The first data arrives in a minute or so. Now: loading the libraries ..."
    assert view.show("", id_of("new"))[0] == told


def test_previews_that_are_being_written_are_not_shown(page: Page) -> None:
    folder = page.workspace.runs / "new" / "previews"
    for name in (".staging-1-base", "base"):
        (folder / name).mkdir(parents=True)
        (folder / name / "00_84-bpm-be.wav").touch()
    assert preview_names(folder) == ["base/00_84-bpm-be.wav"]
    captions = {"preview_prompts": ["84 bpm beat in B minor"]}
    run = {"status": "running", "identity": "x", "started": "", "settings": captions, "base": {}}
    (folder.parent / "run.json").write_text(json.dumps(run))
    assert "84 bpm beat in B minor</figcaption>" in Watching(page).show("", id_of("new"))[2]


def test_nothing_chosen_is_said_as_such(page: Page) -> None:
    assert page.still_chosen(choices(["a"]), None)["value"] == id_of("a")
    for nothing in (None, ""):
        with pytest.raises(UserError, match="Nothing is chosen yet"):
            page.workspace.dataset(nothing)


def test_a_dataset_is_deleted_by_its_name_alone_and_not_while_a_job_reads_it(page: Page) -> None:
    table, home = ClipTable(page), page.workspace.datasets
    (home / "more").mkdir()
    for typed in ("", "beat", "../beats"):
        with pytest.raises(UserError, match="type its name to confirm"):
            table.delete(BEATS, typed)
    job = page.workspace.jobs.submit(
        "train", {"data_dir": str(home / "beats")}, title="x", folder=page.workspace.runs / "x"
    )
    with pytest.raises(UserError, match="in use by a command"):
        table.delete(BEATS, "beats")
    (page.workspace.jobs.folder / job.id / "end.json").write_text('{"code": 0, "at": 1.0}')
    assert table.delete(BEATS, "beats")["value"] == id_of("more")
    assert [path.name for path in home.iterdir()] == ["more"]


@pytest.mark.parametrize("named", ["lora_model_path", "data_dir"])
def test_what_a_waiting_job_reads_is_not_deleted(page: Page, named: str) -> None:
    work = page.workspace
    run = work.runs / "mine"
    (run / "best_model").mkdir(parents=True)
    shelf = Shelf(page)
    place: Any = str(run / "best_model")
    job = work.jobs.submit(
        "generate",
        {"prompts": ["808"], named: [place] if named == "lora_model_path" else place},
        title="808",
        folder=work.generated,
    )
    assert work.jobs.uses(run)
    assert not work.jobs.uses(work.runs / "mi")
    with pytest.raises(UserError, match="in use by a command"):
        shelf.delete(id_of("mine"), "mine")
    (work.jobs.folder / job.id / "end.json").write_text('{"code": 0, "at": 1.0}')
    shelf.delete(id_of("mine"), "mine")
    assert not run.exists()
