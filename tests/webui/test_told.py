"""What the page reports: what became of a dataset, a full disk, a model's card."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the page's library is not installed (make ui)")

import gradio as gr
from fastapi.testclient import TestClient

from musicgen_lora.webui import ui
from musicgen_lora.webui.page import Page
from musicgen_lora.webui.safety import id_of
from musicgen_lora.webui.server import make_app
from musicgen_lora.webui.tabs.clips import ClipTable
from musicgen_lora.webui.tabs.models import Shelf
from musicgen_lora.webui.watches import Look, all_of
from musicgen_lora.webui.words import Words, beginning
from musicgen_lora.webui.workspace import Workspace


def test_what_was_left_out_is_told_where_the_clips_are(tmp_path: Path) -> None:
    work = Workspace(tmp_path / "w", start=lambda place: None)
    folder, beats = work.datasets / "beats", id_of("beats")
    folder.mkdir()
    with gr.Blocks():
        table = ClipTable(Page(work, Words("en"), gr.Timer(1), tmp_path))
    assert table.told("", beats)[0] == ""
    summary = {"clips": 41, "minutes": 12.6, "dropped_files": 12}
    (folder / "report.json").write_text(json.dumps({"summary": summary}))
    (folder / "report.html").write_text("<html>left out</html>")
    html, seen = table.told("", beats)
    assert "Clips: 41, minutes: 12.6, files left out: 12." in html
    assert table.told(seen, beats)[0] == gr.skip()
    address = html.split('href="')[1].split('"')[0]
    with TestClient(
        make_app(work, "en", ui.LOCAL_HOSTS, ""), base_url="http://127.0.0.1"
    ) as client:
        answer = client.get(address)
        assert answer.text == "<html>left out</html>"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert client.get("/files/preparation/..").status_code == 404
        (folder / "report.html").unlink()
        assert client.get(address).status_code == 404
    # A report of another program's, and a dataset that has gone.
    (folder / "report.json").write_text("[]")
    (folder / "report.html").touch()
    assert "Clips: ?" in table.told("", beats)[0]
    assert table.told("", id_of("gone"))[0] == ""


def test_a_full_disk_is_said_and_leaves_no_half_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pressing a button used to do nothing and say nothing."""
    work = Workspace(tmp_path / "w", start=lambda place: None)
    with gr.Blocks():
        page = Page(work, Words("zh"), gr.Timer(1), tmp_path)

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "write_text", refuse)
    press = page.guarded(lambda: page.submit("generate", {"prompts": ["a"]}, "a", work.generated))
    with pytest.raises(gr.Error, match=r"settings\.yaml：磁盘空间不足"):
        press()
    assert [path for path in work.jobs.folder.iterdir() if path.is_dir()] == []

    told = all_of([Look(lambda: refuse(tmp_path / "x"), [], [None])], Words("zh"))("")[0]
    assert "磁盘空间不足" in told


def test_a_card_is_shown_without_what_a_hub_reads(tmp_path: Path) -> None:
    work = Workspace(tmp_path / "w", start=lambda place: None)
    best = work.runs / "one" / "best_model"
    best.mkdir(parents=True)
    with gr.Blocks():
        shelf = Shelf(Page(work, Words("zh"), gr.Timer(1), tmp_path))
    for written, shown in (
        ("---\nlicense: mit\n---\n# A card\n---\nend", "# A card\n---\nend"),
        ("no head ---\n<b>", "no head ---\n&lt;b&gt;"),
    ):
        (best / "README.md").write_text(written)
        assert shelf.card(id_of("one")) == f"<pre class='card'>{shown}</pre>"


def test_a_text_that_is_too_long_says_so() -> None:
    assert beginning("暗" * 60) == "暗" * 60
    assert beginning("暗" * 61) == "暗" * 59 + "…"
