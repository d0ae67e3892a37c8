"""The page by keyboard alone, in a headless Chromium."""

from __future__ import annotations

import contextlib
import json
import os
import shutil

import pytest

pytest.importorskip("gradio", reason="the page's library is not installed (make ui)")
pytest.importorskip("playwright", reason="playwright is not installed")

from made_datasets import read_metadata, write_metadata
from playwright.sync_api import Browser, Error, Page, expect
from served_page import WIDE, Served, open_page, tab, typed
from trainer import wait_until

from musicgen_lora.audio.files import write_wav
from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.webui.work.job import END_FILE, WORKING_FILE, note_process
from musicgen_lora.webui.work.jobs import Jobs

PHONE = {"width": 390, "height": 844}

FOCUSED = """() => {
  const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
  return outlineStyle !== "none" && parseFloat(outlineWidth) >= 2;
}"""
FADES = """() => {
  window.faded = [];
  const fade = AudioParam.prototype.setTargetAtTime;
  AudioParam.prototype.setTargetAtTime = function (to, ...when) {
    window.faded.push(to);
    return fade.call(this, to, ...when);
  };
}"""
NAMELESS = """() => [...document.querySelectorAll("button, a[href], input, select, textarea")]
  .filter((each) => each.offsetParent !== null)
  .filter((each) => ![each.getAttribute("aria-label"), each.textContent, each.title,
    each.labels && [...each.labels].map((label) => label.textContent).join("")]
    .some((name) => name && name.trim()))
  .map((each) => each.outerHTML.slice(0, 200))"""


def steps_to(page: Page, selector: str, key: str = "Tab") -> None:
    """Presses a key until an element has the focus; every stop on the way must be visible."""
    for _ in range(90):
        page.keyboard.press(key)
        if page.evaluate("document.activeElement !== document.body"):
            # The ring grows.
            page.wait_for_function(FOCUSED)
        if page.evaluate(f"document.activeElement.matches({selector!r})"):
            return
    raise AssertionError(f"no {key} leads to {selector}")


def test_keys_lead_through_the_page(browser: Browser, served: Served) -> None:
    page, wrong = open_page(browser, served, viewport=WIDE, locale="en-GB")
    steps_to(page, "#tab-train-button")
    page.keyboard.press("Enter")
    steps_to(page, "#train-dataset input")
    steps_to(page, "#train-base input")
    # A list that is left is closed.
    expect(page.get_by_role("listbox")).to_have_count(1)
    steps_to(page, "#preset input[value=balanced]")
    expect(page.get_by_role("listbox")).to_have_count(0)
    for key, name in (
        ("ArrowLeft", "quick"),
        ("ArrowRight", "balanced"),
        ("ArrowRight", "thorough"),
    ):
        page.keyboard.press(key)
        expect(page.locator(f"#preset input[value={name}]")).to_be_checked()
        expect(page.locator(f"#preset input[value={name}]")).to_be_focused()
    steps_to(page, "#train")
    steps_to(page, "#preset input", key="Shift+Tab")
    assert wrong == []
    page.context.close()


