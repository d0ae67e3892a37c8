"""A headless Chromium for tests: Debian's, or the one of playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="playwright is not installed")

from playwright.sync_api import Browser, Page, sync_playwright

SCREENSHOTS = os.environ.get("SCREENSHOTS")
"""A folder for pictures of the page, if they are wanted."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser that may play without a click; the test is skipped where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        path = found or playwright.chromium.executable_path
        if not Path(path).exists():
            pytest.skip("no Chromium: apt-get install chromium, or playwright install chromium")
        options = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        started = playwright.chromium.launch(executable_path=path, args=options)
        yield started
        started.close()


def watch(page: Page, *allowed: str) -> list[str]:
    """What goes wrong in a page: errors, and requests that begin with nothing allowed."""
    wrong: list[str] = []
    page.on(
        "console",
        lambda said: wrong.append(f"{said.text} {said.location}") if said.type == "error" else None,
    )
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "request",
        lambda asked: (
            None
            if asked.url.startswith((*allowed, "data:", "blob:"))
            else wrong.append(f"asked elsewhere: {asked.url}")
        ),
    )
    return wrong
