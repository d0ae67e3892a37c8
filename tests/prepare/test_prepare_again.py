"""A second preparation: what changes with folder and settings, and that edits are kept."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_datasets import RATE, beat, read_metadata, write_metadata
from prepared.preparing import Entries, changes, edit, noise, prepared, put, told, trained_on

from musicgen_lora.audio.files import probe, read_audio
from musicgen_lora.audio.loudness import integrated_loudness
from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.dataset.metadata import load_dataset
from musicgen_lora.errors import UserError
from musicgen_lora.prepare import prepare
from musicgen_lora.prepare.clips import cut
from musicgen_lora.prepare.rerun.ledger import Ledger
from musicgen_lora.runtime.locks import locked


def test_settings_reach_all_clips_and_edits_stay(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    put(source / "song.wav", noise(0, 8.0))
    for index in range(2):
        put(source / f"loop{index}.wav", 0.2 * beat(index, 2.0))
    first = prepared(source, out, max_clip=6.0)
    assert [entry["source"] for entry in first] == [
        "loop0.wav",
        "loop1.wav",
        "song.wav",
        "song.wav",
    ]
    by_source = {entry["source"]: entry["audio"] for entry in first}
    edit(out, by_source["loop0.wav"], text="what I hear", mood="dark", split="validation")
    song = [entry["audio"] for entry in first if entry["source"] == "song.wav"]
    edit(out, song[0], text="the quiet half")
    again = prepared(
        source, out, max_clip=3.0, loudness=-24.0, sample_rate=16_000, trigger_word="zzz"
    )
    load_dataset(out)
    assert len(again) == 5
    for entry in again:
        path = out / entry["audio"]
        assert probe(path).sample_rate == 16_000
        assert probe(path).duration_s == pytest.approx(entry["duration_s"], abs=1e-3)
        assert integrated_loudness(read_audio(path, RATE), RATE) == pytest.approx(-24.0, abs=0.3)
    loops = {entry["source"]: entry for entry in again}
    assert loops["loop0.wav"]["text"] == "what I hear"
    assert (loops["loop0.wav"]["mood"], loops["loop0.wav"]["split"]) == ("dark", "validation")
    assert loops["loop1.wav"]["text"].startswith("zzz, ")
    texts = [entry["text"] for entry in again if entry["source"] == "song.wav"]
    # The first half's caption goes to the parts that lie in it, and to no others.
    assert texts[0] == "the quiet half"
    assert texts[-1].startswith("zzz, ")
    said = "--max_clip 3 (was 6), --loudness -24 (was -16), --sample_rate 16000 (was 32000)"
    assert told(out, said) == ["loop0.wav", "loop1.wav", "song.wav"]
    assert loops["loop0.wav"]["audio"] in told(out, "captioned by you without 'zzz'")
    assert sorted(told(out, "no longer used")) == sorted(entry["audio"] for entry in first)


def test_settings_that_change_nothing_of_a_clip_leave_it_alone(
    folder: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = folder
    before = read_metadata(out)

    def refuse(*_: Any) -> None:
        raise AssertionError("cut again")

    monkeypatch.setattr(prepare, "cut_file", refuse)
    assert prepared(source, out, max_clip=10.0, min_window=4.0) == before
    assert not changes(out)
    again = prepared(source, out, trigger_word="zzz")
    assert all(entry["text"].startswith("zzz, ") for entry in again)
    assert [entry["audio"] for entry in again] == [entry["audio"] for entry in before]


def test_edits_without_a_clip_are_kept_and_come_back_with_it(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    put(source / "song.wav", noise(1, 9.0))
    first = prepared(source, out, max_clip=3.0)
    assert len(first) == 3
    for index, entry in enumerate(first):
        edit(out, entry["audio"], text=f"part {index}")
    whole = prepared(source, out, max_clip=10.0)
    (clip,) = load_dataset(out)
    assert clip.duration_s is None
    assert clip.fields["duration_s"] == pytest.approx(9.0)
    kept = [entry for entry in whole if entry.get("skip")]
    assert {clip.fields["text"], *(entry["text"] for entry in kept)} == {
        "part 0",
        "part 1",
        "part 2",
    }
    assert sorted(told(out, "only for what you wrote")) == sorted(e["audio"] for e in kept)
    # Nothing changes without a reason.
    assert prepared(source, out, max_clip=10.0) == whole
    back = prepared(source, out, max_clip=3.0)
    assert [entry["at_s"] for entry in back] == [entry["at_s"] for entry in first]
    assert not [entry for entry in back if entry.get("skip")]
    texts = [entry["text"] for entry in back]
    assert [text for text, entry in zip(texts, kept, strict=False) if entry["text"] in texts]
    assert {entry["text"] for entry in kept} <= set(texts)


def test_a_file_that_was_exported_again_replaces_its_earlier_version(
    folder: tuple[Path, Path],
) -> None:
    source, out = folder
    first = read_metadata(out)
    edit(out, first[1]["audio"], text="mine")
    put(source / "loop1.wav", beat(9, 2.0))
    # It sounds like its earlier version, which no longer exists, so it is not a copy.
    put(source / "loop2.wav", 0.7 * beat(2, 2.0))
    again = prepared(source, out)
    assert [entry["source"] for entry in again] == ["loop0.wav", "loop1.wav", "loop2.wav"]
    assert trained_on(out) == ["loop0.wav", "loop1.wav", "loop2.wav"]
    assert again[0] == first[0]
    assert again[1]["text"] == "mine"
    for index, waveform in ((1, beat(9, 2.0)), (2, beat(2, 2.0))):
        assert again[index]["made_from"] != first[index]["made_from"]
        heard = read_audio(out / again[index]["audio"], RATE)
        assert np.corrcoef(heard[0], waveform[0])[0, 1] > 0.99
    assert sorted(told(out, "exported again")) == ["loop1.wav", "loop2.wav"]
    # And back to the first version.
    put(source / "loop1.wav", beat(1, 2.0))
    back = prepared(source, out)
    assert [entry["made_from"] for entry in back[:2]] == [e["made_from"] for e in first[:2]]
    assert len(back) == 3


def test_a_new_version_that_is_no_use_takes_the_old_one_with_it(folder: tuple[Path, Path]) -> None:
    source, out = folder
    (source / "loop1.wav").write_bytes(b"no audio")
    prepared(source, out)
    assert trained_on(out) == ["loop0.wav", "loop2.wav"]
    assert told(out, "is now left out (not readable as audio") == [read_metadata(out)[1]["audio"]]
    prepared(source, out)
    assert not changes(out)


def test_edits_made_while_it_runs_are_kept(
    folder: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = folder
    first = read_metadata(out)
    for index in (3, 4):
        put(source / f"loop{index}.wav", beat(index, 2.0))
    monkeypatch.setattr(prepare, "FILES_PER_WRITE", 1)
    original: Callable[..., Any] = cut.write_wav
    calls: list[Path] = []

    def editing(path: Path, *arguments: Any) -> float:
        calls.append(path)
        if len(calls) == 1:
            entries = read_metadata(out)
            entries[0]["text"] = "typed meanwhile"
            del entries[1]
            write_metadata(out, [*entries, {"audio": "mine.wav", "text": "added"}])
        if len(calls) == 2:
            edit(out, first[2]["audio"], mood="dark")
        return original(path, *arguments)

    monkeypatch.setattr(cut, "write_wav", editing)
    again = prepared(source, out, trigger_word="zzz")
    assert len(calls) == 2
    by_audio = {entry["audio"]: entry for entry in again}
    assert by_audio[first[0]["audio"]]["text"] == "typed meanwhile"
    assert by_audio[first[2]["audio"]]["mood"] == "dark"
    assert by_audio[first[2]["audio"]]["text"].startswith("zzz, ")
    assert first[1]["audio"] not in by_audio
    assert by_audio["mine.wav"] == {"audio": "mine.wav", "text": "added"}
    assert len(again) == 5
    assert told(out, "the metadata was edited while this ran") == []


def test_metadata_that_is_broken_while_it_runs_is_left_alone(
    folder: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = folder
    put(source / "new.wav", beat(5, 2.0))
    original: Callable[..., Any] = cut.write_wav

    def breaking(*arguments: Any) -> float:
        (out / "metadata.json").write_text("[{torn")
        return original(*arguments)

    monkeypatch.setattr(cut, "write_wav", breaking)
    with pytest.raises(UserError, match=r"metadata\.json, line 1: not valid JSON"):
        prepared(source, out)
    assert (out / "metadata.json").read_text() == "[{torn"


@pytest.mark.parametrize("what", ["folder", "examples"])
def test_two_at_once_are_refused_before_anything_is_read(
    what: str, folder: tuple[Path, Path]
) -> None:
    source, out = folder
    (out / "metadata.json").write_text("[{half written by the other one")
    with locked(out), pytest.raises(UserError, match="out: in use by another run"):
        prepared(source, out, create_example=what == "examples")


def test_a_ledger_that_is_broken_is_named(folder: tuple[Path, Path]) -> None:
    source, out = folder
    before = read_metadata(out)
    for content in ("{", "[]", '{"format_version": 9}', '{"files": {"x": {"clips": "no"}}}'):
        (out / "metadata.ledger.json").write_text(content)
        with pytest.raises(UserError, match=r"metadata\.ledger\.json: not readable .*delete it"):
            prepared(source, out)
    (out / "metadata.ledger.json").unlink()
    again = prepared(source, out)
    # Recut to the same clips, as nobody knows the old settings.
    assert again == before
    assert len(told(out, "it isn't known which settings")) == 3


def test_a_ledger_that_cannot_be_read_is_not_to_be_deleted(
    folder: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(PermissionError):
        Ledger.read(folder[1] / "metadata.ledger.json")


def test_a_track_in_its_place_gets_other_windows(tmp_path: Path) -> None:
    out = tmp_path / "data"
    track = render_beat(make_beat((500, 3), duration_s=30.0), RATE, seed=3)
    path = put(out / "train" / "track.wav", track)
    content = path.read_bytes()
    (whole,) = prepared(out / "train", out, max_clip=40.0)
    assert "start_s" not in whole
    again = prepared(out / "train", out, max_clip=16.0, min_window=8.0, loudness=-30.0)
    assert len(again) >= 2
    assert {entry["audio"] for entry in again} == {"train/track.wav"}
    assert all(entry["duration_s"] <= 16.0 for entry in load_entries(out))
    assert path.read_bytes() == content
    put(path, render_beat(make_beat((500, 4), duration_s=12.0), RATE, seed=4))
    (entry,) = prepared(out / "train", out, max_clip=16.0, min_window=8.0)
    assert "start_s" not in entry
    assert entry["made_from"] != again[0]["made_from"]


def load_entries(out: Path) -> Entries:
    return [clip.fields for clip in load_dataset(out)]
