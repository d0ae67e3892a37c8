"""Audio that is odd but whole: formats, headers, links, channels, levels. All of it is used;
what is not, or is changed, is reported."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from harm.odd_audio import UNKNOWN, sound, without_info_frame, write_mp3
from made_datasets import RATE, beat, read_metadata, sine
from prepared.preparing import read_report

from musicgen_lora.audio.files import read_audio
from musicgen_lora.config import PrepareSettings
from musicgen_lora.errors import UserError
from musicgen_lora.prepare.prepare import prepare_dataset


def put(path: Path, waveform: np.ndarray, **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform.T, RATE, **how)
    return path


def prepared(input_dir: Path, output_dir: Path, **changes: Any) -> dict[str, dict[str, Any]]:
    """The entries made from a folder, by source."""
    values = {"num_workers": 0} | changes
    prepare_dataset(PrepareSettings(input_dir=input_dir, output_dir=output_dir, **values))
    return {entry["source"]: entry for entry in read_metadata(output_dir)}


def faults(output_dir: Path) -> dict[str, list[str]]:
    return {fault["name"]: fault["files"] for fault in read_report(output_dir)["faults"]}


def dropped(output_dir: Path) -> dict[str, str]:
    return {drop["file"]: drop["reason"] for drop in read_report(output_dir)["dropped"]}


def bass_db(samples: np.ndarray) -> float:
    power = np.abs(np.fft.rfft(samples)) ** 2
    hz = np.fft.rfftfreq(len(samples), 1.0 / RATE)
    return float(10.0 * np.log10(power[(hz >= 20.0) & (hz < 120.0)].sum() / len(samples) ** 2))


def widened(index: int) -> np.ndarray:
    """A beat `[2, N]` whose band below 150 Hz has opposite signs left and right."""
    mono = beat(index)[0]
    spectrum = np.fft.rfft(mono)
    spectrum[np.fft.rfftfreq(len(mono), 1.0 / RATE) > 150.0] = 0.0
    low = np.fft.irfft(spectrum, len(mono))
    return 0.5 * np.stack([mono, mono - 2.0 * low])


def test_every_format_of_libsndfile_counts(tmp_path: Path) -> None:
    source = tmp_path / "in"
    kinds = {
        "a.WAV": "WAV", "b.caf": "CAF", "c.w64": "W64", "d.au": "AU", "e.snd": "AU",
        "f.aifc": "AIFF", "g.rf64": "RF64", "h.voc": "VOC",
    }  # fmt: skip
    for index, (name, kind) in enumerate(kinds.items()):
        put(source / name, beat(index, 2.0 + 0.2 * index), format=kind, subtype="PCM_16")
    for name in ("song.wma", "old.ape", "talk.webm"):
        (source / name).write_bytes(b"whatever")
    assert prepared(source, tmp_path / "out").keys() == kinds.keys()
    reasons = dropped(tmp_path / "out")
    assert reasons.keys() == {"song.wma", "old.ape", "talk.webm"}
    assert all("convert it to WAV or FLAC" in reason for reason in reasons.values())


def test_a_folder_of_unread_formats_says_so(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "song.wma").write_bytes(b"whatever")
    with pytest.raises(UserError, match=r"no audio in it .*song\.wma is in a format"):
        prepared(tmp_path / "in", tmp_path / "out")


def test_headers_that_lie_or_do_not_know(tmp_path: Path) -> None:
    source = tmp_path / "in"
    put(source / "streamed.flac", beat(0, 3.0))
    streamed = source / "streamed.flac"
    streamed.write_bytes(UNKNOWN["flac"](streamed.read_bytes()))
    put(source / "crashed.wav", beat(1, 3.0))
    crashed = source / "crashed.wav"
    crashed.write_bytes(UNKNOWN["wav, zero"](crashed.read_bytes()))
    loud_first = sound(RATE, 1)[::-1].copy()
    loud_first[3 * RATE :] *= 0.01
    content = write_mp3(source / "cut.mp3", loud_first, RATE, "VARIABLE", 0.3)
    (source / "cut.mp3").write_bytes(without_info_frame(content))
    parts = [write_mp3(tmp_path / "x.mp3", beat(i).T, RATE, "CONSTANT", 0.5) for i in (2, 3)]
    (source / "joined.mp3").write_bytes(b"".join(parts))
    for index, name in enumerate(("half.wav", "half.aiff", "half.mp3", "half.flac"), 4):
        whole = put(source / name, beat(index)).read_bytes()
        (source / name).write_bytes(whole[: len(whole) // 2])
    entries = prepared(source, tmp_path / "out")
    lengths = {name: entry["duration_s"] for name, entry in entries.items()}
    assert lengths == pytest.approx(
        {
            "streamed.flac": 3.0,
            "crashed.wav": 3.0,
            "cut.mp3": 8.0,
            "joined.mp3": 8.0,
            "half.wav": 2.0,
            "half.aiff": 2.0,
            "half.mp3": 2.0,
        },
        abs=0.6,
    )
    found = faults(tmp_path / "out")
    assert found["longer than said"] == ["joined.mp3"]
    assert found["cut short"] == ["half.aiff", "half.mp3", "half.wav"]
    assert dropped(tmp_path / "out").keys() == {"half.flac"}


def test_a_bass_out_of_phase_is_told_and_can_be_folded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in"
    put(source / "wide.wav", widened(6), subtype="PCM_24")
    put(source / "mono.wav", beat(7))
    put(source / "stereo.wav", np.concatenate([beat(8), beat(8)]))
    put(source / "inverted.wav", np.concatenate([beat(9), -beat(9)]))
    prepared(source, tmp_path / "out")
    # In one line, however wide the terminal is: a table broke lines inside Chinese words.
    told = [line for line in capsys.readouterr().out.splitlines() if "lose" in line]
    assert told[0].startswith("Please check: 1 file loses its bass in mono")
    assert "--mono_fold" in told[0]
    found = faults(tmp_path / "out")
    assert found["bass out of phase"] == ["wide.wav"]
    assert found["inverted"] == ["inverted.wav"]
    assert "out of phase" not in found
    for fault in read_report(tmp_path / "out")["faults"]:
        if fault["name"] in ("bass out of phase", "inverted"):
            assert "--mono_fold" in fault["to_do"]
    entries = prepared(source, tmp_path / "mono", mono_fold=True, loudness=None)
    assert entries["stereo.wav"]["folded"] == "mean"
    assert entries["wide.wav"]["folded"].startswith("turned 20-")
    assert entries["inverted.wav"]["folded"].startswith("turned 20-")
    assert "folded" not in entries["mono.wav"]
    for name, index, level in (("wide.wav", 6, 0.5), ("inverted.wav", 9, 1.0)):
        clip = read_audio(tmp_path / "mono" / entries[name]["audio"], RATE)
        assert len(clip) == 1
        assert bass_db(clip[0]) == pytest.approx(bass_db(level * beat(index)[0]), abs=0.5)
    advice = read_report(tmp_path / "mono")["advice"]
    assert any("3 clips folded to mono; 2 of them" in line for line in advice)


def test_channels_of_more_than_two_that_cancel(tmp_path: Path) -> None:
    source = tmp_path / "in"
    put(source / "quad.wav", np.concatenate([beat(1), -beat(1), beat(1), -beat(1)]))
    put(source / "good.wav", beat(2))
    assert prepared(source, tmp_path / "out").keys() == {"good.wav"}
    reason = dropped(tmp_path / "out")["quad.wav"]
    assert reason == "its 4 channels cancel each other in mono; prepare with --mono_fold."
    entries = prepared(source, tmp_path / "mono", mono_fold=True, loudness=None)
    clip = read_audio(tmp_path / "mono" / entries["quad.wav"]["audio"], RATE)[0]
    assert abs(float(np.corrcoef(clip, beat(1)[0])[0, 1])) > 0.999


def test_files_in_place_are_not_folded_and_that_is_said(tmp_path: Path) -> None:
    put(tmp_path / "train" / "wide.wav", widened(6))
    (entry,) = prepared(tmp_path, tmp_path, mono_fold=True).values()
    assert "folded" not in entry
    advice = read_report(tmp_path)["advice"]
    assert any(line.startswith("Not folded: 1 file in the dataset itself") for line in advice)


@pytest.mark.parametrize("loudness", [None, -16.0])
def test_floats_above_full_scale_are_whole(loudness: float | None, tmp_path: Path) -> None:
    source = tmp_path / "in"
    hot = 2.0 * beat(3) / np.abs(beat(3)).max()
    put(source / "hot.wav", hot, subtype="FLOAT")
    put(source / "flat.wav", np.clip(2.0 * hot, -1.0, 1.0), subtype="FLOAT")
    entries = prepared(source, tmp_path / "out", loudness=loudness)
    found = faults(tmp_path / "out")
    assert found["above full scale"] == ["hot.wav"]
    assert found["clipped"] == ["flat.wav"]
    entry = entries["hot.wav"]
    clip = read_audio(tmp_path / "out" / entry["audio"], RATE)
    assert np.abs(clip).max() < 1.0
    assert np.allclose(clip, 10.0 ** (entry["gain_db"] / 20.0) * hot, atol=0.02)
    if loudness is None:
        assert entry["gain_db"] == pytest.approx(-6.1, abs=0.05)


def test_a_hub_cache_is_read(tmp_path: Path) -> None:
    """Its snapshots are links into `blobs`; links to anywhere else are named."""
    repo = tmp_path / "datasets--someone--beats"
    snapshot = repo / "snapshots" / "0123abc"
    contents: dict[str, Any] = {"train/a.wav": beat(1), "train/b.wav": beat(2)}
    for index, (name, waveform) in enumerate(contents.items()):
        blob = repo / "blobs" / f"{index:064x}"
        put(blob, waveform, format="WAV")
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        os.symlink(os.path.relpath(blob, (snapshot / name).parent), snapshot / name)
    note = repo / "blobs" / "f00"
    note.write_text("a caption of its own")
    os.symlink("../../../blobs/f00", snapshot / "train" / "a.txt")
    put(tmp_path / "secret.wav", beat(4))
    os.symlink(tmp_path / "secret.wav", snapshot / "secret.wav")
    os.symlink(tmp_path / "gone.wav", snapshot / "gone.wav")
    entries = prepared(snapshot, tmp_path / "out")
    assert entries.keys() == {"train/a.wav", "train/b.wav"}
    assert "a caption of its own" in entries["train/a.wav"]["text"]
    assert dropped(tmp_path / "out") == {
        "secret.wav": "is a link that leads out of the folder; copy the file itself.",
        "gone.wav": "is a link that leads nowhere; copy the file itself.",
    }


def test_a_loop_of_a_bar_gets_its_tempo_and_the_rest_is_counted(tmp_path: Path) -> None:
    source = tmp_path / "in"
    bar_s = 240.0 / 97.0
    hits = np.zeros(round(bar_s * RATE))
    for step in (0, 2, 3, 4, 6, 7, 9, 10, 13, 14):
        at = round(step * bar_s / 16.0 * RATE)
        hits[at : at + 1500] += sine(90.0 + 300.0 * step, 1500 / RATE, RATE)[0] * np.linspace(
            1, 0, 1500
        )
    put(source / "loop.wav", hits[None])
    put(source / "named_120bpm.wav", sine(220.0, 3.0, RATE))
    put(source / "pad.wav", sine(196.0, 3.0, RATE) + sine(247.0, 3.0, RATE))
    entries = prepared(source, tmp_path / "out")
    assert entries["loop.wav"]["bpm"] == 97
    assert entries["named_120bpm.wav"]["bpm"] == 120
    assert "bpm" not in entries["pad.wav"]
    assert faults(tmp_path / "out")["tempo unsure"] == ["pad.wav"]


def test_long_files_that_cannot_be_sought_in(tmp_path: Path) -> None:
    path = tmp_path / "in" / "long.wav"
    path.parent.mkdir()
    soundfile.write(path, sound(8_000, 1, 40), 8_000, subtype="GSM610")
    entries = prepared(path.parent, tmp_path / "out", min_window=5.0, max_clip=15.0)
    assert entries
    assert not dropped(tmp_path / "out")
    minutes = read_report(tmp_path / "out")["summary"]["minutes"]
    assert minutes == pytest.approx(40.0 / 60.0, abs=0.06)
