"""What a cluster costs and what it survives, and what a million clips take.

    python benchmarks/scale.py costs                    # on paper: 1, 8 and 64 GPUs
    python benchmarks/scale.py kills --n_kills 20       # three nodes of one CPU; workers, nodes
    python benchmarks/scale.py overhead --clips 2000    # Ray beside the pool of processes
    python benchmarks/scale.py planned                  # the driver's memory, planned clips

`costs` simulates shards that workers fetch, encode and write through a shared link, and a training
of so many epochs, from rates that are given as flags; docs/scale.md says which were measured. The
others need the extra `scale`.
"""

from __future__ import annotations

import argparse
import heapq
import os
import random
import secrets
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CLIPS_PER_SHARD = 250


@dataclass(frozen=True)
class Rates:
    """What the paper calculation goes by.

    Args:
        n_clips: to tokenise and to train on.
        clip_s: seconds of each.
        encoded_s: seconds of audio that a GPU encodes in a second.
        decoded_s: seconds of audio that a core reads and resamples in a second.
        cores: readers for each GPU.
        link_mb: megabytes a second from the store to all machines together.
        file_mb: of a clip's file; 30 s of 16 bits mono at 32 kHz are 1.92.
        step_s: of a training step of one GPU.
        clips_per_step: of one GPU.
        epochs: over all clips.
        gradients_mb: of an adapter, summed at each step.
        network_mb: megabytes a second between machines.
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
    """Seconds until the last shard is written, and what binds. Each GPU works on one shard while
    it fetches the next; the link serves one after the other."""
    shard_s = CLIPS_PER_SHARD * rates.clip_s
    encode_s = shard_s / rates.encoded_s
    read_s = shard_s / (rates.decoded_s * rates.cores)
    work_s = max(encode_s, read_s)
    fetch_s = CLIPS_PER_SHARD * rates.file_mb / rates.link_mb
    free = [(0.0, gpu) for gpu in range(n_gpus)]
    link_free = 0.0
    for _ in range(-(-rates.n_clips // CLIPS_PER_SHARD)):
        at, gpu = heapq.heappop(free)
        # The shard was asked for when the last one was begun.
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
    """Seconds of a training, and what binds: steps, or the sum of gradients by a ring."""
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
    """A cluster of three nodes of one CPU on this machine."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(16)
    here = str(Path(__file__).resolve().parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
    from ray.cluster_utils import Cluster

    node: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    for _ in range(2):
        cluster.add_node(**node)
    return cluster


@dataclass(frozen=True)
class FileTask:
    """A file to write, as a shard is; `folder` also notes who works."""

    folder: Path
    number: int
    seconds: float


def write_file(task: FileTask, alive: Callable[[], None]) -> int:
    """Writes a file aside and renames it; one that is there stays."""
    from musicgen_lora import atomic

    (task.folder / "workers" / str(os.getpid())).touch()
    path = task.folder / "files" / f"{task.number}.txt"
    if not path.exists():
        time.sleep(task.seconds)
        atomic.write_file(path, lambda aside: aside.write_text(str(task.number)))
    return task.number


def kills(options: argparse.Namespace) -> None:
    """Ends workers and nodes at random while they work."""
    from musicgen_lora.cluster.ray_engine import joined
    from musicgen_lora.runtime.workers import Failure

    cluster = three_nodes()
    chance = random.Random(options.seed)
    node = {"num_cpus": 1, "object_store_memory": 100 << 20}
    with tempfile.TemporaryDirectory() as temporary, joined(cluster.address) as engine:
        folder = Path(temporary)
        (folder / "workers").mkdir()
        (folder / "files").mkdir()
        tasks = [FileTask(folder, n, options.seconds) for n in range(options.n_tasks)]
        waiting = list(range(len(tasks)))
        done: Counter[int] = Counter()
        n_kills = n_nodes = 0
        due = [len(tasks) * (k + 1) // (options.n_kills + 2) for k in range(options.n_kills)]
        while waiting:
            again = []
            for index, result in engine.run(write_file, [tasks[n] for n in waiting], 60.0):
                if isinstance(result, Failure):
                    again.append(waiting[index])
                    continue
                done[result] += 1
                if n_kills < len(due) and done.total() >= due[n_kills]:
                    n_kills += 1
                    workers = [int(path.name) for path in (folder / "workers").iterdir()]
                    living = [pid for pid in workers if Path(f"/proc/{pid}").exists()]
                    if chance.random() < 0.5 or not living:
                        # The second half of the list: the head stays.
                        cluster.remove_node(cluster.list_all_nodes[-1], allow_graceful=False)
                        cluster.add_node(**node)
                        n_nodes += 1
                    else:
                        os.kill(chance.choice(living), signal.SIGKILL)
            waiting = again
        written = sorted(int(path.stem) for path in (folder / "files").iterdir())
    cluster.shutdown()
    lost = set(range(len(tasks))) - done.keys()
    double = [number for number, count in done.items() if count > 1]
    print(
        f"{len(tasks)} tasks, {n_kills} kills ({n_nodes} of nodes): {len(lost)} lost, "
        f"{len(double)} double, files as planned: {written == list(range(len(tasks)))}"
    )


def overhead(options: argparse.Namespace) -> None:
    """Tokenises the same clips by the pool and by Ray, in turns."""
    from musicgen_lora.cluster.engine import open_engine
    from musicgen_lora.dataset.clip_ids import clip_ids
    from musicgen_lora.dataset.metadata import load_dataset, read_entries, write_entries
    from musicgen_lora.dataset.shard_tasks import encode_by
    from musicgen_lora.dataset.tokens import tokenise_clips
    from musicgen_lora.model.musicgen import MusicGen
    from musicgen_lora.prepare.examples import create_examples

    model = MusicGen.load("tiny-beats")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        metadata = create_examples(folder, 20, duration_s=12.0)
        entries = read_entries(metadata)
        clips = [
            entries[n % 20] | {"start_s": 0.002 * (n // 20), "duration_s": options.clip_s}
            for n in range(options.clips)
        ]
        write_entries(metadata, clips)
        dataset = load_dataset(folder)
        ids = clip_ids(dataset, folder)
        shards = folder / "tokens" / model.codec.fingerprint
        for turn in range(options.turns):
            for name, ray, n_workers in (("pool", None, 2), ("Ray", "local", 0)):
                began = time.monotonic()
                with open_engine(ray, n_workers) as engine:
                    ready = time.monotonic()
                    tokenise_clips(dataset, ids, model, folder, encode=encode_by(engine))
                    took = time.monotonic() - ready
                print(
                    f"turn {turn + 1}, {name}: {len(dataset)} clips in {took:.1f} s, and "
                    f"{ready - began:.1f} s to start",
                    flush=True,
                )
                for path in shards.iterdir():
                    path.unlink()


def nothing(task: Any, alive: Callable[[], None]) -> int:
    """Takes a shard's clips, and does nothing with them."""
    return len(task)


def planned(options: argparse.Namespace) -> None:
    """The driver's memory while shards of so many clips are handed out."""
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
    ended.add_argument("--n_tasks", type=int, default=200)
    ended.add_argument("--n_kills", type=int, default=20)
    ended.add_argument("--seconds", type=float, default=0.5, help="of a task")
    ended.add_argument("--seed", type=int, default=0)
    beside = parts.add_parser("overhead")
    beside.set_defaults(run=overhead)
    beside.add_argument("--clips", type=int, default=2000)
    beside.add_argument("--clip_s", type=float, default=2.0)
    beside.add_argument("--turns", type=int, default=2)
    memory = parts.add_parser("planned")
    memory.set_defaults(run=planned)
    memory.add_argument("--clips", type=int, nargs="+", default=[1_000, 100_000, 1_000_000])
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
