"""The page in a server of its own, and how a test acts in it with a browser."""

from __future__ import annotations

import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from browsing import watch
from playwright.sync_api import Browser, Page, expect
from trainer import wait_until

LONG_MS = 240_000
expect.set_options(timeout=LONG_MS / 4)
WIDE = {"width": 1280, "height": 900}
ENDED_BY_A_RELOAD = ("abort", "Abort", "Connection errored out")
"""What the browser or the page's library says of a request that the reload of the page cut off."""


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


def shown_job(page: Page, status: str) -> None:
    expect(page.locator(f"#strip li[data-status={status}]").first).to_be_visible(timeout=LONG_MS)


def typed(page: Page, name: str, text: str) -> None:
    page.locator(f"#{name}").locator("input:not([type=range]), textarea").first.fill(text)
