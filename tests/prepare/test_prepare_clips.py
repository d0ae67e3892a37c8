"""What clips are cut on, how loud they are, what is left out and what is reported."""

from __future__ import annotations

import base64
import inspect
import io
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from made_datasets import RATE, read_metadata, write_metadata
from prepared.preparing import read_report

from musicgen_lora.audio import pictures
from musicgen_lora.audio.files import read_audio
from musicgen_lora.audio.loudness import integrated_loudness, true_peak_db
from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.config import PrepareSettings, TokeniseSettings
from musicgen_lora.dataset.metadata import load_dataset, split_clips
from musicgen_lora.prepare.clips import cut
from musicgen_lora.prepare.hearing import analyse
from musicgen_lora.prepare.prepare import prepare_dataset
from musicgen_lora.prepare.report.findings import loudness_advice

DEFAULT = "hip hop 808 beat"


def track(index: int, duration_s: float) -> np.ndarray:
    return render_beat(make_beat((500, index), duration_s=duration_s), RATE, seed=index)


def put(path: Path, waveform: np.ndarray, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform.T, rate)
    return path


def prepared(input_dir: Path, output_dir: Path, **changes: Any) -> list[dict[str, Any]]:
    values = {"default_text": DEFAULT, "num_workers": 0} | changes
    prepare_dataset(PrepareSettings(input_dir=input_dir, output_dir=output_dir, **values))
    load_dataset(output_dir)
    return read_metadata(output_dir)


