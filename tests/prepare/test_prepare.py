"""From a folder of audio to a dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from made_datasets import KIT, RATE, beat, read_metadata, sine, write_metadata
from prepared.preparing import read_report
from trainer import file_hashes

from musicgen_lora.audio.files import probe, read_audio
from musicgen_lora.config import PrepareSettings
from musicgen_lora.dataset.metadata import load_dataset
from musicgen_lora.errors import UserError
from musicgen_lora.prepare import prepare
from musicgen_lora.prepare.clips import cut
from musicgen_lora.prepare.prepare import prepare_dataset
from musicgen_lora.prepare.report.findings import dataset_advice

DEFAULT = "hip hop 808 beat"


def put(path: Path, waveform: np.ndarray, rate: int = RATE, **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform.T, rate, **how)
    return path


def prepared(input_dir: Path, output_dir: Path, **changes: Any) -> dict[str, dict[str, Any]]:
    """The entries made from a folder, by source."""
    values = {"default_text": DEFAULT, "num_workers": 0} | changes
    prepare_dataset(PrepareSettings(input_dir=input_dir, output_dir=output_dir, **values))
    load_dataset(output_dir)
    return {entry["source"]: entry for entry in read_metadata(output_dir)}


def read_faults(output_dir: Path) -> list[dict[str, Any]]:
    return json.loads((output_dir / "report.json").read_text(encoding="utf-8"))["faults"]


def test_a_mixed_folder_with_any_names(tmp_path: Path) -> None:
    """Each file becomes one clip with its own sound, whatever it is called."""
    source = tmp_path / "in"
    names = [
        "plain.wav",
        "with space.wav",
        "with_space.wav",
        "ünïcödé 音楽.flac",
        "🔥.wav",
        "💧.wav",
        "🔥🔥.ogg",
        "pack/loop.wav",
        "pack/loop.mp3",
        "pack_loop.wav",
        "pack__loop.wav",
        "other/loop.wav",
        "deep/er/and/deeper/a.b.c.aiff",
        'quote\'s "and" [brackets].wav',
        "-dash.wav",
        "UPPER.WAV",
        "UPPER.wav",
        "x" * 120 + "1.wav",
        "x" * 120 + "2.wav",
        "音" * 80 + ".wav",
        "音" * 80 + ".flac",
        "voice.opus",
    ]
    for index, name in enumerate(names):
        how = {"format": "OGG", "subtype": "OPUS"} if name.endswith("opus") else {}
        rate = 48_000 if name.endswith("opus") else 44_100
        put(source / name, sine(200.0 + 50.0 * index, 1.1, rate), rate, **how)
    (source / "notes.pdf").write_bytes(b"x")
    entries = prepared(source, tmp_path / "out", num_workers=2)
    assert set(entries) == set(names)
    assert len({entry["audio"].lower() for entry in entries.values()}) == len(names)
    for index, name in enumerate(names):
        path = tmp_path / "out" / entries[name]["audio"]
        info = probe(path)
        assert (info.sample_rate, info.n_channels) == (RATE, 1)
        assert info.duration_s == pytest.approx(1.1, abs=0.1)
        samples = read_audio(path, RATE)[0]
        heard = np.abs(np.fft.rfft(samples, 1 << 17)).argmax() * RATE / (1 << 17)
        assert heard == pytest.approx(200.0 + 50.0 * index, abs=3.0), name
        assert len(path.name.encode()) < 255
    assert prepared(source, tmp_path / "out") == entries


def test_stereo_stays_stereo(tmp_path: Path) -> None:
    both = np.concatenate([sine(300.0, 1.0, RATE), sine(700.0, 1.0, RATE)])
    put(tmp_path / "in" / "a.wav", both)
    entry = prepared(tmp_path / "in", tmp_path / "out", loudness=None)["a.wav"]
    assert np.allclose(read_audio(tmp_path / "out" / entry["audio"], RATE), both, atol=1e-4)


def test_captions_come_from_beside_the_file(tmp_path: Path) -> None:
    source = tmp_path / "in"
    names = ("text", "full", "json", "caption", "listed", "bom", "empty", "deep/listed")
    for index, name in enumerate(names):
        put(source / f"{name}.wav", sine(300.0 + index, 1.0, RATE))
    (source / "text.txt").write_text("  dark\n trap beat \n", encoding="utf-8")
    (source / "full.wav.txt").write_text("named in full", encoding="utf-8")
    (source / "json.json").write_text(json.dumps({"text": "of json", "bpm": 90}))
    (source / "caption.json").write_text(json.dumps({"caption": "ein schöner Beat"}))
    (source / "bom.txt").write_text("with a mark", encoding="utf-8-sig")
    (source / "empty.txt").write_text(" \n")
    (source / "listed.txt").write_text("passed over")
    write_metadata(
        source,
        [
            {"audio": "listed.wav", "text": "of the list"},
            {"audio": "deep/listed.wav", "text": "of the list, deep"},
        ],
    )
    entries = prepared(source, tmp_path / "out")
    assert {name: entry["text"] for name, entry in entries.items()} == {
        "text.wav": "dark trap beat",
        "full.wav": "named in full",
        "json.wav": "of json",
        "caption.wav": "ein schöner Beat",
        "bom.wav": "with a mark",
        "empty.wav": DEFAULT,
        "listed.wav": "of the list",
        "deep/listed.wav": "of the list, deep",
    }


@pytest.mark.parametrize(("seconds", "n_windows"), [(3.0, 1), (3.2, 2), (7.5, 3), (9.0, 3)])
def test_long_files_without_a_tempo_are_cut_into_equal_windows(
    seconds: float, n_windows: int, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (1, round(seconds * RATE)))
    put(tmp_path / "in" / "long.wav", noise, subtype="PCM_16")
    prepared(tmp_path / "in", tmp_path / "out", max_clip=3.0, loudness=None)
    entries = read_metadata(tmp_path / "out")
    assert len(entries) == n_windows
    assert {entry["source"] for entry in entries} == {"long.wav"}
    assert {entry.get("cut") for entry in entries} == {"time" if n_windows > 1 else None}
    lengths = [entry["duration_s"] for entry in entries]
    assert lengths == pytest.approx([seconds / n_windows] * n_windows, abs=1e-4)
    parts = [read_audio(tmp_path / "out" / entry["audio"], RATE) for entry in entries]
    whole = np.concatenate(parts, axis=1)
    assert np.allclose(whole, noise[:, : whole.shape[1]], atol=1e-4), "nothing lost, nothing twice"
    assert whole.shape[1] == pytest.approx(noise.shape[1], abs=n_windows)


def test_a_second_run_adds_nothing_and_keeps_what_was_edited(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    put(source / "a.wav", beat(0, 1.5))
    put(source / "b c.flac", beat(1, 1.5))
    prepared(source, out)
    entries = read_metadata(out)
    entries[0] |= {"text": "what I hear", "mood": "dark", "split": "validation"}
    # Wordings made from the old caption would contain what the user removed.
    entries[0].pop("texts", None)
    write_metadata(out, entries[::-1])
    before = file_hashes(out / "train")
    stamps = {path: path.stat().st_mtime_ns for path in (out / "train").iterdir()}
    prepared(source, out)
    assert read_metadata(out) == entries[::-1]
    assert file_hashes(out / "train") == before
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps, "nothing made again"
    assert "0 new clips" in capsys.readouterr().out
    put(source / "new.wav", beat(2, 1.5))
    prepared(source, out)
    assert [e["source"] for e in read_metadata(out)] == ["b c.flac", "a.wav", "new.wav"]


def test_an_interrupted_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for index in range(5):
        put(source / f"{index}.wav", beat(index, 1.2))
    monkeypatch.setattr(prepare, "FILES_PER_WRITE", 2)
    original, calls = cut.write_wav, []

    def failing(*arguments):
        calls.append(arguments[0].name)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(cut, "write_wav", failing)
    with pytest.raises(KeyboardInterrupt):
        prepared(source, out)
    assert len(load_dataset(out)) == 2
    assert len(prepared(source, out)) == 5
    assert len(calls) == 4 + 3, "of the two that are listed, none again"


def test_the_input_folder_is_never_touched(tmp_path: Path) -> None:
    source = tmp_path / "in"
    put(source / "a.wav", beat(0, 4.0))
    put(source / "deep" / "b.mp3", beat(1, 1.5))
    (source / "bad.wav").write_bytes(b"no audio")
    (source / "a.txt").write_text("caption")
    write_metadata(source, [{"audio": "a.wav", "text": "listed"}])
    before = file_hashes(source)
    prepared(source, tmp_path / "out", max_clip=2.0)
    assert file_hashes(source) == before


def test_broken_files_are_listed_and_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in"
    put(source / "good.wav", beat(0, 1.5))
    put(source / "short.wav", beat(0, 0.5))
    put(source / "empty.wav", np.zeros((1, 0)))
    nan = beat(0, 1.5)
    nan[0, 7] = np.nan
    put(source / "nan.wav", nan, subtype="FLOAT")
    put(source / "sidecar.wav", beat(1, 1.5))
    (source / "sidecar.json").write_text("{torn")
    (source / "[b] text.wav").write_text("no audio")
    (source / "void.wav").touch()
    (source / "[").mkdir()
    (source / "[/b] text.wav").write_text("no audio")
    assert set(prepared(source, tmp_path / "out")) == {"good.wav"}
    said = capsys.readouterr().out
    for name, reason in [
        ("short.wav", "0.50 s is shorter than 1 s (--min_clip)"),
        ("empty.wav", "no audio in it, only a header; copy or export it again."),
        ("nan.wav", "has NaN or infinite samples"),
        ("sidecar.wav", f"{source / 'sidecar.json'}, line 1: not valid JSON"),
        ("void.wav", "is empty; copy, download or export it again."),
    ]:
        assert f"left out: {name}: {reason}" in said
    line = next(line for line in said.splitlines() if "not readable as audio" in line)
    assert line.startswith("left out: 2 files: ")
    assert line.endswith(": [b] text.wav, [/b] text.wav")
    assert "1 clip (" in said
    assert "7 left out" in said
    # Files that aren't trained on need no fixing.
    assert {n for f in read_faults(tmp_path / "out") for n in f["files"]} <= {"good.wav"}


def test_the_same_sound_twice_is_one_clip(tmp_path: Path) -> None:
    """A copy under another name would be on both sides of the split."""
    source = tmp_path / "in"
    put(source / "a.wav", beat(0, 1.5))
    (source / "deep").mkdir()
    (source / "deep" / "copy of a.wav").write_bytes((source / "a.wav").read_bytes())
    put(source / "b.wav", beat(1, 1.5))
    assert set(prepared(source, tmp_path / "out")) == {"a.wav", "b.wav"}
    (source / "a.wav").rename(source / "renamed.wav")
    assert set(prepared(source, tmp_path / "out")) == {"a.wav", "b.wav"}


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    with pytest.raises(UserError, match="in: no audio in it"):
        prepared(source, tmp_path / "out")
    (source / "bad.wav").write_bytes(b"no audio")
    with pytest.raises(UserError, match="in: none of its files is usable"):
        prepared(source, tmp_path / "out")
    assert not (tmp_path / "out" / "metadata.json").exists()


def test_a_liar_costs_little(tmp_path: Path) -> None:
    """A FLAC of two seconds that claims days of audio is two seconds long and is reported."""
    source = tmp_path / "in"
    put(source / "good.wav", beat(0, 1.5))
    path = put(source / "liar.flac", beat(0, 2.0))
    content = bytearray(path.read_bytes())
    content[21] |= 0x0F
    content[22:26] = b"\xff\xff\xff\xf0"
    path.write_bytes(content)
    prepared(source, tmp_path / "out")
    report = read_report(tmp_path / "out")
    assert not report["dropped"]
    (cut_short,) = [fault for fault in report["faults"] if fault["name"] == "cut short"]
    assert cut_short["files"] == ["liar.flac"]
    assert len(load_dataset(tmp_path / "out")) == 2
    for clip in load_dataset(tmp_path / "out"):
        assert probe(clip.path).duration_s <= 2.1
        assert clip.fields["duration_s"] == pytest.approx(probe(clip.path).duration_s, abs=0.1)


def test_audio_that_lies_in_the_dataset_is_listed_where_it_is(tmp_path: Path) -> None:
    """The guide puts audio in data/train by hand."""
    put(tmp_path / "data" / "train" / "a b.wav", beat(0, 1.5))
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 16 * 48_000))
    put(tmp_path / "data" / "train" / "long.flac", noise, 48_000)
    before = file_hashes(tmp_path / "data" / "train")
    for input_dir in (tmp_path / "data" / "train", tmp_path / "data"):
        prepared(input_dir, tmp_path / "data", max_clip=10.0)
        entries = read_metadata(tmp_path / "data")
        assert [entry["audio"] for entry in entries] == [
            "train/a b.wav",
            "train/long.flac",
            "train/long.flac",
        ]
        clips = load_dataset(tmp_path / "data")
        assert [clip.start_s for clip in clips] == pytest.approx([0.0, 0.0, 8.0])
        assert [clip.duration_s for clip in clips] == [None, *[pytest.approx(8.0)] * 2]
        assert file_hashes(tmp_path / "data" / "train") == before


def test_a_dataset_inside_the_input_folder_is_no_input(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.wav", beat(0, 1.5))
    for _ in range(2):
        assert set(prepared(tmp_path / "in", tmp_path / "in" / "data")) == {"a.wav"}


def test_a_number_that_a_person_wrote_as_text_is_no_accident(tmp_path: Path) -> None:
    """Wrong entries are left for training to report; the preparation continues."""
    put(tmp_path / "in" / "a.wav", beat(0, 1.5))
    write_metadata(tmp_path / "out", [{"audio": "x.wav", "text": "a", "duration_s": "12"}])
    out = tmp_path / "out"
    prepare_dataset(PrepareSettings(input_dir=tmp_path / "in", output_dir=out, num_workers=0))
    assert len(read_metadata(out)) == 2


def test_advice_names_what_to_mend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index in range(3):
        put(tmp_path / "in" / f"{index}.wav", sine(300.0 + index, 1.5, RATE))
    prepared(tmp_path / "in", tmp_path / "out", default_text="a piano")
    said = capsys.readouterr().out
    assert "3 clips: too few; use at least 50-100" in said
    assert "3 of 3 clips are shorter than 15 s" in said
    assert "All captions are the same" in said
    assert "3 of 3 captions mention none of: hip hop, 808, beat, trap" in said
    assert dataset_advice([{"text": "a piano"}])[0].startswith("1 clip: too few; ")


def test_the_recorded_kit_makes_a_dataset(tmp_path: Path) -> None:
    entries = prepared(KIT, tmp_path / "out", min_clip=0.05, one_shots="caption")
    assert len(entries) == len(list(KIT.glob("*.wav")))
    assert all("beat" not in entry["text"] for entry in entries.values())
    with pytest.raises(UserError, match="none of its files is usable"):
        prepared(KIT, tmp_path / "out2", min_clip=0.05)
