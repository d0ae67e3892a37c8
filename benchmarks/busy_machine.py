"""How much a busy machine slows us down, depending on how OpenMP's threads wait: decoding and
training with the cores to ourselves and beside another process, compared in one run.

    python benchmarks/busy_machine.py                     # tiny-beats, some minutes
    python benchmarks/busy_machine.py --works decode:8 --waits default spin-1000 ours
    python benchmarks/busy_machine.py --n_others 2 --shape small --n_layers 4 --n_steps 20

Each figure comes from a process of its own, since OpenMP reads its settings once. All combinations
are measured in turns, so that a slow minute of the machine hits each of them; the median over the
turns is printed. "Busy" means beside `--n_others` processes that do nothing but loop. Whether
"idle" was idle is up to you: the load of other programs meanwhile is printed, and if that isn't
near 0, the idle column is for a busy machine too.

`ours` is what the commands do: a bounded spin, and one thread for decoding with a small model.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.text.states import EncodedText
from musicgen_lora.runtime.threads import DECIDED_BY, bounded_spinning

WAITS: dict[str, dict[str, str]] = {
    "default": {},
    "spin-100": {"GOMP_SPINCOUNT": "100"},
    "spin-1000": {"GOMP_SPINCOUNT": "1000"},
    "spin-3000": {"GOMP_SPINCOUNT": "3000"},
    "spin-10000": {"GOMP_SPINCOUNT": "10000"},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "one-thread": {"OMP_NUM_THREADS": "1"},
    "ours": bounded_spinning({}),
}
WORKS = ["decode:1", "decode:8", "train:4"]
"""Kinds of work, and the number of clips at once."""
CLIP_S = 10.0
"""Length of the clips that are trained on."""


def run_work(options: argparse.Namespace) -> dict[str, float]:
    """Milliseconds that a step of `--work` takes in this process, and of CPU time too."""
    # Here, since torch's threads wait as the environment says when torch is loaded.
    import torch
    from training_speed import clips, make_model, our_step

    from musicgen_lora.generation.decoding import decode, decoder
    from musicgen_lora.generation.decoding.request import Conditions, Request

    kind, n_clips = options.work.split(":")
    n_clips = int(n_clips)
    model: Any = make_model(options.shape, options.n_layers)
    marks: list[tuple[float, float]] = []

    def mark(*_: object) -> None:
        marks.append((time.perf_counter(), time.process_time()))

    if kind == "train":
        step, batch = our_step(model, options.shape, 12), clips(n_clips, CLIP_S)
        for _ in range(max(4, options.n_steps // 15)):
            step(batch)
            mark()
    else:
        if options.wait != "ours":
            decoder.ONE_THREAD_UP_TO = 0
        decode.generate_codes(
            BaseModel(model),
            Request(
                Conditions(
                    EncodedText(
                        torch.randn(n_clips, 20, model.config.text_encoder.hidden_size),
                        torch.ones(n_clips, 20, dtype=torch.long),
                    )
                ),
                n_frames=options.n_steps,
                seeds=list(range(n_clips)),
            ),
            on_step=mark,
        )
    # The first steps fetch memory.
    (began, cpu_began), *_, (ended, cpu_ended) = rest = marks[len(marks) // 4 :]
    n_steps = len(rest) - 1
    return {
        "wall_ms": 1000 * (ended - began) / n_steps,
        "cpu_ms": 1000 * (cpu_ended - cpu_began) / n_steps,
    }


def run_apart(options: argparse.Namespace, work: str, wait: str) -> dict[str, float]:
    """Runs `run_work` in a process whose threads wait in the given way."""
    command = [sys.executable, __file__, "--work", work, "--wait", wait]
    command += ["--shape", options.shape, "--n_steps", str(options.n_steps)]
    if options.n_layers:
        command += ["--n_layers", str(options.n_layers)]
    decided = {*DECIDED_BY, "OMP_NUM_THREADS"}
    plain = {name: value for name, value in os.environ.items() if name not in decided}
    done = subprocess.run(
        command, env=plain | WAITS[wait], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def others_at_work(n_others: int) -> Iterator[None]:
    """Keeps so many cores busy meanwhile."""
    # Until this process ends, however it ends.
    count = f"import os\nwhile os.getppid() == {os.getpid()}: pass"
    command = [sys.executable, "-c", count]
    started = [subprocess.Popen(command) for _ in range(n_others)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def cores_time_s() -> tuple[float, float]:
    """CPU seconds of all processes, and of this benchmark; (0, 0) if the system doesn't tell."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0, 0.0
    user, nice, system = stat.read_text(encoding="ascii").split()[1:4]
    both = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    own = sum(usage.ru_utime + usage.ru_stime for usage in both)
    return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK"), own


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Measures all works and waits, idle and busy, in turns; returns medians."""
    found: dict[tuple[str, str, str], list[dict[str, float]]] = {}
    began, (all_began, own_began) = time.monotonic(), cores_time_s()
    for _ in range(options.n_turns):
        for work in options.works:
            for wait in options.waits:
                for state, n_others in (("idle", 0), ("busy", options.n_others)):
                    with others_at_work(n_others):
                        result = run_apart(options, work, wait)
                    found.setdefault((work, wait, state), []).append(result)
                    print(f"  {work} {wait} {state}: {result['wall_ms']:.1f} ms", flush=True)
    wall_s, (all_ended, own_ended) = time.monotonic() - began, cores_time_s()
    others = ((all_ended - all_began) - (own_ended - own_began)) / wall_s
    print(f"{os.cpu_count()} cores, of which other programs took {max(0.0, others):.1f} meanwhile")
    print(f"{'ms a step':20}{'idle':>9}{'busy':>9}{'CPU, idle':>11}{'CPU, busy':>11}")
    rows = []
    for work in options.works:
        for wait in options.waits:
            row: dict[str, Any] = {"work": work, "wait": wait}
            for state in ("idle", "busy"):
                results = found[work, wait, state]
                for name in ("wall_ms", "cpu_ms"):
                    row[f"{state}_{name}"] = statistics.median(r[name] for r in results)
            rows.append(row)
            print(
                f"{work:9}{wait:11}{row['idle_wall_ms']:9.1f}{row['busy_wall_ms']:9.1f}"
                f"{row['idle_cpu_ms']:11.1f}{row['busy_cpu_ms']:11.1f}"
            )
    return {"others": others, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", choices=["tiny", "small"], default="tiny")
    parser.add_argument("--n_layers", type=int, help="of the decoder (default: the shape's own)")
    parser.add_argument("--works", nargs="+", default=WORKS, metavar="KIND:CLIPS")
    parser.add_argument("--waits", nargs="+", default=list(WAITS), choices=list(WAITS))
    parser.add_argument(
        "--n_steps", type=int, default=150, help="of decoding; training: a 15th of it"
    )
    parser.add_argument("--n_turns", type=int, default=3)
    parser.add_argument("--n_others", type=int, default=1, help="processes beside it, when busy")
    parser.add_argument("--json_path", type=Path, help="where the figures go as JSON")
    parser.add_argument("--work", help="one work, here")
    parser.add_argument("--wait", default="ours", help="how this process waits")
    options = parser.parse_args()
    if options.work:
        print(json.dumps(run_work(options)))
        return
    figures = compare(options)
    if options.json_path:
        options.json_path.write_text(json.dumps(figures, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
