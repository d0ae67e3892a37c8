from __future__ import annotations

import json

import numpy as np
import pytest
from made_datasets import make_dataset, read_metadata, write_metadata
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from musicgen_lora.config import TokeniseSettings
from musicgen_lora.dataset import packed
from musicgen_lora.dataset.metadata import load_dataset
from musicgen_lora.dataset.packed import PackedTokens, read_packed, write_packed
from musicgen_lora.dataset.tokenise import tokenise_dataset
from musicgen_lora.dataset.tokens import open_tokens
from musicgen_lora.errors import UserError
from musicgen_lora.model.base_model import BaseModel


def make_tokens(n_entries: int, n_codebooks: int, lengths: list[int]) -> PackedTokens:
    rng = np.random.default_rng(n_entries)
    codes = rng.integers(0, n_entries, (sum(lengths), n_codebooks)).astype(np.uint16)
    if len(codes):
        codes[0, 0], codes[-1, -1] = n_entries - 1, n_entries - 1
    texts = [[f"beat {row}", "鼓点 808"][: 1 + row % 2] for row in range(len(lengths))]
    held_out = np.arange(len(lengths)) % 3 == 0
    bars = np.array([[0.5 * row, 80.0] for row in range(len(lengths))], np.float32).reshape(-1, 2)
    bars[1:2] = np.nan
    return PackedTokens(codes, np.array(lengths), texts, held_out, n_entries, 50.0, "abc", bars)


@pytest.mark.parametrize(
    ("n_entries", "n_codebooks", "lengths"),
    [(2048, 4, [7, 0, 500, 33]), (64, 8, [5, 3]), (2, 1, [9]), (65536, 3, [11]), (2048, 4, [])],
)
def test_what_is_read_is_what_was_written(tmp_path, n_entries, n_codebooks, lengths, monkeypatch):
    monkeypatch.setattr(packed, "CHUNK", 64)
    tokens = make_tokens(n_entries, n_codebooks, lengths)
    write_packed(tmp_path / "a.safetensors", tokens)
    found = read_packed(tmp_path / "a.safetensors")
    assert found.codes.dtype == np.uint16
    np.testing.assert_array_equal(found.codes, tokens.codes)
    np.testing.assert_array_equal(found.n_frames, tokens.n_frames)
    np.testing.assert_array_equal(found.held_out, tokens.held_out)
    assert found.texts == tokens.texts
    assert found.bars is not None
    np.testing.assert_array_equal(found.bars, tokens.bars)
    assert (found.n_entries, found.frame_rate, found.codec) == (n_entries, 50.0, "abc")


def test_eleven_bits_a_code_and_no_more(tmp_path):
    tokens = make_tokens(2048, 4, [50 * 3600])
    write_packed(tmp_path / "hour.safetensors", tokens)
    assert (tmp_path / "hour.safetensors").stat().st_size == pytest.approx(0.99e6, rel=0.01)


def test_codes_out_of_range_are_not_written(tmp_path):
    tokens = make_tokens(2048, 4, [5])
    tokens.codes[2, 1] = 2048
    with pytest.raises(ValueError, match="2048 of 2048"):
        write_packed(tmp_path / "a.safetensors", tokens)
    assert not (tmp_path / "a.safetensors").exists()


def _changed(path, **changes):
    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()[packed.HEADER])
    tensors = load_file(path)
    for name, value in changes.items():
        if name in tensors:
            tensors[name] = value
        else:
            header[name] = value
    save_file(tensors, path, metadata={packed.HEADER: json.dumps(header)})


@pytest.mark.parametrize(
    "changes",
    [
        {"codes": np.zeros(3, np.uint8)},
        {"n_frames": np.array([-5, 10])},
        {"n_frames": np.array([2**40, 1])},
        {"captions": np.frombuffer(b'[["a"]]', np.uint8)},
        {"captions": np.frombuffer(b'[["a"], []]', np.uint8)},
        {"captions": np.frombuffer(b"\xff\xfe", np.uint8)},
        {"n_codebooks": 10**9},
        {"n_entries": "many"},
        {"format_version": 99},
        {"bars": np.zeros((3, 2), np.float32)},
        {"bars": np.full((2, 2), -1, np.float32)},
    ],
    ids=str,
)
def test_a_file_that_lies_is_one_line(tmp_path, changes):
    path = tmp_path / "a.safetensors"
    write_packed(path, make_tokens(2048, 4, [4, 6]))
    _changed(path, **changes)
    with pytest.raises(UserError, match=r"a\.safetensors"):
        read_packed(path)


def test_a_file_of_something_else_is_one_line(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"not tensors at all")
    with pytest.raises(UserError, match="packed tokens"):
        read_packed(tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="packed tokens"):
        read_packed(tmp_path / "missing.safetensors")


def test_tokenise_packs_codes_captions_and_split(tmp_path, tiny_model_dir):
    make_dataset(tmp_path / "data", [1.0, 0.5, 0.7])
    entries = read_metadata(tmp_path / "data")
    entries[0] |= {"bpm": 120, "first_bar_s": 0.25}
    entries[1] |= {"bpm": 120}
    entries[1] |= {"split": "validation", "texts": [entries[1]["text"], "鼓点"]}
    write_metadata(tmp_path / "data", entries)
    settings = TokeniseSettings(
        model_path=str(tiny_model_dir), data_dir=tmp_path / "data", pack=tmp_path / "all.tokens"
    )
    tokenise_dataset(settings)
    found = read_packed(tmp_path / "all.tokens")
    model = BaseModel.load(tiny_model_dir)
    _, codes = open_tokens(load_dataset(tmp_path / "data"), model, tmp_path / "data")
    np.testing.assert_array_equal(found.codes, np.concatenate([codes[row] for row in range(3)]))
    assert found.n_frames.tolist() == [50, 25, 35]
    assert found.held_out.tolist() == [False, True, False]
    assert list(found.texts[1]) == entries[1]["texts"]
    assert found.bars is not None
    np.testing.assert_array_equal(found.bars, [[12.5, 100.0], [0.0, 100.0], [np.nan] * 2])
    assert (found.n_entries, found.codec) == (64, model.codec.fingerprint)
