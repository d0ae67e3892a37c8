"""What a person corrects in the table is in the metadata, and nothing else is touched."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_datasets import read_metadata, write_metadata

from musicgen_lora.errors import UserError
from musicgen_lora.runtime.locks import locked
from musicgen_lora.webui.edits import prefix_captions, replace_in_captions, row_of, save_rows

ENTRIES = [
    {
        "audio": "train/a.wav",
        "text": "trap beat, 70 bpm",
        "texts": ["trap beat, 70 bpm", "trap"],
        "bpm": 70,
        "key": "C minor",
        "mine": {"kept": [1]},
    },
    {"audio": "train/b.wav", "texts": ["drill beat", "UK drill"]},
]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    write_metadata(tmp_path / "data", ENTRIES)
    return tmp_path / "data"


def test_rows_are_saved_and_the_rest_stays(dataset: Path) -> None:
    rows = [row_of(entry) for entry in ENTRIES]
    assert rows == [
        ("train/a.wav", "trap beat, 70 bpm", "70", "C minor"),
        ("train/b.wav", "drill beat", "", ""),
    ]
    assert save_rows(dataset, rows) == 0
    changed = [
        ("train/a.wav", "  trap beat,\n140 bpm ", "140", ""),
        ("train/b.wav", "drill beat", "141.5", "F minor"),
        ("../../etc/passwd", "forged", "90", ""),
    ]
    assert save_rows(dataset, changed) == 2
    first, second = read_metadata(dataset)
    assert (first["text"], first["bpm"], first["mine"]) == (
        "trap beat, 140 bpm",
        140,
        {"kept": [1]},
    )
    assert "key" not in first
    assert second == ENTRIES[1] | {"bpm": 141.5, "key": "F minor"}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (("train/b.wav", " ", "", ""), "caption is empty"),
        (("train/b.wav", "x", "fast", ""), "'fast' is no number"),
        (("train/b.wav", "x", "nan", ""), "is no number"),
        (("train/b.wav", "x", "1e9", ""), "is no number"),
    ],
)
def test_a_wrong_row_changes_no_row(dataset: Path, row: tuple, said: str) -> None:
    good = ("train/a.wav", "other", "90", "")
    with pytest.raises(UserError, match=said):
        save_rows(dataset, [good, row])
    assert read_metadata(dataset) == ENTRIES


def test_all_captions_at_once_with_their_variants(dataset: Path) -> None:
    assert replace_in_captions(dataset, "beat", "loop") == 2
    assert prefix_captions(dataset, "mybeats,") == 2
    assert prefix_captions(dataset, "mybeats") == 0
    first, second = read_metadata(dataset)
    assert first["text"] == "mybeats, trap loop, 70 bpm"
    assert first["texts"] == ["mybeats, trap loop, 70 bpm", "mybeats, trap"]
    assert second["texts"] == ["mybeats, drill loop", "mybeats, UK drill"]
    with pytest.raises(UserError, match="caption is empty"):
        replace_in_captions(dataset, "mybeats, trap", "")
    assert read_metadata(dataset) == [first, second]
    for act in (
        lambda: replace_in_captions(dataset, "", "x"),
        lambda: prefix_captions(dataset, " "),
    ):
        with pytest.raises(UserError, match="Say what"):
            act()


def test_parts_of_one_file_are_clips_of_their_own(dataset: Path) -> None:
    parts = [
        {"audio": "mix.wav", "start_s": start, "duration_s": 10.0, "text": f"part {start}"}
        for start in (0, 10.0)
    ]
    write_metadata(dataset, parts)
    (first, *_), second = (row_of(entry) for entry in parts)
    assert save_rows(dataset, [(first, "other", "", ""), second]) == 1
    assert read_metadata(dataset) == [parts[0] | {"text": "other"}, parts[1]]


def test_not_while_a_command_writes_there(dataset: Path) -> None:
    with locked(dataset), pytest.raises(UserError, match="in use by another run"):
        prefix_captions(dataset, "x")
    assert read_metadata(dataset) == ENTRIES
