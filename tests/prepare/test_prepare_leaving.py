"""What leaves a folder, or the dataset, between two preparations, and what comes back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from made_datasets import beat, read_metadata, write_metadata
from prepared.preparing import changes, edit, noise, prepared, put, told, trained_on

from musicgen_lora import MusicGen
from musicgen_lora.dataset.metadata import load_dataset
from musicgen_lora.errors import UserError
from musicgen_lora.prepare import prepare
from musicgen_lora.prepare.reading.inputs import find_inputs
from musicgen_lora.prepare.reading.remarks import GENERATED, PREPARED, Remarks


def test_a_file_that_left_the_folder_leaves_the_training_until_it_is_back(
    folder: tuple[Path, Path],
) -> None:
    source, out = folder
    first = read_metadata(out)
    edit(out, first[0]["audio"], text="mine")
    content = (source / "loop0.wav").read_bytes()
    (source / "loop0.wav").unlink()
    (source / "loop2.wav").rename(source / "renamed.wav")
    again = prepared(source, out)
    assert trained_on(out) == ["loop1.wav", "loop2.wav"]
    assert again[0]["skip"] == "its file is no longer in the input folder"
    assert again[0]["text"] == "mine"
    assert told(out, "no longer in the input folder") == [first[0]["audio"]]
    report = json.loads((out / "report.json").read_text())
    assert report["summary"]["clips"] == 2
    assert report["skipped"] == [{"audio": first[0]["audio"], "reason": again[0]["skip"]}]
    # Reported once, and the mark stays.
    assert prepared(source, out) == again
    assert not changes(out)
    # A user's own value is kept.
    edit(out, first[0]["audio"], skip=False)
    prepared(source, out)
    assert trained_on(out) == ["loop0.wav", "loop1.wav", "loop2.wav"]
    edit(out, first[0]["audio"], skip=again[0]["skip"])
    (source / "loop0.wav").write_bytes(content)
    back = prepared(source, out)
    assert "skip" not in back[0]
    assert back[0]["text"] == "mine"
    assert told(out, "back in training") == [first[0]["audio"]]


def test_files_of_another_folder_have_not_left(folder: tuple[Path, Path], tmp_path: Path) -> None:
    source, out = folder
    put(tmp_path / "more" / "loop0.wav", beat(7, 2.0))
    again = prepared(tmp_path / "more", out, loudness=-20.0)
    assert len(again) == 4
    assert not [entry for entry in again if "skip" in entry]
    names = told(out, f"prepared with --loudness -16; prepare {source.resolve()}")
    assert names == ["loop0.wav", "loop1.wav", "loop2.wav"]


def test_a_folder_that_cannot_be_read_today_has_lost_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    put(source / "a.wav", beat(0, 2.0))
    put(source / "locked" / "b.wav", beat(1, 2.0))
    first = prepared(source, out)
    scandir = prepare.find_inputs.__globals__["os"].scandir

    def refusing(path: Any = ".") -> Any:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", refusing)
    assert prepared(source, out) == first
    (drop,) = json.loads((out / "report.json").read_text())["dropped"]
    assert drop["file"] == "locked"
    assert drop["reason"].startswith("a folder that can't be opened (Permission denied)")


def test_a_clip_that_was_removed_stays_out_until_it_is_asked_for(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    put(source / "song.wav", noise(2, 6.0))
    put(source / "loop.wav", beat(0, 2.0))
    first = prepared(source, out, max_clip=3.5)
    assert [entry["source"] for entry in first] == ["loop.wav", "song.wav", "song.wav"]
    write_metadata(out, first[1:2])
    for _ in range(2):
        assert prepared(source, out, max_clip=3.5) == first[1:2]
        assert told(out, "you deleted their entry; --restore_removed") == [
            "loop.wav (0.0-2.0 s)",
            "song.wav (3.0-6.0 s)",
        ]
    # Nor does the part come back when the file is cut differently.
    again = prepared(source, out, max_clip=1.6)
    assert [(e["source"], round(e["at_s"], 1)) for e in again] == [
        ("song.wav", 0.0),
        ("song.wav", 1.5),
    ]
    restored = prepared(source, out, max_clip=3.5, restore_removed=True)
    assert sorted(entry["source"] for entry in restored) == ["loop.wav", "song.wav", "song.wav"]
    assert not [entry for entry in restored if entry.get("skip")]


def test_skip_takes_a_clip_out(folder: tuple[Path, Path]) -> None:
    source, out = folder
    audio = read_metadata(out)[1]["audio"]
    edit(out, audio, skip=True)
    assert trained_on(out) == ["loop0.wav", "loop2.wav"]
    again = prepared(source, out, loudness=-20.0)
    assert trained_on(out) == ["loop0.wav", "loop2.wav"]
    assert again[1]["skip"] is True
    for wrong in ("false", "", 1, []):
        edit(out, again[1]["audio"], skip=wrong)
        with pytest.raises(UserError, match=r'entry 2: "skip" must be true or false'):
            load_dataset(out)
    write_metadata(out, [entry | {"skip": True} for entry in again])
    with pytest.raises(UserError, match=r'all of its clips are taken out by "skip"; remove it'):
        load_dataset(out)


def test_deleted_audio_is_made_again(folder: tuple[Path, Path], tmp_path: Path) -> None:
    source, out = folder
    entries = read_metadata(out)
    path = out / entries[1]["audio"]
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(UserError, match=r"entry 2: .* does not exist .*; run prepare again"):
        load_dataset(out)
    assert prepared(source, out) == entries
    assert path.read_bytes() == content
    assert told(out, "audio was missing") == [entries[1]["audio"]]
    path.unlink()
    put(tmp_path / "more" / "other.wav", beat(7, 2.0))
    prepared(tmp_path / "more", out)
    assert told(out, "is without audio, and the file that it was cut from is not in") == [
        entries[1]["audio"]
    ]


def test_clips_in_the_dataset_are_no_input_once_they_are_removed(tmp_path: Path) -> None:
    """`--input_dir` is the dataset itself, with clips of another folder in it."""
    source, out = tmp_path / "in", tmp_path / "data"
    for index in range(2):
        put(source / f"{index}.wav", beat(index, 2.0))
    first = prepared(source, out)
    write_metadata(out, first[:1])
    put(out / "train" / "own.wav", beat(5, 2.0))
    again = prepared(out, out)
    assert [entry["audio"] for entry in again] == [first[0]["audio"], "train/own.wav"]


def test_a_dataset_in_a_hidden_folder_is_not_left_out(tmp_path: Path) -> None:
    put(tmp_path / "a.wav", beat(0, 2.0))
    first = prepared(tmp_path, tmp_path / ".made" / "data")
    put(tmp_path / ".trash" / "b.wav", beat(1, 2.0))
    assert prepared(tmp_path, tmp_path / ".made" / "data") == first
    (drop,) = json.loads((tmp_path / ".made/data/report.json").read_text())["dropped"]
    assert drop["file"] == ".trash"


FIND = """
import sys
from pathlib import Path
from musicgen_lora.prepare.reading.inputs import find_inputs
from musicgen_lora.prepare.reading.remarks import Remarks

