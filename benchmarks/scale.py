"""What a cluster costs and survives, and what a million clips take.

    python benchmarks/scale.py costs                    # on paper: 1, 8 and 64 GPUs
    python benchmarks/scale.py kills --n_kills 20       # three nodes of one CPU; workers, nodes
    python benchmarks/scale.py overhead --clips 2000    # Ray against the pool of processes
    python benchmarks/scale.py planned                  # the driver's memory by planned clips

`costs` simulates shards that workers fetch, encode and write through a shared link, and a training
of some epochs, from rates given as flags; docs/scale.md says which were measured. The others need
the extra `scale`.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import random
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

CLIPS_PER_SHARD = 250
NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 << 20}
WAYS = {"pool": (None, 2), "Ray": ("local", 0)}
"""Ray's address and the number of processes."""


@dataclass(frozen=True)
class Rates:
    """The rates for the calculation on paper.

    Args:
        n_clips: clips to tokenise and to train on.
        clip_s: length of each in seconds.
        encoded_s: seconds of audio that a GPU encodes per second.
        decoded_s: seconds of audio that a core reads and resamples per second.
        cores: readers for each GPU.
        link_mb: megabytes per second from the store to all machines together.
        file_mb: size of a clip's file; 30 s of 16-bit mono at 32 kHz are 1.92.
        step_s: seconds of a training step on one GPU.
        clips_per_step: clips in a step of one GPU.
        epochs: passes over all clips.
        gradients_mb: size of an adapter's gradients, summed at each step.
        network_mb: megabytes per second between machines.
    """

    n_clips: int
    clip_s: float
    encoded_s: float
    decoded_s: float
    cores: int
    link_mb: float
    file_mb: float
    step_s: float
    clips_per_step: int
    epochs: float
    gradients_mb: float
    network_mb: float


