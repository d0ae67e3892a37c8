"""Power cuts, damaged files, two trainers at once, and stopping on request."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from made_datasets import make_dataset, read_rows, timeless, tiny_settings
from safetensors.torch import load_file
from trainer import run_training, start_training, train_interrupted, wait_until

from musicgen_lora import atomic
from musicgen_lora.cli import main
from musicgen_lora.errors import RunError, UserError
from musicgen_lora.training.checkpoints import newest_checkpoint
from musicgen_lora.training.record import run_folder
from musicgen_lora.training.record.run import Run
from musicgen_lora.training.train import train_lora

N_STEPS = 8


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("crash") / "data", [0.4] * 6)


def busy_settings(model: Path, data: Path, output_dir: Path, **changes: Any):
    """A run that is mostly saving and validating."""
    values: dict[str, Any] = {
        "max_steps": N_STEPS,
        "num_epochs": 100,
        "save_every": 1,
        "validate_every": 2,
        "lora_dropout": 0.1,
        "ema_decay": 0.9,
        "keep_checkpoints": 3,
    }
    return tiny_settings(model, data, output_dir, **(values | changes))


def same_weights(first: Path, second: Path) -> bool:
    one, two = (load_file(path / "adapter_model.safetensors") for path in (first, second))
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture(scope="module")
def unbroken(data: Path, tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory):
    """A run that nothing happened to, and the seconds it took."""
    output_dir = tmp_path_factory.mktemp("unbroken") / "out"
    settings = busy_settings(tiny_model_dir, data, output_dir)
    log = output_dir.parent / "log"
    # The first one also starts the server and makes the tokens.
    run_training(busy_settings(tiny_model_dir, data, output_dir, max_steps=1), log)
    seconds = run_training(settings, log)
    return output_dir, seconds


@pytest.mark.parametrize(
    "n_kills", [8, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
)
def test_kill_9_at_any_moment_loses_nothing(
    n_kills: int, tmp_path: Path, data: Path, tiny_model_dir: Path, unbroken
) -> None:
    reference, seconds = unbroken
    rng = random.Random(n_kills)
    output_dir, log, finished = tmp_path / "out", tmp_path / "log", 0
    settings = busy_settings(tiny_model_dir, data, output_dir)
    for kill in range(n_kills):
        process = start_training(settings, log)
        process.join(rng.uniform(0.1, 0.9) * seconds)
        process.kill()
        process.join()
        checkpoints = output_dir / run_folder.CHECKPOINTS
        # What has its final name is whole, swept or not.
        for path in checkpoints.glob("step-*"):
            assert not atomic.manifest_faults(path), (kill, path)
        best = output_dir / run_folder.BEST_MODEL
        retired = atomic.retired_name(best)
        assert not best.exists() or not atomic.manifest_faults(best), kill
        assert not retired.exists() or best.exists() or not atomic.manifest_faults(retired), kill
        if not output_dir.exists():
            continue
        had_best = best.exists() or retired.exists()
        with run_folder.held(output_dir):
            pass
        left = {path.name for path in [*output_dir.glob(".*"), *checkpoints.glob(".*")]}
        assert left <= {".lock"}, kill
        assert best.exists() == had_best, kill
        run = Run.read(output_dir)
        if run is not None and run.status == "finished":
            finished += 1
            shutil.rmtree(output_dir)
    run_training(settings, log)
    assert timeless(output_dir) == timeless(reference)
    for part in ("best_model", f"checkpoints/step-{N_STEPS:06d}"):
        assert same_weights(output_dir / part, reference / part)
    assert finished < n_kills


@pytest.fixture(scope="module")
def stopped(data: Path, tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped after step 5, with checkpoints of steps 3, 4 and 5."""
    output_dir = tmp_path_factory.mktemp("stopped") / "out"
    train_interrupted(busy_settings(tiny_model_dir, data, output_dir), 5)
    names = sorted(path.name for path in (output_dir / "checkpoints").iterdir())
    assert names == ["step-000003", "step-000004", "step-000005"]
    return output_dir


def flip(path: Path, share: float) -> None:
    """One byte of a file is another one."""
    content = bytearray(path.read_bytes())
    content[int(share * (len(content) - 1))] ^= 0x01
    path.write_bytes(content)


CHECKPOINT_FILES = [
    "adapter_config.json",
    "adapter_model.safetensors",
    "average.safetensors",
    "optimizer.safetensors",
    "state.json",
    "manifest.json",
]