out = Path("out")
inputs, dropped = find_inputs(Path("in"), out, out / "metadata.json", Remarks(Path("in")))
print([file.name for file in inputs], [left.reason for left in dropped])
"""


def test_names_that_the_locale_misreads_are_not_taken_for_others(tmp_path: Path) -> None:
    """In a Chinese locale of old, the bytes of a name in UTF-8 are other Chinese characters."""
    for name in ("plain.wav", "陷阱.wav"):
        put(tmp_path / "in" / name, noise(1, 1.5))
    done = subprocess.run(
        [sys.executable, "-c", FIND],
        cwd=tmp_path,
        env=os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        capture_output=True,
        text=True,
    )
    assert done.stdout == (
        "['plain.wav'] [\"its name is in UTF-8, but this system's locale has names read as ascii; "
        'set PYTHONUTF8=1 in the environment."]\n'
    ), done.stderr


def test_clips_that_this_program_generated_are_told(tmp_path: Path) -> None:
    """They come with captions of their own, and would be trained on like any others."""
    clips = MusicGen.load().generate("trap beat", duration=0.1)
    clips[0].save(tmp_path / "in" / "generated" / "one.wav")
    for name in ("own.wav", "generated/other.wav"):
        put(tmp_path / "in" / name, noise(1, 1.5))
    (tmp_path / "in" / "own.json").write_text('{"caption": "dark trap", "seed": 3, "model": "x"}')
    remarks = Remarks(tmp_path / "in")
    find_inputs(tmp_path / "in", tmp_path / "out", tmp_path / "out" / "metadata.json", remarks)
    assert remarks.items(GENERATED) == ["generated/one.wav"]


def test_a_dataset_in_the_input_is_told(tmp_path: Path) -> None:
    """The clips that were cut from a file would count beside those that are cut from it now."""
    source = tmp_path / "in"
    put(source / "one.wav", noise(1, 2.0))
    prepared(source, source / "data")
    for out, items in ((source / "data", []), (source, ["data"]), (tmp_path / "out", ["data"])):
        remarks = Remarks(source)
        find_inputs(source, out, out / "metadata.json", remarks)
        assert remarks.items(PREPARED) == items
    remarks = Remarks(source / "data")
    find_inputs(source / "data", tmp_path / "out", tmp_path / "out" / "metadata.json", remarks)
    assert remarks.items(PREPARED) == []
