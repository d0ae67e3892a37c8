"""A realistic, messy sample pack: what happens to a mix, copies and single hits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from chinese import english_in, english_in_page, in_chinese  # noqa: F401
from made_datasets import RATE, read_metadata
from prepared.messy_pack import (
    HITS,
    MIX,
    MP3_COPY,
    ONE_SHOTS,
    SINGLES,
    TABLE_BPM,
    make_messy_pack,
    single,
)
from prepared.preparing import read_report

from musicgen_lora import atomic
from musicgen_lora.config import PrepareSettings
from musicgen_lora.dataset.metadata import load_dataset, split_clips
from musicgen_lora.prepare.prepare import prepare_dataset
from musicgen_lora.prepare.reading.remarks import in_one_line
from musicgen_lora.prepare.report.report import make_page


def prepared(source: Path, out: Path, **changes: Any) -> list[dict[str, Any]]:
    """The entries made from a folder."""
    prepare_dataset(PrepareSettings(input_dir=source, output_dir=out, num_workers=0, **changes))
    return read_metadata(out)


def made_of(pack: tuple[Path, Path], name: str) -> list[dict[str, Any]]:
    """The clips of a file."""
    digest = atomic.sha256_file(pack[0] / name)
    return [entry for entry in read_metadata(pack[1]) if entry["made_from"] == digest]


def sources_of(entries: list[dict[str, Any]]) -> set[str]:
    return {entry["source"] for entry in entries}


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The pack, with a beat that the mix lacks, and the dataset that was made from it."""
    source = make_messy_pack(tmp_path_factory.mktemp("pack"))
    soundfile.write(source / "another.wav", single(5)[0].T, RATE)
    out = source.with_name("dataset")
    prepared(source, out)
    return source, out


def test_held_out_audio_is_never_in_training(pack: tuple[Path, Path]) -> None:
    clips = load_dataset(pack[1])
    mixed = [entry for name in (MIX, *SINGLES) for entry in made_of(pack, name)]
    assert len(mixed) >= 5
    assert len(sources_of(mixed)) == 1
    assert sources_of(made_of(pack, "another.wav")).isdisjoint(sources_of(mixed))
    for seed in range(10):
        train, held_out = split_clips(clips, 0.1, seed)
        assert {c.fields["source"] for c in train}.isdisjoint(c.fields["source"] for c in held_out)
        assert len(held_out)


def test_files_that_share_audio_are_named(pack: tuple[Path, Path]) -> None:
    (remark,) = [r for r in read_report(pack[1])["remarks"] if "share audio" in r["told"]]
    for name in SINGLES[:2]:
        assert any(MIX in item and name in item for item in remark["items"])


