"""A run in a folder that another one was in."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
from made_datasets import tiny_settings
from trainer import file_hashes

from musicgen_lora.errors import UserError
from musicgen_lora.training.train import train_lora


def test_what_was_made_of_an_adapter_goes_aside_with_it(
    tmp_path: Path, data: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output_dir = tmp_path / "out"
    settings = tiny_settings(tiny_model_dir, data, output_dir, max_steps=1)
    train_lora(settings)
    for name in ("generated/beat_seed0.wav", "evaluation/report.html", "notes/mine.txt"):
        (output_dir / name).parent.mkdir()
        (output_dir / name).write_text(name)
    train_lora(settings)
    assert "already finished" in capsys.readouterr().out
    assert (output_dir / "generated" / "beat_seed0.wav").is_file()
    before = file_hashes(output_dir)
    train_lora(dataclasses.replace(settings, learning_rate=1e-3))
    aside = next((output_dir / "previous").iterdir())
    unmoved = {".lock", "notes/mine.txt"}
    assert file_hashes(aside) == {k: v for k, v in before.items() if k not in unmoved}
    assert not (output_dir / "generated").exists()
    assert not (output_dir / "evaluation").exists()
    assert (output_dir / "notes" / "mine.txt").is_file()


@pytest.mark.parametrize("damage", ["gone", "altered"])
def test_a_finished_run_without_its_adapter_is_not_called_finished(
    damage: str,
    tmp_path: Path,
    data: Path,
    tiny_model_dir: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = tiny_settings(tiny_model_dir, data, tmp_path / "out", max_steps=1)
    train_lora(settings)
    best = settings.output_dir / "best_model"
    if damage == "gone":
        shutil.rmtree(best)
    else:
        (best / "adapter_model.safetensors").write_bytes(b"x")
    capsys.readouterr()
    with pytest.raises(UserError, match=r"best_model: missing or damaged .*--resume never"):
        train_lora(settings)
    assert "already finished" not in capsys.readouterr().out
    settings.resume = "never"
    assert train_lora(settings)["status"] == "finished"
    assert best.is_dir()
