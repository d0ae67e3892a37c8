"""Several processes that train one set of weights: as one process would, and stopped together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from harm.process_trees import kill_with_children
from made_datasets import make_dataset, read_rows, tiny_settings
from safetensors.torch import load_file
from trainer import (
    Cramped,
    NotANumber,
    step_number,
    train_stepping,
    train_together,
    wait_until,
    with_text,
)

from musicgen_lora import atomic
from musicgen_lora.config import TrainSettings
from musicgen_lora.dataset.batches import Batch
from musicgen_lora.errors import UserError
from musicgen_lora.runtime import processes
from musicgen_lora.training.step import Learner, StepResult, optimise_step
from musicgen_lora.training.train import train_lora

RTOL, ATOL = 1e-4, 1e-5
"""Sums in another order, in fp32, over a few steps of Adam at a rate of 3e-3."""


def settings_of(model: Path, data: Path, output_dir: Path, **changes: Any) -> TrainSettings:
    """Six clips to train on, in steps of five and one: the second process has none in every
    second step."""
    values: dict[str, Any] = {
        "batch_size": 5,
        "validation_fraction": 0.25,
        "num_epochs": 2,
        "condition_dropout": 0.3,
    }
    return tiny_settings(model, data, output_dir, **values | changes)


@dataclass
class Logged:
    """A step of which each process lists the windows that go through its model."""

    folder: Path

    def __call__(
        self, learner: Learner, batches: Sequence[Batch], totals: torch.Tensor, where: str
    ) -> StepResult | None:
        rows = [
            [step_number(where), codes[:, :n].tolist(), caption]
            for batch in batches
            for codes, n, caption in zip(
                batch.codes, batch.n_frames.tolist(), batch.captions, strict=True
            )
        ]
        with open(self.folder / f"samples-{processes.rank()}", "a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        return optimise_step(learner, batches, totals, where)


def log_writes(folder: Path) -> None:
    """Each process lists the paths that it opens for writing or renames below an output folder."""
    rank = os.environ["RANK"]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        writes = (
            event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wa+")
        )
        if (writes or event == "os.rename") and "/output/" in str(arguments[0]):
            descriptor = os.open(folder / f"writes-{rank}", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            os.write(descriptor, f"{arguments[0]}\n".encode())
            os.close(descriptor)

    sys.addaudithook(hook)


def samples(folder: Path) -> list[Counter[str]]:
    """What each process has read."""
    found = []
    for path in sorted(folder.glob("samples-*")):
        found.append(Counter(path.read_text().splitlines()))
        path.unlink()
    return found


def assert_same_training(one: Path, other: Path) -> None:
    rows, others = read_rows(one), read_rows(other)
    assert [(row["event"], row.get("step")) for row in rows] == [
        (row["event"], row.get("step")) for row in others
    ]
    for row, found in zip(rows, others, strict=True):
        for name in {"loss", "grad_norm", "codebooks", "learning_rate"} & set(row):
            assert found[name] == pytest.approx(row[name], rel=RTOL, abs=ATOL), (row["step"], name)
    weights = load_file(one / "best_model" / "adapter_model.safetensors")
    for name, tensor in load_file(other / "best_model" / "adapter_model.safetensors").items():
        torch.testing.assert_close(tensor, weights[name], rtol=1e-3, atol=1e-4)


def test_two_processes_train_as_one(tmp_path: Path, data: Path, tiny_model_dir: Path) -> None:
    watched: dict[str, Any] = {"prepare": partial(log_writes, tmp_path)}
    one, two = (settings_of(tiny_model_dir, data, tmp_path / "output" / n) for n in ("one", "two"))
    log = tmp_path / "log"
    assert train_together(one, log, Logged(tmp_path), n=1, **watched) == [0], log.read_text()
    (expected,) = samples(tmp_path)
    (tmp_path / "writes-0").unlink()
    assert train_together(two, log, Logged(tmp_path), **watched) == [0, 0], log.read_text()
    shares = samples(tmp_path)
    assert len(expected) == 12
    assert set(expected.values()) == {1}
    assert shares[0] + shares[1] == expected
    assert [share.total() for share in shares] == [8, 4]
    assert (tmp_path / "writes-0").exists()
    assert not (tmp_path / "writes-1").exists()
    assert "2 processes share the clips" in log.read_text()
    assert_same_training(one.output_dir, two.output_dir)


def break_second_process(
    learner: Learner, batches: Sequence[Batch], totals: torch.Tensor, where: str
) -> StepResult | None:
    """Its third step has a loss that is no number."""
    if processes.rank() == 1 and step_number(where) == 3:
        learner = with_text(learner, NotANumber(learner.model.text))
    return optimise_step(learner, batches, totals, where)


def test_a_nan_in_one_process_stops_all_with_one_line(
    tmp_path: Path, data: Path, tiny_model_dir: Path
) -> None:
    settings = settings_of(tiny_model_dir, data, tmp_path / "out", save_every=1, max_steps=4)
    log = tmp_path / "log"
    assert train_together(settings, log, break_second_process) == [1, 1], log.read_text()
    assert log.read_text().count("The loss is not finite at step 3") == 1
    assert "Traceback" not in log.read_text()
    assert "ended" not in log.read_text()
    assert json.loads((settings.output_dir / "run.json").read_text())["status"] == "failed"
    newest = settings.output_dir / "checkpoints" / "step-000002"
    assert not atomic.manifest_faults(newest)


def fail_second_process(
    learner: Learner, batches: Sequence[Batch], totals: torch.Tensor, where: str
) -> StepResult | None:
    """It ends on its own, as by a file that it alone can't read."""
    if processes.rank() == 1:
        raise UserError("x.wav: gone")
    return optimise_step(learner, batches, totals, where)


