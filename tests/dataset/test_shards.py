"""Shards of tokens and their index: damaged, lost, many, or in a folder that can't be written."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from made_datasets import RATE, make_dataset, read_metadata, write_metadata
from tokenising import equal, reopen, shard_folder, shards, tokenise

from musicgen_lora.audio.files import read_audio
from musicgen_lora.dataset import encoding, tokens
from musicgen_lora.dataset.encoding import write_shard
from musicgen_lora.dataset.metadata import load_dataset
from musicgen_lora.dataset.tokens import (
    find_codes,
)
from musicgen_lora.errors import UserError
from musicgen_lora.model.base_model import BaseModel


def test_what_an_interrupted_write_left_is_swept(tmp_path: Path, model) -> None:
    make_dataset(tmp_path, [0.5])
    folder = shard_folder(tmp_path, model)
    folder.mkdir(parents=True)
    for stale in (folder / ".staging-123-abc.npy", folder.parent / ".staging-456-hashes.arrow"):
        stale.write_bytes(b"half")
    tokenise(tmp_path, model)
    assert not list(folder.parent.rglob(".staging-*"))


def test_a_shard_without_its_index_does_not_exist(
    tmp_path: Path, model, encoded: list[str]
) -> None:
    make_dataset(tmp_path, [0.5, 0.4])
    ids, store = tokenise(tmp_path, model)
    before = list(store)
    folder = shard_folder(tmp_path, model)
    (folder / "0000.npy").write_bytes(b"torn")
    for index in folder.glob("*.parquet"):
        index.unlink()
    assert find_codes(folder, ids)[1].tolist() == [0, 1]
    encoded.clear()
    _, store = tokenise(tmp_path, model)
    assert len(encoded) == 2
    assert all(np.array_equal(a, b) for a, b in zip(store, before, strict=True))


def test_another_codec_has_shards_of_its_own(
    tmp_path: Path, model, tiny_stereo_dir: Path, encoded: list[str]
) -> None:
    make_dataset(tmp_path, [0.5])
    tokenise(tmp_path, model)
    _, store = tokenise(tmp_path, BaseModel.load(tiny_stereo_dir))
    assert len(encoded) == 2
    assert store[0].shape == (25, 8)


def test_many_shards_read_like_one(tmp_path: Path, model, monkeypatch: pytest.MonkeyPatch) -> None:
    make_dataset(tmp_path, [0.5, 0.3, 0.4, 0.2, 0.6])
    monkeypatch.setattr(encoding, "CLIPS_PER_SHARD", 2)
    _, store = tokenise(tmp_path, model)
    assert len(list(shards(shard_folder(tmp_path, model)))) == 3
    for clip, codes in zip(load_dataset(tmp_path), store, strict=True):
        expected = model.encode([read_audio(clip.path, RATE)])[0].T
        assert np.array_equal(codes, expected)
    assert equal(store.take([4, 0]), store[::-4])
    assert store[1:3].n_frames.tolist() == [15, 20]


@pytest.fixture
def kept(tmp_path: Path, model, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[str]]:
    """A folder of three shards, whose indexes have been kept as one, and its clips' ids."""
    make_dataset(tmp_path, [0.5, 0.3, 0.4, 0.2, 0.6])
    monkeypatch.setattr(encoding, "CLIPS_PER_SHARD", 2)
    ids, _ = tokenise(tmp_path, model)
    folder = shard_folder(tmp_path, model)
    assert (folder / tokens.INDEX_FILE).is_file()
    return folder, ids


def refuse(path: Path) -> None:
    raise AssertionError(f"{path} was read again")


def test_the_kept_index_says_what_the_shards_say(
    kept: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, ids = kept
    (folder / tokens.INDEX_FILE).unlink()
    plain = reopen(folder, ids)
    monkeypatch.setattr(tokens, "_read_index", refuse)
    store = reopen(folder, ids)
    assert equal(store, plain)
    assert store.n_frames.tolist() == [len(codes) for codes in plain]
    some, lacking = find_codes(folder, ["new", ids[1], "new", ids[0]])
    assert lacking.tolist() == [0, 2]
    assert equal(some, store.take([1, 0]))


def test_a_new_shard_is_seen_beside_the_kept_index(
    kept: tuple[Path, list[str]], tmp_path: Path, model, encoded: list[str]
) -> None:
    folder, ids = kept
    encoded.clear()
    entries = read_metadata(tmp_path)
    write_metadata(tmp_path, [*entries, entries[0] | {"start_s": 0.1, "duration_s": 0.2}])
    more, store = tokenise(tmp_path, model)
    assert more[:-1] == ids
    assert len(encoded) == 1
    assert len(store) == 6
    assert equal(reopen(folder, more), store)


@pytest.mark.parametrize("damage", ["cut", "flipped", "a folder"])
def test_a_damaged_index_of_shards_is_made_again(damage: str, kept: tuple[Path, list[str]]) -> None:
    folder, ids = kept
    path = folder / tokens.INDEX_FILE
    whole = path.read_bytes()
    if damage == "a folder":
        path.unlink()
        path.mkdir()
        assert len(reopen(folder, ids)) == 5
        return
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    path.write_bytes(whole[:middle] if damage == "cut" else flipped)
    assert len(reopen(folder, ids)) == 5
    assert path.read_bytes() == whole


def test_a_shard_that_is_damaged_later_is_named(kept: tuple[Path, list[str]]) -> None:
    folder, ids = kept
    index = sorted(folder.glob("*.parquet"))[1]
    index.write_bytes(b"no parquet")
    with pytest.raises(UserError, match=rf"{index.name}: not readable as a token shard"):
        find_codes(folder, ids)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_more_shards_than_files_may_be_open(tmp_path: Path) -> None:
    import resource

    codes = np.arange(40, dtype=np.uint16).reshape(10, 4)
    ids = [str(number) for number in range(300)]
    for clip_id in ids:
        write_shard(tmp_path, [clip_id], [codes + int(clip_id)])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        found = list(reopen(tmp_path, ids))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert all(np.array_equal(own, codes + place) for place, own in enumerate(found))
