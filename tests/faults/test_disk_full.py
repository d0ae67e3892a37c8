"""A disk that fills up: what was there before stays whole, and the run ends with one line."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from full_disk import files_up_to
from made_datasets import RATE, beat, make_dataset, tiny_settings
from safetensors import SafetensorError
from trainer import file_hashes, train_interrupted

from musicgen_lora import atomic
from musicgen_lora.audio.files import write_wav
from musicgen_lora.cli import main
from musicgen_lora.errors import RunError
from musicgen_lora.training.checkpoints import newest_checkpoint
from musicgen_lora.training.train import train_lora

pytest.importorskip("resource", reason="needs Unix's file-size limit")

LIMITED = """
import resource, sys
from musicgen_lora.cli import main
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
sys.exit(main(sys.argv[2:]))
"""


def test_a_full_disk_leaves_the_checkpoint_before_and_the_best_model(
    tmp_path: Path, tiny_model_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = make_dataset(tmp_path / "data", [0.4] * 6)
    output_dir = tmp_path / "out"
    settings = tiny_settings(
        tiny_model_dir, data, output_dir, num_epochs=100, max_steps=4, save_every=1
    )
    settings.validate_every = 2
    train_interrupted(settings, 2)
    before = file_hashes(output_dir)
    size = (output_dir / "checkpoints" / "step-000002" / "optimizer.safetensors").stat().st_size
    words = ["train", "--model_path", tiny_model_dir, "--data_dir", data]
    words += ["--output_dir", output_dir, "--batch_size", 2, "--gradient_accumulation_steps", 1]
    words += ["--learning_rate", 3e-3, "--allow_random_base", "--precision", "fp32"]
    words += ["--previews", "off"]
    words += ["--num_epochs", 100, "--max_steps", 4, "--save_every", 1, "--validate_every", 2]
    capfd.readouterr()
    with files_up_to(size // 2):
        assert main([str(word) for word in words]) == 1
    said = capfd.readouterr()
    lines = [line for line in said.err.splitlines() if "Loading weights" not in line]
    assert len(lines) == 1, said.err
    assert "step-000003: cannot be written" in lines[0]
    assert "File too large" in lines[0]
    assert "Resuming after step 2" in said.out
    after = file_hashes(output_dir)
    changing = {"run.json", "metrics.jsonl"}
    assert {k: v for k, v in after.items() if k not in changing} == {
        k: v for k, v in before.items() if k not in changing
    }
    assert not list(output_dir.rglob(".staging-*"))
    newest = newest_checkpoint(output_dir / "checkpoints", print)
    assert newest is not None
    assert newest.name == "step-000002"
    # With room again the same command goes on to the end.
    assert train_lora(settings)["steps"] == 4


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("4096 requested and 12 written"),
        SafetensorError("Error while serializing: I/O error: No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 128 vs 16"),
    ],
    ids=["system", "numpy", "safetensors", "torch"],
)
@pytest.mark.parametrize("what", ["file", "folder"])
def test_whichever_library_meets_it_it_is_one_line(
    error: Exception, what: str, tmp_path: Path
) -> None:
    path = tmp_path / "thing"

    def fail(temporary: Path) -> None:
        raise error

    write = atomic.write_file if what == "file" else atomic.publish_folder
    with pytest.raises(RunError, match="thing: cannot be written") as raised:
        write(path, fail)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("what", ["file", "folder"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_missing_right_is_not_a_full_disk(
    number: int, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is told is the name that the user knows, whatever else fails."""

    def fail(temporary: Path, **_: object) -> None:
        raise OSError(number, os.strerror(number), str(temporary))

    write = atomic.write_file if what == "file" else atomic.publish_folder
    monkeypatch.setattr(Path, "unlink", fail)
    with pytest.raises(OSError, match=os.strerror(number)) as raised:
        write(tmp_path / "thing", fail)
    assert raised.value.filename == str(tmp_path / "thing")


@pytest.mark.parametrize("what", ["in workers", "alone", "examples"])
def test_a_full_disk_is_the_preparations_fault_and_not_a_files(
    what: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for index in range(3):
        write_wav(source / f"{index}.wav", beat(index, 2.0), RATE)
    words = ["prepare", "--output_dir", str(out)]
    words += ["--create_example"] if what == "examples" else ["--input_dir", str(source)]
    words += ["--num_workers", "2" if what == "in workers" else "0"]
    if what == "in workers":
        # They have the limit from whoever started their server.
        run = subprocess.run(
            [sys.executable, "-B", "-c", LIMITED, "60000", *words],
            capture_output=True,
            text=True,
            check=False,
        )
        code, out_said, err_said = run.returncode, run.stdout, run.stderr
    else:
        capfd.readouterr()
        with files_up_to(60_000):
            code = main(words)
        out_said, err_said = capfd.readouterr()
    assert code == 1, out_said + err_said
    lines = err_said.splitlines()
    assert len(lines) == 1, err_said
    assert ".wav: cannot be written (File too large)" in lines[0]
    assert "left out" not in out_said
    assert not (out / "metadata.json").exists()
    assert not list(out.rglob(".staging-*"))


FFMPEG = """
import resource, sys
from pathlib import Path
from musicgen_lora.audio.ffmpeg import decodable
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
with decodable(Path(sys.argv[1]) / "song.m4a", Path(sys.argv[1]), lambda: None):
    pass
"""


@pytest.mark.parametrize(("limit", "error"), [(500_000, "RunError"), (1 << 30, "AudioError")])
def test_a_full_disk_beneath_ffmpeg_is_no_broken_audio(
    tmp_path: Path, limit: int, error: str
) -> None:
    """Both times ffmpeg ends with the same code; a program of this name does."""
    (tmp_path / "song.m4a").write_bytes(b"\0\0\0\x18ftypM4A " + bytes(1000))
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-B", "-c", FFMPEG, str(tmp_path), str(limit)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"},
    )
    assert f"errors.{error}: " in done.stderr.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["song.m4a"]