def test_these_are_the_files_of_a_checkpoint(stopped: Path) -> None:
    folder = stopped / "checkpoints" / "step-000005"
    assert sorted(path.name for path in folder.iterdir()) == sorted(CHECKPOINT_FILES)


@pytest.mark.parametrize("file", CHECKPOINT_FILES)
@pytest.mark.parametrize("damage", ["first byte", "middle byte", "last byte", "gone", "empty"])
def test_damage_is_found_and_named(file: str, damage: str, tmp_path: Path, stopped: Path) -> None:
    shutil.copytree(stopped / "checkpoints", tmp_path / "checkpoints")
    path = tmp_path / "checkpoints" / "step-000005" / file
    if damage == "gone":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        flip(path, {"first": 0.0, "middle": 0.5, "last": 1.0}[damage.split()[0]])
    said: list[str] = []
    found = newest_checkpoint(tmp_path / "checkpoints", said.append)
    assert found == tmp_path / "checkpoints" / "step-000004"
    assert len(said) == 1
    assert f"{path.parent}: damaged (" in said[0]
    if file != "manifest.json":
        assert file in said[0]


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "manifest.json"])
def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(
    file: str, tmp_path: Path, data: Path, tiny_model_dir: Path, stopped: Path, unbroken, capsys
) -> None:
    output_dir = tmp_path / "out"
    shutil.copytree(stopped, output_dir)
    flip(output_dir / "checkpoints" / "step-000005" / file, 0.5)
    train_lora(busy_settings(tiny_model_dir, data, output_dir))
    said = capsys.readouterr().out
    assert f"{output_dir / 'checkpoints' / 'step-000005'}: damaged" in said
    assert "Resuming after step 4" in said
    reference, _ = unbroken
    assert timeless(output_dir) == timeless(reference)
    assert same_weights(output_dir / "best_model", reference / "best_model")


def test_damaged_checkpoints_do_not_push_out_sound_ones(
    tmp_path: Path, data: Path, tiny_model_dir: Path, stopped: Path
) -> None:
    output_dir = tmp_path / "out"
    shutil.copytree(stopped, output_dir)
    for step in (4, 5):
        flip(output_dir / "checkpoints" / f"step-00000{step}" / "state.json", 0.5)
    train_interrupted(busy_settings(tiny_model_dir, data, output_dir, keep_checkpoints=1), 4)
    found = newest_checkpoint(output_dir / "checkpoints", print)
    assert found is not None
    assert found.name == "step-000004"


def test_only_the_newest_checkpoints_are_kept(unbroken) -> None:
    output_dir, _ = unbroken
    names = sorted(path.name for path in (output_dir / "checkpoints").iterdir())
    assert names == [f"step-{step:06d}" for step in range(N_STEPS - 2, N_STEPS + 1)]


def test_a_second_trainer_refuses_at_once(
    tmp_path: Path, data: Path, tiny_model_dir: Path, capsys
) -> None:
    output_dir = tmp_path / "out"
    settings = busy_settings(tiny_model_dir, data, output_dir, max_steps=100_000, num_epochs=10**6)
    process = start_training(settings, tmp_path / "log")
    try:
        wait_until(lambda: any((output_dir / "checkpoints").glob("step-*")))
        began = time.monotonic()
        with pytest.raises(UserError, match="in use by another run"):
            train_lora(settings)
        assert time.monotonic() - began < 20.0, "it waits for the other, which goes on for ever"
        words = ["--model_path", tiny_model_dir, "--data_dir", data, "--output_dir", output_dir]
        assert main(["train", *(str(word) for word in words)]) == 2
        assert f"{output_dir}: in use by another run" in capsys.readouterr().err
        steps = len(read_rows(output_dir, "train"))
        wait_until(lambda: len(read_rows(output_dir, "train")) > steps + 2)
        assert process.is_alive()
    finally:
        process.kill()
        process.join()


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=["INT", "TERM", "HUP"],
)
def test_a_signal_saves_and_leaves(
    number: signal.Signals, code: int, tmp_path: Path, data: Path, tiny_model_dir: Path
) -> None:
    output_dir, log = tmp_path / "out", tmp_path / "log"
    settings = busy_settings(
        tiny_model_dir, data, output_dir, max_steps=100_000, num_epochs=10**6, save_every=10**6
    )
    process = start_training(settings, log)
    metrics = output_dir / "metrics.jsonl"
    try:
        wait_until(lambda: metrics.exists() and '"step": 2' in metrics.read_text())
        assert process.pid is not None
        os.kill(process.pid, number)
        process.join(120)
        assert process.exitcode == code, log.read_text()
    finally:
        process.kill()
        process.join()
    last = read_rows(output_dir, "train")[-1]["step"]
    checkpoint = newest_checkpoint(output_dir / "checkpoints", print)
    assert checkpoint is not None
    assert checkpoint.name == f"step-{last:06d}"
    assert json.loads((output_dir / "run.json").read_text())["status"] == "interrupted"
    assert f"Stopped after step {last}" in log.read_text()
    train_interrupted(settings, last + 1)
    steps = [row["step"] for row in read_rows(output_dir, "train")]
    assert steps == list(range(1, last + 2))


