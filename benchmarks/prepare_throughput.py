"""How much audio `prepare` processes per minute, whether the cost is linear, and its memory.

    python benchmarks/prepare_throughput.py --files 10 100 1000
    python benchmarks/prepare_throughput.py --files --hours 3 --small 10000

Renders different 808 beats, prepares each folder of them from scratch and once more, and prints
hours of audio per minute, CPU seconds of all processes, which other work on the machine hardly
affects, and memory: the peak of all processes together (shared pages counted once, as in PSS), and
the peaks of the command's own process and of its largest worker. `--json FILE` writes the figures
too. `--profile` prints where the time goes for one file, in this process. Linux only.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import re
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.config import PrepareSettings
from musicgen_lora.prepare.prepare import prepare_dataset

RATE = 44_100


def render_folder(folder: Path, n_files: int, duration_s: float) -> float:
    """Writes different beats; returns their total seconds."""
    folder.mkdir(parents=True)
    total_s = 0.0
    for index in range(n_files):
        waveform = render_beat(make_beat((31, index), duration_s=duration_s), RATE, seed=index)
        soundfile.write(folder / f"beat{index:05d}.wav", waveform.T, RATE)
        total_s += waveform.shape[1] / RATE
    return total_s


def render_long(folder: Path, hours: float) -> float:
    """Writes one FLAC of different beats end to end, some repeated; returns its seconds."""
    folder.mkdir(parents=True)
    beats = [render_beat(make_beat((37, i), duration_s=60.0), RATE, seed=i) for i in range(12)]
    n_samples, written = round(hours * 3600 * RATE), 0
    with soundfile.SoundFile(folder / "long.flac", "w", RATE, 2) as file:
        index = 0
        while written < n_samples:
            beat = beats[(index + index // 12) % 12]
            beat = np.broadcast_to(beat, (2, beat.shape[1]))[:, : n_samples - written]
            file.write(beat.T)
            written += beat.shape[1]
            index += 1
    return written / RATE


def render_small(folder: Path, n_files: int) -> float:
    """Writes pieces of 1.1 s, in folders of 1,000; returns their total seconds."""
    piece = round(1.1 * RATE)
    beat = np.zeros((1, 0))
    for index in range(n_files):
        if index % 50 == 0:
            seed = index // 50
            beat = render_beat(make_beat((41, seed), duration_s=58.0), RATE, seed=seed)
        place = folder / f"{index // 1000:02d}" / f"piece{index:05d}.wav"
        place.parent.mkdir(parents=True, exist_ok=True)
        at = index % 50 * piece
        soundfile.write(place, beat[:, at : at + piece].T, RATE)
    return n_files * piece / RATE


class Watch(threading.Thread):
    """Measures memory and CPU seconds of this process and its descendants every 0.1 s: the workers
    are children of a server, so the system's own sums leave them out."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peaks_mb: dict[int, float] = {}
        """Peak of each process."""
        self.peak_sum_mb = 0.0
        """Peak of all together."""
        self._cpu_s: dict[int, float] = {}
        self._before_s: float | None = None
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(0.1):
            self._look()

    def stop(self) -> float:
        """CPU seconds since the start."""
        self._done.set()
        self.join()
        self._look()
        return sum(self._cpu_s.values()) - (self._before_s or 0.0)

    def _look(self) -> None:
        parents: dict[int, int] = {}
        cpu_s: dict[int, float] = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                # It has ended since it was listed.
                continue
            parents[int(folder.name)] = int(fields[1])
            cpu_s[int(folder.name)] = sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
        sum_mb = 0.0
        for process in parents:
            ancestor = process
            while ancestor not in (0, os.getpid()):
                ancestor = parents.get(ancestor, 0)
            if not ancestor:
                continue
            try:
                status = Path(f"/proc/{process}/status").read_text()
                shares = Path(f"/proc/{process}/smaps_rollup").read_text()
            except OSError:
                continue
            self.peaks_mb[process] = _megabytes("VmHWM", status)
            sum_mb += _megabytes("Pss", shares)
            self._cpu_s[process] = cpu_s[process]
        self.peak_sum_mb = max(self.peak_sum_mb, sum_mb)
        if self._before_s is None:
            self._before_s = sum(self._cpu_s.values())


