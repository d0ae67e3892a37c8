"""The cache of a dataset's metadata gives exactly the metadata, or is not used."""

from __future__ import annotations

import json
import os
import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from made_datasets import read_metadata, write_metadata

from musicgen_lora.dataset import metadata
from musicgen_lora.dataset.metadata import Clip, Clips, load_dataset, split_clips
from musicgen_lora.errors import UserError

CAPTIONS = ["808", "boom bap, 90 bpm", "schöner Beat 🔥", ' "quoted"\n\tline', "低音"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset of forty random entries, which is large enough to be indexed."""
    monkeypatch.setattr(metadata, "INDEXED_FROM", 2)
    return make_random(tmp_path / "data", 0)


def make_random(folder: Path, seed: int) -> Path:
    rng, entries = random.Random(seed), []
    for index in range(40):
        audio = f"{rng.choice(['train', 'müsik/b', '.'])}/{index}.wav"
        (folder / audio).parent.mkdir(parents=True, exist_ok=True)
        (folder / audio).write_bytes(b"x" * rng.randrange(9))
        optional: dict[str, Any] = {
            "source": rng.choice(["pack", "", 7, None]),
            "split": rng.choice(["train", "VAL", "test"]),
            "texts": rng.sample(CAPTIONS, 3),
            "start_s": rng.choice([0, 1, 2.5]),
            "duration_s": rng.choice([1, 3.25]),
            "mood": {"a": [1, None, rng.random()]},
        }
        chosen = rng.sample(sorted(optional), rng.randrange(len(optional)))
        entry = {"audio": audio, "text": rng.choice(CAPTIONS)}
        entries.append(entry | {name: optional[name] for name in chosen})
    write_metadata(folder, entries)
    return folder


def refuse(*_: Any) -> None:
    raise AssertionError("the metadata was parsed again")


def index_of(folder: Path) -> Path:
    return folder / "tokens" / "metadata.json.arrow"


@pytest.mark.parametrize("seed", range(10))
def test_the_index_says_what_the_metadata_says(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_random(tmp_path, seed)
    plain = load_dataset(folder)
    assert not index_of(folder).exists(), "a small dataset needs none"
    monkeypatch.setattr(metadata, "INDEXED_FROM", 2)
    load_dataset(folder)
    monkeypatch.setattr(metadata, "_as_table", refuse)
    indexed = load_dataset(folder)
    assert list(indexed) == list(plain)
    assert [clip.fields for clip in indexed] == read_metadata(folder)
    assert [(c.size_bytes, c.path.stat().st_mtime_ns) for c in indexed] == [
        (c.path.stat().st_size, c.mtime_ns) for c in plain
    ]


def test_an_edit_is_seen_whatever_the_clock_and_the_size_say(folder: Path) -> None:
    load_dataset(folder)
    path = folder / "metadata.json"
    before = path.stat()
    entries = read_metadata(folder)
    entries[3] |= {"text": "aaa"}
    entries[3].pop("texts", None)
    write_metadata(folder, entries)
    load_dataset(folder)
    path.write_text(path.read_text(encoding="utf-8").replace("aaa", "bbb"), encoding="utf-8")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert load_dataset(folder)[3].texts == ("bbb",)


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "other version", "a folder"])
def test_a_damaged_index_is_passed_over_and_made_again(
    damage: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, index = list(load_dataset(folder)), index_of(folder)
    whole = index.read_bytes()
    torn = {
        "empty": [b""],
        "cut": [whole[: len(whole) * share // 8] for share in range(1, 8)],
        "flipped": [
            whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
            for at in range(0, len(whole), len(whole) // 50)
        ],
    }
    for content in torn.get(damage, []):
        index.write_bytes(content)
        assert list(load_dataset(folder)) == clips
        assert index.read_bytes() == whole
    if damage == "other version":
        monkeypatch.setattr(metadata, "INDEX_VERSION", metadata.INDEX_VERSION + 1)
        assert list(load_dataset(folder)) == clips
        assert index.read_bytes() != whole
    if damage == "a folder":
        # Nothing can be cached there, which only costs time.
        shutil.rmtree(index.parent)
        index.mkdir(parents=True)
        assert list(load_dataset(folder)) == clips


def test_several_at_once_do_not_hurt_each_other(folder: Path) -> None:
    clips = list(load_dataset(folder))
    for _ in range(5):
        index_of(folder).unlink()
        with ThreadPoolExecutor(8) as pool:
            loaded = list(pool.map(lambda _: list(load_dataset(folder)), range(8)))
        assert all(each == clips for each in loaded)
    assert [path.name for path in index_of(folder).parent.iterdir()] == [index_of(folder).name]


@pytest.mark.parametrize("change", ["gone", "link", "folder"])
def test_files_are_looked_at_each_time(change: str, folder: Path, tmp_path: Path) -> None:
    audio = load_dataset(folder)[5].audio
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / Path(audio).name).write_bytes(b"x")
    entries = read_metadata(folder)
    entries[5]["audio"] = "sub/5.wav"
    (folder / "sub").mkdir()
    (folder / audio).rename(folder / "sub" / "5.wav")
    write_metadata(folder, entries)
    load_dataset(folder)
    if change == "gone":
        (folder / "sub" / "5.wav").unlink()
    elif change == "link":
        (folder / "sub" / "5.wav").unlink()
        (folder / "sub" / "5.wav").symlink_to(outside / "5.wav")
    else:
        shutil.rmtree(folder / "sub")
        (folder / "sub").symlink_to(outside)
    with pytest.raises(UserError, match=r"entry 6: sub/5\.wav (does not exist|points outside)"):
        load_dataset(folder)


def test_a_link_within_the_folder_is_followed(folder: Path) -> None:
    entries = read_metadata(folder)
    (folder / "link.wav").symlink_to(folder / entries[0]["audio"])
    write_metadata(folder, [*entries, {"audio": "link.wav", "text": "a"}])
    clip = load_dataset(folder)[-1]
    assert clip.size_bytes == (folder / entries[0]["audio"]).stat().st_size


def test_half_a_surrogate_pair_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"x")
    content = json.dumps([{"audio": "a.wav", "text": "\ud83d"}])
    (tmp_path / "metadata.json").write_text(content)
    with pytest.raises(UserError, match="item 1, 'text': has half of a surrogate pair"):
        load_dataset(tmp_path)


def test_clips_by_column_are_the_clips_in_a_list(folder: Path) -> None:
    clips = load_dataset(folder)
    listed = list(clips)
    assert len(clips) == len(listed) == 40
    assert [clips[index] for index in range(-40, 40)] == listed + listed
    assert list(clips[3:30:4]) == listed[3:30:4]
    assert list(clips.take([7, 1])) == [listed[7], listed[1]]
    assert list(clips[30:3:-4].take([2, 0, -1])) == [listed[22], listed[30], listed[6]]
    assert clips[5:8].column("audio").to_pylist() == [clip.audio for clip in listed[5:8]]
    assert clips[5:8].names() == [clip.name for clip in listed[5:8]]
    assert clips.names() == [clip.name for clip in listed]
    assert list(Clips.of(listed)) == listed
    assert not Clips.of([])
    with pytest.raises(IndexError):
        clips[40]
    sides = [list(side) for side in split_clips([c._replace(split=None) for c in listed], 0.2, 0)]
    assert sorted(map(id_, sides[0] + sides[1])) == sorted(map(id_, listed))


def id_(clip: Clip) -> str:
    return clip.name
