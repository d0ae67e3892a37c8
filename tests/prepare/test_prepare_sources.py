"""Audio in formats that soundfile can't read: M4A and AAC, and parquet."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from made_datasets import RATE, beat, sine

from musicgen_lora.audio import ffmpeg
from musicgen_lora.audio.ffmpeg import decodable
from musicgen_lora.audio.files import AudioError, read_audio
from musicgen_lora.config import PrepareSettings
from musicgen_lora.dataset.metadata import load_dataset
from musicgen_lora.prepare.prepare import prepare_dataset

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg installed")


def encode(path: Path, waveform: np.ndarray, *more: str) -> Path:
    """Writes a waveform as AAC, or as the flags `more` say, in M4A or raw, by the extension."""
    wav = path.with_name("original.wav")
    soundfile.write(wav, waveform.T, RATE)
    words = ["ffmpeg", "-loglevel", "error", "-i", wav, "-c:a", "aac", *more, path]
    subprocess.run(words, check=True)
    wav.unlink()
    return path


def prepared(source: Path, out: Path) -> dict[str, str]:
    """Runs a preparation and returns the reasons by file left out."""
    prepare_dataset(PrepareSettings(input_dir=source, output_dir=out, num_workers=0))
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return {drop["file"]: drop["reason"] for drop in report["dropped"]}


@needs_ffmpeg
def test_m4a_and_aac_are_read_and_nothing_is_left_behind(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    encode(source / "-rf #1.m4a", beat(1, 1.5))
    encode(source / "bare.aac", sine(440.0, 1.5, RATE))
    assert prepared(source, out) == {}
    clips = {clip.fields["source"]: clip for clip in load_dataset(out)}
    assert clips.keys() == {"-rf #1.m4a", "bare.aac"}
    tone = read_audio(clips["bare.aac"].path, RATE)[0]
    assert len(tone) == pytest.approx(1.5 * RATE, abs=0.1 * RATE)
    spectrum = np.abs(np.fft.rfft(tone[RATE // 4 : RATE // 4 + RATE]))
    assert spectrum.argmax() == 440
    assert not list(tmp_path.rglob("*.staging-*"))
    assert not list(tmp_path.rglob("*decoded*"))
    assert sorted(os.listdir(source)) == ["-rf #1.m4a", "bare.aac"]


@needs_ffmpeg
def test_hostile_files_called_m4a_open_nothing_and_are_listed(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    soundfile.write(source / "good.wav", beat(7, 1.5).T, RATE)
    whole = encode(tmp_path / "whole.m4a", beat(1, 1.5)).read_bytes()
    (source / "cut.m4a").write_bytes(whole[: len(whole) // 2])
    (source / "list.m4a").write_text(f"ffconcat version 1.0\nfile {source / 'good.wav'}\n")
    (source / "hls.aac").write_text(f"#EXTM3U\n#EXTINF:1,\nfile://{source / 'good.wav'}\n")
    (source / "sync.aac").write_bytes(b"\xff\xf1" + bytes(range(256)) * 4)
    (source / "box.m4a").write_bytes(b"\0\0\0\x18ftypM4A " + b"\xff" * 400)
    (source / "empty.m4a").write_bytes(b"")
    dropped = prepared(source, tmp_path / "out")
    assert dropped.keys() == {
        "cut.m4a", "list.m4a", "hls.aac", "sync.aac", "box.m4a", "empty.m4a"
    }  # fmt: skip
    for name in ("cut.m4a", "box.m4a"):
        assert dropped[name].startswith("no AAC or ALAC in it that ffmpeg can decode; ")
    for name in ("list.m4a", "hls.aac"):
        assert "not readable as audio" in dropped[name]
    assert dropped["empty.m4a"].startswith("is empty; ")


@needs_ffmpeg
def test_an_m4a_that_was_cut_off_is_none_and_one_by_another_name_is_one(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    encode(source / "b.m4a", beat(1, 3.0), "-movflags", "+faststart")
    content = (source / "b.m4a").read_bytes()
    (source / "cut.m4a").write_bytes(content[: 2 * len(content) // 3])
    encode(source / "other.m4a", beat(2, 3.0), "-c:a", "ac3")
    # It is the first of two equal ones, so it is the one that is read.
    (source / "a.wav").write_bytes(content)
    (source / "bare").write_bytes(content)
    dropped = prepared(source, out)
    assert dropped.pop("cut.m4a") == "is cut off; copy or download it again."
    assert dropped.pop("other.m4a").startswith("no AAC or ALAC in it")
    assert dropped.pop("bare").endswith("rename it to end in .m4a.")
    assert dropped.keys() == {"b.m4a"}
    assert [clip.fields["source"] for clip in load_dataset(out)] == ["a.wav"]


@needs_ffmpeg
def test_what_ffmpeg_writes_and_its_time_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encode(tmp_path / "x.m4a", beat(1, 2.0))
    monkeypatch.setattr(ffmpeg, "MAX_DECODED_BYTES", 50_000)
    with (
        pytest.raises(AudioError, match=r"x\.m4a: decodes to more than"),
        decodable(path, tmp_path, lambda: None),
    ):
        pass
    monkeypatch.undo()
    slow = tmp_path / "bin" / "ffmpeg"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 30\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(ffmpeg, "LIMIT_S", 0.5)
    signs = []
    with (
        pytest.raises(AudioError, match=r"x\.m4a: ffmpeg took more than 0\.5 s"),
        decodable(path, tmp_path, lambda: signs.append(1)),
    ):
        pass
    assert signs
    assert not list(tmp_path.glob(".staging-*"))


def test_ffmpeg_is_called_with_one_demuxer_one_protocol_and_no_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = tmp_path / "said"
    fake = tmp_path / "bin" / "ffmpeg"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{said}"\nexit 1\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    path = tmp_path / "$(touch hacked); -i x.m4a"
    path.write_bytes(b"\0\0\0\x18ftypM4A ")
    with (
        pytest.raises(AudioError, match="ffmpeg can decode"),
        decodable(path, tmp_path, lambda: None),
    ):
        pass
    words = said.read_text().splitlines()
    for flag, value in {
        "-protocol_whitelist": "file",
        "-codec_whitelist": "aac,alac",
        "-enable_drefs": "0",
        "-f": "mov",
        "-i": f"file:{path}",
    }.items():
        assert words[words.index(flag) + 1] == value
    assert not list(tmp_path.rglob("hacked"))


def test_a_missing_ffmpeg_is_said_of_the_file_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    soundfile.write(source / "good.wav", beat(7, 1.5).T, RATE)
    (source / "x.m4a").write_bytes(b"\0\0\0\x18ftypM4A " + bytes(500))
    monkeypatch.setenv("PATH", str(tmp_path))
    reason = prepared(source, tmp_path / "out")["x.m4a"]
    assert reason.startswith("M4A and AAC need ffmpeg; install it (apt install ffmpeg")


def test_audio_inside_parquet_becomes_clips_with_their_captions(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    (source / "data").mkdir(parents=True)
    rows = []
    for index, name in enumerate(["../../evil.flac", "/etc/passwd", None]):
        soundfile.write(tmp_path / "x.flac", beat(index, 1.5).T, RATE)
        data = (tmp_path / "x.flac").read_bytes()
        rows.append({"audio": {"bytes": data, "path": name}, "text": f"beat number {index}"})
    rows.append({"audio": {"bytes": b"no audio", "path": "x.wav"}, "text": "nothing"})
    pq.write_table(pa.Table.from_pylist(rows), source / "data" / "train-0.parquet")
    pq.write_table(pa.Table.from_pylist(rows[:1]), source / "metadata.parquet")
    pq.write_table(pa.table({"number": [1, 2]}), source / "other.parquet")
    (source / "broken.parquet").write_bytes(b"PAR1 not")
    dropped = prepared(source, out)
    assert "not readable as parquet" in dropped.pop("broken.parquet")
    assert "not readable as audio" in dropped.pop("data/train-0/000004.wav")
    assert list(dropped.values()) == ["the same bytes as data/train-0/000001.flac."]
    clips = load_dataset(out)
    assert [clip.fields["text"] for clip in clips] == [f"beat number {i}" for i in range(3)]
    assert all(clip.path.parent == out / "train" for clip in clips)
    assert sorted(os.listdir(tmp_path)) == ["in", "out", "x.flac"]
    before = (out / "metadata.json").read_bytes()
    prepared(source, out)
    assert (out / "metadata.json").read_bytes() == before
