"""The dataset's metadata: what is rejected, what is kept, how it is split."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from made_datasets import make_dataset, read_metadata, write_metadata

from musicgen_lora.dataset.metadata import (
    Clip,
    load_dataset,
    parts_sentence,
    read_entries,
    split_clips,
    write_entries,
)
from musicgen_lora.errors import UserError

GOOD = {"audio": "train/beat0.wav", "text": "808"}


@pytest.fixture(scope="module")
def shared_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_dataset(tmp_path_factory.mktemp("metadata") / "data", [0.2, 0.2])
    (folder.parent / "outside.wav").write_bytes((folder / "train/beat0.wav").read_bytes())
    os.symlink(folder.parent / "outside.wav", folder / "train" / "link.wav")
    return folder


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"text": "no audio"}, 'lacks "audio"'),
        ({"audio": "", "text": "a"}, 'lacks "audio"'),
        ({"audio": 3, "text": "a"}, 'lacks "audio"'),
        ({"audio": "train/beat0.wav"}, r'train/beat0\.wav.* lacks "text"'),
        ({"audio": "train/beat0.wav", "text": "  "}, 'lacks "text"'),
        ({"audio": "train/beat0.wav", "text": None}, 'lacks "text"'),
        ({"audio": "train/beat0.wav", "text": ["a"]}, 'lacks "text"'),
        ({"audio": "train/beat0.wav", "texts": "a"}, 'lacks "text"'),
        ({"audio": "train/beat0.wav", "texts": ["a", 3]}, 'lacks "text"'),
        ({"audio": "train/gone.wav", "text": "a"}, r"train/gone\.wav does not exist"),
        ({"audio": "train", "text": "a"}, "train does not exist"),
        ({"audio": "../outside.wav", "text": "a"}, r"\.\./outside\.wav points outside"),
        ({"audio": "/etc/hostname", "text": "a"}, "/etc/hostname points outside"),
        ({"audio": "/metadata.json", "text": "a"}, "/metadata.json points outside"),
        ({"audio": "train/..", "text": "a"}, r"train/\.\. does not exist"),
        ({"audio": "..", "text": "a"}, r"\.\. points outside"),
        ({"audio": "train/link.wav", "text": "a"}, r"train/link\.wav points outside"),
        ({"audio": "a\0b.wav", "text": "a"}, "not a usable path"),
        (GOOD | {"start_s": "2"}, '"start_s" must be'),
        (GOOD | {"start_s": -1}, '"start_s" must be'),
        (GOOD | {"start_s": 0, "duration_s": 0}, '"duration_s" must be'),
        (GOOD | {"start_s": 0, "duration_s": True}, '"duration_s" must be'),
        (GOOD | {"duration_s": "long"}, '"duration_s" must be'),
    ],
)
def test_a_bad_entry_is_named(entry: dict[str, Any], said: str, shared_data: Path) -> None:
    path = write_metadata(shared_data, [{"audio": "train/beat1.wav", "text": "fine"}, entry])
    with pytest.raises(UserError, match=said) as raised:
        load_dataset(shared_data)
    assert f"{path}: entry 2" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{not json", "not valid JSON"),
        ("", "not valid JSON"),
        ('{"audio": "a.wav"}', "must be a list"),
        ('["a.wav"]', "must be a list"),
        ("[]", "no entries"),
        ('[{"audio": "train/beat0.wav", "text": "a", "start_s": NaN}]', "not valid JSON"),
        ('[{"audio": "train/beat0.wav", "text": "a", "start_s": Infinity}]', "not valid JSON"),
    ],
)
def test_a_bad_file_is_named(content: str, said: str, shared_data: Path) -> None:
    path = shared_data / "metadata.json"
    path.write_text(content)
    with pytest.raises(UserError, match=f"{re.escape(str(path))}.*{said}") as raised:
        load_dataset(shared_data)
    assert "\n" not in str(raised.value)


def test_bytes_that_are_no_text_are_named(shared_data: Path) -> None:
    (shared_data / "metadata.json").write_bytes(b"\xff\xfe[\0]\0")
    with pytest.raises(UserError, match=r"metadata\.json, line 1: not valid JSON"):
        load_dataset(shared_data)


def test_missing_folder_and_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: no such data folder"):
        load_dataset(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"other\.json: no such metadata file"):
        load_dataset(tmp_path, "other.json")


def test_an_entry_listed_twice_is_named(shared_data: Path) -> None:
    write_metadata(shared_data, [GOOD, GOOD | {"text": "again"}])
    with pytest.raises(UserError, match=r"train/beat0\.wav is listed twice"):
        load_dataset(shared_data)
    write_metadata(shared_data, [GOOD, GOOD | {"start_s": 0.1, "duration_s": 0.1}])
    assert len(load_dataset(shared_data)) == 2


def test_a_file_saved_by_a_windows_editor_is_read(shared_data: Path) -> None:
    text = json.dumps([GOOD | {"text": "schöner Beat"}], ensure_ascii=False)
    (shared_data / "metadata.json").write_text(text, encoding="utf-8-sig")
    assert load_dataset(shared_data)[0].texts == ("schöner Beat",)


def test_what_an_entry_says_arrives(shared_data: Path) -> None:
    write_metadata(
        shared_data,
        [
            GOOD | {"duration_s": 0.2},
            {"audio": "train/beat0.wav", "texts": ["a", "b"], "source": "pack"}
            | {"start_s": 0, "duration_s": 0.1},
            {"audio": "train/beat1.wav", "text": "c", "split": "Test"},
        ],
    )
    whole, window, held = load_dataset(shared_data)
    # Without a start, a duration only says how long the file is.
    assert (whole.texts, whole.source, whole.split) == (("808",), "train/beat0.wav", None)
    assert (whole.start_s, whole.duration_s) == (0.0, None)
    assert (window.texts, window.source, window.duration_s) == (("a", "b"), "pack", 0.1)
    assert held.split == "validation"
    assert len({whole.name, window.name, held.name}) == 3
    parts = load_dataset(shared_data)
    assert parts_sentence(parts).startswith("Parts of files (start_s and")
    assert parts_sentence(parts[:1]) == ""


def test_a_caption_edited_by_hand_wins_over_variants_of_an_earlier_one(shared_data: Path) -> None:
    write_metadata(shared_data, [GOOD | {"texts": ["808", "808 beat"]}])
    assert load_dataset(shared_data)[0].texts == ("808", "808 beat")
    write_metadata(shared_data, [GOOD | {"text": "mine", "texts": ["808", "808 beat"]}])
    assert load_dataset(shared_data)[0].texts == ("mine",)


def test_unknown_fields_survive_a_rewrite(tmp_path: Path) -> None:
    make_dataset(tmp_path, [0.2])
    entries = read_metadata(tmp_path)
    entries[0] |= {"mood": {"a": [1, None, "🔥"]}, "rating": 4.5, "text": "été"}
    path = write_metadata(tmp_path, entries)
    write_entries(path, read_entries(path))
    assert read_metadata(tmp_path) == entries
    assert "🔥" in path.read_text(encoding="utf-8"), "a person edits this file"
    assert load_dataset(tmp_path)[0].fields == entries[0]


def clips(n_sources: int, per_source: int = 3, prefix: str = "s", **fields: Any) -> list[Clip]:
    return [
        Clip(f"{prefix}{s}_{i}.wav", Path("x"), ("a",), source=f"{prefix}{s}", **fields)
        for s in range(n_sources)
        for i in range(per_source)
    ]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("n_sources", "fraction", "n_held_out"),
    [(2, 0.1, 1), (3, 0.01, 1), (10, 0.1, 1), (20, 0.25, 5), (2, 0.9, 1)],
)
def test_sources_are_never_shared(
    n_sources: int, fraction: float, n_held_out: int, seed: int
) -> None:
    everything = clips(n_sources)
    train, held_out = split_clips(everything, fraction, seed)
    assert len({c.source for c in held_out}) == n_held_out
    assert not {c.source for c in train} & {c.source for c in held_out}
    assert sorted(c.audio for c in [*train, *held_out]) == sorted(c.audio for c in everything)
    assert train


def test_the_split_is_a_function_of_the_seed_alone() -> None:
    everything = clips(20)
    held = {c.source for c in split_clips(everything, 0.2, 1)[1]}
    assert held == {c.source for c in split_clips(everything[::-1], 0.2, 1)[1]}
    assert held != {c.source for c in split_clips(everything, 0.2, 2)[1]}


def test_the_split_hardly_moves_when_clips_are_added() -> None:
    before = {c.source for c in split_clips(clips(40), 0.2, 0)[1]}
    more_clips = clips(40, per_source=5)
    assert {c.source for c in split_clips(more_clips, 0.2, 0)[1]} == before
    grown = {c.source for c in split_clips(clips(44), 0.2, 0)[1]}
    assert len(before & grown) >= len(before) - 2


def test_too_few_sources_or_a_fraction_of_nothing_hold_out_nothing() -> None:
    assert not split_clips(clips(1), 0.5, 0)[1]
    assert not split_clips(clips(10), 0.0, 0)[1]


def test_stated_splits_are_kept() -> None:
    stated = clips(3, prefix="v", split="validation")
    train, held_out = split_clips(clips(10) + stated, 0.5, 0)
    assert list(held_out) == stated
    assert len(train) == 30
    kept = clips(3, prefix="t", split="train")
    train, held_out = split_clips(kept + clips(2), 0.9, 0)
    assert {c.source for c in kept} <= {c.source for c in train}
    assert held_out


def test_a_source_on_both_sides_is_refused() -> None:
    both = clips(1, split="train") + clips(1, split="validation")
    with pytest.raises(UserError, match=r"s0_0\.wav: its source 's0' is in both"):
        split_clips(both + clips(3, prefix="o"), 0.1, 0)


def test_a_clip_follows_the_split_that_its_source_states() -> None:
    source = [*clips(1, per_source=1, split="validation"), *clips(1)[1:]]
    train, held_out = split_clips(source + clips(2, prefix="o"), 0.1, 0)
    assert {c.source for c in held_out} == {"s0"}
    assert {c.source for c in train} == {"o0", "o1"}


def test_nothing_left_to_train_on_is_refused() -> None:
    with pytest.raises(UserError, match="nothing is left to train on"):
        split_clips(clips(3, split="validation"), 0.1, 0)