@pytest.mark.slow
def test_one_that_fails_alone_is_the_one_that_speaks(
    tmp_path: Path, data: Path, tiny_model_dir: Path
) -> None:
    settings = settings_of(tiny_model_dir, data, tmp_path / "out")
    log = tmp_path / "log"
    assert train_together(settings, log, fail_second_process) == [1, 2], log.read_text()
    assert log.read_text().count("x.wav: gone") == 1
    assert "Another process" not in log.read_text()
    assert json.loads((settings.output_dir / "run.json").read_text())["status"] == "failed"


def exhaust_second_process(
    learner: Learner, batches: Sequence[Batch], totals: torch.Tensor, where: str
) -> StepResult | None:
    """Two clips at once are too many for it."""
    if processes.rank() == 1:
        learner = with_text(learner, Cramped(learner.model.text, 1))
    return optimise_step(learner, batches, totals, where)


@pytest.mark.slow
def test_memory_that_runs_out_in_one_process_halves_the_batch_of_all(
    tmp_path: Path, data: Path, tiny_model_dir: Path
) -> None:
    one, two = (settings_of(tiny_model_dir, data, tmp_path / name) for name in ("one", "two"))
    train_lora(one)
    log = tmp_path / "log"
    assert train_together(two, log, exhaust_second_process) == [0, 0], log.read_text()
    assert "batches of 1 from now on; each step still has 5 clips" in log.read_text()
    assert_same_training(one.output_dir, two.output_dir)


def stop_last_process_in_third(
    learner: Learner, batches: Sequence[Batch], totals: torch.Tensor, where: str
) -> StepResult | None:
    """SIGTERM reaches it alone, in its third step."""
    if processes.rank() == processes.world_size() - 1 and step_number(where) == 3:
        os.kill(os.getpid(), signal.SIGTERM)
    return optimise_step(learner, batches, totals, where)


@pytest.mark.slow
@pytest.mark.parametrize("first", ["two processes", "one process"])
def test_a_run_goes_on_with_another_number_of_processes(
    first: str, tmp_path: Path, data: Path, tiny_model_dir: Path
) -> None:
    whole, parts = (
        settings_of(tiny_model_dir, data, tmp_path / name, num_epochs=3, ema_decay=0.5)
        for name in ("whole", "parts")
    )
    train_lora(whole)
    log = tmp_path / "log"
    if first == "two processes":
        stopped = train_together(parts, log, stop_last_process_in_third)
        assert stopped == [143, 143], log.read_text()
    else:
        with pytest.raises(SystemExit):
            train_stepping(parts, stop_last_process_in_third)
    run = json.loads((parts.output_dir / "run.json").read_text())
    assert (run["status"], run["steps"]) == ("interrupted", 3)
    if first == "two processes":
        train_lora(parts)
    else:
        assert train_together(parts, log) == [0, 0], log.read_text()
        assert "Resuming after step 3" in log.read_text()
    assert_same_training(whole.output_dir, parts.output_dir)


