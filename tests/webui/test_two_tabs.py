"""What one tab does, another that is open beside it neither shows as it was nor acts upon without a
word."""

from __future__ import annotations

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
from musicgen_lora.webui.tabs.clips import CHANGED, UNSAVED, ClipTable
from musicgen_lora.webui.tabs.models import Shelf
from musicgen_lora.webui.words import Words
from musicgen_lora.webui.workspace import Workspace, choices

BEATS = id_of("beats")


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Page:
    """A page with a dataset, of which nothing runs."""
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
        with pytest.raises(UserError, match="not saved"):
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
    assert choose["info"] == "What was chosen here is not there any more."
    (home / "more").mkdir()
    assert table.look(seen, None, "")[0]["info"] == ""


def test_a_look_takes_back_no_choice(page: Page) -> None:
    """It may be answered after another one was chosen."""
    found = choices(["a", "b"])
    assert page.still_chosen(found, id_of("b")) == gr.update(choices=found, info="")


def test_nothing_chosen_is_said_as_such(page: Page) -> None:
    assert page.still_chosen(choices(["a"]), None)["value"] == id_of("a")
    for nothing in (None, ""):
        with pytest.raises(UserError, match="Nothing is chosen yet"):
            page.workspace.dataset(nothing)


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
