"""From prompts to files: names, batches, two at once, and a full disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import soundfile
from full_disk import files_up_to
from trainer import file_hashes

from musicgen_lora.cli import main
from musicgen_lora.commands.flags import parse_settings
from musicgen_lora.config import GenerateSettings
from musicgen_lora.errors import RunError, UserError
from musicgen_lora.generation import generate
from musicgen_lora.generation.generate import generate_audio
from musicgen_lora.model.lora.adapter import read_adapter
from musicgen_lora.runtime import locks

pytest.importorskip("resource", reason="needs Unix's file-size limit")
PROMPTS = ["808", "dark trap drums with bass and the 808 pattern", "hip hop", "- sparse beat"]


def play(model: Path, output_dir: Path, **changes: Any) -> list[Path]:
    values: dict[str, Any] = {
        "base_model_path": str(model),
        "output_dir": output_dir,
        "prompts": PROMPTS,
        "duration": 0.3,
    }
    return generate_audio(GenerateSettings(**(values | changes)))


def test_a_file_is_the_same_whatever_the_batch(tiny_model_dir: Path, tmp_path: Path) -> None:
    folders = {size: tmp_path / str(size) for size in (1, 2, 3, 4)}
    for size, folder in folders.items():
        play(tiny_model_dir, folder, batch_size=size)
    play(tiny_model_dir, tmp_path / "alone", prompts=PROMPTS[2:3], seed=2)
    hashes = {size: file_hashes(folder) for size, folder in folders.items()}
    assert len(hashes[1]) == 2 * len(PROMPTS) + 1
    assert hashes[1] == hashes[2] == hashes[3] == hashes[4]
    assert file_hashes(tmp_path / "alone").items() <= hashes[1].items()


def test_different_audio_never_shares_a_name(tiny_model_dir: Path, tmp_path: Path) -> None:
    seeds = [5, 2**32 + 5, 2**33 + 5]
    paths = [
        play(tiny_model_dir, tmp_path, prompts=["808"], seed=seed)[0] for seed in [*seeds, seeds[0]]
    ]
    assert len(set(paths)) == 3
    assert paths[0] == paths[3]
    assert len({path.read_bytes() for path in paths}) == 3
    facts = [json.loads(path.with_suffix(".json").read_text()) for path in paths]
    assert [one["seed"] for one in facts] == [*seeds, seeds[0]]


def test_several_adapters_play_at_their_strengths_and_are_named(
    tiny_model_dir: Path, pair: list[Path], tmp_path: Path
) -> None:
    mixed = {"lora_model_path": pair, "strength": [0.7, 0.3]}
    (both,) = play(tiny_model_dir, tmp_path, prompts=["hip hop 808 beat"], format="flac", **mixed)
    document = json.loads(both.with_suffix(".json").read_text())
    assert document["adapters"] == [
        {"path": str(path), "fingerprint": read_adapter(path).fingerprint, "strength": strength}
        for path, strength in zip(pair, [0.7, 0.3], strict=True)
    ]
    with soundfile.SoundFile(both) as file:
        for said in document["adapters"]:
            name = Path(said["path"]).name
            assert f"adapter: {name} {said['fingerprint']} x {said['strength']}" in file.comment


def test_two_halves_of_an_adapter_are_the_adapter(
    tiny_model_dir: Path, pair: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twice = {"lora_model_path": [pair[0], pair[0] / ".." / pair[0].name], "strength": [0.5, 0.5]}
    (whole,) = play(tiny_model_dir, tmp_path, lora_model_path=pair[0], prompts=["808"])
    (halves,) = play(tiny_model_dir, tmp_path, **twice, prompts=["808"])
    assert halves == whole
    said = capsys.readouterr().out
    assert f"{pair[0]}: is given more than once; its strengths add up to 1." in said


def test_an_adapter_that_changes_nothing_is_told(
    tiny_model_dir: Path, pair: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    play(tiny_model_dir, tmp_path, lora_model_path=pair, strength=[0.5, 0.0], prompts=["808"])
    said = capsys.readouterr().out
    assert f"{pair[1]}: changes no weight at strength 0" in said
    assert f"{pair[0]}: changes" not in said


def test_one_adapter_is_named_without_brackets(pair: list[Path], tmp_path: Path) -> None:
    """In a settings file as from Python."""
    config = tmp_path / "config.yaml"
    config.write_text(f"generate:\n  lora_model_path: {pair[0]}\n  strength: 0.5\n")
    read = parse_settings("generate", ["--prompts", "808"], config)
    assert (read.lora_model_path, read.strength) == ([pair[0]], [0.5])
    given: Any = {"prompts": ["808"], "lora_model_path": pair[0]}
    assert GenerateSettings(**given).lora_model_path == [pair[0]]
    assert GenerateSettings(**given | {"lora_model_path": None}).lora_model_path == []
    flags = ["--prompts", "808", "--lora_model_path", *map(str, pair), "--strength", "0.7", "0.3"]
    read = parse_settings("generate", flags, config)
    assert (read.lora_model_path, read.strength) == (pair, [0.7, 0.3])


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(
    tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["generate", "--base_model_path", str(tiny_model_dir), "--output_dir", str(tmp_path)]
    # A WAV of 0.3 s has 19,244 bytes.
    with files_up_to(10_000):
        code = main([*words, "--prompts", "808", "--duration", "0.3"])
    lines = [line for line in capsys.readouterr().err.splitlines() if "Loading weights" not in line]
    assert code == 1, lines
    assert len(lines) == 1
    assert "cannot be written (File too large)" in lines[0]
    assert {path.name for path in tmp_path.iterdir()} <= {".lock"}


def test_what_a_killed_run_left_goes_and_what_is_being_written_stays(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".staging-0123abcd-808.wav").write_bytes(b"half")
    play(tiny_model_dir, tmp_path, prompts=["808"])
    assert not list(tmp_path.glob(".staging-*"))
    monkeypatch.setattr(generate, "WAIT_S", 0.0)
    other = tmp_path / ".staging-4567cdef-beat.wav"
    other.write_bytes(b"half")
    with locks.locked(tmp_path), pytest.raises(UserError, match="in use by another run"):
        play(tiny_model_dir, tmp_path, prompts=["808"])
    assert other.is_file()


def test_an_output_folder_that_is_moved_meanwhile_is_told(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clips that are not where they were said to be would count as made."""
    folder, write = tmp_path / "out", generate.write_clip

    def moving(*args: Any) -> Path:
        path = write(*args)
        if not (tmp_path / "away").exists():
            folder.rename(tmp_path / "away")
        return path

    with monkeypatch.context() as patch:
        patch.setattr(generate, "write_clip", moving)
        with pytest.raises(RunError, match="out: was moved, deleted or replaced"):
            play(tiny_model_dir, folder, batch_size=1)
    assert len(list((tmp_path / "away").glob("*.wav"))) == 1
    assert all(path.is_file() for path in play(tiny_model_dir, folder, batch_size=1))
