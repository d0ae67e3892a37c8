"""The cache of an evaluation: entries are found again, size-limited, and never confused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from musicgen_lora.evaluation.store import Store, key_of


def entry(value: int) -> dict[str, np.ndarray]:
    return {"codes": np.full((4, 100), value, np.int16), "scale": np.array(0.5 * value)}


def test_what_is_put_in_is_found_by_another_process(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    assert store.get("clips", key_of("a")) is None
    store.put("clips", {key_of("a"): entry(1), key_of("b"): entry(2)})
    again = Store(tmp_path / "cache")
    found = again.get("clips", key_of("b"))
    assert found is not None
    np.testing.assert_array_equal(found["codes"], entry(2)["codes"])
    assert found["scale"] == 1.0
    assert again.told() == {
        "folder": "cache",
        "reused": {"clips": 1},
        "made": {},
        "damaged": [],
    }


def test_keys_are_of_all_facts_and_their_order() -> None:
    facts = [("a", "b"), ("b", "a"), ("ab",), (b"a", b"b"), ("a", 0.5), ("a", None), (["a", "b"],)]
    assert len({key_of(*own) for own in facts}) == len(facts)
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})


@pytest.mark.parametrize("fault", ["cut", "bit", "other", "empty"])
def test_a_damaged_file_is_no_entry_and_is_named(fault: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("clips", {key_of("a"): entry(1)})
    store.put("losses", {key_of("b"): entry(2)})
    (path,) = tmp_path.glob("clips-*")
    content = bytearray(path.read_bytes())
    if fault == "bit":
        content[-3] ^= 1
    kept = {
        "cut": content[:-10],
        "bit": content,
        "other": next(tmp_path.glob("losses-*")).read_bytes(),
        "empty": b"",
    }
    path.write_bytes(kept[fault])
    again = Store(tmp_path)
    assert again.damaged == [path.name]
    assert again.get("clips", key_of("a")) is None
    assert again.get("losses", key_of("b")) is not None
    assert not path.exists()


def test_the_oldest_go_where_there_is_no_room(tmp_path: Path) -> None:
    size = len(b"".join(array.tobytes() for array in entry(0).values()))
    store = Store(tmp_path, max_bytes=4 * size)
    for number in range(10):
        store.put("clips", {key_of(number): entry(number)})
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 4 * size
    again = Store(tmp_path, max_bytes=4 * size)
    assert again.get("clips", key_of(9)) is not None
    assert again.get("clips", key_of(0)) is None


def test_what_others_put_into_the_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".staging-0123-clips").write_bytes(b"half")
    store = Store(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not (tmp_path / ".staging-0123-clips").exists()
    assert store.damaged == []


def test_without_a_folder_nothing_is_written(tmp_path: Path) -> None:
    store = Store(None)
    store.put("clips", {key_of("a"): entry(1)})
    assert store.get("clips", key_of("a")) is not None
    assert store.told()["folder"] is None
