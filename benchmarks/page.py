"""What the page costs: its start, first load and responses, and its memory under attack.

    python benchmarks/page.py                       # a workspace of its own, a minute
    python benchmarks/page.py --training            # while a training runs beside it
    python benchmarks/page.py --browser             # a first load in Chromium as well
    python benchmarks/page.py --attack 200          # and so many hostile requests of each kind

The workspace is that of a busy year: runs with thousands of steps, hundreds of clips and old jobs.
Wall time only means something on an otherwise idle machine; CPU seconds are the server's own and
hold on a shared one. The load of other programs meanwhile is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import soundfile

from musicgen_lora.training.record.run import FINISHED, Run
from musicgen_lora.webui.work.jobs import Jobs

N_RUNS, N_STEPS, N_CLIPS, N_SOUNDS, N_JOBS = 20, 3000, 500, 400, 200
TURNS = 20
N_ATTACKS = 4
"""Rounds of each kind: memory that a server keeps would grow with each round."""
SESSION = "benchmark"


def fill(root: Path) -> None:
    """Makes a workspace like a busy person's after a year."""
    tone = 0.1 * np.sin(np.arange(32_000) * 0.05).astype(np.float32)
    data = root / "datasets" / "beats"
    (data / "train").mkdir(parents=True)
    soundfile.write(data / "train" / "0.wav", tone, 32_000)
    entries = [
        {"audio": "train/0.wav", "text": f"trap beat {n}", "start_s": n / 1000, "duration_s": 1.0}
        for n in range(N_CLIPS)
    ]
    (data / "metadata.json").write_text(json.dumps(entries))
    for number in range(N_RUNS):
        run = root / "runs" / f"run {number}"
        for folder in ("best_model", *(f"checkpoints/step-{n:06d}" for n in (100, 200, 300))):
            (run / folder).mkdir(parents=True)
            (run / folder / "adapter_model.safetensors").write_bytes(b"")
        Run(FINISHED, f"{number}", base={"path": "tiny-beats"}, steps=N_STEPS).write(run)
        rows = [
            {"event": "train", "step": n, "loss": 3.0 + 1 / n, "elapsed_s": float(n)}
            for n in range(1, N_STEPS)
        ]
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = root / "generated"
    made.mkdir()
    for number in range(N_SOUNDS):
        soundfile.write(made / f"{number}.wav", tone, 32_000)
        facts = {"prompt": f"trap beat {number}", "seed": number, "duration_s": 1.0}
        (made / f"{number}.json").write_text(json.dumps(facts))
    for number in range(N_JOBS):
        place = root / "jobs" / f"20260101-{number:06d}-0123abcd"
        place.mkdir(parents=True)
        facts = {"command": "generate", "title": "old", "folder": str(made), "language": "en"}
        (place / "job.json").write_text(json.dumps(facts | {"created": 1.0 + number}))
        (place / "end.json").write_text('{"code": 0, "at": 2.0}')


class Server:
    """A page served by a process of its own.

    Args:
        root: its workspace.
    """

    def __init__(self, root: Path) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = listener.getsockname()[1]
        words = ["ui", "--workspace", str(root), "--port", str(self.port)]
        begun = time.perf_counter()
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "musicgen_lora.cli", *words], stdout=subprocess.DEVNULL
        )
        self.process = psutil.Process(self.popen.pid)
        # The server may close a kept connection just as it is used again.
        limits = httpx.Limits(max_keepalive_connections=0)
        address = f"http://127.0.0.1:{self.port}"
        self.client = httpx.Client(base_url=address, timeout=600.0, limits=limits)
        while True:
            try:
                self.client.get("/favicon.ico")
                break
            except httpx.TransportError:
                if self.popen.poll() is not None:
                    raise SystemExit("The page's server has ended; see above.") from None
                time.sleep(0.05)
        self.start_wall_s, self.start_cpu_s = time.perf_counter() - begun, self.cpu_s()

    def cpu_s(self) -> float:
        """CPU seconds of all its threads so far."""
        return sum(self.process.cpu_times()[:2])

    def memory_mb(self) -> float:
        """Its current memory."""
        return self.process.memory_info().rss / 1e6

    def call(self, number: int, values: list[Any], session: str = SESSION) -> httpx.Response:
        """Calls one of the page's functions as the browser does."""
        asked = {"data": values, "fn_index": number, "session_hash": session}
        return self.client.post("/en/gradio_api/run/predict", json=asked)


@contextmanager
def others(own: list[psutil.Process]) -> Iterator[None]:
    """Prints how many cores other programs used meanwhile."""
    begun, mine = time.perf_counter(), _busy(own)
    total = sum(psutil.cpu_times()[:3])
    yield
    wall_s = time.perf_counter() - begun
    taken = (sum(psutil.cpu_times()[:3]) - total) - (_busy(own) - mine)
    print(f"  (other programs took {max(0.0, taken) / wall_s:.1f} of {os.cpu_count()} cores)")


def _busy(own: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in own if process.is_running())


