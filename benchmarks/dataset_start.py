"""How long a training waits for its data: 10 to a million clips that are already tokenised.

    python benchmarks/dataset_start.py
    python benchmarks/dataset_start.py --clips 10 1000 --json_path start.json
    python benchmarks/dataset_start.py --clips 10 1000 100000 1000000 --n_turns 1

The shards are written by the project's own writer, with random codes; the audio files are a few
bytes, since nothing reads them once their clips are in shards. Each size runs three times, each in
a process of its own: the first start parses the metadata and caches it, a later one finds the
cache, and one with `--from_tokens` looks at no audio file. Times are for reading the metadata, for
gathering (hashes, shards, split, windows), for the run's identity and record, and for both kinds of
order with a step's batches; `cpu_s` is the process's CPU time in it, which other programs on the
machine affect less; memory is the process's peak beyond that with the model alone (Linux). Then
come the batches of fifty steps in random order: milliseconds per step for reading, and how many
shards have been opened before the first step and after the fiftieth.

Last comes the command itself: seconds until `musicgen-lora train` has recorded its first step,
libraries and model included, with one validation window for each size, with and without
`--from_tokens`, and seconds per step from then on; they take turns.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from musicgen_lora.config import EMBEDDED_NAME, TrainSettings
from musicgen_lora.console import plain_console
from musicgen_lora.dataset.batches import epoch_order, grouped_order
from musicgen_lora.dataset.clip_ids import clip_ids
from musicgen_lora.dataset.encoding import CLIPS_PER_SHARD, write_shard
from musicgen_lora.dataset.metadata import load_dataset, write_entries
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.training.data import open_data
from musicgen_lora.training.record.identity import data_facts, run_identity
from musicgen_lora.training.record.run_folder import METRICS_FILE
from musicgen_lora.training.step import step_batches

CAPTIONS = ["hip hop 808 beat", "dark trap beat, 140 bpm", "boom bap drums", "phonk with cowbell"]
FACTS = {
    "duration_s": 2.0,
    "bpm": 140,
    "key": "C# minor",
    "tags": ["808", "trap"],
    "loudness_lufs": -14.0,
    "cut": "bars",
    "made_from": 64 * "0",
}
"""Roughly what `prepare` writes about a clip."""
N_FRAMES = 100
N_READ = 50
"""Steps whose batches are read."""
N_STEPS = 12
"""Steps of the command."""
STEPS = ("metadata_s", "gather_s", "record_s", "batches_s")


def make_data(folder: Path, n_clips: int, fingerprint: str) -> None:
    """Makes a dataset of `n_clips` clips of two seconds, with their shards and cached hashes."""
    (folder / "train").mkdir(parents=True)
    entries: list[dict[str, Any]] = []
    for index in range(n_clips):
        name = f"train/{index:06d}.wav"
        (folder / name).write_bytes(name.encode())
        entries.append(
            {"audio": name, "text": CAPTIONS[index % len(CAPTIONS)], **FACTS}
            | {"source": f"recording {index // 4}", "at_s": 2.0 * (index % 4)}
        )
    write_entries(folder / "metadata.json", entries)
    ids = clip_ids(load_dataset(folder), folder)
    shards = folder / "tokens" / fingerprint
    shards.mkdir()
    rng = np.random.default_rng(0)
    codes = [rng.integers(0, 2048, (N_FRAMES, 4), dtype=np.uint16) for _ in range(CLIPS_PER_SHARD)]
    for start in range(0, n_clips, CLIPS_PER_SHARD):
        part = ids[start : start + CLIPS_PER_SHARD]
        write_shard(shards, part, codes[: len(part)])


def peak_mb() -> float:
    # Not from `getrusage`, whose peak starts at that of the parent process.
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def opened_shards() -> set[str]:
    """A set that collects the shards that this process opens from now on."""
    paths: set[str] = set()

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and str(arguments[0]).endswith(".npy"):
            paths.add(str(arguments[0]))

    sys.addaudithook(look)
    return paths


def measure(folder: Path, *, from_tokens: bool) -> dict[str, float]:
    """Opens the dataset as `musicgen-lora train` does, up to the first batch, and then reads on."""
    opened = opened_shards()
    model = BaseModel.load(EMBEDDED_NAME)
    settings = TrainSettings(data_dir=folder, output_dir=folder / "output", from_tokens=from_tokens)
    console = plain_console()
    console.quiet = True
    # As the command does.
    gc.freeze()
    memory, times, busy_from = peak_mb(), [time.perf_counter()], time.process_time()
    clips = load_dataset(folder, look_at_files=not from_tokens)
    times.append(time.perf_counter())
    data = open_data(settings, clips, model, console, frozen_text=True)
    times.append(time.perf_counter())
    run_identity(settings, "base", data.clips, data.ids)
    data_facts(settings, data.clips, data.ids, data.train, data.held_out)
    times.append(time.perf_counter())
    dataset = data.dataset
    per_step = settings.batch_size * settings.gradient_accumulation_steps
    for order in (
        epoch_order(len(dataset), settings.seed, 0),
        grouped_order(dataset.n_frames(), settings.seed, 0, per_step),
    ):
        step_batches(dataset, order[:per_step].tolist(), settings.batch_size)
    times.append(time.perf_counter())
    steps = dict(zip(STEPS, np.diff(times).tolist(), strict=True))
    found = {
        **steps,
        "total_s": times[-1] - times[0],
        "cpu_s": time.process_time() - busy_from,
        "memory_mb": peak_mb() - memory,
        "opened": len(opened),
    }
    order, read_ms = epoch_order(len(dataset), settings.seed, 1), list[float]()
    for start in range(0, N_READ * per_step, per_step):
        rows = np.take(order, range(start, start + per_step), mode="wrap").tolist()
        began = time.perf_counter()
        step_batches(dataset, rows, settings.batch_size)
        read_ms.append(1e3 * (time.perf_counter() - began))
    return found | {"read_ms": statistics.median(read_ms), "opened_then": len(opened)}


def command_s(data: Path, *flags: str) -> tuple[float, float]:
    """Seconds from the command to the first step that it records, and per step after that."""
    output = data.parent / f"output{time.monotonic_ns()}"
    words = f"--data_dir {data} --output_dir {output} --max_steps {N_STEPS}"
    command = [sys.executable, "-m", "musicgen_lora.cli", "train", "--allow_random_base"]
    command += ["--previews", "off", "--max_validation_windows", "1", "--num_epochs", "100"]
    command += ["--validate_every", "1000"]
    began, times = time.perf_counter(), list[float]()
    with subprocess.Popen([*command, *words.split(), *flags], stdout=subprocess.DEVNULL) as process:
        metrics = output / METRICS_FILE
        while process.poll() is None:
            n_steps = metrics.read_text().count('"event": "train"') if metrics.is_file() else 0
            times += [time.perf_counter() - began] * (n_steps - len(times))
            time.sleep(0.01)
    if process.returncode or not times:
        raise SystemExit(f"{' '.join(command)}: ended with {process.returncode}")
    return times[0], statistics.median(np.diff(times).tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clips", type=int, nargs="+", default=[10, 1_000, 100_000])
    parser.add_argument("--n_turns", type=int, default=3, help="turns of the command at each size")
    parser.add_argument("--json_path", type=Path, help="where the figures go as JSON")
    parser.add_argument("--measure", type=Path, help="measure this dataset, here")
    parser.add_argument("--from_tokens", action="store_true", help="with --measure")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, from_tokens=options.from_tokens)))
        return
    fingerprint = BaseModel.load(EMBEDDED_NAME).codec.fingerprint
    found: dict[int, dict[str, Any]] = {n_clips: {} for n_clips in options.clips}
    with tempfile.TemporaryDirectory() as folder:
        for n_clips in options.clips:
            data = Path(folder) / str(n_clips) / "data"
            make_data(data, n_clips, fingerprint)
            (data / "tokens" / "metadata.json.arrow").unlink(missing_ok=True)
            for start in ("first", "later", "from_tokens"):
                command = [sys.executable, __file__, "--measure", str(data)]
                command += ["--from_tokens"] if start == "from_tokens" else []
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise SystemExit(done.stderr)
                found[n_clips][start] = json.loads(done.stdout.splitlines()[-1])
                figures = "".join(f"  {n} {v:7.2f}" for n, v in found[n_clips][start].items())
                print(f"{n_clips:7} clips, {start:11} start{figures}", flush=True)
        ways = [(n_clips, flags) for n_clips in options.clips for flags in ([], ["--from_tokens"])]
        for n_clips, flags in options.n_turns * ways:
            seconds = command_s(Path(folder) / str(n_clips) / "data", *flags)
            found[n_clips].setdefault(" ".join(["command", *flags]), []).append(seconds)
        for n_clips, flags in ways:
            name = " ".join(["command", *flags])
            first_s, step_s = np.median(found[n_clips][name], axis=0).tolist()
            print(
                f"{n_clips:7} clips, from the {name} to the first step {first_s:.2f} s, then "
                f"{step_s:.3f} s a step"
            )
    if options.json_path:
        options.json_path.write_text(json.dumps(found, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
