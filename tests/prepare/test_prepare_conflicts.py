"""Names that contradict what is heard are reported, with what the captions say, for the user."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import soundfile
from made_datasets import RATE, read_metadata, write_metadata

from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.config import PrepareSettings
from musicgen_lora.prepare.prepare import prepare_dataset

BEAT = make_beat((0, 2), duration_s=12.0)


def put(path: Path, index: int) -> None:
    beat = make_beat((0, index), duration_s=12.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, render_beat(beat, RATE, seed=index).T, RATE)


def prepared(folder: Path, **changes: Any) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """The entries by source, and the remarks' items and advice by a word of their text."""
    out = folder.parent / "out"
    prepare_dataset(PrepareSettings(input_dir=folder, output_dir=out, num_workers=0, **changes))
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    entries = {entry["source"]: entry for entry in read_metadata(out)}
    return entries, {remark["told"]: remark["items"] for remark in report["remarks"]}


def items(remarks: dict[str, list[str]], word: str) -> list[str]:
    return [item for told, names in remarks.items() if word in told for item in names]


def test_a_wrong_tempo_in_a_name_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in"
    wrong = round(BEAT.bpm * 0.86)
    put(source / f"lies_{wrong}bpm.wav", 2)
    other = make_beat((0, 3), duration_s=12.0)
    put(source / f"true_{other.bpm}bpm.wav", 3)
    entries, remarks = prepared(source)
    (item,) = items(remarks, "contradiction")
    assert item.startswith(f"lies_{wrong}bpm.wav: {wrong} BPM (from file name)")
    assert f"{BEAT.bpm} BPM heard; captions say {wrong}" in item
    assert entries[f"lies_{wrong}bpm.wav"]["bpm"] == wrong
    said = " ".join(capsys.readouterr().out.split())
    assert "1 contradiction between names, metadata and what is heard: lies_" in said
    # The user's decision settles it.
    write_metadata(source, [{"audio": f"lies_{wrong}bpm.wav", "bpm": BEAT.bpm}])
    entries, remarks = prepared(source)
    assert entries[f"lies_{wrong}bpm.wav"]["bpm"] == BEAT.bpm
    assert not items(remarks, "contradiction")


def test_a_halved_trap_tempo_is_told_doubled_and_a_flat_key_stays_flat(tmp_path: Path) -> None:
    source = tmp_path / "in"
    beat = make_beat((0, 2), duration_s=12.0)
    half = f"{beat.bpm / 2:g}"
    name = f"trap {half}bpm Bbm.wav"
    put(source / name, 2)
    entries, remarks = prepared(source)
    assert items(remarks, "half-time") == [f"{name}: {half}, written as {beat.bpm}"]
    entry = entries[name]
    assert (entry["bpm"], entry["key"]) == (beat.bpm, "Bb minor")
    assert "half-time" in entry["text"]
    assert "Bb minor" in entry["text"]
    assert not any("A#" in text for text in entry["texts"])


def test_a_file_without_a_name_says_more_than_the_default_text(tmp_path: Path) -> None:
    for index in range(3):
        put(tmp_path / "in" / f"{'abc'[index]}.wav", index)
    entries, _ = prepared(tmp_path / "in", default_text="hip hop 808 beat")
    texts = [entry["text"] for entry in entries.values()]
    assert len(set(texts)) == 3
    assert all(text != "hip hop 808 beat" for text in texts)
