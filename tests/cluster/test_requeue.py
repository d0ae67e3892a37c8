"""The documented launchers, killed midway: the restarted run resumes from the checkpoint."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from documented import blocks, replaced, slurm_script
from harm.process_trees import kill_with_children
from made_datasets import TIMED, make_dataset, read_rows

pytestmark = pytest.mark.slow

N_STEPS = 24
SRUN = """#!{python}
# A task for each of two nodes, here; whatever signal the step gets, its tasks get.
import os, signal, subprocess, sys
tasks = [subprocess.Popen(sys.argv[2:]) for _ in range(2)]
signal.signal(signal.SIGTERM, lambda *_: [task.send_signal(signal.SIGTERM) for task in tasks])
open("srun.pid", "w").write(str(os.getpid()))
sys.exit(max(abs(task.wait()) for task in tasks))
"""


def config(folder: Path, data: Path, model: Path, **changes: Any) -> Path:
    """A settings file of a short training."""
    values: dict[str, Any] = {
        "data_dir": str(data),
        "model_path": str(model),
        "output_dir": str(folder / "out"),
        "batch_size": 2,
        "gradient_accumulation_steps": 1,
        "num_epochs": 10,
        "max_steps": N_STEPS,
        "save_every": 1000,
        "validate_every": 1000,
        "precision": "fp32",
        "previews": "off",
        "allow_random_base": True,
    }
    folder.mkdir(exist_ok=True)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({"train": values | changes}), encoding="utf-8")
    return path


def environment(**more: str) -> dict[str, str]:
    return os.environ | {
        "ACCELERATE_USE_CPU": "true",
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
        **more,
    }


def wait_until(is_so: Callable[[], bool], process: Any, log: Path, limit_s: float = 600.0) -> None:
    end = time.monotonic() + limit_s
    while not is_so():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)


def steps(output: Path) -> list[int]:
    if not (output / "metrics.jsonl").exists():
        return []
    return [row["step"] for row in read_rows(output, "train")]


def trained(output: Path) -> tuple[Any, bytes]:
    """The outcome of a run: its rows without the figures that always differ, and its adapter."""
    rows = [
        {name: value for name, value in row.items() if name not in TIMED}
        for row in read_rows(output)
    ]
    return rows, (output / "best_model" / "adapter_model.safetensors").read_bytes()


def sbatch(folder: Path, port: int) -> Any:
    """Runs the script as SLURM does on the first of two nodes."""
    (folder / ".venv" / "bin").mkdir(parents=True, exist_ok=True)
    # Each start of a job finds its port free.
    (folder / ".venv" / "bin" / "activate").write_text(
        f"export PATH={Path(sys.executable).parent}:$PATH\n"
    )
    programs = {"scontrol": "#!/bin/sh\nprintf 'localhost\\nlocalhost\\n'\n"}
    programs["srun"] = SRUN.format(python=sys.executable)
    for name, content in programs.items():
        (folder / name).write_text(content)
        (folder / name).chmod(0o755)
    script = replaced(
        slurm_script(),
        ("cd /shared", f"cd '{folder}'"),
        ("--nproc_per_node 4", "--nproc_per_node 1"),
        ("29500", str(port)),
    )
    given = {"JOB_NODELIST": "n[1-2]", "NNODES": "2", "JOB_ID": "42", "CPUS_PER_TASK": "1"}
    names = {f"SLURM_{name}": value for name, value in given.items()}
    names["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
    with open(folder / "log", "ab") as log:
        return subprocess.Popen(
            ["bash", "-c", script], env=environment(**names), stdout=log, stderr=log
        )


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data"), [0.3 + 0.1 * n for n in range(8)])


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, clips: Path, tiny_model_dir: Path
) -> tuple[Any, bytes]:
    """The outcome of two processes that nobody kills."""
    folder = tmp_path_factory.mktemp("whole")
    settings = config(folder, clips, tiny_model_dir)
    words = ["--standalone", "--nproc_per_node", "2", "-m", "musicgen_lora.cli", "train"]
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *words, "--config", str(settings)],
        env=environment(),
        check=True,
    )
    return trained(folder / "out")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.timeout(1800)
def test_a_job_that_slurm_ends_and_queues_again_comes_to_the_same(
    tmp_path: Path, clips: Path, tiny_model_dir: Path, whole: tuple[Any, bytes]
) -> None:
    port, output, log = 20_000 + os.getpid() % 20_000, tmp_path / "out", tmp_path / "log"
    config(tmp_path, clips, tiny_model_dir)
    job = sbatch(tmp_path, port)
    try:
        wait_until(lambda: len(steps(output)) > 3, job, log)
        os.kill(int((tmp_path / "srun.pid").read_text()), signal.SIGTERM)
        assert job.wait(300) != 0
    finally:
        kill_with_children(job)
    assert json.loads((output / "run.json").read_text())["status"] == "interrupted"
    left = steps(output)
    assert 3 < len(left) < N_STEPS
    again = sbatch(tmp_path, port + 1)
    try:
        assert again.wait(300) == 0, log.read_text()
    finally:
        kill_with_children(again)
    assert f"Resuming after step {left[-1]}" in log.read_text()
    # Each step once, and to the bit as if nobody had ended it.
    assert steps(output) == list(range(1, N_STEPS + 1))
    assert trained(output) == whole


BEFORE = """
import os
from musicgen_lora.cluster.ray_engine import LOCAL_ENVIRONMENT
os.environ |= LOCAL_ENVIRONMENT
os.environ["RAY_AUTH_TOKEN"] = "0" * 64
import ray
ray.init(address="local", num_cpus=4, include_dashboard=False, object_store_memory=100 * 2**20)
"""


def ray_train(folder: Path, settings: Path) -> Any:
    """Runs the documented program, with two workers on CPUs and one more try."""
    (program,) = blocks("python")
    program = BEFORE + replaced(
        program,
        ("/shared/config.yaml", str(settings)),
        ("num_workers=8, use_gpu=True", "num_workers=2, use_gpu=False"),
        ("max_failures=3", "max_failures=1"),
    )
    (folder / "launch.py").write_text(program, encoding="utf-8")
    with open(folder / "log", "ab") as log:
        return subprocess.Popen(
            [sys.executable, str(folder / "launch.py")],
            # Where Ray keeps what it notes of a run.
            env=environment(HOME=str(folder), PYTHONUNBUFFERED="1"),
            stdout=log,
            stderr=log,
        )


def workers_of(process: Any) -> list[Any]:
    below = psutil.Process(process.pid).children(recursive=True)
    return [one for one in below if "TrainWorker" in " ".join(one.cmdline())]


@pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra scale")
@pytest.mark.timeout(1800)
def test_a_worker_that_ray_train_loses_costs_no_more_than_the_steps_since_the_checkpoint(
    tmp_path: Path, clips: Path, tiny_model_dir: Path, whole: tuple[Any, bytes]
) -> None:
    output, log = tmp_path / "out", tmp_path / "log"
    launched = ray_train(tmp_path, config(tmp_path, clips, tiny_model_dir, save_every=2))
    try:
        wait_until((output / "checkpoints" / "step-000004").is_dir, launched, log)
        lost = workers_of(launched)
        assert len(lost) == 2
        lost[0].kill()
        assert launched.wait(900) == 0, log.read_text()
    finally:
        kill_with_children(launched)
    assert "Resuming after step" in log.read_text()
    assert steps(output) == list(range(1, N_STEPS + 1))
    assert trained(output) == whole
