"""Parts, splits and sources in the input's metadata arrive in the dataset."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from made_datasets import RATE, beat, read_metadata, sine

from musicgen_lora.audio.files import read_audio
from musicgen_lora.config import PrepareSettings
from musicgen_lora.dataset.metadata import load_dataset, split_clips
from musicgen_lora.prepare.prepare import prepare_dataset


def put(path: Path, waveform: np.ndarray, rate: int = RATE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform.T, rate)


def prepared(input_dir: Path, output_dir: Path, **changes: Any) -> list[dict[str, Any]]:
    values = {"default_text": "hip hop 808 beat", "num_workers": 0, "caption_variants": 1} | changes
    prepare_dataset(PrepareSettings(input_dir=input_dir, output_dir=output_dir, **values))
    load_dataset(output_dir)
    return read_metadata(output_dir)


def remarks(output_dir: Path) -> dict[str, list[str]]:
    """The report's remarks on what was not used or was guessed, by their text."""
    report = json.loads((output_dir / "report.json").read_text(encoding="utf-8"))
    return {remark["told"]: remark["items"] for remark in report["remarks"]}


def tones(*hz: float, each_s: float = 4.0) -> np.ndarray:
    return np.concatenate([sine(f, each_s, RATE) for f in hz], axis=1)


@pytest.mark.parametrize("in_place", [False, True])
def test_each_part_is_a_clip_with_its_own_captions(tmp_path: Path, in_place: bool) -> None:
    source = tmp_path / "in"
    out = source if in_place else tmp_path / "out"
    put(source / "song.wav", tones(200.0, 400.0, 800.0))
    (source / "metadata.csv").write_text(
        "file_name,start_s,duration_s,text,bpm\n"
        "song.wav,0,4,a low tone,90\nsong.wav,4,4,a tone,\nsong.wav,4,4,the same tone,\n"
        "song.wav,8,4,a high tone,140\nsong.wav,,,three tones,\n"
    )
    found = prepared(source, out, caption_variants=3)
    assert [(e["at_s"], e["duration_s"], e["cut"]) for e in found] == [
        (start_s, 4.0, "part") for start_s in (0.0, 4.0, 8.0)
    ]
    assert [e["text"] for e in found] == ["a low tone", "a tone", "a high tone"]
    assert found[1]["texts"] == ["a tone", "the same tone", "three tones"]
    assert all("three tones" in entry["texts"] for entry in found)
    assert not any("high" in text for entry in found[:2] for text in entry["texts"])
    assert (found[0]["bpm"], found[2]["bpm"]) == (90, 140)
    for clip, hz in zip(load_dataset(out), (200.0, 400.0, 800.0), strict=True):
        start = round(clip.start_s * RATE)
        heard = soundfile.read(clip.path)[0][start : start + 4 * RATE]
        assert np.argmax(np.abs(np.fft.rfft(heard))) / 4.0 == pytest.approx(hz, abs=1.0)
    before = (out / "metadata.json").read_bytes()
    prepared(source, out, caption_variants=3)
    assert (out / "metadata.json").read_bytes() == before


def test_a_long_part_is_cut_within_its_ends(tmp_path: Path) -> None:
    put(tmp_path / "in" / "song.wav", tones(300.0, 500.0, each_s=9.0))
    (tmp_path / "in" / "metadata.csv").write_text(
        "file_name,start_s,end_s,text\nsong.wav,0,7,first\nsong.wav,7,18,second\n"
    )
    found = prepared(tmp_path / "in", tmp_path / "out", max_clip=4.0, min_window=2.0)
    assert {entry["text"] for entry in found} == {"first", "second"}
    for entry in found:
        start_s, end_s = entry["at_s"], entry["at_s"] + entry["duration_s"]
        assert entry["duration_s"] <= 4.0
        assert end_s <= 7.001 if entry["text"] == "first" else start_s >= 7.0


def test_what_no_part_covers_is_said_and_so_are_parts_beyond_the_end(tmp_path: Path) -> None:
    put(tmp_path / "in" / "song.wav", tones(300.0, 500.0))
    put(tmp_path / "in" / "cut.wav", tones(700.0))
    put(tmp_path / "in" / "torn.wav", tones(600.0))
    (tmp_path / "in" / "metadata.csv").write_text(
        "file_name,start_s,end_s,text\nsong.wav,1,4,middle\nsong.wav,20,30,nowhere\n"
        "song.wav,5,5.5,short\ncut.wav,30,34,cut out of a video\n"
        "torn.wav,1,2,one\ntorn.wav,1,3,other\n"
    )
    found = prepared(tmp_path / "in", tmp_path / "out")
    # A clip of four seconds whose part has four seconds elsewhere is that part.
    assert sorted((e["text"], e.get("at_s")) for e in found) == [
        ("cut out of a video", None),
        ("middle", 1.0),
    ]
    said = remarks(tmp_path / "out")
    assert said["2 parts (start_s, duration_s) don't fit their files"] == [
        "song.wav, 5 s to 5.5 s: too short for a clip, or silent",
        "song.wav, 20 s to 30 s: the file is 8.00 s long",
    ]
    rest = "1 file has audio that no part (start_s, duration_s) covers; it is left out"
    assert said[rest] == ["song.wav: 4.5 of 8.0 s"]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    (dropped,) = report["dropped"]
    assert dropped["file"] == "torn.wav"
    assert "line 7" in dropped["reason"]
    assert "line 6" in dropped["reason"]


