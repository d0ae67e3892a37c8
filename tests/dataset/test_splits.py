"""Names of splits are defined in one place, and nothing is guessed."""

from __future__ import annotations

import pytest

from musicgen_lora.dataset.splits import (
    HELD_OUT_NAMES,
    TRAIN_NAMES,
    find_split,
    normalise_split,
    split_of_folders,
)
from musicgen_lora.errors import UserError
from musicgen_lora.prepare.report.findings import dataset_advice


@pytest.mark.parametrize("spelling", [str, str.upper, str.title, "  {} ".format])
def test_names_mean_the_same_however_they_are_written(spelling) -> None:
    for name in TRAIN_NAMES:
        assert normalise_split(spelling(name), "here") == "train"
    for name in HELD_OUT_NAMES:
        assert normalise_split(spelling(name), "here") == "validation"
    assert {"eval", "evaluation", "testing", "held_out", "holdout"} <= set(HELD_OUT_NAMES)
    for name in ("held-out", "Held Out", "HOLD  OUT"):
        assert normalise_split(name, "here") == "validation"


@pytest.mark.parametrize("value", ["tset", "unsplit", "0", 0, 1, True, ["test"], "train,test"])
def test_unknown_names_are_refused_with_those_that_are_known(value: object) -> None:
    with pytest.raises(UserError) as error:
        normalise_split(value, "metadata.csv, line 3")
    message = str(error.value)
    assert message.startswith("metadata.csv, line 3")
    assert all(name in message for name in (*TRAIN_NAMES, *HELD_OUT_NAMES))


@pytest.mark.parametrize("value", [None, "", "  ", float("nan")])
def test_nothing_states_nothing(value: object) -> None:
    assert normalise_split(value, "here") is None


@pytest.mark.parametrize(
    ("folders", "split"),
    [
        (("pack", "Test", "train"), "test"),
        (("data", "test-00000-of-00002"), "test"),
        (("data", "validation-00001-of-00002"), "validation"),
        (("Held Out",), "held_out"),
        (("tests", "trainers", "contest", "dev kit"), None),
        ((), None),
    ],
)
def test_folders_name_splits(folders: tuple[str, ...], split: str | None) -> None:
    assert split_of_folders(folders) == split
    assert split is None or find_split(split) is not None


def test_a_dataset_that_is_all_train_is_advised_against() -> None:
    entries = [{"audio": f"{i}.wav", "text": "beat", "split": "Train"} for i in range(3)]
    assert any("nothing is held out" in line for line in dataset_advice(entries))
    entries[0]["split"] = "eval"
    assert not any("nothing is held out" in line for line in dataset_advice(entries))
    del entries[0]["split"]
    assert not any("nothing is held out" in line for line in dataset_advice(entries))
