"""Clips of `generate` and `evaluate`: the same in this process, in a pool and on Ray."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapters import draw_adapter
from made_datasets import files_below

from musicgen_lora.cli import main
from musicgen_lora.cluster.engine import Engine, Processes
from musicgen_lora.evaluation.generations import play_prompts
from musicgen_lora.evaluation.performers import base_performer, place, variant_performers
from musicgen_lora.evaluation.play_tasks import ClipKind
from musicgen_lora.evaluation.store import Store
from musicgen_lora.evaluation.variants import ALONE, Variant, read_variant
from musicgen_lora.generation import generate
from musicgen_lora.generation.decoding.sampling import Sampling
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.runtime.workers import Failure, Work

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra scale")


@pytest.fixture(autouse=True)
def cache(workers_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for whoever plays: forms of products that were chosen by timing are kept in it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(workers_cache))


@pytest.fixture(params=["a pool", pytest.param("ray", marks=pytest.mark.slow)])
def players(request: pytest.FixtureRequest) -> Engine:
    """Engines that play for `generate` and `evaluate`."""
    return request.getfixturevalue("ray_engine") if request.param == "ray" else Processes(1)


def play(folder: Path, model: Path, *words: Any) -> int:
    rows = [{"prompt": "808"}, {"prompt": "trap"}, {"prompt": "poison", "duration": 0.2}]
    rows += [{"prompt": "a loop", "bpm": 240, "bars": 1, "variations": 2, "loop_tries": 1}]
    (folder.parent / "rows.json").write_text(json.dumps(rows))
    given = ["--base_model_path", model, "--output_dir", folder, "--duration", "0.3"]
    given += ["--prompts_file", folder.parent / "rows.json", *words]
    return main(["generate", *map(str, given)])


def test_clips_are_the_same_whoever_plays_them_and_what_is_there_is_kept(
    players: Engine,
    tmp_path: Path,
    tiny_model_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: Any,
) -> None:
    assert play(tmp_path / "here", tiny_model_dir) == 0
    monkeypatch.setattr(generate, "open_engine", lambda _: nullcontext(players))
    assert play(tmp_path / "there", tiny_model_dir, "--ray", "local") == 0
    expected = files_below(tmp_path / "here")
    assert sum(name.endswith(".wav") for name in expected) == 5
    assert files_below(tmp_path / "there") == expected
    assert "Kept" not in capfd.readouterr().out
    for folder, words in (("here", []), ("there", ["--ray", "local"])):
        break_off(tmp_path / folder)
        kept = {path: path.stat().st_mtime_ns for path in (tmp_path / folder).iterdir()}
        assert play(tmp_path / folder, tiny_model_dir, *words) == 0
        assert files_below(tmp_path / folder) == expected
        said = capfd.readouterr().out
        assert "Kept from before: 2 of 5 clips." in said
        (altered,) = (tmp_path / folder).glob("trap_*.wav")
        assert f"{altered.name}: was altered after" in " ".join(said.split())
        changed = {path.stem for path in kept if path.stat().st_mtime_ns != kept[path]}
        assert changed == {altered.stem}
        # Of other settings, all are others.
        assert play(tmp_path / folder, tiny_model_dir, *words, "--temperature", "0.9") == 0
        assert "Kept" not in capfd.readouterr().out
        assert len(list((tmp_path / folder).glob("*.wav"))) == 10


def break_off(folder: Path) -> None:
    """What an interruption or a person may leave: two sounds are gone, and one is altered."""
    for pattern in ("808_*", "*_02.*"):
        gone = list(folder.glob(pattern))
        assert {path.suffix for path in gone} == {".wav", ".json"}
        for path in gone:
            path.unlink()
    (altered,) = folder.glob("trap_*.wav")
    altered.write_bytes(altered.read_bytes() + b"0")


def test_what_is_asked_for_beside_a_clip_is_made_where_it_is_lacking(
    tmp_path: Path, tiny_model_dir: Path, capfd: Any
) -> None:
    words = ["generate", "--base_model_path", tiny_model_dir, "--output_dir", tmp_path]
    words += ["--prompts", "808", "--duration", "0.3"]
    told = []
    for more in ([], ["--midi"], ["--midi"], []):
        assert main([*map(str, words), *more]) == 0
        told.append("Kept from before: 1 of 1 clip." in capfd.readouterr().out)
    assert told == [False, False, True, True]
    assert {path.suffix for path in tmp_path.iterdir()} >= {".wav", ".json", ".mid"}


class Fragile(Processes):
    """A task with a poisoned prompt costs its worker its life."""

    def run(self, work: Work, tasks: Any, *given: Any, **more: Any) -> Iterator[tuple[int, Any]]:
        for index, task in enumerate(tasks):
            is_bad = any("poison" in order.settings.prompts for _, order in task.rows)
            bad = Failure("crashed its reader.")
            yield index, bad if is_bad else work(task, lambda *_: None)


def test_a_clip_that_kills_its_workers_costs_no_other_clip(
    tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setattr(generate, "open_engine", lambda _: nullcontext(Fragile(0)))
    words = ["--ray", "local", "--prompts", "808", "poison", "trap"]
    assert play(tmp_path / "out", tiny_model_dir, *words) == 1
    said = capfd.readouterr()
    assert (
        '2 of 8 clips failed; all others are written. The first failure: The prompt "poison" with'
        in said.err
    )
    assert len(list((tmp_path / "out").glob("*.wav"))) == 6


def test_an_evaluation_plays_the_same_by_whomever(
    players: Engine, tmp_path: Path, tiny_model_dir: Path
) -> None:
    folder = draw_adapter(tiny_model_dir, tmp_path / "adapter")
    model = BaseModel.load(tiny_model_dir)
    place(model)

    def codes(engine: Engine | None) -> list[np.ndarray]:
        base = base_performer(model, Store(), "int8")
        variant = Variant(ALONE, "", read_variant(folder), 0.5)
        return [
            own
            for performer in (base, *variant_performers(base, [variant]))
            for own in play_prompts(
                performer,
                ["808", "trap", "drill"],
                ClipKind(model.shape.frames(0.3), Sampling()),
                seed=3,
                batch_size=2,
                on_step=lambda done, of: None,
                engine=engine,
            )
        ]

    here = codes(None)
    assert any((one != other).any() for one, other in zip(here[:3], here[3:], strict=True))
    np.testing.assert_array_equal(codes(players), here)
    # Retrained meanwhile: those who have the old weights load the new ones.
    draw_adapter(tiny_model_dir, folder, seed=1)
    again = codes(None)
    assert not np.array_equal(again, here)
    np.testing.assert_array_equal(codes(players), again)
