"""How long a training waits for its data: 10, 1,000 and 100,000 clips, tokenised before.

    python benchmarks/dataset_start.py
    python benchmarks/dataset_start.py --clips 10 1000 --json_path start.json

The shards are written by the project's own writer, with random codes; the audio files are a few
bytes, since nothing reads them once their clips are in shards. Each size runs in a process of its
own. Times are of reading the metadata, of hashing (from the remembered hashes), of the rest of
what precedes the first step (shards, split, windows), and of the first batch; memory is what the
process takes beyond that with the model alone.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from musicgen_lora.config import EMBEDDED_NAME, TrainSettings
from musicgen_lora.console import plain_console
from musicgen_lora.data.metadata import load_dataset, write_entries
from musicgen_lora.data.tokens import CLIPS_PER_SHARD, _write_shard, clip_ids
from musicgen_lora.model.codec import codec_fingerprint
from musicgen_lora.model.musicgen import load_base
from musicgen_lora.training.loop import _batches, epoch_order
from musicgen_lora.training.material import gather

CAPTIONS = ["hip hop 808 beat", "dark trap beat, 140 bpm", "boom bap drums", "phonk with cowbell"]
N_FRAMES = 100


def make_data(folder: Path, n_clips: int, fingerprint: str) -> None:
    """A dataset of `n_clips` clips of two seconds, with their shards and remembered hashes."""
    (folder / "train").mkdir(parents=True)
    entries = []
    for index in range(n_clips):
        name = f"train/{index:06d}.wav"
        (folder / name).write_bytes(name.encode())
        entries.append({"audio": name, "text": CAPTIONS[index % len(CAPTIONS)]})
    write_entries(folder / "metadata.json", entries)
    ids = clip_ids(load_dataset(folder), folder)
    shards = folder / "tokens" / fingerprint
    shards.mkdir()
    rng = np.random.default_rng(0)
    codes = [rng.integers(0, 2048, (N_FRAMES, 4), dtype=np.uint16) for _ in range(CLIPS_PER_SHARD)]
    for start in range(0, n_clips, CLIPS_PER_SHARD):
        part = ids[start : start + CLIPS_PER_SHARD]
        _write_shard(shards, part, codes[: len(part)])


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(folder: Path) -> dict[str, float]:
    """Opens the dataset as `musicgen-lora train` does, up to the first batch."""
    model = load_base(EMBEDDED_NAME)
    settings = TrainSettings(data_dir=folder, output_dir=folder / "output")
    console = plain_console()
    console.quiet = True
    memory, began = peak_mb(), time.perf_counter()
    clips = load_dataset(folder)
    metadata_at = time.perf_counter()
    clip_ids(clips, folder)
    hashes_at = time.perf_counter()
    material = gather(settings, clips, model, console, frozen_text=True)
    gathered_at = time.perf_counter()
    order = epoch_order(len(material.dataset), settings.seed, 0)
    _batches(material.dataset, order[: settings.batch_size].tolist(), settings.batch_size)
    batch_at = time.perf_counter()
    hashes_s = hashes_at - metadata_at
    return {
        "metadata_s": metadata_at - began,
        "hashes_s": hashes_s,
        # It looks up the hashes once more.
        "gather_s": gathered_at - hashes_at - hashes_s,
        "batch_s": batch_at - gathered_at,
        "total_s": batch_at - began - hashes_s,
        "memory_mb": peak_mb() - memory,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clips", type=int, nargs="+", default=[10, 1_000, 100_000])
    parser.add_argument("--json_path", type=Path, help="where the figures go as JSON")
    parser.add_argument("--measure", type=Path, help="measure this dataset, here")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return
    fingerprint = codec_fingerprint(load_base(EMBEDDED_NAME))
    found: dict[int, dict[str, float]] = {}
    for n_clips in options.clips:
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "data"
            make_data(data, n_clips, fingerprint)
            command = [sys.executable, __file__, "--measure", str(data)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(done.stderr)
            found[n_clips] = json.loads(done.stdout.splitlines()[-1])
        figures = "".join(f"  {name} {value:8.2f}" for name, value in found[n_clips].items())
        print(f"{n_clips:7} clips{figures}", flush=True)
    if options.json_path:
        options.json_path.write_text(json.dumps(found, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
