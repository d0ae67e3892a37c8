"""The report's page in a real browser, from file://: it switches, loops, and counts blind votes.

`SCREENSHOTS=docs/images REPORT=FOLDER/report.html` takes the pictures for the docs from any report.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

pytest.importorskip("playwright", reason="playwright is not installed")

from browsing import SCREENSHOTS, watch
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from musicgen_lora.evaluation.report.page_audio import embed_sounds, sound_groups
from musicgen_lora.evaluation.report.report import make_page
from musicgen_lora.language.choice import choose

LAPTOP: dict[str, Any] = {"viewport": {"width": 1366, "height": 768}}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
MOST_PICTURE_BYTES = 150_000
RECORD = """
window.started = []; window.faded = [];
const start = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (when, offset) {
  window.started.push([when, offset]);
  return start.call(this, when, offset);
};
const fade = AudioParam.prototype.setTargetAtTime;
AudioParam.prototype.setTargetAtTime = function (value, when, constant) {
  window.faded.push([value > 0, when]);
  return fade.call(this, value, when, constant);
};
let readings = 0;
const clock = Object.getOwnPropertyDescriptor(BaseAudioContext.prototype, "currentTime").get;
Object.defineProperty(BaseAudioContext.prototype, "currentTime", {
  get() { return clock.call(this) + 1e-6 * readings++; },
});
"""
"""Records what the page asks the browser to play, while it plays.

The clock goes on at each reading, as it may on a busy machine."""


@pytest.fixture(scope="module")
def pages(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The page in both languages."""
    if given := os.environ.get("REPORT"):
        folder = Path(given).resolve().parent
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    else:
        report, folder = request.getfixturevalue("evaluated")
    pictures = {path.stem: path.read_bytes() for path in (folder / "plots").iterdir()}
    choose("zh")
    chinese = make_page(report, pictures, *embed_sounds(sound_groups(report), folder))  # pyright: ignore[reportArgumentType]
    choose(None)
    page = tmp_path_factory.mktemp("browser") / "chinese.html"
    page.write_text(chinese, encoding="utf-8")
    return {"en": folder / "report.html", "zh": page}


@pytest.fixture(params=[("laptop", LAPTOP, "en"), ("phone", PHONE, "zh")], ids=["laptop", "phone"])
def opened(
    request: pytest.FixtureRequest,
    browser: Browser,
    pages: dict[str, Path],
) -> Iterator[tuple[str, Page]]:
    """The page, with a check at the end that it raised no errors."""
    name, looks, language = request.param
    context = browser.new_context(**looks)
    context.add_init_script(RECORD)
    page = context.new_page()
    wrong = watch(page, "file://")
    page.goto(pages[language].as_uri())
    yield name, page
    assert wrong == []
    context.close()


def picture(page: Page, name: str, at: Locator) -> None:
    """A screenshot, with few enough colours to keep it small."""
    if not SCREENSHOTS:
        return
    at.evaluate("element => element.scrollIntoView({block: 'start'})")
    path = Path(SCREENSHOTS) / f"{name}.png"
    for colours in (128, 64, 32, 16):
        with Image.open(BytesIO(page.screenshot())) as image:
            image.convert("RGB").quantize(colours, kmeans=2, dither=Image.Dither.NONE).save(path)
        if path.stat().st_size < MOST_PICTURE_BYTES:
            return


def seconds(page: Page) -> float:
    """The position of the first player."""
    (found,) = re.findall(r"^([\d.]+) /", page.locator(".player .clock").first.inner_text())
    return float(found)


def point(player: Locator, share: float) -> tuple[float, float]:
    """A point on a player's spectrogram."""
    bar = player.locator(".bar")
    bar.scroll_into_view_if_needed()
    box: Any = bar.bounding_box()
    return box["x"] + share * box["width"], box["y"] + 30.0


def drag(page: Page, player: Locator, start: float, end: float) -> None:
    page.mouse.move(*point(player, start))
    page.mouse.down()
    page.mouse.move(*point(player, end))
    page.mouse.up()


