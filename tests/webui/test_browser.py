"""The page as a person uses it, in a headless Chromium."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the page's library is not installed (make ui)")
pytest.importorskip("playwright", reason="playwright is not installed")

from browsing import SCREENSHOTS
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from served_page import (
    ENDED_BY_A_RELOAD,
    LONG_MS,
    WIDE,
    Served,
    open_page,
    shown_job,
    tab,
    typed,
)
from trainer import wait_until

from musicgen_lora.audio.files import write_wav
from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.webui.work.job import Job
from musicgen_lora.webui.work.jobs import Jobs

CLIPS = Path(__file__).resolve().parents[2] / "src/musicgen_lora/assets/other_styles/validation"
DRAGGED = """link => {
  const dataTransfer = new DataTransfer();
  link.dispatchEvent(new DragEvent("dragstart", { bubbles: true, dataTransfer }));
  return dataTransfer.getData("DownloadURL");
}"""

CONTRAST = Path(__file__).resolve().parents[1] / "support" / "contrast.js"
NARROW = """() => [...document.querySelectorAll(".settings .block")]
  .filter((each) => each.offsetParent !== null && each.clientWidth < 200).map((each) => each.id)"""
UPRIGHT = """() => [...document.querySelectorAll("[role=tabpanel] :is(label > span, .head)")]
  .filter((each) => each.clientHeight > each.clientWidth && each.textContent.trim().length > 2)
  .map((each) => each.textContent)"""


def picture(page: Page, name: str) -> None:
    """A picture of the page, in few enough colours for a document."""
    if SCREENSHOTS:
        page.wait_for_timeout(2_500)
        path = Path(SCREENSHOTS) / f"page-{name}.png"
        page.screenshot(path=str(path), full_page=True)
        with Image.open(path) as drawn:
            drawn.convert("RGB").quantize(160, kmeans=2).save(path, optimize=True)


@pytest.mark.parametrize(
    ("name", "looks", "word"),
    [
        ("wide", {"viewport": WIDE, "locale": "en-GB"}, "Data"),
        (
            "phone",
            {
                "viewport": {"width": 390, "height": 844},
                "locale": "zh-CN",
                "color_scheme": "dark",
            },
            "数据",
        ),
    ],
)
def test_each_tab_fits_can_be_read_and_loads_nothing_from_elsewhere(
    browser: Browser, served: Served, name: str, looks: dict[str, Any], word: str
) -> None:
    """Switches under "advanced" had their names cut off; a slider's label on a phone had a line
    per character; and buttons were white on a light orange."""
    page, wrong = open_page(browser, served, **looks)
    tabs = page.locator("#tabs button[role=tab]")
    expect(tabs.first).to_contain_text(word)
    expect(tabs).to_have_count(5)
    for number in range(5):
        tab(page, number)
        expect(page.locator("#tabs [role=tabpanel]:visible")).to_have_count(1)
        picture(page, f"{name}-{number}")
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= looks["viewport"]["width"]
        for box in page.locator("[role=tabpanel]:visible button.label-wrap").all():
            box.click()
        page.wait_for_timeout(500)
        assert page.evaluate(CONTRAST.read_text(encoding="utf-8")) == []
        assert page.evaluate(NARROW) == []
        assert page.evaluate(UPRIGHT) == []
    assert wrong == []
    page.context.close()


def test_what_was_typed_and_chosen_is_there_after_a_reload(
    browser: Browser, served: Served
) -> None:
    page, wrong = open_page(browser, served, viewport=WIDE, locale="en-GB")
    tab(page, 2)
    page.locator("#prompt textarea").press_sequentially("dark beat")
    page.get_by_role("button", name="drill", exact=True).click()
    # As an input method writes it, or the clipboard: no key is pressed.
    page.locator("#key input").click()
    page.keyboard.insert_text("C minor")
    page.locator("[role=tabpanel]:visible").get_by_text("Advanced settings").click()
    page.locator("#generate-midi input").check()
    expect(page.locator("#generate-changed")).to_contain_text("midi = True")
    for _ in range(2):
        page.reload()
        tab(page, 2)
        expect(page.locator("#prompt textarea")).to_have_value("dark beat, drill")
        expect(page.locator("#key input")).to_have_value("C minor")
        expect(page.locator("#generate-changed")).to_contain_text("midi = True")
    page.locator("#generate-defaults").click()
    expect(page.locator("#generate-changed")).to_have_text("")
    broken = """'{"seconds": "many", "x": ['"""
    page.evaluate(
        f"[localStorage, sessionStorage].forEach(o => o.setItem('musicgen-lora', {broken}))"
    )
    page.reload()
    tab(page, 2)
    expect(page.locator("#prompt textarea")).to_have_value("")
    assert [line for line in wrong if not any(e in line for e in ENDED_BY_A_RELOAD)] == []
    page.context.close()


def test_each_of_two_tabs_keeps_its_own(browser: Browser, served: Served) -> None:
    """A reload does not restore in one what was typed in the other; a new one starts with what was
    typed last. Each stays on its tab."""
    one, wrong = open_page(browser, served, viewport=WIDE, locale="en-GB")
    other = one.context.new_page()
    other.goto(f"{served.address}/")
    expect(other.locator("#strip .strip")).to_be_visible(timeout=60_000)
    other.wait_for_timeout(2_000)
    for page, text in ((one, "dark trap"), (other, "soft drill")):
        page.bring_to_front()
        tab(page, 2)
        page.locator("#prompt textarea").fill(text)
        # The browser keeps it a moment later.
        page.wait_for_timeout(1_000)
    third = one.context.new_page()
    third.goto(f"{served.address}/")
    one.reload()
    for page, text in ((one, "dark trap"), (third, "soft drill")):
        if page is third:
            tab(page, 2)
        expect(page.locator("#prompt textarea")).to_have_value(text)
    assert [line for line in wrong if not any(e in line for e in ENDED_BY_A_RELOAD)] == []
    one.context.close()


def test_a_page_says_that_its_server_is_away_and_comes_back(
    browser: Browser, served: Served
) -> None:
    page, _ = open_page(browser, served, viewport=WIDE, locale="zh-CN")
    tab(page, 2)
    typed(page, "bpm", "91")
    page.wait_for_timeout(1_000)
    served.kill()
    told = page.get_by_text("服务器没有回应")
    expect(told.first).to_be_visible()
    served.start()
    expect(told).to_have_count(0)
    expect(page.locator("#bpm input, #bpm textarea")).to_have_value("91")
    page.context.close()


def test_a_sound_is_saved_with_its_midi_and_its_spectrum_is_shown_when_asked(
    browser: Browser, served: Served
) -> None:
    """For the side that is playing; nothing is made before it is requested."""
    facts = {"prompt": "808 beat", "seed": 5, "duration_s": 2.0, "bpm": 90}
    for number, adapters in enumerate(([], [{"path": "runs/mine/best_model"}])):
        sound = served.workspace / "generated" / f"808_{number}.wav"
        write_wav(sound, render_beat(make_beat(number, duration_s=2.0), 32_000, seed=0), 32_000)
        sound.with_suffix(".json").write_text(json.dumps(facts | {"adapters": adapters}))
    page, wrong = open_page(browser, served, viewport=WIDE)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    tab(page, 2)
    sound = page.locator("#history .sound").first
    expect(sound.locator("a.save:visible")).to_have_text(["⬇ WAV", "⬇ MIDI"])
    for side, name in enumerate(("808_0", "808_1")):
        sound.locator("button[data-side]").nth(side).click()
        for link, (ending, begin) in enumerate((("wav", b"RIFF"), ("mid", b"MThd"))):
            with page.expect_download() as download:
                sound.locator("a.save:visible").nth(link).click()
            assert download.value.suggested_filename == f"{name}_90bpm.{ending}"
            assert Path(download.value.path()).read_bytes()[:4] == begin
    # What a browser makes a file of that is dragged out of it.
    dragged = sound.locator("a.save:visible").nth(1).evaluate(DRAGGED)
    assert dragged.startswith(f"application/octet-stream:808_1_90bpm.mid:{served.address}/files/")
    assert not any("spectrogram" in address for address in asked)
    sound.get_by_text("Spectrogram").click()
    picture = sound.locator("details img:visible")
    expect(picture).to_have_count(1)
    expect(picture).to_have_js_property("naturalHeight", 384)
    assert sum("spectrogram" in address for address in asked) == 1
    assert wrong == []
    page.context.close()


def job(jobs: Jobs, command: str) -> Job:
    """The newest job of a command."""
    return next(job for job in jobs.all() if job.command == command)


def drop_and_correct(page: Page, served: Served) -> None:
    """Real audio becomes a dataset, of which one caption is written by hand."""
    page.locator("#drop input[type=file]").set_input_files(sorted(CLIPS.glob("*.ogg"))[:8])
    expect(page.locator("#drop")).to_contain_text("ambient_1", timeout=60_000)
    typed(page, "dataset-name", "My beats")
    page.locator("#prepare").click()
    shown_job(page, "finished")
    page.locator("#reload-clips").click()
    cell = page.get_by_test_id("cell-0-1")
    expect(cell).to_contain_text("beat")
    cell.click()
    expect(page.locator("#clip-player .play")).to_be_visible()
    picture(page, "data")
    cell.dblclick()
    page.keyboard.press("Control+a")
    page.keyboard.type("a corrected caption, 808 beat")
    page.keyboard.press("Enter")
    page.locator("#save-clips").click()
    metadata = served.workspace / "datasets" / "My beats" / "metadata.json"
    wait_until(lambda: "a corrected caption" in metadata.read_text(encoding="utf-8"), 60.0)


def measure_and_train(page: Page, browser: Browser, served: Served, jobs: Jobs) -> None:
    """A trial estimates the cost; training outlives a reload, shows in a second tab, and resumes
    after its process has died."""
    tab(page, 1)
    page.locator("#measure").click()
    expect(page.locator("#estimate")).to_contain_text("s per step", timeout=LONG_MS)
    typed(page, "run-name", "First run")
    page.locator("[role=tabpanel]:visible").get_by_text("Advanced settings").click()
    typed(page, "train-search", "epochs")
    typed(page, "train-num_epochs", "30")
    page.locator("#train").click()
    metrics = served.workspace / "runs" / "First run" / "metrics.jsonl"
    wait_until(lambda: metrics.exists() and '"train"' in metrics.read_text(), 240.0)
    page.reload()
    shown_job(page, "running")
    second, _ = open_page(browser, served)
    shown_job(second, "running")
    second.context.close()
    jobs.stop(job(jobs, "train").id, by_force=True)
    shown_job(page, "interrupted")
    page.locator("#strip").get_by_role("button", name="Resume").click()
    shown_job(page, "running")


def play(page: Page) -> None:
    """Base and adapter, heard one after the other; a loop; a download."""
    tab(page, 2)
    typed(page, "prompt", "trap beat with gliding 808 bass")
    typed(page, "seconds", "4")
    typed(page, "variations", "1")
    page.keyboard.press("Control+Enter")
    sound = page.locator("#history .sound").first
    expect(sound.locator("button[data-side]")).to_have_count(2, timeout=LONG_MS)
    base, adapter = (sound.locator("button[data-side]").nth(index) for index in range(2))
    expect(adapter).to_have_attribute("aria-pressed", "true")
    sound.locator(".again").click()
    expect(sound.locator(".again")).to_have_attribute("aria-pressed", "true")
    sound.locator(".play").click()
    expect(sound.locator(".playing")).to_be_visible()
    base.click()
    expect(base).to_have_attribute("aria-pressed", "true")
    expect(sound.locator("img.spectrum").first).to_be_visible()

    # What plays goes on while something new comes.
    typed(page, "bpm", "140")
    page.locator("#bars input").click()
    page.get_by_role("option", name="2", exact=True).click()
    page.locator("#generate").click()
    expect(page.locator("#history .sound")).to_have_count(2, timeout=LONG_MS)
    expect(page.locator("#history .playing")).to_have_count(1)
    page.locator("#history .playing .play").click()
    loop = page.locator("#history .sound", has_text="2 bars")
    expect(loop.locator(".clock")).to_contain_text("3.4 s")
    loop.locator("[data-act=again]").click()
    expect(page.locator("#lock input")).to_be_checked()
    picture(page, "generate")
    with page.expect_download() as download:
        loop.locator("a.save:visible").first.click()
    assert "140bpm" in download.value.suggested_filename
    assert Path(download.value.path()).read_bytes()[:4] == b"RIFF"


def evaluate(page: Page) -> None:
    """The report comes into the page, and its blind test runs there."""
    tab(page, 3)
    typed(page, "evaluate-prompts", "1")
    page.locator("[role=tabpanel]:visible").get_by_text("Advanced settings").click()
    typed(page, "evaluate-duration", "2")
    page.locator("#evaluate").click()
    report = page.frame_locator("iframe.report")
    expect(report.locator("h1")).to_be_visible(timeout=2 * LONG_MS)
    report.locator(".blind-test .begin").click()
    report.locator(".blind-test .second").click()
    expect(report.locator(".blind-test .done")).to_be_visible()
    picture(page, "evaluate")


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_from_dropped_audio_to_a_report(browser: Browser, served: Served) -> None:
    """The whole workflow, with a reload, a second tab, a killed trainer and a killed server."""
    jobs = Jobs(served.workspace / "jobs")
    page, wrong = open_page(browser, served, viewport=WIDE)
    drop_and_correct(page, served)
    measure_and_train(page, browser, served, jobs)
    assert wrong == []
    page.context.close()

    # The server dies; training does not.
    served.kill()
    wait_until(lambda: job(jobs, "train").is_over, 600.0)
    assert job(jobs, "train").status == "finished", jobs.log(job(jobs, "train").id)
    served.start()
    page, wrong = open_page(browser, served, viewport=WIDE)
    tab(page, 1)
    expect(page.locator("#verdict")).to_contain_text("held-out loss", timeout=60_000)
    expect(page.locator("#loss svg")).to_have_count(6)
    expect(page.locator("#previews .sound").first.locator("button[data-side]")).to_have_count(2)
    picture(page, "train")
    play(page)
    evaluate(page)
    tab(page, 4)
    expect(page.locator("#models")).to_contain_text("First run")
    picture(page, "models")
    assert wrong == []
    page.context.close()
