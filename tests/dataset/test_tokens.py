"""Token shards: exact, made once, resumable."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import KIT, RATE, beat, make_dataset, read_metadata, write_metadata

from musicgen_lora.audio.files import AudioError, read_audio, write_wav
from musicgen_lora.dataset import encoding, tokens
from musicgen_lora.dataset.clip_ids import HASHES_FILE, clip_ids
from musicgen_lora.dataset.encoding import write_shard
from musicgen_lora.dataset.metadata import load_dataset
from musicgen_lora.dataset.tokens import (
    TokenStore,
    find_codes,
    tokenise_clips,
)
from musicgen_lora.errors import UserError
from musicgen_lora.model import codec
from musicgen_lora.model.musicgen import MusicGen


@pytest.fixture
def model(tiny_model_dir: Path):
    return MusicGen.load(tiny_model_dir)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the clips that the codec has worked on, as it does."""
    names: list[str] = []
    original = encoding.encode_clips

    def counting(clips, model):
        names.extend(clip.name for clip in clips)
        return original(clips, model)

    monkeypatch.setattr(encoding, "encode_clips", counting)
    return names


def tokenise(data_dir: Path, model) -> tuple[list[str], TokenStore]:
    clips = load_dataset(data_dir)
    ids = clip_ids(clips, data_dir)
    return ids, tokenise_clips(clips, ids, model, data_dir)


def reopen(folder: Path, ids: list[str]) -> TokenStore:
    """The codes of clips that all are in a folder's shards."""
    codes, lacking = find_codes(folder, ids)
    assert not len(lacking)
    return codes


def equal(some: TokenStore, others: TokenStore) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(some, others, strict=True))


def shard_folder(data_dir: Path, model) -> Path:
    return data_dir / "tokens" / model.codec.fingerprint


def direct_round_trip(model, samples: np.ndarray) -> np.ndarray:
    """One channel through the codec alone."""
    with torch.inference_mode():
        codes = model.codec.module.encode(torch.from_numpy(samples)[None, None]).audio_codes
        return model.codec.module.decode(codes, [None]).audio_values[0, 0].numpy()


