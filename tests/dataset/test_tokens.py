"""Clips as codes: encoded once, independently of other clips, and found again."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from made_datasets import KIT, RATE, beat, make_dataset, read_metadata, write_metadata
from tokenising import equal, reopen, shard_folder, tokenise

from musicgen_lora.audio.files import AudioError, read_audio, write_wav
from musicgen_lora.dataset import encoding, tokens
from musicgen_lora.dataset.clip_ids import HASHES_FILE, clip_ids
from musicgen_lora.dataset.metadata import load_dataset
from musicgen_lora.errors import RunError, UserError
from musicgen_lora.formats.arrays import ArrayFile
from musicgen_lora.model import codec
from musicgen_lora.model.base_model import BaseModel


def direct_round_trip(model, samples: np.ndarray) -> np.ndarray:
    """One channel through the codec alone."""
    with torch.inference_mode():
        codes = model.codec.module.encode(torch.from_numpy(samples)[None, None]).audio_codes
        return model.codec.module.decode(codes, [None]).audio_values[0, 0].numpy()


@pytest.mark.parametrize("kind", ["mono", "stereo"])
def test_codes_survive_the_shards_bit_for_bit(
    kind: str, tmp_path: Path, tiny_model_dir: Path, tiny_stereo_dir: Path
) -> None:
    model = BaseModel.load(tiny_model_dir if kind == "mono" else tiny_stereo_dir)
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
        # A CPU's decoder adds in another order.
        np.testing.assert_allclose(decoded, expected, rtol=0.0, atol=1e-5)
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
    model = BaseModel.load(tiny_model_dir if kind == "mono" else tiny_stereo_dir)
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


@pytest.mark.parametrize("content", ["", "[]", "{torn"])
def test_a_damaged_cache_of_hashes_is_made_anew(tmp_path: Path, content: str) -> None:
    make_dataset(tmp_path, [0.5])
    clips = load_dataset(tmp_path)
    ids = clip_ids(clips, tmp_path)
    (tmp_path / "tokens" / HASHES_FILE).write_text(content)
    assert clip_ids(clips, tmp_path) == ids


@pytest.mark.parametrize("when", ["before it is read", "after it was read"])
def test_a_file_that_is_replaced_while_clips_are_encoded_gives_no_codes_under_its_old_id(
    when: str, tmp_path: Path, model, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_dataset(tmp_path, [0.5, 0.4])
    path, original = tmp_path / "train" / "beat0.wav", encoding.encode_clips

    def replacing(clips, model):
        if (is_it := clips[0].path == path) and when == "before it is read":
            write_wav(path, beat(7, 0.5), RATE)
        codes = original(clips, model)
        if is_it and when == "after it was read":
            write_wav(path, beat(7, 0.5), RATE)
        return codes

    monkeypatch.setattr(encoding, "encode_clips", replacing)
    clips = load_dataset(tmp_path)
    ids = clip_ids(clips, tmp_path)
    with pytest.raises(AudioError, match=r"beat0\.wav: changed while it was encoded") as caught:
        tokens.tokenise_clips(clips, ids, model, tmp_path)
    assert list(caught.value.reasons) == ["train/beat0.wav"]
    store, lacking = tokens.find_codes(shard_folder(tmp_path, model), ids)
    assert lacking.tolist() == [0], "the other clip is encoded"
    monkeypatch.undo()
    again, store = tokenise(tmp_path, model)
    assert (again[0] != ids[0], again[1]) == (True, ids[1])
    assert np.array_equal(store[0].T, model.encode([read_audio(path, RATE)])[0])


def test_a_dataset_that_vanishes_while_it_is_encoded_is_named_and_not_made_again(
    tmp_path: Path, model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clips were told to be broken, and codes written to what is a drive's mount point."""
    data, away, original = tmp_path / "data", tmp_path / "away", encoding.encode_clips
    make_dataset(data, [0.5, 0.4])

    def vanishing(clips, model):
        codes = original(clips, model)
        if data.exists():
            data.rename(away)
        return codes

    monkeypatch.setattr(encoding, "encode_clips", vanishing)
    clips = load_dataset(data)
    ids = clip_ids(clips, data)
    with pytest.raises(RunError, match="data: was moved"):
        tokens.tokenise_clips(clips, ids, model, data)
    assert not data.exists()
    monkeypatch.undo()
    away.rename(data)
    assert len(tokens.tokenise_clips(clips, ids, model, data)) == 2


def test_a_file_that_is_touched_or_copied_again_while_clips_are_encoded_is_the_same(
    tmp_path: Path, model
) -> None:
    make_dataset(tmp_path, [0.5, 0.4])
    clips = load_dataset(tmp_path)
    ids = clip_ids(clips, tmp_path)
    path = clips[0].path
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    assert len(tokens.tokenise_clips(clips, ids, model, tmp_path)) == 2


@pytest.mark.parametrize("how", ["in its place", "written over"])
def test_other_audio_of_equal_size_and_time_is_seen(how: str, tmp_path: Path, model) -> None:
    """Files as unpacked from archives, all with the same time."""
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


def test_a_clip_that_was_cut_off_is_named_unless_its_entry_says_what_is_left(
    tmp_path: Path, model
) -> None:
    data = make_dataset(tmp_path, [1.0, 1.0])
    cut = data / "train" / "beat1.wav"
    cut.write_bytes(cut.read_bytes()[:-RATE])
    with pytest.raises(AudioError, match=r"beat1\.wav: is cut off, only 0\.5 of 1\.0 s are left"):
        tokenise(data, model)
    entries = read_metadata(data)
    entries[1] |= {"start_s": 0.1, "duration_s": 0.4}
    write_metadata(data, entries)
    ids, _ = tokenise(data, model)
    assert len(ids) == 2


@pytest.mark.parametrize("left", [0, 200, 5000])
def test_a_shard_that_is_cut_short_while_it_is_used_is_told(
    left: int, tmp_path: Path, model
) -> None:
    """Mapped into memory, it would end the process without a word, or go on as zeros."""
    make_dataset(tmp_path, [9.0] * 3)
    _, store = tokenise(tmp_path, model)
    store = store.take([2, 1, 0])
    (path,) = shard_folder(tmp_path, model).glob("*.npy")
    assert len(store[0])
    assert path.stat().st_size > 5000
    os.truncate(path, left)
    with pytest.raises(UserError, match=f"{path.name}: not readable as a token shard"):
        assert all(codes.any() for codes in store)


def test_a_shard_on_a_drive_that_is_gone_is_told(
    tmp_path: Path, model, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_dataset(tmp_path, [0.5])
    _, store = tokenise(tmp_path, model)
    assert len(store[0])

    def gone(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(ArrayFile, "rows", gone)
    with pytest.raises(RunError, match=r"cannot be read \(Input/output error\)"):
        store[0]


def test_a_shard_that_is_deleted_while_it_is_used_is_read_on(tmp_path: Path, model) -> None:
    make_dataset(tmp_path, [0.5, 0.4])
    _, store = tokenise(tmp_path, model)
    before = [store[0], store[1]]
    shutil.rmtree(tmp_path / "tokens")
    assert equal(store, before)
