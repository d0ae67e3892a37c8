"""How much audio `prepare` takes in a minute, whether the cost is linear, and what memory it takes.

    python benchmarks/prepare_throughput.py --files 10 100

Renders different 808 beats, prepares each folder of them from nothing and once more, and prints
hours of audio a minute and the largest memory of any of its processes. `--profile` prints where
the time goes for one file, in this process.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import resource
import tempfile
import time
from pathlib import Path

import soundfile

from musicgen_lora.audio.beats808 import make_beat, render_beat
from musicgen_lora.config import PrepareSettings
from musicgen_lora.data.prepare import prepare_dataset

RATE = 44_100


def render_folder(folder: Path, n_files: int, duration_s: float) -> float:
    """Writes different beats; returns their seconds all together."""
    folder.mkdir(parents=True)
    total_s = 0.0
    for index in range(n_files):
        waveform = render_beat(make_beat((31, index), duration_s=duration_s), RATE, seed=index)
        soundfile.write(folder / f"beat{index:05d}.wav", waveform.T, RATE)
        total_s += waveform.shape[1] / RATE
    return total_s


def peak_mb() -> float:
    """Largest resident memory of this process or of any that it has waited for, in MB."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(kind).ru_maxrss for kind in kinds) / 1024


def measure(folder: Path, n_files: int, duration_s: float, n_workers: int) -> str:
    """A row of the table: a first run and a second one."""
    total_s = render_folder(folder / "in", n_files, duration_s)
    settings = PrepareSettings(
        input_dir=folder / "in", output_dir=folder / "out", num_workers=n_workers
    )
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        prepare_dataset(settings)
        seconds.append(time.perf_counter() - start)
    rate = total_s / 3600.0 / (seconds[0] / 60.0)
    return (
        f"{n_files:>7}{total_s / 60.0:>10.1f}{seconds[0]:>10.1f}{seconds[0] / n_files:>12.2f}"
        f"{rate:>14.2f}{seconds[1]:>12.1f}{peak_mb():>10.0f}"
    )


def profile(folder: Path, duration_s: float) -> None:
    """Functions by their own time, for one file."""
    render_folder(folder / "in", 1, duration_s)
    settings = PrepareSettings(input_dir=folder / "in", output_dir=folder / "out", num_workers=0)
    profiler = cProfile.Profile()
    profiler.runcall(prepare_dataset, settings)
    pstats.Stats(profiler).sort_stats("cumulative").print_stats("musicgen_lora", 25)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--files", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--seconds", type=float, default=60.0, help="of each file")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        if options.profile:
            profile(Path(temporary) / "profile", options.seconds)
            return
        rows = [
            measure(Path(temporary) / str(count), count, options.seconds, options.workers)
            for count in options.files
        ]
    print(f"\n{'files':>7}{'minutes':>10}{'seconds':>10}{'s a file':>12}", end="")
    print(f"{'hours a min':>14}{'second run':>12}{'peak MB':>10}")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
