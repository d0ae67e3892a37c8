"""What a person corrects in the table is in the metadata, and nothing else is touched."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_datasets import read_metadata, write_metadata

from musicgen_lora.errors import UserError
from musicgen_lora.runtime.locks import locked
from musicgen_lora.webui.edits import (
    Row,
    mark_of,
    prefix_captions,
    replace_in_captions,
    row_of,
    save_rows,
)

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


def read_now(dataset: Path) -> dict[str, str]:
    """The marks of a table loaded at this moment."""
    return {row[0]: mark_of(row) for row in map(row_of, read_metadata(dataset))}


def save(dataset: Path, rows: list[Row]) -> int:
    return save_rows(dataset, rows, read_now(dataset))


def test_rows_are_saved_and_the_rest_stays(dataset: Path) -> None:
    rows = [row_of(entry) for entry in ENTRIES]
    assert rows == [
        ("train/a.wav", "trap beat, 70 bpm", "70", "C minor"),
        ("train/b.wav", "drill beat", "", ""),
    ]
    assert save(dataset, rows) == 0
    changed = [
        ("train/a.wav", "  trap beat,\n140 bpm ", "140", ""),
        ("train/b.wav", "drill beat", "141.5", "F minor"),
        ("../../etc/passwd", "forged", "90", ""),
    ]
    assert save(dataset, changed) == 2
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
        (("train/b.wav", "x", "fast", ""), "'fast' is not a number"),
        (("train/b.wav", "x", "nan", ""), "is not a number"),
        (("train/b.wav", "x", "1e9", ""), "is not a number"),
        (("train/b.wav", "x", "", "H minor"), "train/b.wav: 'H minor': no such key"),
        (("train/b.wav", "x", "", "C minor?"), "'C minor\\?': no such key"),
    ],
)
def test_a_wrong_row_changes_no_row(dataset: Path, row: tuple, said: str) -> None:
    good = ("train/a.wav", "other", "90", "")
    with pytest.raises(UserError, match=said):
        save(dataset, [good, row])
    assert read_metadata(dataset) == ENTRIES


def test_keys_are_written_as_the_metadata_has_them(dataset: Path) -> None:
    a, b = map(row_of, ENTRIES)
    for typed, key in (("c#m", "C# minor"), ("降B大调", "Bb major"), ("8A", "A minor")):
        assert save(dataset, [a, (*b[:3], typed)]) == 1
        assert read_metadata(dataset)[1]["key"] == key
    # One that a program wrote, and that nobody touches, stays.
    write_metadata(dataset, [ENTRIES[0] | {"key": "unknown"}])
    (odd,) = map(row_of, read_metadata(dataset))
    assert save(dataset, [(odd[0], "other", *odd[2:])]) == 1
    assert read_metadata(dataset)[0]["key"] == "unknown"


def test_a_table_that_was_read_earlier_takes_nothing_back(dataset: Path) -> None:
    """Another tab has corrected a clip, or a preparation has rewritten its caption."""
    a, b = map(row_of, ENTRIES)
    read = read_now(dataset)
    assert save(dataset, [("train/a.wav", "a trap loop", "140", "C minor")]) == 1
    meanwhile = read_metadata(dataset)
    # Nobody has touched the row; and one of another clip, and another field, are saved beside it.
    assert save_rows(dataset, [a, b], read) == 0
    assert read_metadata(dataset) == meanwhile
    assert save_rows(dataset, [a, (b[0], "UK drill loop", *b[2:])], read) == 1
    assert save_rows(dataset, [(*a[:3], "D minor"), b], read) == 1
    first, second = read_metadata(dataset)
    assert (first["text"], first["bpm"], first["key"]) == ("a trap loop", 140, "D minor")
    assert second["text"] == "UK drill loop"
    with pytest.raises(UserError, match=r"train/a\.wav: has changed since this table was loaded"):
        save_rows(dataset, [(a[0], "my trap", *a[2:]), (b[0], "x", "", "")], read)
    assert read_metadata(dataset) == [first, second]
    # A row of which nobody knows what it was is as good as none.
    with pytest.raises(UserError, match="has changed since this table was loaded"):
        save_rows(dataset, [(b[0], "x", "", "")], {})


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
        with pytest.raises(UserError, match="Enter"):
            act()


def test_parts_of_one_file_are_clips_of_their_own(dataset: Path) -> None:
    parts = [
        {"audio": "mix.wav", "start_s": start, "duration_s": 10.0, "text": f"part {start}"}
        for start in (0, 10.0)
    ]
    write_metadata(dataset, parts)
    (first, *_), second = (row_of(entry) for entry in parts)
    assert save(dataset, [(first, "other", "", ""), second]) == 1
    assert read_metadata(dataset) == [parts[0] | {"text": "other"}, parts[1]]


def test_not_while_a_command_writes_there(dataset: Path) -> None:
    with locked(dataset), pytest.raises(UserError, match="in use by another run"):
        prefix_captions(dataset, "x")
    assert read_metadata(dataset) == ENTRIES


def test_the_table_of_the_page_carries_what_it_was_read_as(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gr = pytest.importorskip("gradio", reason="the page's library is not installed (make ui)")
    from musicgen_lora.webui.page import Page
    from musicgen_lora.webui.safety import id_of
    from musicgen_lora.webui.tabs.clips import ClipTable
    from musicgen_lora.webui.words import Words
    from musicgen_lora.webui.workspace import Workspace

    monkeypatch.setattr(gr, "Info", lambda *_, **__: None)
    work = Workspace(dataset.parent / "workspace", start=lambda place: None)
    dataset.rename(work.datasets / "beats")
    with gr.Blocks():
        table = ClipTable(Page(work, Words("en"), gr.Timer(1), work.root / "uploads"))
    wanted = id_of("beats")
    one, other = table.rows(wanted), table.rows(wanted)
    one[0][1] = "a trap loop"
    assert table.save(wanted, one)[0][1] == "a trap loop"
    other[1][2] = "141"
    assert [row[1:3] for row in table.save(wanted, other[::-1])] == [
        ["a trap loop", "70"],
        ["drill beat", "141"],
    ]
    other[0][1] = "my loop"
    with pytest.raises(UserError, match="since this table was loaded"):
        table.save(wanted, other)