@pytest.fixture(scope="module")
def long_track(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return put(tmp_path_factory.mktemp("long") / "track.wav", track(3, 64.0))


def test_long_tracks_are_cut_on_bars(long_track: Path, tmp_path: Path) -> None:
    entries = prepared(long_track.parent, tmp_path / "out")
    bar_s = 240.0 / make_beat((500, 3), duration_s=64.0).bpm
    assert len(entries) >= 2
    for entry in entries:
        assert entry["cut"] == "bars"
        assert entry["source"] == "track.wav"
        assert 15.0 <= entry["duration_s"] <= 30.0
        for edge_s in (entry["at_s"], entry["at_s"] + entry["duration_s"]):
            assert abs(edge_s - bar_s * round(edge_s / bar_s)) < 0.03
        # The file holds what was written.
        clip = read_audio(tmp_path / "out" / entry["audio"], RATE)
        original = read_audio(
            long_track, RATE, start_s=entry["at_s"], duration_s=entry["duration_s"]
        )
        n_common = min(clip.shape[1], original.shape[1])
        a, b = (np.abs(w[0, :n_common]) for w in (clip, original))
        assert np.corrcoef(a, b)[0, 1] > 0.98
    assert entries[0]["bpm"] == pytest.approx(240.0 / bar_s, rel=0.04)
    assert DEFAULT in entries[0]["text"]
    assert len(set(entries[0]["texts"])) == len(entries[0]["texts"]) > 1


def test_a_file_in_the_dataset_is_cut_into_windows(long_track: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    put(data / "train" / "track.wav", read_audio(long_track, RATE))
    before = (data / "train" / "track.wav").read_bytes()
    entries = prepared(data / "train", data)
    assert {entry["audio"] for entry in entries} == {"train/track.wav"}
    assert [entry["start_s"] for entry in entries] == sorted(e["start_s"] for e in entries)
    assert {entry["cut"] for entry in entries} == {"bars"}
    assert (data / "train" / "track.wav").read_bytes() == before
    assert [p.name for p in (data / "train").iterdir()] == ["track.wav"]
    assert prepared(data / "train", data) == entries


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_of_a_link_and_its_file_the_file_stays(tmp_path: Path) -> None:
    source = tmp_path / "in"
    put(source / "pack" / "z copy.wav", track(0, 8.0))
    (source / "a.wav").symlink_to(source / "pack" / "z copy.wav")
    (entry,) = prepared(source, tmp_path / "out")
    assert entry["source"] == "pack/z copy.wav"
    (dropped,) = read_report(tmp_path / "out")["dropped"]
    assert (dropped["file"], dropped["equals"]) == ("a.wav", "pack/z copy.wav")


def test_copies_are_left_out_and_named(tmp_path: Path) -> None:
    source = tmp_path / "in"
    loud = track(0, 8.0)
    put(source / "a.wav", loud)
    (source / "b.wav").write_bytes((source / "a.wav").read_bytes())
    put(source / "c quiet.flac", 0.3 * loud)
    put(source / "d.mp3", np.pad(loud, ((0, 0), (3000, 0))))
    put(source / "other.wav", track(1, 8.0))
    entries = prepared(source, tmp_path / "out")
    assert len(entries) == 2
    dropped = {drop["file"]: drop for drop in read_report(tmp_path / "out")["dropped"]}
    assert len(dropped) == 3
    assert dropped["b.wav"]["reason"] == "the same bytes as a.wav."
    kept = next(e["source"] for e in entries if e["source"] != "other.wav")
    for drop in dropped.values():
        assert drop["file"] == "b.wav" or drop["reason"].startswith(f"sounds like {kept}, which is")
        assert drop["equals"] in ("a.wav", kept)
    # A listed file is kept, though a better copy comes later.
    put(source / "0 longer.wav", np.tile(loud, 2))
    assert prepared(source, tmp_path / "out") == entries


def test_versions_of_a_beat_share_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "in" / "beat.wav", track(0, 8.0))
    put(tmp_path / "in" / "other.wav", track(1, 8.0))
    entries = prepared(tmp_path / "in", tmp_path / "out")
    assert {entry["source"] for entry in entries} == {"beat.wav", "other.wav"}
    # Overdriven, it is another version of the beat, not a copy.
    put(tmp_path / "in" / "version.wav", np.tanh(3.0 * track(0, 8.0)))
    entries = prepared(tmp_path / "in", tmp_path / "out")
    version = entries[-1]
    assert version["audio"].startswith("train/version_")
    assert version["source"] == "beat.wav"
    train, held_out = split_clips(load_dataset(tmp_path / "out"), 0.5, 0)
    assert {c.source for c in train}.isdisjoint(c.source for c in held_out)


@pytest.mark.parametrize("gain", [0.05, 1.0])
def test_clips_have_one_loudness(gain: float, tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.wav", gain * track(2, 6.0))
    (entry,) = prepared(tmp_path / "in", tmp_path / "out")
    clip = read_audio(tmp_path / "out" / entry["audio"], RATE)
    assert true_peak_db(clip, RATE) < -0.9
    assert integrated_loudness(clip, RATE) == pytest.approx(-16.0, abs=0.2)
    assert entry["loudness_lufs"] == pytest.approx(-16.0, abs=0.2)


def test_a_gain_stops_at_the_peak(tmp_path: Path) -> None:
    clicks = np.random.default_rng(0).normal(0.0, 0.003, (1, 4 * RATE))
    clicks[0, ::RATE] = 0.8
    put(tmp_path / "in" / "a.wav", clicks)
    (entry,) = prepared(tmp_path / "in", tmp_path / "out")
    clip = read_audio(tmp_path / "out" / entry["audio"], RATE)
    assert true_peak_db(clip, RATE) == pytest.approx(-1.0, abs=0.1)
    assert entry["loudness_lufs"] < -20.0


def test_loops_are_repeated_on_request(tmp_path: Path) -> None:
    waveform = track(0, 8.0)
    put(tmp_path / "in" / "loop.wav", waveform)
    (entry,) = prepared(tmp_path / "in", tmp_path / "out", repeat_to=20.0, loudness=None)
    duration_s = waveform.shape[1] / RATE
    times = math.ceil(20.0 / duration_s)
    assert entry["repeated"] == times > 1
    assert entry["duration_s"] == pytest.approx(times * duration_s, abs=1e-3)
    clip = read_audio(tmp_path / "out" / entry["audio"], RATE)
    assert np.allclose(clip[:, waveform.shape[1] : 2 * waveform.shape[1]], waveform, atol=1e-3)


def test_a_second_run_analyses_only_what_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    calls: list[str] = []
    original = analyse._analyse

    def counted(path: Path, alive):
        calls.append(path.name)
        if path.name == "stop.wav":
            raise KeyboardInterrupt
        return original(path, alive)

    monkeypatch.setattr(analyse, "_analyse", counted)
    put(source / "a.wav", track(0, 2.0))
    put(source / "stop.wav", track(1, 2.0))
    with pytest.raises(KeyboardInterrupt):
        prepared(source, out)
    (source / "stop.wav").rename(source / "go.wav")
    prepared(source, out)
    assert calls == ["a.wav", "stop.wav", "go.wav"]
    (source / "a.wav").rename(source / "renamed.wav")
    put(source / "new.wav", track(2, 2.0))
    prepared(source, out)
    assert calls[3:] == ["new.wav"]


def test_a_second_run_refreshes_captions_but_for_edits(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for index in range(3):
        put(source / f"{index}.wav", track(index, 3.0))
    entries = prepared(source, out)
    entries[0]["text"] = "what I hear"
    entries[1]["bpm"] = 77
    write_metadata(out, entries)
    again = prepared(source, out, trigger_word="sndx", default_text="trap beat")
    assert again[0]["text"] == "what I hear"
    assert "texts" not in again[0]
    assert again[1]["bpm"] == 77
    assert again[1]["text"].startswith("sndx, ")
    assert "trap beat" in again[2]["text"]
    (source / "2.txt").write_text("a caption of mine")
    assert prepared(source, out)[2]["text"] == "a caption of mine"
    assert len(read_metadata(out)) == 3


def test_the_report_says_what_to_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "mp3_uri", inspect.unwrap(pictures.mp3_uri))
    source, out = tmp_path / "in", tmp_path / "out"
    put(source / "<b>clipped</b>.wav".replace("/", "_"), np.clip(9.0 * track(0, 6.0), -1.0, 1.0))
    offset = 0.2 * track(1, 6.0) + 0.1
    put(source / "offset.wav", np.concatenate([offset, offset]))
    put(source / "low.wav", track(2, 6.0)[:, ::2], RATE // 2)
    put(source / "six.wav", np.repeat(track(3, 6.0), 6, axis=0))
    (source / "broken.wav").write_text("no audio")
    entries = prepared(source, out)
    report = read_report(out)
    faults = {fault["name"]: fault["files"] for fault in report["faults"]}
    assert faults["clipped"] == ["<b>clipped<_b>.wav"]
    assert faults["offset"] == ["offset.wav"]
    assert faults["fake stereo"] == ["offset.wav"]
    assert faults["low rate"] == ["low.wav"]
    assert faults["many channels"] == ["six.wav"]
    assert report["summary"]["clips"] == 4
    assert [drop["file"] for drop in report["dropped"]] == ["broken.wav"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "broken.wav" in page
    assert "&lt;b&gt;clipped" in page
    assert "<b>clipped" not in page
    assert page.count("<audio") == 4
    players = re.findall(r'data:audio/mpeg;base64,([^"]+)"', page)
    sounds = [soundfile.read(io.BytesIO(base64.b64decode(content))) for content in players]
    assert all(rate == pictures.PLAYER_RATE and sound.std() > 0.01 for sound, rate in sounds)
    lengths_s = sorted(len(sound) / rate for sound, rate in sounds)
    assert lengths_s == pytest.approx(sorted(e["duration_s"] for e in entries), abs=0.15)
    assert not re.search(r'(src|href)="(?!data:)', page), "the page needs nothing from elsewhere"
    assert "<script" not in page


def test_a_clip_is_either_there_or_quieter() -> None:
    entries = [
        {"loudness_lufs": lufs, "held_db": held}
        for lufs, held in ((-16.0, None), (-16.5, 0.5), (-18.0, 2.0), (-20.0, 4.0))
    ]
    (said,) = loudness_advice(entries, -16.0, limits=False)
    assert said.startswith("-16 LUFS is reached by 2 of 4 clips; 2 are quieter, by up to 4.0 dB")


def test_tokenising_is_a_command_of_its_own(
    tmp_path: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from musicgen_lora.dataset.tokenise import tokenise_dataset

    put(tmp_path / "in" / "a.wav", track(0, 2.0))
    prepared(tmp_path / "in", tmp_path / "out")
    settings = TokeniseSettings(model_path=str(tiny_model_dir), data_dir=tmp_path / "out")
    folder = tokenise_dataset(settings)
    assert list(folder.glob("*.npy"))
    assert "1 clip encoded, 0 already there" in capsys.readouterr().out
    tokenise_dataset(settings)
    assert "0 clips encoded, 1 already there" in capsys.readouterr().out


def test_an_existing_clip_of_another_loudness_is_made_again(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.wav", track(0, 4.0))
    prepared(tmp_path / "in", tmp_path / "out", loudness=-30.0)
    (tmp_path / "out" / "metadata.json").unlink()
    (again,) = prepared(tmp_path / "in", tmp_path / "out", loudness=-20.0)
    assert again["loudness_lufs"] == pytest.approx(-20.0, abs=0.2)


def test_an_existing_clip_of_another_length_is_made_again(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.wav", track(0, 4.0))
    (entry,) = prepared(tmp_path / "in", tmp_path / "out")
    path = tmp_path / "out" / entry["audio"]
    put(path, np.zeros((1, RATE)))
    (tmp_path / "out" / "metadata.json").unlink()
    (again,) = prepared(tmp_path / "in", tmp_path / "out")
    assert again["duration_s"] == entry["duration_s"]
    assert cut.MAX_NAME_BYTES < 255


def test_the_report_says_what_is_too_faint_to_be_raised(tmp_path: Path) -> None:
    put(tmp_path / "in" / "faint.wav", 0.005 * track(1, 8.0))
    put(tmp_path / "in" / "plain.wav", 0.5 * track(2, 8.0))
    faint, plain = prepared(tmp_path / "in", tmp_path / "out")
    assert faint["gain_db"] == pytest.approx(30.0, abs=0.05)
    assert faint["loudness_lufs"] < -17.0 < plain["loudness_lufs"]
    (told,) = [a for a in read_report(tmp_path / "out")["advice"] if "LUFS" in a]
    assert told == (
        "Quieter than -16 LUFS, because no clip is raised by more than 30 dB, which would raise "
        "its noise too: 1 clip."
    )


def test_the_report_says_what_peaks_hold_and_limiting_frees(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # One peak far above the rest holds a clip back.
    spiky = 0.2 * track(1, 8.0)
    spiky[0, 3 * RATE : 3 * RATE + 8] = np.sin(np.arange(8)) * 0.9
    put(tmp_path / "in" / "spiky.wav", spiky)
    put(tmp_path / "in" / "plain.wav", 0.5 * track(2, 8.0))
    plain, held = prepared(tmp_path / "in", tmp_path / "out")
    assert held["source"] == "spiky.wav"
    assert held["held_db"] == pytest.approx(-16.0 - held["loudness_lufs"], abs=0.11)
    assert "held_db" not in plain
    (told,) = [a for a in read_report(tmp_path / "out")["advice"] if "dBTP" in a]
    assert told.startswith("-16 LUFS is reached by 1 of 2 clips; one is quieter by")
    assert "--limit" in told
    assert told in " ".join(capsys.readouterr().out.split())

    same, freed = prepared(tmp_path / "in", tmp_path / "out", limit=True)
    assert freed["source"] == "spiky.wav"
    assert 0.0 < freed["limited_db"] <= 6.0
    assert freed["loudness_lufs"] > held["loudness_lufs"] + 0.5 * freed["limited_db"]
    assert (same["loudness_lufs"], "limited_db" in same) == (plain["loudness_lufs"], False)
    clip = read_audio(tmp_path / "out" / freed["audio"], RATE)
    assert true_peak_db(clip, RATE) <= -1.0 + 0.02
    (told,) = [a for a in read_report(tmp_path / "out")["advice"] if "were limited" in a]
    assert f"{freed['limited_db']:.1f} dB" in told


def test_the_page_names_what_is_left_out_by_reason_and_faults_by_number(tmp_path: Path) -> None:
    source = tmp_path / "in"
    put(source / "good.wav", track(0, 4.0))
    put(source / "offset.wav", track(1, 4.0) * 0.5 + 0.05)
    for index in range(14):
        # A clipped file that is left out isn't a fault of the dataset.
        hit = track(2, 4.0)[:, : round((0.3 + 0.02 * index) * RATE)]
        put(source / f"hit{index}.wav", np.clip(9.0 * hit, -1.0, 1.0))
    prepared(source, tmp_path / "out")
    report = read_report(tmp_path / "out")
    faults = {fault["name"]: fault for fault in report["faults"]}
    assert "clipped" not in faults
    assert faults["offset"]["sentence"] == "1 file has a DC offset."
    (kind,) = report["left_out"]
    assert kind["told"] == "0.30 to 0.56 s is shorter than 1 s (--min_clip)."
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<b>14 files: 0.30 to 0.56 s is shorter than 1 s (--min_clip).</b>" in page
    assert "1 file has a DC offset." in page
    assert all(f"hit{index}.wav" in page for index in range(14))