def measure_answers(server: Server) -> None:
    """Measures a first load without a browser, and every function that the page calls by itself."""
    page = server.client.get("/en/")
    begun, cpu = time.perf_counter(), server.cpu_s()
    for _ in range(TURNS):
        server.client.get("/en/")
    wall_ms = 1000 * (time.perf_counter() - begun) / TURNS
    cpu_ms = 1000 * (server.cpu_s() - cpu) / TURNS
    print(
        f"the page's HTML, {len(page.content) / 1e3:.0f} kB: {cpu_ms:.0f} ms CPU, {wall_ms:.0f} ms"
    )
    for dependency in server.client.get("/en/config").json()["dependencies"]:
        events = {event for _, event in dependency["targets"]}
        if not dependency["backend_fn"] or not events & {"load", "tick"}:
            continue
        nothing = [None] * len(dependency["inputs"])
        walls, cpu = [], server.cpu_s()
        for _ in range(TURNS):
            begun = time.perf_counter()
            server.call(dependency["id"], nothing).raise_for_status()
            walls.append(1000 * (time.perf_counter() - begun))
        cpu_ms = 1000 * (server.cpu_s() - cpu) / TURNS
        told = f"{statistics.median(walls):.0f} ms, at most {max(walls):.0f}"
        print(f"{'what it looks at ' + '/'.join(events)}: {cpu_ms:.0f} ms CPU, {told}")


def measure_browser(server: Server) -> None:
    """Measures how long Chromium takes to draw the strip of jobs, with an empty or full cache."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = shutil.which("chromium") or playwright.chromium.executable_path
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        context = browser.new_context()
        for name in ("empty", "full"):
            tab, before, begun = context.new_page(), server.cpu_s(), time.perf_counter()
            tab.goto(f"http://127.0.0.1:{server.port}/en/")
            tab.locator("#strip .strip").wait_for(timeout=600_000)
            wall_s, cpu_s = time.perf_counter() - begun, server.cpu_s() - before
            script_s = tab.context.new_cdp_session(tab)
            script_s.send("Performance.enable")
            found = {
                m["name"]: m["value"] for m in script_s.send("Performance.getMetrics")["metrics"]
            }
            print(
                f"first load, {name} cache: {wall_s:.2f} s; CPU {cpu_s:.2f} s of the server, "
                f"{found['TaskDuration']:.2f} s of the tab's main thread"
            )
            tab.close()
        browser.close()


def attack(server: Server, count: int) -> None:
    """Sends requests that no browser sends, fifty at once, and measures the memory left behind."""
    size = 4 << 20
    dependencies = server.client.get("/en/config").json()["dependencies"]
    numbers = [each["id"] for each in dependencies]
    tick = next(each["id"] for each in dependencies if "tick" in str(each["targets"]))
    letters = json.dumps({"data": ["x" * (size - 1000)], "fn_index": tick, "session_hash": "a"})

    def ask(kind: str, at: int) -> int:
        client = server.client
        match kind:
            case "long strings":
                head = {"content-type": "application/json"}
                path = "/en/gradio_api/run/predict"
                return client.post(path, headers=head, content=letters).status_code
            case "too large":
                caller = HTTPConnection("127.0.0.1", server.port, timeout=600)
                caller.putrequest("POST", "/en/gradio_api/upload")
                caller.putheader("content-length", str(1 << 40))
                caller.endheaders()
                return caller.getresponse().status
            case "uploads of 8 MB":
                files = {"files": (f"{at}.wav", b"\0" * (8 << 20))}
                return client.post("/en/gradio_api/upload", files=files).status_code
            case "paths out of the workspace":
                return client.get(f"/en/gradio_api/file=/etc/passwd?{at}").status_code
            case "forged values":
                number = numbers[at % len(numbers)]
                return server.call(number, ["/etc/passwd"] * 40, f"a{at}").status_code
            case _:
                return server.call(tick, [None] * 40, f"session {at}").status_code

    print(f"memory before: {server.memory_mb():.0f} MB")
    for kind in (
        *("long strings", "too large", "uploads of 8 MB", "paths out of the workspace"),
        *("forged values", "sessions"),
    ):
        for turn in range(N_ATTACKS):
            with ThreadPoolExecutor(50) as pool:
                codes = list(pool.map(lambda at, kind=kind: ask(kind, at), range(count)))
            told = ", ".join(f"{codes.count(code)} x {code}" for code in sorted({*codes}))
            print(f"{kind}, {turn + 1}: {told}; memory {server.memory_mb():.0f} MB")


@contextmanager
def training(root: Path) -> Iterator[None]:
    """Runs a real training from the page, on two clips, until the end of the block."""
    settings = {"create_example": True, "num_samples": 8, "output_dir": str(root / "datasets/ex")}
    jobs = Jobs(root / "jobs")
    made = jobs.submit("prepare", settings, title="ex", folder=root / "datasets/ex")
    while not jobs.get(made.id).is_over:
        time.sleep(0.5)
    run = root / "runs" / "now"
    settings = {"data_dir": str(root / "datasets/ex"), "output_dir": str(run), "num_epochs": 9999}
    job = jobs.submit("train", settings | {"previews": "off"}, title="now", folder=run)
    while not (run / "metrics.jsonl").is_file():
        if jobs.get(job.id).is_over:
            raise SystemExit(jobs.log(job.id))
        time.sleep(0.5)
    yield
    jobs.stop(job.id, by_force=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--training", action="store_true", help="while a training runs")
    parser.add_argument("--browser", action="store_true", help="a first load in Chromium too")
    parser.add_argument("--attack", type=int, default=0, help="hostile requests of each kind")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "workspace"
        fill(root)
        server = Server(root)
        try:
            print(f"start: {server.start_cpu_s:.1f} s CPU, {server.start_wall_s:.1f} s")
            if options.training:
                with training(root), others([server.process]):
                    measure_answers(server)
            else:
                with others([server.process]):
                    measure_answers(server)
            if options.browser:
                with others([server.process]):
                    measure_browser(server)
            if options.attack:
                attack(server, options.attack)
        finally:
            server.popen.terminate()
            server.popen.wait()


if __name__ == "__main__":
    main()
