"""The page as a person uses it, in a headless Chromium."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the page's library is not installed (make ui)")
pytest.importorskip("playwright", reason="playwright is not installed")

from browsing import SCREENSHOTS, watch
from playwright.sync_api import Browser, Page, expect
from trainer import wait_until

from musicgen_lora.webui.jobs import Jobs

CLIPS = Path(__file__).resolve().parents[2] / "src/musicgen_lora/assets/other_styles/validation"
LONG_MS = 240_000


@dataclass
class Served:
    """A server of a workspace, in a process of its own.

    Args:
        workspace: its folder.
        port: that it listens at.
    """

    workspace: Path
    port: int
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        words = ["ui", "--workspace", str(self.workspace), "--port", str(self.port)]
        self.process = subprocess.Popen([sys.executable, "-m", "musicgen_lora.cli", *words])
        wait_until(self._answers, 120.0)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def _answers(self) -> bool:
        with socket.socket() as caller:
            return caller.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    server = Served(tmp_path_factory.mktemp("page") / "workspace", port)
    server.start()
    yield server
    server.kill()
    jobs = Jobs(server.workspace / "jobs")
    for job in jobs.all():
        if not job.is_over:
            jobs.stop(job.id, by_force=True)


def open_page(browser: Browser, served: Served, **looks: Any) -> tuple[Page, list[str]]:
    """A page in a context of its own, and what goes wrong in it."""
    page = browser.new_context(**looks).new_page()
    wrong = watch(page, served.address)
    page.goto(f"{served.address}/")
    page.set_default_timeout(LONG_MS / 4)
    expect(page.locator("#tabs")).to_be_visible(timeout=60_000)
    expect(page.locator("#strip .strip")).to_be_visible(timeout=60_000)
    return page, wrong


def tab(page: Page, number: int) -> None:
    page.locator("#tabs button[role=tab]").nth(number).click()


def picture(page: Page, name: str) -> None:
    if SCREENSHOTS:
        page.screenshot(path=str(Path(SCREENSHOTS) / f"{name}.png"), full_page=True)


@pytest.mark.parametrize(
    ("name", "looks", "word"),
    [
        ("wide", {"viewport": {"width": 1280, "height": 900}, "locale": "en-GB"}, "Data"),
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
def test_each_tab_fits_and_loads_nothing_from_elsewhere(
    browser: Browser, served: Served, name: str, looks: dict[str, Any], word: str
) -> None:
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
    assert wrong == []
    page.context.close()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_from_dropped_audio_to_a_beat(browser: Browser, served: Served) -> None:
    """The whole route, with a reload, a second tab, a killed trainer and a killed server."""
    page, wrong = open_page(browser, served, viewport={"width": 1280, "height": 900})
    jobs = Jobs(served.workspace / "jobs")

    page.locator("#drop input[type=file]").set_input_files(sorted(CLIPS.glob("*.ogg"))[:8])
    expect(page.locator("#drop")).to_contain_text("ambient_1", timeout=60_000)
    page.locator("#dataset-name").locator("input, textarea").fill("My beats")
    page.locator("#prepare").click()
    expect(page.locator("#strip")).to_contain_text("✓", timeout=LONG_MS)
    page.locator("#reload-clips").click()
    cell = page.get_by_test_id("cell-0-1")
    expect(cell).to_contain_text("beat")
    cell.click()
    expect(page.locator("#clip-player audio")).to_be_visible()
    picture(page, "route-data")

    cell.dblclick()
    page.keyboard.press("Control+a")
    page.keyboard.type("a corrected caption, 808 beat")
    page.keyboard.press("Enter")
    page.locator("#save-clips").click()
    metadata = served.workspace / "datasets" / "My beats" / "metadata.json"
    wait_until(lambda: "a corrected caption" in metadata.read_text(encoding="utf-8"))

    tab(page, 1)
    page.locator("#run-name").locator("input, textarea").fill("First run")
    page.locator("#train").click()
    metrics = served.workspace / "runs" / "First run" / "metrics.jsonl"
    wait_until(lambda: metrics.exists() and '"train"' in metrics.read_text(), 240.0)
    page.reload()
    expect(page.locator("#strip li[data-status=running]")).to_be_visible(timeout=60_000)
    second, _ = open_page(browser, served)
    expect(second.locator("#strip li[data-status=running]")).to_be_visible()
    second.context.close()

    # The trainer dies; the page says so, and goes on from where it was.
    (job,) = [job for job in jobs.all() if job.command == "train"]
    jobs.stop(job.id, by_force=True)
    expect(page.locator("#strip li[data-status=interrupted]")).to_be_visible(timeout=60_000)
    picture(page, "route-interrupted")
    page.locator("#jobs > button, #jobs .label-wrap").first.click()
    page.locator("#job-resume").click()
    expect(page.locator("#strip li[data-status=running]")).to_be_visible(timeout=60_000)

    # The server dies; training does not.
    assert wrong == []
    page.context.close()
    served.kill()
    wait_until(lambda: jobs.all()[0].is_over, 240.0)
    assert jobs.all()[0].status == "finished", jobs.log(jobs.all()[0].id)
    served.start()
    page, wrong = open_page(browser, served, viewport={"width": 1280, "height": 900})
    tab(page, 1)
    expect(page.locator("#verdict")).to_contain_text("held-out loss", timeout=60_000)
    expect(page.locator("#loss svg")).to_be_visible()
    picture(page, "route-trained")

    tab(page, 2)
    page.locator("#prompt textarea").fill("trap beat, 140 bpm")
    page.locator("#seconds input[type=number]").fill("1")
    page.locator("#variations input[type=number]").fill("1")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#history .pair")).to_be_visible(timeout=LONG_MS)
    page.locator("#history .switch").click()
    expect(page.locator("#history .switch")).to_contain_text("adapter")
    picture(page, "route-generated")
    with page.expect_download() as download:
        page.locator("#history a.save").first.click()
    assert Path(download.value.path()).read_bytes()[:4] == b"RIFF"

    tab(page, 4)
    expect(page.locator("#models")).to_contain_text("First run")
    picture(page, "route-models")
    assert wrong == []
    page.context.close()