def tokenising_s(rates: Rates, n_gpus: int) -> tuple[float, str]:
    """Seconds until the last shard is written, and the bottleneck. Each GPU works on one shard
    while it fetches the next; the link serves one after another."""
    shard_s = CLIPS_PER_SHARD * rates.clip_s
    encode_s = shard_s / rates.encoded_s
    read_s = shard_s / (rates.decoded_s * rates.cores)
    work_s = max(encode_s, read_s)
    fetch_s = CLIPS_PER_SHARD * rates.file_mb / rates.link_mb
    free = [(0.0, gpu) for gpu in range(n_gpus)]
    link_free = 0.0
    for _ in range(-(-rates.n_clips // CLIPS_PER_SHARD)):
        at, gpu = heapq.heappop(free)
        # The shard was requested when the previous one was started.
        link_free = max(link_free, at - work_s) + fetch_s
        heapq.heappush(free, (max(at, link_free) + work_s, gpu))
    end = max(at for at, _ in free)
    loads = {
        "the GPUs": work_s / n_gpus if encode_s >= read_s else 0.0,
        "reading audio": work_s / n_gpus if read_s > encode_s else 0.0,
        "the link": fetch_s,
    }
    return end, max(loads, key=lambda name: loads[name])


def training_s(rates: Rates, n_gpus: int) -> tuple[float, str]:
    """Seconds of a training, and the bottleneck: steps, or the gradients' ring all-reduce."""
    n_steps = rates.epochs * rates.n_clips / (rates.clips_per_step * n_gpus)
    sum_s = 2.0 * (n_gpus - 1) / n_gpus * rates.gradients_mb / rates.network_mb
    binds = "the step" if rates.step_s >= sum_s else "the network"
    return n_steps * (rates.step_s + sum_s), binds


def costs(options: argparse.Namespace) -> None:
    names = Rates.__dataclass_fields__
    rates = Rates(**{name: getattr(options, name) for name in names})
    audio_tb = rates.n_clips * rates.file_mb / 1e6
    tokens_gb = rates.n_clips * rates.clip_s * 50 * 4 * 2 / 1e9
    print(f"{rates.n_clips:,} clips: {audio_tb:.2f} TB of audio, {tokens_gb:.1f} GB of tokens")
    for n_gpus in options.gpus:
        tokenise, binds = tokenising_s(rates, n_gpus)
        train, binds_training = training_s(rates, n_gpus)
        n_steps = rates.epochs * rates.n_clips / (rates.clips_per_step * n_gpus)
        traffic_gb = 2.0 * (n_gpus - 1) / n_gpus * rates.gradients_mb * n_steps / 1e3
        print(
            f"{n_gpus:3} GPUs: tokenising {tokenise / 3600:7.2f} h (by {binds}), training "
            f"{train / 3600:8.1f} h (by {binds_training}), {traffic_gb:8.0f} GB of gradients "
            "sent by each"
        )


def three_nodes() -> Any:
    """Starts a cluster of three nodes with one CPU each on this machine."""
    from musicgen_lora.cluster.ray_engine import LOCAL_ENVIRONMENT

    os.environ |= LOCAL_ENVIRONMENT
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(16)
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    for number in range(3):
        add_node(cluster, **({} if number else {"include_dashboard": False}))
    return cluster


def add_node(cluster: Any, **more: Any) -> Any:
    """Adds a node; Ray gives up after half a minute, which a busy machine may need."""
    for _ in range(3):
        with suppress(Exception):
            return cluster.add_node(**NODE, **more)
    return cluster.add_node(**NODE, **more)


def make_data(folder: Path, n_clips: int, clip_s: float) -> None:
    """Makes a dataset of windows at different positions in a few synthetic files."""
    from musicgen_lora.dataset.metadata import read_entries, write_entries
    from musicgen_lora.prepare.examples import create_examples

    metadata = create_examples(folder, 20, duration_s=12.0)
    entries = read_entries(metadata)
    clips = [
        entries[n % 20] | {"start_s": 0.002 * (n // 20), "duration_s": clip_s}
        for n in range(n_clips)
    ]
    write_entries(metadata, clips)


def tokenise(folder: Path, on_clip: Callable[[float, int], None], encode: Any) -> dict[str, bytes]:
    """Tokenises a dataset with an engine, or here if None; returns the files of the shards."""
    from musicgen_lora.dataset.clip_ids import clip_ids
    from musicgen_lora.dataset.metadata import load_dataset
    from musicgen_lora.dataset.tokens import tokenise_clips
    from musicgen_lora.model.base_model import BaseModel

    model, dataset = BaseModel.load("tiny-beats"), load_dataset(folder)
    tokenise_clips(dataset, clip_ids(dataset, folder), model, folder, on_clip, encode)
    paths = (folder / "tokens" / model.codec.fingerprint).iterdir()
    return {p.name: p.read_bytes() for p in paths if p.suffix in (".npy", ".parquet")}


class Killer:
    """Kills random workers or nodes of a cluster while clips are processed.

    Args:
        cluster: three nodes.
        n_kills: how many.
        n_clips: all clips, over which the kills are evenly spread.
        seed: decides what is killed.
    """

    def __init__(self, cluster: Any, n_kills: int, n_clips: int, seed: int) -> None:
        self._cluster, self._chance = cluster, random.Random(seed)
        self._due = [n_clips * (k + 1) // (n_kills + 2) for k in range(n_kills)]
        self.ended: Counter[str] = Counter()

    def __call__(self, n_done: float, n_clips: int) -> None:
        if self._due and n_done >= self._due[0]:
            self._due.pop(0)
            workers = self._workers()
            if workers and self._chance.random() < 0.5:
                self._chance.choice(workers).kill()
                self.ended["workers"] += 1
            else:
                # The head stays.
                node = self._chance.choice(sorted(self._cluster.worker_nodes, key=str))
                self._cluster.remove_node(node, allow_graceful=False)
                add_node(self._cluster)
                self.ended["nodes"] += 1

    def _workers(self) -> list[Any]:
        import psutil

        below = psutil.Process().children(recursive=True)
        return [p for p in below if p.name().startswith("ray::_attempt")]


def kills(options: argparse.Namespace) -> None:
    """Kills random workers and nodes while they tokenise."""
    import pyarrow.parquet as pq

    from musicgen_lora.cluster.ray_engine import joined_cluster
    from musicgen_lora.dataset import encoding
    from musicgen_lora.dataset.shard_tasks import encode_by

    encoding.CLIPS_PER_SHARD = options.per_shard
    cluster, n_clips = three_nodes(), options.per_shard * options.n_shards
    with tempfile.TemporaryDirectory() as temporary, joined_cluster(cluster.address) as engine:
        for name in ("here", "far"):
            make_data(Path(temporary) / name, n_clips, 1.0)
        expected = tokenise(Path(temporary) / "here", lambda done, total: None, None)
        killer = Killer(cluster, options.n_kills, n_clips, options.seed)
        found = tokenise(Path(temporary) / "far", killer, encode_by(engine))
        indexes = (Path(temporary) / "far").rglob("*.parquet")
        ids = Counter(i for path in indexes for i in pq.read_table(path)["id"].to_pylist())
    cluster.shutdown()
    print(
        f"{n_clips} clips in {len(found) // 2} shards, {dict(killer.ended)} ended: "
        f"{n_clips - len(ids)} lost, {sum(n > 1 for n in ids.values())} double, "
        f"byte-equal to this process's: {found == expected}"
    )


class Busy(threading.Thread):
    """Samples the CPU seconds of this process and its descendants, which other users of the machine
    affect less than wall time."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._seen: dict[tuple[int, float], float] = {}
        self._done = threading.Event()

    def look(self) -> float:
        """CPU seconds so far."""
        import psutil

        own = psutil.Process()
        for process in [own, *own.children(recursive=True)]:
            with suppress(psutil.Error):
                times = process.cpu_times()
                self._seen[process.pid, process.create_time()] = times.user + times.system
        return sum(self._seen.values())

    def run(self) -> None:
        while not self._done.wait(0.3):
            self.look()

    def end(self) -> float:
        self._done.set()
        return self.look()


def one_way(options: argparse.Namespace) -> None:
    """Tokenises a dataset with the pool or with Ray, in a process of its own."""
    import shutil

    from musicgen_lora.cluster.engine import open_engine
    from musicgen_lora.dataset.shard_tasks import encode_by

    folder, busy = options.folder, Busy()
    shutil.rmtree(folder / "tokens", ignore_errors=True)
    before, began = busy.look(), time.monotonic()
    busy.start()
    with open_engine(*WAYS[options.way]) as engine:
        ready, at_start = time.monotonic(), busy.look()
        tokenise(folder, lambda done, total: None, encode_by(engine))
        made, at_end = time.monotonic(), busy.look()
    work = {"start_s": ready - began, "work_s": made - ready, "all_s": time.monotonic() - began}
    cpu = {"start_cpu_s": at_start - before, "work_cpu_s": at_end - at_start}
    print(json.dumps(work | cpu | {"all_cpu_s": busy.end() - before}))


def overhead(options: argparse.Namespace) -> None:
    """Tokenises the same clips with the pool and with Ray, in turns, each in its own process."""
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as temporary:
        make_data(Path(temporary), options.clips, options.clip_s)
        for turn in range(options.turns):
            # The order alternates, since the machine's load varies.
            for way in list(WAYS)[:: 1 if turn % 2 else -1]:
                command = [sys.executable, __file__, "one_way", way, temporary]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                found[way].append(json.loads(done.stdout.splitlines()[-1]))
                figures = "".join(f"  {name} {v:6.1f}" for name, v in found[way][-1].items())
                print(f"turn {turn + 1}, {way:4}: {options.clips} clips {figures}", flush=True)
    for name in found["pool"][0]:
        pool, ray = (median(one[name] for one in found[way]) for way in WAYS)
        more = f" ({100 * (ray / pool - 1):+.0f} %)" if pool else ""
        print(f"median {name}: pool {pool:.1f}, Ray {ray:.1f}{more}")


def nothing(task: Any, alive: Callable[[], None]) -> int:
    """Takes a shard's clips and does nothing with them."""
    return len(task)


def planned(options: argparse.Namespace) -> None:
    """Measures the driver's memory while shards of many clips are handed out."""
    import psutil

    from musicgen_lora.cluster.engine import open_engine

    class Shards(Sequence[Any]):
        def __init__(self, n_clips: int) -> None:
            self.n_clips = n_clips

        def __len__(self) -> int:
            return self.n_clips // CLIPS_PER_SHARD

        def __getitem__(self, index: Any) -> Any:
            if index >= len(self):
                raise IndexError(index)
            names = range(CLIPS_PER_SHARD * index, CLIPS_PER_SHARD * (index + 1))
            return [(f"{n:064x}", f"train/{n:07}.wav") for n in names]

    with open_engine("local") as engine:
        list(engine.run(nothing, Shards(1000)))
        for n_clips in options.clips:
            began, peak = time.monotonic(), 0
            for _ in engine.run(nothing, Shards(n_clips)):
                peak = max(peak, psutil.Process().memory_info().rss)
            took = time.monotonic() - began
            n_tasks = n_clips // CLIPS_PER_SHARD
            print(
                f"{n_clips:9,} clips, {n_tasks} tasks: {peak / 1e6:.0f} MB in the driver, "
                f"{1e3 * took / n_tasks:.1f} ms a task",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parts = parser.add_subparsers(required=True)
    paper = parts.add_parser("costs")
    paper.set_defaults(run=costs)
    paper.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64])
    defaults = Rates(
        n_clips=1_000_000,
        clip_s=30.0,
        encoded_s=2_000.0,
        decoded_s=300.0,
        cores=8,
        link_mb=1_250.0,
        file_mb=1.92,
        step_s=0.5,
        clips_per_step=8,
        epochs=1.0,
        gradients_mb=31.0,
        network_mb=1_250.0,
    )
    for name in Rates.__dataclass_fields__:
        value = getattr(defaults, name)
        paper.add_argument(f"--{name}", type=type(value), default=value)
    ended = parts.add_parser("kills")
    ended.set_defaults(run=kills)
    ended.add_argument("--n_shards", type=int, default=60)
    ended.add_argument("--per_shard", type=int, default=10, help="clips")
    ended.add_argument("--n_kills", type=int, default=20)
    ended.add_argument("--seed", type=int, default=0)
    beside = parts.add_parser("overhead")
    beside.set_defaults(run=overhead)
    beside.add_argument("--clips", type=int, default=2000)
    beside.add_argument("--clip_s", type=float, default=2.0)
    beside.add_argument("--turns", type=int, default=5)
    alone = parts.add_parser("one_way", help="of overhead")
    alone.set_defaults(run=one_way)
    alone.add_argument("way", choices=list(WAYS))
    alone.add_argument("folder", type=Path)
    memory = parts.add_parser("planned")
    memory.set_defaults(run=planned)
    memory.add_argument("--clips", type=int, nargs="+", default=[1_000, 100_000, 1_000_000])
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
