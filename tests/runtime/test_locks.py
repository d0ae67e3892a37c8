"""Folders that are moved, deleted or replaced while a command works in them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from musicgen_lora.errors import RunError, UserError
from musicgen_lora.runtime.locks import locked, staying

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows moves no folder that is in use")
GONE = r"out: was moved, deleted or replaced while it was in use"


def replaced(folder: Path) -> None:
    folder.rename(folder.with_name("away"))
    folder.mkdir()


CHANGES: dict[str, Callable[[Path], object]] = {
    "moved": lambda folder: folder.rename(folder.with_name("away")),
    "deleted": shutil.rmtree,
    "replaced": replaced,
    "its parent moved": lambda folder: folder.parent.rename(folder.parent.with_name("other")),
}


def fail_within(folder: Path, change: Callable[[Path], object], error: BaseException) -> None:
    with locked(folder):
        change(folder)
        raise error


@pytest.mark.parametrize("change", CHANGES)
def test_work_in_a_folder_that_did_not_stay_fails(change: str, tmp_path: Path) -> None:
    folder = tmp_path / "within" / "out"
    with pytest.raises(RunError, match=GONE), locked(folder):
        CHANGES[change](folder)


@pytest.mark.parametrize("change", CHANGES)
def test_that_is_the_cause_of_what_fails_then(change: str, tmp_path: Path) -> None:
    folder = tmp_path / "within" / "out"
    with pytest.raises(RunError, match=GONE) as caught:
        fail_within(folder, CHANGES[change], UserError("a.wav: no such audio file."))
    assert "a.wav" in str(caught.value.__cause__)


@pytest.mark.parametrize("error", [UserError("a.wav: is empty."), KeyboardInterrupt()])
def test_other_faults_stay_what_they_are(error: BaseException, tmp_path: Path) -> None:
    with pytest.raises(type(error)), locked(tmp_path / "out"):
        raise error


def test_a_stop_stays_a_stop(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fail_within(tmp_path / "out", shutil.rmtree, KeyboardInterrupt())


def test_a_folder_that_comes_back_has_stayed(tmp_path: Path) -> None:
    """As when a drive was away for a moment."""
    with staying(tmp_path / ".") as check:
        tmp_path.rename(tmp_path.with_name("away"))
        with pytest.raises(RunError, match="was moved"):
            check()
        tmp_path.with_name("away").rename(tmp_path)
        check()
