"""Files of the input that change, grow or vanish while prepare runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from musicgen_lora.atomic import sha256_file
from musicgen_lora.config import PrepareSettings
from musicgen_lora.errors import RunError
from musicgen_lora.prepare import prepare
from musicgen_lora.prepare.hearing.analyse import read_record

RATE = 32_000


def tone(path: Path, hertz: float, duration_s: float = 2.0) -> None:
    time_s = np.arange(round(duration_s * RATE)) / RATE
    soundfile.write(path, 0.3 * np.sin(2.0 * np.pi * hertz * time_s), RATE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files: one that stays, and one that will change."""
    made = tmp_path / "in"
    made.mkdir()
    tone(made / "stays.wav", 220.0)
    tone(made / "changes.wav", 330.0)
    return made


def before(monkeypatch: pytest.MonkeyPatch, step: str, change: Callable[[], object]) -> None:
    """Has something happen just before a step of the work."""
    run = prepare.run_shown

    def changed(console: Any, label: str, *args: Any, **kwargs: Any) -> Any:
        if label == step:
            change()
        return run(console, label, *args, **kwargs)

    monkeypatch.setattr(prepare, "run_shown", changed)


CHANGES: dict[str, Callable[[Path], object]] = {
    "another": lambda path: tone(path, 440.0),
    "longer": lambda path: tone(path, 330.0, 3.0),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("step", ["files analysed", "files cut"])
def test_a_file_that_changes_is_left_out_until_the_next_run(
    step: str,
    change: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    changing, output = folder / "changes.wav", tmp_path / "out"
    listed = sha256_file(changing)
    settings = PrepareSettings(input_dir=folder, output_dir=output, num_workers=1)
    with monkeypatch.context() as patch:
        before(patch, step, lambda: CHANGES[change](changing))
        metadata = prepare.prepare_dataset(settings)
    entries = json.loads(metadata.read_text())
    assert [entry["source"] for entry in entries] == ["stays.wav"]
    told = " ".join(capsys.readouterr().out.split())
    assert "changes.wav" in told
    assert ("changed while prepare ran" if change != "gone" else "cannot be read") in told
    if step == "files analysed":
        assert read_record(output / "analysis", listed) is None
    if change == "gone":
        tone(changing, 330.0)
    again = json.loads(prepare.prepare_dataset(settings).read_text())
    made_from = {entry["source"]: entry["made_from"] for entry in again}
    assert made_from["changes.wav"] == sha256_file(changing)


@pytest.mark.parametrize("gone", ["in", "out"])
@pytest.mark.parametrize("step", ["files analysed", "files cut"])
def test_a_folder_that_vanishes(
    step: str, gone: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some files are read or written by then: what is left would pass for the whole dataset."""
    metadata = tmp_path / "out" / "metadata.json"
    settings = PrepareSettings(input_dir=folder, output_dir=tmp_path / "out", num_workers=1)
    with monkeypatch.context() as patch:
        before(patch, step, lambda: (tmp_path / gone).rename(tmp_path / "away"))
        with pytest.raises(RunError, match=rf"{gone}: was moved, deleted or replaced"):
            prepare.prepare_dataset(settings)
    assert not metadata.exists()
    if gone == "in":
        (tmp_path / "away").rename(folder)
    prepare.prepare_dataset(settings)
    assert len(json.loads(metadata.read_text())) == 2


def test_an_input_folder_that_was_away_takes_no_clip_out_of_training(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clips would be marked to be skipped, as those of deleted files are."""
    settings = PrepareSettings(input_dir=folder, output_dir=tmp_path / "out", num_workers=1)
    metadata = prepare.prepare_dataset(settings)
    content = metadata.read_text()
    tone(folder / "new.wav", 550.0)
    before(monkeypatch, "files analysed", lambda: folder.rename(tmp_path / "away"))
    with pytest.raises(RunError, match="in: was moved"):
        prepare.prepare_dataset(settings)
    assert metadata.read_text() == content