@pytest.mark.slow
def test_sigterm_to_the_launcher_saves_and_leaves(tmp_path: Path, tiny_model_dir: Path) -> None:
    data = make_dataset(tmp_path / "data", [0.5] * 6)
    output_dir = tmp_path / "out"
    flags = {
        "model_path": tiny_model_dir,
        "data_dir": data,
        "output_dir": output_dir,
        "num_epochs": 100_000,
        "save_every": 1_000_000,
        "validate_every": 1_000_000,
        "previews": "off",
    }
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", "2", "-m", "musicgen_lora.cli", "train"]
    command += ["--allow_random_base", *(str(w) for k, v in flags.items() for w in (f"--{k}", v))]
    with open(tmp_path / "log", "w") as log:
        launcher = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            env=os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        )
    try:
        wait_until(lambda: len(_steps(output_dir)) > 3, 200)
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(60) != 0
    finally:
        launcher.kill()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and _status(output_dir) == "running":
        time.sleep(0.1)
    assert _status(output_dir) == "interrupted", (tmp_path / "log").read_text()
    steps = [row["step"] for row in read_rows(output_dir, "train")]
    assert steps == list(range(1, len(steps) + 1))
    newest = output_dir / "checkpoints" / f"step-{len(steps):06d}"
    assert not atomic.manifest_faults(newest)


def _steps(output_dir: Path) -> list[Any]:
    return read_rows(output_dir, "train") if (output_dir / "metrics.jsonl").exists() else []


def _status(output_dir: Path) -> str:
    return json.loads((output_dir / "run.json").read_text())["status"]


def launch_host(number: int, data: Path, model: Path, output: Path, log: Path, port: int) -> Any:
    """One of two machines: its own `torchrun`, with one process."""
    flags = tiny_settings(model, data, output, save_every=1, num_epochs=20, batch_size=2)
    names = ("data_dir", "model_path", "output_dir", "save_every", "num_epochs", "batch_size")
    words = [word for name in names for word in (f"--{name}", str(getattr(flags, name)))]
    line = ["--nnodes", "2", "--nproc-per-node", "1", "--node-rank", str(number)]
    line += ["--master-addr", "127.0.0.1", "--master-port", str(port), "-m", "musicgen_lora.cli"]
    line += ["train", *words, "--allow_random_base", "--previews", "off"]
    environment = {
        "ACCELERATE_USE_CPU": "true",
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
    }
    with open(log, "ab") as sink:
        return subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *line],
            env=os.environ | environment,
            stdout=sink,
            stderr=sink,
        )


@pytest.mark.slow
def test_a_machine_that_dies_ends_the_run_and_both_go_on_from_the_checkpoint(
    tmp_path: Path, data: Path, tiny_model_dir: Path
) -> None:
    output, log = tmp_path / "out", tmp_path / "log"
    port = 20_000 + os.getpid() % 20_000
    hosts = [launch_host(n, data, tiny_model_dir, output, log, port) for n in range(2)]
    try:
        wait_until(lambda: (output / "checkpoints" / "step-000002").is_dir(), 150.0)
        kill_with_children(hosts[1])
        hosts[0].wait(150)
        assert hosts[0].returncode != 0
        assert "Another process of this run has ended" in log.read_text()
        steps = [row["step"] for row in read_rows(output) if row["event"] == "train"]
        hosts = [launch_host(n, data, tiny_model_dir, output, log, port + 1) for n in range(2)]
        assert [host.wait(250) for host in hosts] == [0, 0], log.read_text()
    finally:
        for host in hosts:
            kill_with_children(host)
    assert "Resuming after step" in log.read_text()
    rows = [row["step"] for row in read_rows(output) if row["event"] == "train"]
    # Each step once, and those before it died are not made again.
    assert rows == list(range(1, rows[-1] + 1))
    assert rows[-1] > steps[-1] >= 2
