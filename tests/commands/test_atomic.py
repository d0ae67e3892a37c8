"""Files as a user would find them."""

from __future__ import annotations

import errno
import json
import os
from functools import partial
from pathlib import Path

import pytest
from harm.kills import Killed, contents, kill_at

from musicgen_lora import atomic
from musicgen_lora.errors import RunError


def test_json_is_indented_and_keeps_its_letters(tmp_path: Path) -> None:
    value, path = {"a": ["schön \U0001f525", None, {}]}, tmp_path / "a.json"
    atomic.write_json(path, value)
    expected = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    assert path.read_text(encoding="utf-8") == expected


@pytest.mark.parametrize("place", ["few", "many"])
def test_what_is_not_json_is_refused(place: str, tmp_path: Path) -> None:
    value = [float("nan")] * (1 if place == "few" else 1_000)
    with pytest.raises(ValueError, match="not JSON compliant"):
        atomic.write_json(tmp_path / "a.json", {"a": value})
    assert not list(tmp_path.iterdir())


OLD = {"page": "old", "audio/1": "old", "audio/2": "old", "mine": "mine", "audio/mine": "mine"}
NEW = {"page": "new", "audio/1": "new", "audio/3": "new", "mine": "mine", "audio/mine": "mine"}


def publish_new(folder: Path) -> None:
    def fill(staging: Path) -> None:
        (staging / "audio").mkdir()
        for name in ("page", "audio/1", "audio/3"):
            (staging / name).write_text("new")

    atomic.publish_files(folder, fill, lambda _: ["page", "audio/1", "audio/2"])


@pytest.mark.parametrize("call", range(9))
def test_files_are_published_all_or_none_wherever_it_is_killed(call: int, tmp_path: Path) -> None:
    for name, text in OLD.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        made = kill_at(call, patch)
        try:
            publish_new(tmp_path)
        except Killed:
            assert made[0] == "rename", "the commit is the first change"
    if call == 0:
        # Nothing that was there has changed yet, and only the sweep removes what is new.
        there = contents(tmp_path)
        assert {name: there[name] for name in OLD} == OLD
    atomic.sweep(tmp_path)
    assert contents(tmp_path) == (NEW if call else OLD)
    assert {path.name for path in tmp_path.iterdir()} == {"page", "audio", "mine"}


def test_an_obsolete_file_outside_of_the_folder_stays(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "out").write_text("mine")
    atomic.publish_files(folder, lambda staging: None, lambda _: ["../out"])
    assert (tmp_path / "out").is_file()


def test_files_that_belong_together_are_written_all_or_none(tmp_path: Path) -> None:
    first, second = tmp_path / "a.wav", tmp_path / "b" / "a.json"

    def full(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    first.write_text("before")
    with pytest.raises(RunError, match=r"a\.json: cannot be written"):
        atomic.write_files({first: lambda path: path.write_text("after"), second: full})
    assert contents(tmp_path) == {"a.wav": "before"}
    atomic.write_files({path: lambda path: path.write_text("after") for path in (first, second)})
    assert contents(tmp_path) == {"a.wav": "after", "b/a.json": "after"}


def test_a_card_that_was_edited_is_no_fault_and_a_weight_is(tmp_path: Path) -> None:
    def fill(staging: Path) -> None:
        for name in ("README.md", "a.json"):
            (staging / name).write_text("made")

    atomic.publish_folder(tmp_path / "best", fill)
    for name, faults in (("README.md", []), ("a.json", ["a.json"])):
        (tmp_path / "best" / name).write_text("mine")
        assert atomic.manifest_faults(tmp_path / "best") == faults


@pytest.mark.parametrize("relative", [True, False])
def test_a_link_is_followed_and_stays(relative: bool, tmp_path: Path) -> None:
    """People keep big folders on another disk."""
    big, run = tmp_path / "disk", tmp_path / "run"
    for folder in (big, run):
        folder.mkdir()
    best = run / "best_model"
    best.symlink_to("../disk/best" if relative else big / "best")
    for text in ("one", "two"):
        atomic.publish_folder(best, lambda staging, text=text: (staging / "a").write_text(text))
        assert best.is_symlink()
        assert (big / "best" / "a").read_text() == text
        assert not atomic.manifest_faults(best)
    # What a kill leaves lies beside the folder, among other people's.
    (big / ".staging-99-best").mkdir()
    others = {".staging-99-other", ".staging-99-other-best"}
    for name in others:
        (big / name).mkdir()
    os.rename(big / "best", big / ".retired-best")
    atomic.sweep_behind_link(best)
    assert {path.name for path in big.iterdir()} == {"best", *others}


def test_what_an_ended_worker_was_writing_goes_with_the_run_that_failed(tmp_path: Path) -> None:
    def work() -> None:
        (tmp_path / "clip.wav").write_text("whole")
        (tmp_path / ".staging-99-1_clip.wav").write_text("half")
        raise OSError("full")

    with pytest.raises(OSError, match="full"), atomic.swept(tmp_path, tmp_path / "none"):
        work()
    assert [path.name for path in tmp_path.iterdir()] == ["clip.wav"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
@pytest.mark.parametrize("how", ["files", "folder"])
def test_what_fails_on_the_way_is_told_of_its_own_place(
    how: str, number: int, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()

    def fail(temporary: Path) -> None:
        raise OSError(number, os.strerror(number), str(temporary))

    def fill(staging: Path) -> None:
        atomic.write_file(staging / "audio" / "1.wav", fail)

    publish = partial(atomic.publish_files, obsolete=lambda _: [])
    if how == "folder":
        publish = atomic.publish_folder
    with pytest.raises((RunError, OSError), match=r"out") as raised:
        publish(folder, fill=fill)
    assert ".staging" not in str(raised.value)
    assert list(tmp_path.rglob("*")) == [folder]


LONG = [
    "x" * 251 + ".wav",
    "\N{CJK UNIFIED IDEOGRAPH-9F13}" * 85,
    "\N{CJK UNIFIED IDEOGRAPH-9F13}" * 83 + ".json",
]


@pytest.mark.parametrize("name", LONG, ids=["latin", "chinese", "chinese with an ending"])
def test_a_name_may_be_as_long_as_the_disk_allows(name: str, tmp_path: Path) -> None:
    """The temporary name beside it is no longer than it; writers go by its suffix."""
    endings = []

    def write(temporary: Path) -> None:
        endings.append(temporary.suffix)
        temporary.write_text("new")

    for _ in range(2):
        atomic.write_file(tmp_path / name, write)
    assert endings == [Path(name).suffix] * 2
    assert (tmp_path / name).read_text() == "new"
    (tmp_path / name).unlink()
    left: list[Path] = []

    def fill(staging: Path) -> None:
        left.extend(atomic.stagings_of(tmp_path / name))
        (staging / "a").write_text("new")

    for _ in range(2):
        atomic.publish_folder(tmp_path / name, fill)
    assert len(left) == 2
    assert not atomic.manifest_faults(tmp_path / name)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / name)
    os.rename(tmp_path / name, atomic.retired_name(tmp_path / name))
    atomic.sweep_behind_link(link)
    link.unlink()
    atomic.remove_folder(tmp_path / name)
    assert not list(tmp_path.iterdir())