def _megabytes(name: str, table: str) -> float:
    found = re.search(rf"^{name}:\s*(\d+) kB", table, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def measure(
    folder: Path, name: str, total_s: float, n_files: int, n_workers: int
) -> dict[str, Any]:
    """The figures of a first and a second run."""
    settings = PrepareSettings(
        input_dir=folder / "in", output_dir=folder / "out", num_workers=n_workers
    )
    runs = []
    for _ in range(2):
        watch = Watch()
        watch.start()
        start = time.perf_counter()
        prepare_dataset(settings)
        seconds = time.perf_counter() - start
        cpu_s = watch.stop()
        own_mb = watch.peaks_mb.pop(os.getpid())
        runs.append(
            {
                "seconds": seconds,
                "cpu_s": cpu_s,
                "all_mb": watch.peak_sum_mb,
                "own_mb": own_mb,
                "worker_mb": max(watch.peaks_mb.values(), default=0.0),
            }
        )
    return {
        "name": name,
        "files": n_files,
        "audio_s": total_s,
        "workers": n_workers,
        "first": runs[0],
        "second": runs[1],
    }


def row(figures: dict[str, Any]) -> str:
    """A line of the table."""
    first, second = figures["first"], figures["second"]
    minutes = figures["audio_s"] / 60.0
    return (
        f"{figures['name']:>10}{minutes:>10.1f}{first['seconds']:>10.1f}{first['cpu_s']:>9.1f}"
        f"{first['cpu_s'] / figures['files']:>14.3f}{minutes / first['seconds']:>13.2f}"
        f"{minutes / first['cpu_s']:>14.2f}{second['seconds']:>10.1f}{second['cpu_s']:>8.1f}"
        f"{first['all_mb']:>9.0f}{first['own_mb']:>9.0f}{first['worker_mb']:>10.0f}"
    )


def profile(folder: Path, duration_s: float) -> None:
    """Prints functions by their own time, for one file."""
    render_folder(folder / "in", 1, duration_s)
    settings = PrepareSettings(input_dir=folder / "in", output_dir=folder / "out", num_workers=0)
    profiler = cProfile.Profile()
    profiler.runcall(prepare_dataset, settings)
    pstats.Stats(profiler).sort_stats("cumulative").print_stats("musicgen_lora", 25)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--files", type=int, nargs="*", default=[10, 100])
    parser.add_argument("--seconds", type=float, default=60.0, help="length of each file")
    parser.add_argument(
        "--hours", type=float, default=0.0, help="length of an additional long file"
    )
    parser.add_argument("--small", type=int, default=0, help="number of additional files of 1.1 s")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        if options.profile:
            profile(root / "profile", options.seconds)
            return
        for count in options.files:
            folder = root / str(count)
            total_s = render_folder(folder / "in", count, options.seconds)
            rows.append(measure(folder, f"{count}", total_s, count, options.workers))
        if options.hours:
            total_s = render_long(root / "long" / "in", options.hours)
            name = f"{options.hours:g} h"
            rows.append(measure(root / "long", name, total_s, 1, options.workers))
        if options.small:
            total_s = render_small(root / "small" / "in", options.small)
            name = f"{options.small} small"
            rows.append(measure(root / "small", name, total_s, options.small, options.workers))
    print(f"\n{'files':>10}{'minutes':>10}{'seconds':>10}{'CPU s':>9}{'CPU s a file':>14}", end="")
    print(f"{'hours a min':>13}{'h a CPU min':>14}{'2nd run':>10}{'CPU s':>8}", end="")
    print(f"{'all MB':>9}{'own MB':>9}{'worker MB':>10}")
    print("\n".join(map(row, rows)))
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
