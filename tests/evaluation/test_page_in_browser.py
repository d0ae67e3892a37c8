"""The report's page in a real browser: the player switches, loops, and blind votes count.

Chromium alone, by its command line: a page drives itself and says in its title what happened.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from reports import make_report
from scipy import stats

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt install chromium)")
DRIVE = """
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const errors = [];
addEventListener("error", (event) => errors.push(event.message));
(async () => {
  const said = {};
  const player = document.querySelector(".player");
  const pressed = (side) => player.querySelector(`button[data-side=${side}]`).ariaPressed;
  const key = (name) => document.dispatchEvent(new KeyboardEvent("keydown", { key: name }));
  said.first = pressed("adapter");
  key("a");
  said.switched = [pressed("base"), pressed("adapter")];
  said.pictures = [...player.querySelectorAll("img")].map((image) => image.hidden);
  const bar = player.querySelector(".bar");
  bar.setPointerCapture = () => {};
  const box = bar.getBoundingClientRect();
  const at = (type, share) => bar.dispatchEvent(
    new PointerEvent(type, { clientX: box.left + share * box.width, pointerId: 1 }));
  at("pointerdown", 0.5); at("pointerup", 0.5);
  said.sought = player.querySelector(".clock").textContent;
  at("pointerdown", 0.75); at("pointerup", 0.25);
  const region = player.querySelector(".region");
  said.looped = [region.hidden, region.style.width];
  key(" ");
  // The browser's time runs ahead while sounds are decoded, so it is waited for, not a while.
  for (let n = 0; n < 20000 && !player.classList.contains("playing"); n += 1) await wait(20);
  said.playing = player.classList.contains("playing");
  key(" ");
  said.paused = !player.classList.contains("playing");
  const blind = document.querySelector(".blind-test");
  blind.querySelector(".begin").click();
  for (let round = 0; round < 5; round += 1) {
    blind.querySelector(".hear-second").click();
    await wait(100);
    blind.querySelector(round ? ".second" : ".neither").click();
  }
  const saved = blind.querySelector(".export").href;
  said.votes = JSON.parse(decodeURIComponent(saved.slice(saved.indexOf(",") + 1)));
  said.counts = [".n-adapter", ".n-base", ".n-neither", ".p"].map(
    (name) => blind.querySelector(name).textContent);
  said.done = !blind.querySelector(".done").hidden;
  said.overflow = document.documentElement.scrollWidth > innerWidth;
  said.errors = errors;
  document.title = JSON.stringify(said);
})();
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("browser")
    make_report(folder)
    return (folder / "report.html").read_text(encoding="utf-8")


def title_of(page: Path, width: int) -> str:
    command = [
        str(CHROMIUM),
        *("--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
        *("--autoplay-policy=no-user-gesture-required", "--virtual-time-budget=1000000"),
        *(f"--window-size={width},900", f"--user-data-dir={page.parent / 'profile'}"),
        page.as_uri(),
    ]
    dumped = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    (title,) = re.findall(r"<title>(.*?)</title>", dumped.stdout)
    return html.unescape(title)


@pytest.mark.parametrize("width", [1280, 500])
def test_the_player_and_the_votes(page: str, tmp_path: Path, width: int) -> None:
    # The page's policy forbids a second script, so the test takes the policy out.
    driven = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    (tmp_path / "page.html").write_text(
        driven.replace("</body>", f"<script>{DRIVE}</script></body>"), encoding="utf-8"
    )
    said: dict[str, Any] = json.loads(title_of(tmp_path / "page.html", width))
    assert said["errors"] == []
    assert said["first"] == "true"
    assert said["switched"] == ["true", "false"]
    assert said["pictures"] == [False, True]
    assert said["sought"] == "2.0 / 4.0 s"
    assert said["looped"] == [False, "50%"]
    assert said["playing"]
    assert said["paused"]
    votes = said["votes"]["votes"]
    assert len({vote["pair"] for vote in votes}) == 5
    better = [vote["better"] for vote in votes]
    assert better[0] == "neither"
    n_adapter, n_base = better.count("adapter"), better.count("base")
    n_better = n_adapter + n_base
    p_value = stats.binomtest(n_adapter, n_better).pvalue
    assert said["counts"] == [str(n_adapter), str(n_base), "1", f"{p_value:.3f}"]
    assert all(vote["better"] != vote["first"] for vote in votes[1:])
    assert said["done"]
    assert not said["overflow"]


def test_the_policy_lets_the_player_run(page: str, tmp_path: Path) -> None:
    """As it is written: were the hash wrong, the page would show what it shows without scripts."""
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    command = [
        str(CHROMIUM),
        *("--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
        f"--user-data-dir={tmp_path / 'profile'}",
        (tmp_path / "page.html").as_uri(),
    ]
    dumped = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert 'aria-pressed="true"' in dumped.stdout
    assert '<div class="plain players" hidden' in dumped.stdout
