"""Clips of the same audio have one source."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from made_datasets import make_dataset, read_metadata, write_metadata

from musicgen_lora.dataset.clip_ids import clip_ids
from musicgen_lora.dataset.copies import join_copies
from musicgen_lora.dataset.metadata import load_dataset, split_rows
from musicgen_lora.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four beats, and a copy of each under another name."""
    data = make_dataset(tmp_path / "data", [1.0] * 4)
    entries = read_metadata(data)
    for entry in list(entries):
        name = entry["audio"].replace("beat", "again")
        shutil.copy(data / entry["audio"], data / name)
        entries.append({**entry, "audio": name})
    write_metadata(data, entries)
    return data


def test_copies_are_never_parted(folder: Path) -> None:
    clips = load_dataset(folder)
    ids = clip_ids(clips, folder)
    joined, copies = join_copies(clips, ids)
    assert copies == [f"train/again{place}.wav" for place in range(4)]
    assert len(set(joined.column("source").to_pylist())) == 4
    for seed in range(20):
        train, held_out = split_rows(joined, 0.3, seed)
        assert not {ids[row] for row in train} & {ids[row] for row in held_out}
        assert len(held_out)


def test_what_copies_have_in_common_goes_from_source_to_source(folder: Path) -> None:
    clips = load_dataset(folder)
    named = [clip._replace(source="ab"[place // 2 % 2]) for place, clip in enumerate(clips)]
    ids = ["1", "2", "3", "4", "5", "6", "7", "1"]
    assert set(join_copies(named, ids)[0].column("source").to_pylist()) == {"a"}
    assert join_copies(named, list("12345678"))[0].column("source").to_pylist() == list("aabbaabb")


def test_a_split_that_parts_copies_is_refused(folder: Path) -> None:
    entries = read_metadata(folder)
    entries[0]["split"], entries[4]["split"] = "train", "validation"
    write_metadata(folder, entries)
    clips = load_dataset(folder)
    with pytest.raises(UserError, match="is in both train and validation"):
        split_rows(join_copies(clips, clip_ids(clips, folder))[0], 0.1, 0)