def test_parts_of_a_file_that_was_cut_before_are_cut_anew(tmp_path: Path) -> None:
    source = tmp_path / "in"
    put(source / "song.wav", tones(200.0, 400.0))
    prepared(source, tmp_path / "out")
    (source / "metadata.csv").write_text(
        "file_name,start_s,duration_s,text\nsong.wav,0,4,low\nsong.wav,4,4,high\n"
    )
    entries = prepared(source, tmp_path / "out")
    assert [(entry["text"], entry["at_s"]) for entry in entries] == [("low", 0.0), ("high", 4.0)]
    for entry, frequency_hz in zip(entries, (200.0, 400.0), strict=True):
        heard = read_audio(tmp_path / "out" / entry["audio"], RATE)[0]
        spectrum = np.abs(np.fft.rfft(heard[:RATE]))
        assert spectrum.argmax() == pytest.approx(frequency_hz, abs=2)
    assert prepared(source, tmp_path / "out") == entries


def three(source: Path, names: tuple[str, ...]) -> None:
    for index, name in enumerate(names):
        put(source / name, beat(index, 3.0), RATE)


def test_split_source_and_unknown_fields_survive(tmp_path: Path) -> None:
    names = ("a.wav", "b.wav", "c.wav")
    three(tmp_path / "in", names)
    rows = ["a.wav,first, Eval ,album 1,42", "b.wav,second,train,album 2,", "c.wav,third,train,,7"]
    (tmp_path / "in" / "metadata.csv").write_text(
        "\n".join(["file_name,text,split,source,rating", *rows, ""])
    )
    out = tmp_path / "out"
    found = {entry["text"]: entry for entry in prepared(tmp_path / "in", out)}
    assert [found[t]["split"] for t in ("first", "second", "third")] == ["eval", "train", "train"]
    assert [found[t]["source"] for t in ("first", "second", "third")] == [
        *("album 1", "album 2", "c.wav")
    ]
    assert [found[t].get("rating") for t in ("first", "second", "third")] == ["42", None, "7"]
    train, held_out = split_clips(load_dataset(out), 0.5, 0)
    assert ([clip.texts[0] for clip in held_out], len(train)) == (["first"], 2)
    # A second run brings them up to date; an edit is kept.
    entries = read_metadata(out)
    entries[1]["rating"] = "mine"
    (out / "metadata.json").write_text(json.dumps(entries))
    rows = ["a.wav,first,train,album 1,43", "b.wav,second,test,album 2,9", "c.wav,third,train,,"]
    (tmp_path / "in" / "metadata.csv").write_text(
        "\n".join(["file_name,text,split,source,rating", *rows, ""])
    )
    found = prepared(tmp_path / "in", out)
    assert [entry["split"] for entry in found] == ["train", "test", "train"]
    assert [entry.get("rating") for entry in found] == ["43", "mine", None]


def test_folders_set_the_split_where_one_is_held_out(tmp_path: Path) -> None:
    three(tmp_path / "in", ("Train/a.wav", "testing/b.wav", "c.wav"))
    found = {e["source"]: e for e in prepared(tmp_path / "in", tmp_path / "out")}
    assert {name: entry.get("split") for name, entry in found.items()} == {
        "Train/a.wav": "train",
        "testing/b.wav": "testing",
        "c.wav": None,
    }
    said = remarks(tmp_path / "out")["2 folders' names set the split of their files"]
    assert said == ["train: 1 file for training", "testing: 1 file held out from training"]
    shutil.rmtree(tmp_path / "in" / "testing")
    alone = prepared(tmp_path / "in", tmp_path / "alone")
    assert [entry.get("split") for entry in alone] == [None, None]


def test_stated_splits_stand_where_a_source_is_on_both_sides(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    three(tmp_path / "in", ("a.wav", "b.wav", "c.wav"))
    rows = ["a.wav,first,train,album", "b.wav,second,test,album", "c.wav,third,,album"]
    (tmp_path / "in" / "metadata.csv").write_text(
        "\n".join(["file_name,text,split,source", *rows, ""])
    )
    prepared(tmp_path / "in", tmp_path / "out")
    train, held_out = split_clips(load_dataset(tmp_path / "out"), 0.5, 0)
    assert [clip.texts[0] for clip in train] == ["first"]
    assert [clip.texts[0] for clip in held_out] == ["second", "third"]
    assert "1 source is in both training and validation: album." in capsys.readouterr().out


def test_a_copy_of_a_held_out_file_is_not_trained_on(tmp_path: Path) -> None:
    three(tmp_path / "in", ("train/a.wav", "train/b.wav"))
    (tmp_path / "in" / "test").mkdir()
    shutil.copy(tmp_path / "in/train/a.wav", tmp_path / "in/test/z.wav")
    put(tmp_path / "in/test/louder.wav", 0.5 * beat(1, 3.0))
    (tmp_path / "in/test/z.txt").write_text("of the copy")
    found = {e["source"]: e for e in prepared(tmp_path / "in", tmp_path / "out")}
    assert len(found) == 2
    assert all(entry["split"] == "test" for entry in found.values())
    assert any(entry["text"] == "of the copy" for entry in found.values())