def test_base_and_adapter_are_switched_at_the_same_instant(opened: tuple[str, Page]) -> None:
    name, page = opened
    player = page.locator(".player").first
    base, adapter = (player.locator(f"button[data-side={side}]") for side in ("base", "adapter"))
    expect(adapter).to_have_attribute("aria-pressed", "true")
    # A loop, which never ends: the machine may be slow.
    drag(page, player, 0.75, 0.25)
    player.locator(".play").click()
    expect(player).to_have_class(re.compile("playing"))
    (when, offset), (other_when, other_offset) = page.evaluate("started")
    assert (when, offset) == (other_when, other_offset)
    picture(page, f"report-{name}", page.locator(".blind-test"))
    before = len(page.evaluate("faded"))
    base.click()
    expect(base).to_have_attribute("aria-pressed", "true")
    expect(adapter).to_have_attribute("aria-pressed", "false")
    # One is heard from the moment on at which the other no longer is, and neither began anew.
    first, second = page.evaluate("faded")[before:]
    assert {first[0], second[0]} == {True, False}
    assert first[1] == second[1]
    assert len(page.evaluate("started")) == 2
    expect(player.locator("img[data-side=base]")).to_be_visible()
    expect(player.locator("img[data-side=adapter]")).to_be_hidden()
    page.keyboard.press("b")
    expect(adapter).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("ArrowLeft")
    expect(base).to_have_attribute("aria-pressed", "true")
    page.keyboard.press(" ")
    expect(player).not_to_have_class(re.compile("playing"))


def test_the_picture_is_a_seek_bar_and_a_drag_loops(opened: tuple[str, Page]) -> None:
    _, page = opened
    player = page.locator(".player").first
    length = float(player.get_attribute("data-duration") or 0.0)
    page.mouse.click(*point(player, 0.5))
    assert seconds(page) == pytest.approx(0.5 * length, abs=0.02 * length + 0.1)
    drag(page, player, 0.75, 0.25)
    expect(player.locator(".region")).to_be_visible()
    assert seconds(page) == pytest.approx(0.25 * length, abs=0.02 * length + 0.1)
    player.locator("button.whole").click()
    expect(player.locator(".region")).to_be_hidden()


def test_blind_votes_are_counted_kept_and_saved(opened: tuple[str, Page]) -> None:
    _, page = opened
    blind = page.locator(".blind-test")
    n_pairs = page.locator(".player[data-pair]").count()
    blind.locator(".begin").click()
    for number in range(n_pairs):
        blind.locator(".hear-second").click()
        expect(page.locator(".pair").first).to_be_hidden()
        blind.locator(".second" if number else ".neither").click()
    expect(blind.locator(".done")).to_be_visible()
    expect(page.locator(".pair").first).to_be_visible()
    with page.expect_download() as download:
        blind.locator(".export").click()
    votes = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))["votes"]
    assert len({vote["pair"] for vote in votes}) == n_pairs
    better = [vote["better"] for vote in votes]
    n_adapter, n_base = better.count("adapter"), better.count("base")
    p_value = stats.binomtest(n_adapter, n_adapter + n_base).pvalue
    counts = {".n-adapter": n_adapter, ".n-base": n_base, ".n-neither": 1, ".p": f"{p_value:.3f}"}
    for where, count in counts.items():
        expect(blind.locator(where)).to_have_text(str(count))
    assert all(vote["better"] != vote["first"] for vote in votes[1:])
    page.reload()
    expect(blind.locator(".n-neither")).to_have_text("1")


def test_blind_votes_are_given_by_keys(opened: tuple[str, Page]) -> None:
    """A button hidden by a key press used to lose the focus, so Space then played a named pair."""
    _, page = opened
    blind = page.locator(".blind-test")
    n_pairs = page.locator(".player[data-pair]").count()
    blind.locator(".begin").focus()
    page.keyboard.press("Enter")
    for _ in range(n_pairs):
        expect(blind.locator(".hear-first")).to_be_focused()
        page.keyboard.press(" ")
        expect(page.locator(".pair").first).to_be_hidden()
        for _ in range(2):
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
    expect(blind.locator(".done")).to_be_visible()
    expect(blind.locator(".export")).to_be_focused()


def test_it_fits_reads_and_prints(opened: tuple[str, Page]) -> None:
    _, page = opened
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    # Every pair has a player, and a prompt that got worse leads to its own.
    assert page.locator(".pair .player").count() == page.locator(".pair").count()
    for link in page.locator("a[href^='#pair-']").all():
        expect(page.locator(link.get_attribute("href") or "")).to_have_count(1)
    # Chromium cuts what is wider than the paper.
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 760, "height": 1000})
    expect(page.locator(".blind-test")).to_be_hidden()
    expect(page.locator(".player").first).to_be_hidden()
    wide = page.evaluate(
        "Math.max(...[...document.querySelectorAll('.wide')].map("
        "(part) => part.scrollWidth - part.clientWidth))"
    )
    assert wide <= 0
    # A unit is no larger than what it is the unit of.
    larger = page.evaluate(
        "[...document.querySelectorAll('td .soft')].filter((part) => parseFloat("
        "getComputedStyle(part).fontSize) > parseFloat(getComputedStyle(part.closest('td'))"
        ".fontSize)).length"
    )
    assert larger == 0
    assert page.pdf().startswith(b"%PDF")


def test_it_is_small(pages: dict[str, Path]) -> None:
    assert all(path.stat().st_size < 15_000_000 for path in pages.values())