@pytest.mark.parametrize("kind", ["mono", "stereo"])
def test_codes_survive_the_shards_bit_for_bit(
    kind: str, tmp_path: Path, tiny_model_dir: Path, tiny_stereo_dir: Path
) -> None:
    model = MusicGen.load(tiny_model_dir if kind == "mono" else tiny_stereo_dir)
    wide = np.concatenate([beat(0, 1.0)[:1], beat(1, 1.0)[:1]])
    write_wav(tmp_path / "wide.wav", wide, RATE)
    names = ["808_Kick_1.wav", "808_Cowbell.wav", "808_Open_Hat.wav"]
    for name in names:
        (tmp_path / name).write_bytes((KIT / name).read_bytes())
    write_metadata(tmp_path, [{"audio": n, "text": "808"} for n in ["wide.wav", *names]])
    ids, store = tokenise(tmp_path, model)
    reopened = reopen(shard_folder(tmp_path, model), ids)
    for clip, codes, same in zip(load_dataset(tmp_path), reopened, store, strict=True):
        waveform = read_audio(clip.path, RATE)
        channels = [waveform.mean(axis=0)] if kind == "mono" else [waveform[0], waveform[-1]]
        expected = np.stack([direct_round_trip(model, channel) for channel in channels])
        assert codes.dtype == np.uint16
        assert codes.shape == (-(-waveform.shape[1] // 640), 4 * len(channels))
        assert np.array_equal(codes, same)
        decoded = model.decode(torch.from_numpy(codes.T.astype(np.int64))[None])[0]
        assert np.array_equal(decoded, expected)
    if kind == "stereo":
        assert not np.array_equal(reopened[0][:, 0::2], reopened[0][:, 1::2])


def test_a_second_run_encodes_nothing(tmp_path: Path, model, encoded: list[str]) -> None:
    make_dataset(tmp_path, [0.5, 0.4, 0.3])
    first_ids, first = tokenise(tmp_path, model)
    assert len(encoded) == 3
    ids, store = tokenise(tmp_path, model)
    assert len(encoded) == 3
    assert ids == first_ids
    assert equal(store, first)


def test_an_interrupted_run_goes_on_with_what_is_missing(
    tmp_path: Path, model, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_dataset(tmp_path, [0.5] * 7)
    monkeypatch.setattr(encoding, "CLIPS_PER_SHARD", 2)
    original, calls = encoding.encode_clips, []

    def failing(clips, model):
        calls.extend(clip.name for clip in clips)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(clips, model)

    monkeypatch.setattr(encoding, "encode_clips", failing)
    with pytest.raises(KeyboardInterrupt):
        tokenise(tmp_path, model)
    finished = calls[:2]
    calls[:] = [""] * 5
    ids, store = tokenise(tmp_path, model)
    assert sorted(calls[5:] + finished) == sorted(clip.name for clip in load_dataset(tmp_path))
    assert equal(store, reopen(shard_folder(tmp_path, model), ids))


@pytest.mark.parametrize("kind", ["mono", "stereo"])
def test_clips_of_equal_length_encode_together_as_they_do_alone(
    kind: str, tiny_model_dir: Path, tiny_stereo_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = MusicGen.load(tiny_model_dir if kind == "mono" else tiny_stereo_dir)
    monkeypatch.setattr(codec, "WINDOW_S", 2.0)
    clips = [beat(index, 4.0)[:, :length] for index, length in enumerate([90_000] * 3 + [33_333])]
    rows = np.concatenate([clip[:1] for clip in clips[:3]])
    together = model.codec.encode_rows(rows)
    assert all(
        np.array_equal(codes, model.codec.encode_rows(row[None])[0])
        for codes, row in zip(together, rows, strict=True)
    )
    for codes, clip in zip(model.encode(clips), clips, strict=True):
        assert np.array_equal(codes, model.encode([clip])[0])


def test_threads_give_the_same_shards_and_leave_torch_as_it_was(
    tmp_path: Path, model, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("one", "three"):
        make_dataset(tmp_path / folder, [0.5, 0.3, 0.4, 0.2, 0.6])
    ids, alone = tokenise(tmp_path / "one", model)
    torch.set_num_threads(3)
    try:
        same_ids, store = tokenise(tmp_path / "three", model)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)
    assert same_ids == ids
    assert equal(store, alone)


def test_batches_hold_like_lengths_and_no_more_than_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_dataset(tmp_path, [0.5, 0.3, 0.5, 0.2, 0.5])
    monkeypatch.setattr(encoding, "BATCH_S", 1.0)
    batches = encoding._like_lengths([(c.audio[10], c) for c in load_dataset(tmp_path)])
    assert ["".join(i for i, _ in batch) for batch in batches] == ["31", "02", "4"]


@pytest.mark.parametrize("bad", [["beat1"], ["beat0", "beat2"]])
def test_bad_files_cost_themselves_alone(
    tmp_path: Path,
    model,
    monkeypatch: pytest.MonkeyPatch,
    encoded: list[str],
    bad: list[str],
) -> None:
    make_dataset(tmp_path, [0.5] * 4)
    for name in bad:
        (tmp_path / "train" / f"{name}.wav").write_bytes(b"no audio")
    monkeypatch.setattr(encoding, "CLIPS_PER_SHARD", 2)
    with pytest.raises(AudioError, match=rf"{bad[0]}\.wav") as caught:
        tokenise(tmp_path, model)
    assert list(caught.value.reasons) == [f"train/{name}.wav" for name in bad]
    good = [e for e in read_metadata(tmp_path) if Path(e["audio"]).stem not in bad]
    write_metadata(tmp_path, good)
    encoded.clear()
    assert len(tokenise(tmp_path, model)[1]) == len(good)
    assert encoded == []


def test_editing_captions_and_splits_costs_nothing(
    tmp_path: Path, model, encoded: list[str]
) -> None:
    make_dataset(tmp_path, [0.5, 0.4, 0.3])
    ids, _ = tokenise(tmp_path, model)
    entries = read_metadata(tmp_path)
    entries[0] |= {"text": "another caption", "split": "validation", "bpm": 140}
    write_metadata(tmp_path, entries[::-1])
    encoded.clear()
    assert tokenise(tmp_path, model)[0] == ids[::-1]
    assert encoded == []


def test_renaming_a_file_costs_nothing_and_changing_it_does(
    tmp_path: Path, model, encoded: list[str]
) -> None:
    make_dataset(tmp_path, [0.5, 0.4])
    ids, _ = tokenise(tmp_path, model)
    (tmp_path / "train" / "beat0.wav").rename(tmp_path / "moved.wav")
    write_wav(tmp_path / "train" / "beat1.wav", beat(5, 0.4), RATE)
    write_metadata(
        tmp_path,
        [{"audio": "moved.wav", "text": "a"}, {"audio": "train/beat1.wav", "text": "b"}],
    )
    encoded.clear()
    again, store = tokenise(tmp_path, model)
    assert encoded == ["train/beat1.wav"]
    assert again[0] == ids[0]
    assert again[1] != ids[1]
    assert equal(store, reopen(shard_folder(tmp_path, model), again))


def test_windows_of_a_file_are_clips_of_their_own(tmp_path: Path, model) -> None:
    make_dataset(tmp_path, [2.0])
    audio = {"audio": "train/beat0.wav", "text": "808"}
    write_metadata(
        tmp_path,
        [
            audio,
            audio | {"start_s": 0.5, "duration_s": 1.0},
            audio | {"start_s": 1.0, "duration_s": 1.0},
            audio | {"start_s": 1.0, "duration_s": 0.5},
        ],
    )
    ids, store = tokenise(tmp_path, model)
    assert len(set(ids)) == 4
    assert store.n_frames.tolist() == [100, 50, 50, 25]
    waveform = read_audio(tmp_path / "train" / "beat0.wav", RATE)
    expected = model.encode([waveform[:, RATE // 2 : 3 * RATE // 2]])[0]
    assert np.array_equal(store[1].T, expected)


def test_windows_far_into_a_long_file_keep_their_ids_apart(tmp_path: Path) -> None:
    make_dataset(tmp_path, [0.5])
    audio = {"audio": "train/beat0.wav", "text": "808", "duration_s": 10.0}
    starts = [3000.125, 3000.126, 3000.1264]
    write_metadata(tmp_path, [audio | {"start_s": start} for start in starts])
    assert len(set(clip_ids(load_dataset(tmp_path), tmp_path))) == 3


@pytest.mark.parametrize("seconds", [7.0, 8.3, 11.99])
def test_long_audio_in_windows_equals_direct_encoding_but_for_the_seams(
    seconds: float, model, monkeypatch: pytest.MonkeyPatch
) -> None:
    waveform = np.concatenate([beat(i, 4.0)[:1, : 4 * RATE] for i in range(3)], axis=1)
    waveform = waveform[:, : round(seconds * RATE)]
    direct = model.encode([waveform])[0]
    monkeypatch.setattr(codec, "WINDOW_S", 3.0)
    windowed = model.encode([waveform])[0]
    assert windowed.shape == direct.shape == (4, -(-waveform.shape[1] // 640))
    seams = np.arange(150, windowed.shape[1], 150)
    frames = np.arange(windowed.shape[1])
    far = np.abs(frames[:, None] - seams).min(axis=1) > 25
    assert far.mean() > 0.5
    assert np.array_equal(windowed[:, far], direct[:, far])
    assert (windowed == direct).mean() > 0.97


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


@pytest.mark.parametrize("content", ["", "[]", "{torn"])
def test_a_damaged_cache_of_hashes_is_made_anew(tmp_path: Path, content: str) -> None:
    make_dataset(tmp_path, [0.5])
    clips = load_dataset(tmp_path)
    ids = clip_ids(clips, tmp_path)
    (tmp_path / "tokens" / HASHES_FILE).write_text(content)
    assert clip_ids(clips, tmp_path) == ids


def test_another_codec_has_shards_of_its_own(
    tmp_path: Path, model, tiny_stereo_dir: Path, encoded: list[str]
) -> None:
    make_dataset(tmp_path, [0.5])
    tokenise(tmp_path, model)
    _, store = tokenise(tmp_path, MusicGen.load(tiny_stereo_dir))
    assert len(encoded) == 2
    assert store[0].shape == (25, 8)


def shards(folder: Path) -> Iterator[Path]:
    yield from sorted(folder.glob("*.npy"))


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


@pytest.mark.parametrize("how", ["in its place", "written over"])
def test_other_audio_of_equal_size_and_time_is_seen(how: str, tmp_path: Path, model) -> None:
    """As archives with equal times for all files unpack it."""
    make_dataset(tmp_path, [0.5, 0.4])
    path = tmp_path / "train" / "beat0.wav"
    times = (1_500_000_000_000_000_000, 1_500_000_000_000_000_000)
    os.utime(path, ns=times)
    ids, _ = tokenise(tmp_path, model)
    if how == "in its place":
        write_wav(path, beat(7, 0.5), RATE)
    else:
        write_wav(tmp_path / "other.wav", beat(7, 0.5), RATE)
        path.write_bytes((tmp_path / "other.wav").read_bytes())
    os.utime(path, ns=times)
    again, store = tokenise(tmp_path, model)
    assert again[0] != ids[0]
    assert again[1] == ids[1]
    assert np.array_equal(store[0].T, model.encode([read_audio(path, RATE)])[0])


def test_a_dataset_that_may_not_be_written_to_is_read_or_refused_with_advice(
    tmp_path: Path, model, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_dataset(tmp_path, [0.5])

    class Locked(tokens.FileLock):
        def acquire(self, *_: object, **__: object):
            raise PermissionError(errno.EACCES, "Permission denied", self.lock_file)

    with monkeypatch.context() as patch:
        patch.setattr(tokens, "FileLock", Locked)
        with pytest.raises(UserError, match=r"cannot be written to \(Permission denied\).*copy"):
            tokenise(tmp_path, model)
    ids, store = tokenise(tmp_path, model)
    monkeypatch.setattr(tokens, "FileLock", Locked)
    assert tokenise(tmp_path, model)[0] == ids
    assert equal(tokenise(tmp_path, model)[1], store)
