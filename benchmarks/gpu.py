"""All tests and timings that need a GPU, in one call of under eight minutes.

    python benchmarks/gpu.py --out_dir gpu          # on a card
    python benchmarks/gpu.py --toy --out_dir toy    # the same code on a CPU, in a minute
    python benchmarks/gpu.py --sections right decoding

Sections: `right` runs the tests of `tests/cuda` on the GPU; `training`, `decoding`, `tokenising`
and `packed` give figures, see `gpu_sections.py`. Each runs in a process of its own with its own
time limit; one that fails or runs out of time says so and keeps its rows, and the next one runs.
Rows go to `<out_dir>/<section>.jsonl` as they come, everything to `<out_dir>/gpu.json`, and a table
is printed last. It needs torch, transformers, peft, accelerate, safetensors and numpy, and
pytest for `right`; no library for audio or tables.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
LIMITS_S = {"right": 110, "packed": 50, "tokenising": 30, "decoding": 90, "training": 190}
"""In this order, the cheap ones first; together under eight minutes."""
CARDS_GB = (8, 12, 16, 24)
SPARE_GB = 0.8
"""Memory of a GPU left for CUDA's context and the allocator's gaps."""


def command_of(name: str, out_dir: Path, toy: bool) -> list[str]:
    """The command that runs a section."""
    if name == "right":
        return [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/cuda", "-rfs"]
    command = [sys.executable, __file__, "--section", name, "--out_dir", str(out_dir)]
    return [*command, "--toy"] if toy else command


def run_section(name: str, out_dir: Path, toy: bool) -> dict[str, Any]:
    """Runs a section in a process of its own; returns how it ended, and its rows."""
    rows_path = out_dir / f"{name}.jsonl"
    rows_path.unlink(missing_ok=True)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(
        [str(HERE.parent / "src"), str(HERE), os.environ.get("PYTHONPATH", "")]
    )}  # fmt: skip
    began = time.monotonic()
    log = out_dir / f"{name}.log"
    with open(log, "w", encoding="utf-8") as file:
        try:
            code = subprocess.run(
                command_of(name, out_dir, toy),
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=LIMITS_S[name],
                cwd=HERE.parent,
                env=environment,
                check=False,
            ).returncode
            ended = "done" if code == 0 else f"failed with exit code {code}, see {log}"
        except subprocess.TimeoutExpired:
            ended = f"out of its {LIMITS_S[name]} s"
    rows = []
    if rows_path.is_file():
        rows = [json.loads(line) for line in rows_path.read_text(encoding="utf-8").splitlines()]
    last = (log.read_text(encoding="utf-8").strip().splitlines() or [""])[-1]
    return {"ended": ended, "seconds": time.monotonic() - began, "rows": rows, "last_line": last}


def work_section(name: str, out_dir: Path, toy: bool) -> None:
    """Runs a section in this process."""
    import torch
    from gpu_sections import FULL, SECTIONS, TOY

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with open(out_dir / f"{name}.jsonl", "a", encoding="utf-8") as file:
        for row in SECTIONS[name](TOY if toy else FULL, device):
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(row, flush=True)


def fits(rows: list[dict[str, Any]]) -> list[str]:
    """The batch of each kind of clips that fits each GPU, from the peaks of our rows."""
    measured = [row for row in rows if row.get("peak_gb") and row["side"].startswith("ours")]
    keys = dict.fromkeys((row["what"], row["clip_s"], row["side"]) for row in measured)
    lines = []
    for shape, clip_s, side in keys:
        same = [r for r in measured if (r["what"], r["clip_s"], r["side"]) == (shape, clip_s, side)]
        best = [
            max((r["batch"] for r in same if r["peak_gb"] + SPARE_GB <= card), default=0)
            for card in CARDS_GB
        ]
        cells = " | ".join(str(batch) if batch else "-" for batch in best)
        lines.append(f"| {shape} | {clip_s:g} s | {side} | {cells} |")
    head = " | ".join(f"{card} GB" for card in CARDS_GB)
    return [f"| model | clips | | {head} |", "| --- | --- | --- |" + " ---: |" * 4, *lines]


def speed_ups(rows: list[dict[str, Any]]) -> list[str]:
    """Our clips per second over the plain path's: at equal batches, and each at its best."""
    lines = []
    for shape, clip_s in dict.fromkeys((r["what"], r["clip_s"]) for r in rows if "clips_s" in r):
        sides = {
            side: {
                r["batch"]: r
                for r in rows
                if r.get("side") == side and (r["what"], r["clip_s"]) == (shape, clip_s)
                and "clips_s" in r
            }
            for side in ("ours", "plain")
        }  # fmt: skip
        common = sorted(set(sides["ours"]) & set(sides["plain"]))
        if not common:
            continue
        equal = ", ".join(
            f"{sides['ours'][b]['clips_s'] / sides['plain'][b]['clips_s']:.2f} x at batch {b}"
            for b in common
        )
        best = {s: max(r["clips_s"] for r in found.values()) for s, found in sides.items()}
        use = max(r["utilisation"] for r in sides["ours"].values())
        lines.append(
            f"{shape}, {clip_s:g} s: {equal}; best {best['ours']:.1f} against "
            f"{best['plain']:.1f} clips/s; {100 * use:.0f} % of the device's FLOP/s"
        )
    return lines


def report(results: dict[str, Any]) -> None:
    """The tables."""
    print(f"\n{results['device']}")
    for name, result in results["sections"].items():
        print(f"\n{name}: {result['ended']} in {result['seconds']:.0f} s. {result['last_line']}")
        if name == "training":
            print("\n".join([*speed_ups(result["rows"]), "", *fits(result["rows"])]))
            continue
        for row in result["rows"]:
            cells = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
            print("  " + ", ".join(cells))


def describe_device() -> str:
    """The GPU and versions, or what there is instead."""
    import torch
    import transformers

    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "no card: the CPU"
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return f"{card}; {versions}, Python {platform.python_version()}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out_dir", type=Path, default=Path("gpu"))
    parser.add_argument("--sections", nargs="+", choices=list(LIMITS_S), default=list(LIMITS_S))
    parser.add_argument("--toy", action="store_true", help="sizes that a CPU can manage")
    parser.add_argument("--section", choices=list(LIMITS_S), help="one section, here")
    options = parser.parse_args()
    options.out_dir.mkdir(parents=True, exist_ok=True)
    out_dir = options.out_dir.resolve()
    if options.section:
        work_section(options.section, out_dir, options.toy)
        return 0
    results: dict[str, Any] = {"device": describe_device(), "sections": {}}
    for name in options.sections:
        print(f"{name} ...", flush=True)
        results["sections"][name] = run_section(name, out_dir, options.toy)
        text = json.dumps(results, indent=2)
        (out_dir / "gpu.json").write_text(text, encoding="utf-8")
    report(results)
    ended = [result["ended"] for result in results["sections"].values()]
    return int(any(end != "done" for end in ended))


if __name__ == "__main__":
    sys.exit(main())