TWICE = """
import os, signal, sys, time
from musicgen_lora.training.signals import StopSignals
with StopSignals(grace_s=float(sys.argv[1])) as stop:
    os.kill(os.getpid(), signal.SIGINT)
    print(stop.received, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(float(sys.argv[2]))
"""


@pytest.mark.parametrize(("grace_s", "sleep_s", "code"), [(0.0, 60.0, 143), (60.0, 0.0, 0)])
def test_a_second_signal_leaves_at_once(grace_s: float, sleep_s: float, code: int) -> None:
    """But not one that a launcher passes on a second time, within the time of grace."""
    words = [sys.executable, "-c", TWICE, str(grace_s), str(sleep_s)]
    run = subprocess.run(words, capture_output=True, text=True, check=False, timeout=50)
    assert run.returncode == code, run.stderr
    assert run.stdout.split() == [str(int(signal.SIGINT))]
    said = run.stderr.splitlines()
    assert said[0].startswith("Stopping after this step")
    assert [line[:16] for line in said[1:]] == (["Stopped at once:"] if code else [])


def test_a_staging_folder_of_a_dead_process_is_swept(
    tmp_path: Path, data: Path, tiny_model_dir: Path
) -> None:
    output_dir = tmp_path / "out"
    stale = [
        output_dir / ".staging-99-best_model",
        output_dir / "checkpoints" / ".staging-99-step-000007",
    ]
    for folder in stale:
        folder.mkdir(parents=True)
        (folder / "half").write_bytes(b"x")
    (output_dir / ".staging-99-run.json").write_bytes(b"{")
    train_lora(busy_settings(tiny_model_dir, data, output_dir, max_steps=1))
    assert not list(output_dir.rglob(".staging-*"))


@pytest.mark.parametrize("successor", [True, False])
def test_a_retired_folder_comes_back_if_its_successor_never_arrived(
    successor: bool, tmp_path: Path
) -> None:
    best = tmp_path / "best_model"
    atomic.publish_folder(best, lambda folder: (folder / "a").write_text("old"))
    os.rename(best, atomic.retired_name(best))
    if successor:
        atomic.publish_folder(best, lambda folder: (folder / "a").write_text("new"))
        atomic.retired_name(best).mkdir(exist_ok=True)
    atomic.sweep(tmp_path)
    assert (best / "a").read_text() == ("new" if successor else "old")
    assert [path.name for path in tmp_path.iterdir()] == ["best_model"]


def test_a_failed_publication_leaves_the_old_folder(tmp_path: Path) -> None:
    best = tmp_path / "best_model"
    atomic.publish_folder(best, lambda folder: (folder / "a").write_text("old"))

    def fail(folder: Path) -> None:
        (folder / "a").write_text("half")
        raise OSError(errno.ENOSPC, "disk full")

    with pytest.raises(RunError, match="best_model: cannot be written"):
        atomic.publish_folder(best, fail)
    assert (best / "a").read_text() == "old"
    assert not atomic.manifest_faults(best)
    assert [path.name for path in tmp_path.iterdir()] == ["best_model"]


def test_a_torn_last_line_of_the_metrics_is_dropped(
    tmp_path: Path, data: Path, tiny_model_dir: Path, stopped: Path, unbroken
) -> None:
    output_dir = tmp_path / "out"
    shutil.copytree(stopped, output_dir)
    with open(output_dir / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"event": "train", "step": 6, "lo')
    train_lora(busy_settings(tiny_model_dir, data, output_dir))
    assert timeless(output_dir) == timeless(unbroken[0])


def test_a_millionth_step_is_newer_than_the_one_before(tmp_path: Path) -> None:
    for step in (999_999, 1_000_000):
        atomic.publish_folder(
            tmp_path / f"step-{step:06d}", lambda folder: (folder / "a").write_text("x")
        )
    (tmp_path / "step-by-step").mkdir()
    assert newest_checkpoint(tmp_path, print) == tmp_path / "step-1000000"
