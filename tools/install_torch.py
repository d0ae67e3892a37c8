"""Installs the build of torch that fits this machine, before the rest of the requirements.

    python tools/install_torch.py --python .venv/bin/python

On Linux, PyPI's wheel of torch is the CUDA build: 2.7 GB with the libraries that it needs. For
machines without an NVIDIA GPU, PyTorch's own index has a CPU build of 0.2 GB; if that index can't
be reached, pip's own is used. Needs nothing but Python; an installed torch of the pinned version is
left alone. Messages are in Chinese too, since the package that translates is not installed yet.
"""

from __future__ import annotations

import argparse
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements.txt"
PIP = ("-m", "pip", "install", "--disable-pip-version-check")
"""Not quiet: the download takes minutes, and a terminal shows its progress."""
CHECK = """import sys
from importlib.metadata import version
sys.exit(version("torch").split("+")[0] != sys.argv[1])"""
Run = Callable[[Sequence[str]], int]
"""Runs a command and returns its exit code."""


def has_nvidia_gpu() -> bool:
    """Whether the driver lists a card."""
    if any(Path("/proc/driver/nvidia/gpus").glob("*")):
        return True
    command = shutil.which("nvidia-smi")
    if command is None:
        return False
    done = subprocess.run([command, "-L"], capture_output=True, text=True, check=False, timeout=60)
    return done.returncode == 0 and "GPU" in done.stdout


def pinned_torch(requirements: Path = REQUIREMENTS) -> str:
    """The requirement, such as `torch==2.13.0`."""
    found = re.search(r"^torch==[\w.]+", requirements.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise SystemExit(f"{requirements}: pins no torch.")
    return found[0]


def install_torch(
    python: str, *, has_gpu: bool, system: str, run: Run, say: Callable[[str], None] = print
) -> int:
    """Installs torch into the environment of `python`; returns pip's exit code.

    Args:
        python: the environment's interpreter.
        has_gpu: whether there is an NVIDIA GPU.
        system: as `platform.system()` says.
        run: runs a command.
        say: prints what is done.
    """
    torch = pinned_torch()
    version = torch.removeprefix("torch==")
    if run([python, "-c", CHECK, version]) == 0:
        return 0
    if has_gpu or system == "Darwin":
        what = "the CUDA build, 2.7 GB" if has_gpu else "0.1 GB"
        say(f"Installing {torch} ({what}) ... / 正在安装 torch……")
        return run([python, *PIP, torch])
    say(f"No NVIDIA GPU found: installing {torch} for the CPU (0.2 GB) from {CPU_INDEX} ...")
    say("没有找到 NVIDIA GPU：正在安装 torch 的 CPU 版（0.2 GB）……")
    index = ("--index-url", CPU_INDEX, "--retries", "1", "--timeout", "15")
    if run([python, *PIP, "--no-deps", *index, torch]) == 0:
        return 0
    say(f"{CPU_INDEX} can't be reached; installing {torch} from pip's own index (up to 2.7 GB) ...")
    say("连不上 PyTorch 官方源：改用 pip 默认的源安装 torch（最多 2.7 GB）……")
    return run([python, *PIP, torch])


def _run(command: Sequence[str]) -> int:
    # The check of what is installed fails with a traceback if nothing is.
    errors = subprocess.DEVNULL if "-c" in command else None
    return subprocess.run(list(command), check=False, stderr=errors).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", default=sys.executable, help="of the environment")
    options = parser.parse_args()
    return install_torch(
        options.python, has_gpu=has_nvidia_gpu(), system=platform.system(), run=_run
    )


if __name__ == "__main__":
    sys.exit(main())
