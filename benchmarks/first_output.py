"""How long a command is silent: seconds until its first output and until it is refused.

Output goes into a pipe, as in a notebook, a log or `| tee`. A busy machine distorts wall time, so
each row also has the CPU seconds that the command and its workers had taken by then.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

COMMAND = [sys.executable, "-u", "-m", "musicgen_lora.cli"]
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Makes a dataset and an adapter, then prints a row for each command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n_turns", type=int, default=3, help="turns to take the median of")
    n_turns = parser.parse_args().n_turns
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for words in _material(folder):
            subprocess.run([*COMMAND, *words], check=True, capture_output=True)
        print("| command | first output | CPU by then | end | exit code |")
        print("| --- | ---: | ---: | ---: | ---: |")
        for title, words in _commands(folder):
            turns = [_measure(words) for _ in range(n_turns)]
            first, cpu, end = (median(turn[at] for turn in turns) for at in range(3))
            codes = "/".join(map(str, sorted({turn[3] for turn in turns})))
            figures = f"{first:.2f} s | {cpu:.2f} s | {end:.1f} s"
            print(f"| `{title}` | {figures} | {codes} |", flush=True)


def _material(folder: Path) -> list[list[str]]:
    data, output = str(folder / "data"), str(folder / "output")
    return [
        ["prepare", "--create_example", "--num_samples", "12", "--output_dir", data],
        ["train", "--data_dir", data, "--output_dir", output, "--max_steps", "1"],
    ]


def _commands(folder: Path) -> list[tuple[str, list[str]]]:
    data, adapter = str(folder / "data"), str(folder / "output" / "best_model")
    audio, nowhere = str(folder / "data" / "train"), str(folder / "mistyped")
    train = ["train", "--max_steps", "1", "--resume", "never"]
    play = ["--lora_model_path", adapter, "--duration", "2"]
    texts = ["--prompts", "808 beat"]
    generated, evaluation = (str(folder / name) for name in ("generated", "evaluation"))
    evaluate = ["evaluate", "--compare", "--num_prompts", "2"]
    return [
        ("prepare", ["prepare", "--input_dir", audio, "--output_dir", str(folder / "other")]),
        ("tokenise", ["tokenise", "--data_dir", data]),
        ("train", [*train, "--data_dir", data, "--output_dir", str(folder / "again")]),
        ("generate", ["generate", *texts, *play, "--output_dir", generated]),
        ("evaluate", [*evaluate, *play, "--output_dir", evaluation]),
        ("doctor", ["doctor"]),
        ("prepare, mistyped folder", ["prepare", "--input_dir", nowhere, "--output_dir", nowhere]),
        ("train, mistyped dataset", [*train, "--data_dir", nowhere, "--output_dir", generated]),
        ("generate, mistyped adapter", ["generate", *texts, "--lora_model_path", nowhere]),
        ("generate, mistyped base", ["generate", *texts, "--base_model_path", nowhere]),
        ("evaluate, mistyped adapter", ["evaluate", "--lora_model_path", nowhere]),
    ]


def _measure(words: list[str]) -> tuple[float, float, float, int]:
    """Seconds to the first output, CPU seconds by then, seconds to the end, exit code."""
    began = time.monotonic()
    process = subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    os.read(descriptor, 1)
    first, cpu = time.monotonic() - began, _cpu_s(process.pid)
    while os.read(descriptor, 1 << 16):
        pass
    return first, cpu, time.monotonic() - began, process.wait()


def _cpu_s(pid: int) -> float:
    """CPU seconds of a running process and its finished children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:15])) / TICKS_PER_S


if __name__ == "__main__":
    main()