def test_a_player_is_played_and_wound_by_keys(browser: Browser, served: Served) -> None:
    sound = served.workspace / "generated" / "808.wav"
    write_wav(sound, render_beat(make_beat(0, duration_s=4.0), 32_000, seed=0), 32_000)
    sound.with_suffix(".json").write_text(json.dumps({"prompt": "808", "duration_s": 4.0}))
    page, wrong = open_page(browser, served, viewport=WIDE)
    tab(page, 2)
    expect(page.locator("#history .sound")).to_have_count(1)
    page.locator("#generate").focus()
    steps_to(page, "#history .bar")
    for key, clock in (("ArrowRight", "1.0"), ("End", "4.0"), ("ArrowLeft", "3.0")):
        page.keyboard.press(key)
        expect(page.locator("#history .clock")).to_contain_text(f"{clock} /")
    # Space presses what has the focus, and plays where nothing has that it could press.
    steps_to(page, "#history .again")
    page.keyboard.press(" ")
    expect(page.locator("#history .again")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#history .playing")).to_have_count(0)
    steps_to(page, "#history .play", key="Shift+Tab")
    page.keyboard.press(" ")
    expect(page.locator("#history .playing")).to_have_count(1)
    assert wrong == []
    page.context.close()


def test_what_waits_is_begun_by_keys(browser: Browser, served: Served) -> None:
    jobs = Jobs(served.workspace / "jobs", start=lambda place: None)
    home = served.workspace
    training = jobs.submit("train", {}, title="mine", folder=home / "runs" / "mine")
    note_process(jobs.folder / training.id / WORKING_FILE, os.getpid())
    waiting = jobs.submit("generate", {}, title="808", folder=home / "generated")
    # However much was played since.
    for _ in range(20):
        other = jobs.submit("generate", {}, title="more", folder=home / "generated")
        (jobs.folder / other.id / END_FILE).write_text('{"code": 0, "at": 1.0}')
    page, wrong = open_page(browser, served, viewport=PHONE, locale="zh-CN")
    expect(page.locator("#strip li")).to_have_count(2)
    expect(page.locator("#strip .line").last).to_contain_text("两者都会变慢")
    steps_to(page, "#strip [data-act=begin]")
    page.keyboard.press("Enter")
    expect(page.locator("#strip [data-act=begin]")).to_have_count(0)
    assert jobs.get(waiting.id).is_beside
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= PHONE["width"]
    for job in (training, waiting):
        (jobs.folder / job.id / END_FILE).write_text('{"code": 0, "at": 1.0}')
    assert wrong == []
    page.context.close()


def test_sides_are_heard_equally_loud(browser: Browser, served: Served) -> None:
    """People who compare two sounds take the louder for the better."""
    beat = render_beat(make_beat(0, duration_s=2.0), 32_000, seed=0)
    for name, gain, adapters in (("b", 1.0, []), ("c", 0.25, [{"path": "runs/mine/best_model"}])):
        sound = served.workspace / "generated" / f"{name}.wav"
        write_wav(sound, gain * beat, 32_000)
        facts = {"prompt": "pair", "duration_s": 2.0, "adapters": adapters}
        sound.with_suffix(".json").write_text(json.dumps(facts))
    page, wrong = open_page(browser, served, viewport=WIDE)
    page.evaluate(FADES)
    tab(page, 2)
    sound = page.locator("#history .sound", has_text="pair")
    expect(sound).to_contain_text("All versions play equally loud.")
    sound.locator(".again").click()
    sound.locator(".play").click()
    expect(sound.locator(".playing")).to_be_visible()
    sound.locator("button[data-side]").first.click()
    assert page.evaluate("faded") == [pytest.approx(0.25, rel=0.02), 0]
    assert wrong == []
    page.context.close()


def test_a_reload_asks_about_captions_that_are_not_saved(browser: Browser, served: Served) -> None:
    data = served.workspace / "datasets" / "beats"
    data.mkdir()
    write_metadata(data, [{"audio": "a.wav", "text": "trap beat"}])
    page, _ = open_page(browser, served, viewport=WIDE)
    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
    cell = page.get_by_test_id("cell-0-1")
    cell.dblclick()
    page.keyboard.press("Control+a")
    page.keyboard.type("drill beat")
    page.keyboard.press("Enter")
    expect(cell).to_contain_text("drill beat")
    # It is not left: the answer was to stay.
    with contextlib.suppress(Error):
        page.reload(timeout=3_000)
    assert asked == ["beforeunload"]
    page.locator("#save-clips").click()
    wait_until(lambda: read_metadata(data)[0]["text"] == "drill beat", 60.0)
    page.wait_for_function("window.unsavedClips === false")
    page.reload()
    expect(cell).to_contain_text("drill beat")
    assert asked == ["beforeunload"]
    shutil.rmtree(data)
    page.context.close()


def test_whatever_can_be_used_has_a_name(browser: Browser, served: Served) -> None:
    page, _ = open_page(browser, served, viewport=WIDE, locale="zh-CN")
    for number in range(5):
        tab(page, number)
        expect(page.locator("#tabs [role=tabpanel]:visible")).to_have_count(1)
        assert page.evaluate(NAMELESS) == []
    expect(page.locator("html")).to_have_attribute("lang", "zh")
    tab(page, 2)
    expect(page.locator("#seconds input[type=number]")).to_have_attribute("aria-label", "秒")
    expect(page.locator("#strength-1 input[type=number]")).to_have_attribute("aria-label", "强度")
    page.locator("#generate").click()
    expect(page.locator(".toast-title")).to_have_text("没有成功")
    page.context.close()


def test_values_that_are_out_of_range_are_told_in_the_pages_language(
    browser: Browser, served: Served
) -> None:
    page, _ = open_page(browser, served, viewport=WIDE, locale="zh-CN")
    tab(page, 2)
    typed(page, "prompt", "trap")
    typed(page, "seconds", "601")
    page.keyboard.press("Control+Enter")
    told = page.locator(".toast-message-text")
    expect(told).to_contain_text("“秒” = 601")
    expect(page.locator("#seconds input")).to_have_value("601")
    page.locator(".toast-close").click()
    typed(page, "seconds", "60")
    page.locator("#bars input").click()
    page.get_by_role("option", name="4", exact=True).click()
    expect(page.locator("#seconds")).to_be_hidden()
    typed(page, "strength-1", "3")
    page.keyboard.press("Control+Enter")
    expect(told).to_have_text("3 太大，最大为 2。")
    page.context.close()
