"""Whether a run's data are those of another: what makes an unfinished run go on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from musicgen_lora.config import TrainSettings
from musicgen_lora.dataset.metadata import Clip, Clips, is_held_out, split_rows
from musicgen_lora.evaluation.held_out import _trained
from musicgen_lora.model.lora.facts import AdapterFacts
from musicgen_lora.training.record import identity as record
from musicgen_lora.training.record.identity import data_facts, run_identity

BASE = [
    Clip("a.wav", Path("/data"), ("808", "trap"), "pack"),
    Clip("b.wav", Path("/data"), ("", "schön 🔥"), "b.wav", "validation"),
    Clip("c.wav", Path("/data"), ("boom bap",), "pack", "train", 1.0, 2.0, '{"x": 1}'),
]
IDS = ["id0", "id1", "id2"]


def identity(clips: list[Clip] | Clips, ids: list[str] = IDS, **changes: object) -> str:
    return run_identity(TrainSettings(**changes), "base", Clips.of(clips), ids)  # pyright: ignore[reportArgumentType]


def changed(row: int, **values: object) -> list[Clip]:
    return [clip._replace(**values) if i == row else clip for i, clip in enumerate(BASE)]  # pyright: ignore[reportArgumentType]


def test_each_part_of_the_data_counts() -> None:
    others = [
        identity(changed(0, texts=("808t", "rap"))),
        identity(changed(0, texts=("808",))),
        identity(
            [*changed(0, texts=("808",))[:1], *changed(1, texts=("trap", "", "schön 🔥"))[1:]]
        ),
        identity(changed(0, source="b.wav")),
        identity(changed(0, split="")),
        identity(changed(1, split=None)),
        identity(changed(1, split="train")),
        identity(BASE, ["id0", "id", "1id2"]),
        identity(BASE[::-1], IDS[::-1]),
        identity(BASE[:2], IDS[:2]),
        identity(BASE, seed=7),
        # Windows begin on bar lines.
        identity(changed(0, entry='{"bpm": 140}')),
        identity(changed(0, entry='{"bpm": 141}')),
        identity(changed(0, entry='{"bpm": 140, "first_bar_s": 0.5}')),
        identity(changed(1, entry='{"bpm": 140}')),
    ]
    assert len({identity(BASE), *others}) == 1 + len(others)


def test_what_changes_no_result_does_not_count() -> None:
    assert identity(changed(2, entry='{"mood": "dark"}')) == identity(BASE)
    assert identity(changed(2, entry='{"made": {"bpm": "a46e37632fa6"}}')) == identity(BASE)
    assert identity(BASE, output_dir="elsewhere") == identity(BASE)
    assert identity(BASE, from_tokens=True) == identity(BASE)


def test_the_order_of_settings_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    before, plain = identity(BASE), record.plain_settings
    monkeypatch.setattr(record, "plain_settings", lambda s: dict(reversed(plain(s).items())))
    assert identity(BASE) == before


def test_a_folder_is_the_same_whichever_way_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "base").mkdir()
    monkeypatch.chdir(tmp_path)
    relative = identity(BASE, data_dir="data", model_path="base")
    assert relative == identity(BASE, data_dir=tmp_path / "data", model_path=f"{tmp_path}/base")
    assert relative == identity(BASE, data_dir="moved", model_path="./base")
    assert relative != identity(BASE, data_dir="data", model_path="other")


@pytest.mark.parametrize("rows", [[0, 1, 2], [1, 2], [2, 0], [1]])
def test_rows_of_a_larger_dataset_are_those_rows(rows: list[int]) -> None:
    ids = [IDS[row] for row in rows]
    taken, listed = Clips.of(BASE).take(rows), [BASE[row] for row in rows]
    assert identity(taken, ids) == identity(listed, ids)
    every = np.arange(len(rows))
    facts = [
        data_facts(TrainSettings(), Clips.of(clips), ids, every, every) for clips in (taken, listed)
    ]
    assert facts[0] == facts[1]
    assert [clip["text"] for clip in facts[0]["validation"]] == [BASE[r].texts[0] for r in rows]
    assert sorted(facts[0]["captions"]) == sorted({BASE[r].texts[0] for r in rows})
    edited = changed(rows[0], entry='{"mood": "dark"}')
    other = Clips.of(edited).take(rows)
    fingerprint = data_facts(TrainSettings(), other, ids, np.arange(0), np.arange(0))["fingerprint"]
    assert fingerprint != facts[0]["fingerprint"]


def test_what_an_adapter_carries_does_not_grow_with_the_dataset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = [Clip(f"{n}.wav", Path("/data"), ("808",), f"beat {n // 2}") for n in range(200)]
    clips = Clips.of(files)
    ids = [str(number) for number in range(200)]
    settings = TrainSettings(seed=3)
    train, held_out = split_rows(clips, 0.2, settings.seed)
    monkeypatch.setattr(record, "MAX_NAMED", 7)
    known = data_facts(settings, clips, ids, train, held_out)
    assert known["n_validation"] == len(held_out) == 40
    named = {entry["audio"] for entry in known["validation"]}
    assert 5 <= len(named) <= 7
    assert named <= {clips[row].audio for row in held_out}
    # And who else was held out, one hash tells.
    rule = known["held_out_seed"], known["held_out_bound"]
    assert [row for row in range(200) if is_held_out(clips[row], *rule)] == held_out.tolist()
    adapter = AdapterFacts({"base": {}, "data": known})
    assert adapter.held_out_rule == rule
    trained = _trained(list(clips), [], adapter)
    assert [clip.audio for clip in trained] == [clips[row].audio for row in train]
