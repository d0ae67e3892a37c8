"""A renamed run still works as one's own, and no other run is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from musicgen_lora.errors import UserError
from musicgen_lora.runtime.locks import locked
from musicgen_lora.training.record.run import FINISHED, INTERRUPTED, Run, is_own_run
from musicgen_lora.webui.renames import rename_run
from musicgen_lora.webui.safety import id_of

DATA = {"data_dir": "/data"}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs, the first with an earlier one inside; beside them a link to a third."""
    for name in ("runs/one", "runs/one/previous/2026", "runs/two", "outside"):
        folder = tmp_path / name
        (folder / "best_model").mkdir(parents=True)
        home = tmp_path / "runs" / "one" if "previous" in name else folder
        Run(FINISHED, name, output_dir=str(home.resolve()), data=DATA).write(folder)
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "outside")
    return tmp_path / "runs"


def is_own(folder: Path) -> bool:
    run = Run.read(folder)
    assert run is not None
    return is_own_run(folder / "best_model", {"identity": run.identity, "data": DATA})


def test_a_renamed_run_is_still_ones_own(runs: Path) -> None:
    assert rename_run(runs, id_of("one"), " My ../run ") == "My run"
    assert not (runs / "one").exists()
    assert is_own(runs / "My run")
    assert is_own(runs / "My run" / "previous" / "2026")
    assert is_own(runs / "two")


@pytest.mark.parametrize(
    ("wanted", "typed", "said"),
    [
        (id_of("one"), "two", "two: already exists"),
        (id_of("one"), "link", "link: already exists"),
        (id_of("one"), "../..", "Enter the run's"),
        (id_of("one"), None, "Enter the run's"),
        (id_of("link"), "new", "no longer exists"),
        ("../outside", "new", "no longer exists"),
    ],
)
def test_wrong_names_change_nothing(runs: Path, wanted: str, typed: object, said: str) -> None:
    before = sorted(path.name for path in runs.parent.rglob("*"))
    with pytest.raises(UserError, match=said):
        rename_run(runs, wanted, typed)
    assert sorted(path.name for path in runs.parent.rglob("*")) == before


def test_not_before_it_is_finished_nor_while_it_is_used(runs: Path) -> None:
    with locked(runs / "two"), pytest.raises(UserError, match="in use by a command"):
        rename_run(runs, id_of("two"), "new")
    Run(INTERRUPTED, "two", output_dir=str(runs / "two")).write(runs / "two")
    with pytest.raises(UserError, match="once it is finished"):
        rename_run(runs, id_of("two"), "new")
    assert (runs / "two").is_dir()