def test_a_beat_that_comes_after_its_mix_joins_it_and_joins_what_stood_apart(
    tmp_path: Path,
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    beats = [single(index)[0] for index in range(2)]
    for name, waveform in zip("ab", beats, strict=True):
        soundfile.write(source / f"{name}.wav", waveform.T, RATE)
    assert len(sources_of(prepared(source, out))) == 2
    soundfile.write(source / "mix.wav", np.concatenate(beats, axis=1).T, RATE)
    entries = prepared(source, out)
    assert len(entries) >= 3
    assert len(sources_of(entries)) == 1
    assert prepared(source, out) == entries


def test_clips_of_a_mix_have_their_own_tempo(pack: tuple[Path, Path]) -> None:
    clips = made_of(pack, MIX)
    bpms = [(single(index)[1], single(index)[0].shape[1] / RATE) for index in range(len(SINGLES))]
    told = 0
    for clip in clips:
        start_s, stop_s = clip["at_s"], clip["at_s"] + clip["duration_s"]
        at_s, heard = 0.0, set()
        for bpm, length_s in bpms:
            if min(stop_s, at_s + length_s) - max(start_s, at_s) > 3.0:
                heard.add(bpm)
            at_s += length_s
        if "bpm" in clip:
            told += 1
            assert any(clip["bpm"] == pytest.approx(bpm, abs=0.5) for bpm in heard)
    assert told == len(clips)


def test_single_hits_are_left_out_by_name_or_called_what_they_are(
    pack: tuple[Path, Path], tmp_path: Path
) -> None:
    source, out = pack
    dropped = {drop["file"]: drop["reason"] for drop in read_report(out)["dropped"]}
    assert all("single hit (one-shot)" in dropped[name] for name in HITS)
    hits = tmp_path / "hits"
    shutil.copytree(source / "one shots", hits)
    soundfile.write(hits / "beat.wav", single(0)[0].T, RATE)
    shutil.copy(ONE_SHOTS / "perc_bell.flac", hits / "808 bell.flac")
    (hits / "open hat.txt").write_text("a long open hat")
    entries = prepared(hits, tmp_path / "left_out")
    assert {e["source"]: e["text"] for e in entries if e["source"] != "beat.wav"} == {
        "open hat.wav": "a long open hat"
    }
    entries = prepared(hits, tmp_path / "left_out", one_shots="caption")
    texts = {e["source"]: e["text"] for e in entries if e["source"] != "beat.wav"}
    assert texts["boom.flac"] == "one-shot sample"
    assert texts["open hat.wav"] == "a long open hat"
    assert "one-shot" in texts["808 bell.flac"]
    assert "beat" not in texts["808 bell.flac"]
    assert len(prepared(hits, tmp_path / "left_out")) == 2


def test_of_copies_the_best_stays_with_what_was_said_of_the_others(
    pack: tuple[Path, Path], tmp_path: Path
) -> None:
    dropped = {drop["file"]: drop for drop in read_report(pack[1])["dropped"]}
    assert dropped[MP3_COPY]["equals"] == SINGLES[1]
    assert dropped[MP3_COPY]["reason"] == f"sounds like {SINGLES[1]}, which is lossless."
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    waveform = 0.5 * single(3)[0]
    clipped = np.clip(3.0 * waveform, -1.0, 1.0)
    soundfile.write(source / "a clipped 145bpm.wav", clipped.T, RATE)
    soundfile.write(source / "b.mp3", waveform.T, RATE)
    (source / "b.txt").write_text("what the MP3 plays")
    soundfile.write(source / "z.wav", waveform.T, RATE)
    (entry,) = prepared(source, out)
    assert (entry["source"], entry["text"], entry["bpm"]) == ("z.wav", "what the MP3 plays", 145)
    report = read_report(out)
    assert {drop["file"]: drop["reason"] for drop in report["dropped"]} == {
        "a clipped 145bpm.wav": "sounds like z.wav, which is not clipped.",
        "b.mp3": "sounds like z.wav, which is lossless.",
    }
    (remark,) = [r for r in report["remarks"] if "copies are left out; their captions" in r["told"]]
    assert remark["items"] == [
        "z.wav takes over bpm from a clipped 145bpm.wav",
        "z.wav takes over text from b.mp3",
    ]
    # The second run reports it again, for a file that the dataset now lists.
    assert prepared(source, out) == [entry]


def test_of_equal_copies_the_louder_stays_and_one_whose_name_is_no_copys(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    waveform = single(3)[0]
    soundfile.write(source / "beat (1).wav", 0.3 * waveform.T, RATE)
    soundfile.write(source / "beat.wav", waveform.T, RATE)
    for name in ("loop - 副本.wav", "loop copy.wav", "loop.wav"):
        soundfile.write(source / name, single(4)[0].T, RATE)
    assert sources_of(prepared(source, out)) == {"beat.wav", "loop.wav"}
    reasons = {drop["file"]: drop["reason"] for drop in read_report(out)["dropped"]}
    assert reasons["beat (1).wav"] == "sounds like beat.wav, which is higher in level."
    assert reasons["loop copy.wav"] == "the same bytes as loop.wav."


def test_what_is_wrong_with_files_is_said_as_it_is(pack: tuple[Path, Path]) -> None:
    """Files from Chinese Windows are read, and a table that contradicts the sound is reported."""
    report = read_report(pack[1])
    dropped = {drop["file"]: drop["reason"] for drop in report["dropped"]}
    assert dropped["empty.wav"].startswith("is empty")
    assert dropped["broken.mp3"] == (
        "not readable as audio (there is no audio in it); copy, download or export it again."
    )
    assert not {"empty.wav", "broken.mp3"} & {n for f in report["faults"] for n in f["files"]}
    (entry,) = made_of(pack, "another.wav")
    assert entry["text"].startswith("暗黑陷阱鼓点")
    assert entry["bpm"] == TABLE_BPM
    told = {r["told"]: r["items"] for r in report["remarks"]}
    (encoding,) = (items for remark, items in told.items() if "UTF-8" in remark)
    assert encoding == ["metadata.csv: read as GB18030"]
    (unused,) = (items for remark, items in told.items() if "column" in remark)
    assert unused == ["metadata.csv: 价格"]
    (conflict,) = (items for remark, items in told.items() if "heard" in remark)
    assert any("another.wav" in item and f"{TABLE_BPM} BPM" in item for item in conflict)
    (advice,) = (line for line in report["advice"] if "LUFS is reached" in line)
    assert "--limit" in advice
    (english,) = (line for line in report["advice"] if "text encoder" in line)
    assert english.count("dark trap drum pattern") == 1


def test_hits_that_an_earlier_release_listed_are_taken_out_and_said(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    soundfile.write(source / "beat.wav", single(0)[0].T, RATE)
    shutil.copy(ONE_SHOTS / "bd_boom.flac", source)
    assert len(prepared(source, out, one_shots="caption")) == 2
    ledger = out / "metadata.ledger.json"
    content = json.loads(ledger.read_text())
    for settings in content["settings"]:
        del settings["one_shots"]
    ledger.write_text(json.dumps(content))
    (entry,) = prepared(source, out)
    assert entry["source"] == "beat.wav"
    report = read_report(out)
    assert [drop["file"] for drop in report["dropped"]] == ["bd_boom.flac"]
    assert any("--one_shots" in change["told"] for change in report["changes"])


@pytest.mark.usefixtures("in_chinese")
def test_a_chinese_reader_finds_no_english(pack: tuple[Path, Path]) -> None:
    content = read_report(pack[1])
    shown = [{"entry": entry, "audio": "", "wave": "", "mel": ""} for entry in content["clips"]]
    captions = [entry["text"] for entry in content["clips"]]
    names = [*SINGLES, MIX, MP3_COPY, *HITS, "another.wav", "loops/three copy.wav"]
    # Fields of the metadata, and the English that a caption is read as.
    names += ["bpm", "key", "dark trap drum pattern", "GB18030", "another", "metadata.csv"]
    page = make_page(content, shown)
    assert english_in_page(page, "--one_shots caption", *captions, *names) == []
    assert english_in(" ".join(map(in_one_line, content["remarks"])), *names) == []
    assert content["left_out"][0]["told"].startswith("a single hit")
