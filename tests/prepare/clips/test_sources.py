"""Files that belong together have one source, and no source is on both sides of the split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_datasets import RATE
from prepared.analyses import analysis

from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.listening.duplicates import FINGERPRINT_HOP_S, audio_fingerprint
from musicgen_lora.prepare.clips.sources import HeardSources, hear_sources, settle_sources
from musicgen_lora.prepare.reading.inputs import Input
from musicgen_lora.prepare.reading.remarks import (
    AUDIO_SHARED,
    SOURCE_DIVIDED,
    SOURCES_JOINED,
    Remarks,
)
from musicgen_lora.prepare.words.facts import Facts


def file(name: str, source: str | None = None, split: str | None = None) -> Input:
    return Input(Path(name), name, f"#{name}", None, (Facts(source=source),), (), split)


def settled(
    *files: Input, heard: dict[str, str] | None = None, listed: dict[str, set] | None = None
) -> tuple[dict[str, str], Remarks]:
    """Sources by name; `heard` has those that sound like another."""
    remarks = Remarks(Path())
    by_digest = {f.digest: (heard or {}).get(f.name, f.name) for f in files}
    sources = settle_sources(files, by_digest, listed or {}, remarks)
    return {f.name: sources[f.digest] for f in files}, remarks


def test_stated_and_heard_sources_are_joined() -> None:
    found, remarks = settled(
        file("a", "one"), file("b", "two"), file("c", "two"), file("d"), heard={"b": "a", "d": "c"}
    )
    assert len(set(found.values())) == 1
    assert set(found.values()) <= {"one", "two"}
    assert len(remarks.items(SOURCES_JOINED)) == 1


def test_what_the_dataset_calls_a_source_stays() -> None:
    found, remarks = settled(
        file("a", "album"), file("b", "album"), heard={"a": "old.wav"}, listed={"old.wav": set()}
    )
    assert found == {"a": "old.wav", "b": "old.wav"}
    assert remarks.items(SOURCES_JOINED) == ["album with old.wav"]


def test_files_alone_are_their_own_source() -> None:
    found, remarks = settled(file("a"), file("b"), heard={"b": "a"})
    assert found == {"a": "a", "b": "a"}
    assert remarks.as_json() == []


def test_a_divided_source_is_two() -> None:
    files = [file("a", "x", "train"), file("b", "x", "test"), file("c", "x"), file("d", "x", "val")]
    found, remarks = settled(*files)
    assert found == {"a": "x (train)", "b": "x", "c": "x", "d": "x"}
    assert remarks.items(SOURCE_DIVIDED) == ["x"]


def test_a_source_that_is_listed_keeps_its_name_for_its_side() -> None:
    files = [file("a", "x", "train"), file("b", "x", "test"), file("c", "x")]
    found, remarks = settled(*files, listed={"x": {"train"}})
    assert found == {"a": "x", "b": "x (held out)", "c": "x"}
    assert remarks.items(SOURCE_DIVIDED) == ["x"]


@pytest.fixture(scope="module")
def heard() -> dict[str, np.ndarray]:
    """Fingerprints of two beats and of a mix of both."""
    beats = [render_beat(make_beat((91, i), duration_s=12.0), RATE, seed=i) for i in range(2)]
    mix = np.concatenate(beats, axis=1)
    return {name: audio_fingerprint(w, RATE) for name, w in zip("abm", [*beats, mix], strict=True)}


def hear(
    prints: dict[str, np.ndarray], listed: dict[str, str], sides: dict[str, set] | None = None
) -> tuple[HeardSources, Remarks]:
    """The sources that are heard when `m` is added to the listed files."""
    remarks = Remarks(Path())
    records = {
        name: analysis(duration_s=len(row) * FINGERPRINT_HOP_S) for name, row in prints.items()
    }
    own = {name: name for name in prints if name not in listed}
    found = hear_sources(
        records, prints, own, listed, fresh=set(own), sides=sides or {}, remarks=remarks
    )
    return found, remarks


def test_a_mix_joins_the_beats_that_the_dataset_lists(heard: dict[str, np.ndarray]) -> None:
    found, remarks = hear(heard, {"a": "A", "b": "B"})
    assert found.sources == {"a": "A", "b": "A", "m": "A"}
    assert found.renamed == {"B": "A"}
    assert len(remarks.items(AUDIO_SHARED)) == 2


def test_sources_that_stated_splits_part_stay_and_it_is_said(heard: dict[str, np.ndarray]) -> None:
    sides = {"A": {"train"}, "B": {"validation"}}
    found, remarks = hear(heard, {"a": "A", "b": "B"}, sides)
    assert found.renamed == {}
    assert found.sources["b"] == "B"
    assert remarks.items(SOURCE_DIVIDED) == ["A, B"]


def test_nothing_new_changes_nothing(heard: dict[str, np.ndarray]) -> None:
    found, remarks = hear(heard, {"a": "A", "b": "B", "m": "M"})
    assert found.renamed == {}
    assert remarks.as_json() == []
