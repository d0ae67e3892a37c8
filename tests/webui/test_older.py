"""Takes older than those listed at first."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the page's library is not installed (make ui)")
pytest.importorskip("playwright", reason="playwright is not installed")

import gradio as gr
from playwright.sync_api import Browser, expect
from served_page import WIDE, Served, open_page, tab

from musicgen_lora.audio.files import write_wav
from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.webui import workspace
from musicgen_lora.webui.page import Page
from musicgen_lora.webui.safety import id_of
from musicgen_lora.webui.tabs import history
from musicgen_lora.webui.tabs.recordings import LISTED, AskedRecording, Fields
from musicgen_lora.webui.words import Words
from musicgen_lora.webui.workspace import Workspace


def make_takes(folder: Path, count: int) -> None:
    """Takes numbered in their order."""
    for number in range(count):
        (folder / f"{number:03}.wav").write_bytes(b"x")
        (folder / f"{number:03}.json").write_text(json.dumps({"prompt": f"take {number:03}"}))
        os.utime(folder / f"{number:03}.wav", (number + 1e9, number + 1e9))


@pytest.fixture
def page(tmp_path: Path) -> Page:
    work = Workspace(tmp_path, start=lambda place: None)
    with gr.Blocks():
        page = Page(work, Words("en"), gr.Timer(1), tmp_path)
        history.build(page)
    return page


def test_a_look_reads_nothing_of_takes_that_it_has_shown(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, (look,) = page.workspace.generated, page.watches.again
    make_takes(folder, history.SHOWN + 6)
    html, older, seen = look.find("", history.SHOWN)
    assert html.count("<figure") == history.SHOWN
    assert (older["value"], older["visible"]) == ("Show older clips (6 more)", True)
    read: list[Path] = []
    monkeypatch.setattr(workspace, "facts_of", lambda sound: read.append(sound))
    assert look.find(seen, history.SHOWN) == (gr.skip(), gr.skip(), seen)
    assert read == []
    monkeypatch.undo()
    html, older, seen = look.find(seen, 2 * history.SHOWN)
    assert html.count("<figure") == history.SHOWN + 6
    assert not older["visible"]
    # Half of a pair is none, until the other half comes.
    (folder / "new.wav").write_bytes(b"x")
    assert look.find(seen, 2 * history.SHOWN)[2] == seen
    (folder / "new.json").write_text("{}")
    assert look.find(seen, 2 * history.SHOWN)[0].count("<figure") == history.SHOWN + 7


def test_an_older_take_is_taken_up(page: Page) -> None:
    make_takes(page.workspace.generated, LISTED + 5)
    with gr.Blocks():
        fields = Fields(page)
    for name in ("000.wav", "104.wav"):
        chosen, *_ = fields.filled(AskedRecording(id_of(name)))
        listed = [identity for _, identity in chosen["choices"]]
        assert listed.count(chosen["value"]) == 1


def test_older_takes_are_shown_on_request(browser: Browser, served: Served) -> None:
    folder = served.workspace / "generated"
    make_takes(folder, 2 * history.SHOWN + 2)
    write_wav(folder / "000.wav", render_beat(make_beat(0, duration_s=1.0), 32_000, seed=0), 32_000)
    os.utime(folder / "000.wav", (1e9, 1e9))
    page, wrong = open_page(browser, served, viewport=WIDE, locale="zh-CN")
    tab(page, 2)
    sounds, older = page.locator("#history .sound"), page.locator("#older")
    expect(sounds).to_have_count(history.SHOWN)
    expect(older).to_have_text(f"显示更早的（还有 {history.SHOWN + 2} 个）")
    older.focus()
    page.keyboard.press("Enter")
    expect(sounds).to_have_count(2 * history.SHOWN)
    # By keys again: it has kept the focus.
    expect(older).to_be_focused()
    page.keyboard.press("Enter")
    expect(sounds).to_have_count(2 * history.SHOWN + 2)
    expect(older).to_be_hidden()
    # Looks go on, and leave them.
    page.wait_for_timeout(5_000)
    expect(sounds).to_have_count(2 * history.SHOWN + 2)
    last = page.locator("#history .sound").last
    last.scroll_into_view_if_needed()
    last.locator(".play").click()
    expect(last.locator(".playing")).to_be_visible()
    (folder / "new.wav").write_bytes(b"x")
    (folder / "new.json").write_text(json.dumps({"prompt": "new"}))
    expect(sounds).to_have_count(2 * history.SHOWN + 3)
    last.locator("[data-act=go_on]").click()
    expect(page.locator("#recording input")).to_have_value("take 000 · None · 000")
    assert [line for line in wrong if "/wave" not in line and "/spectrum" not in line] == []
    page.context.close()
