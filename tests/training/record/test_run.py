"""A run and where it stands, as values: what is written is what is read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from made_datasets import read_rows, tiny_settings
from trainer import train_interrupted

from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.training.checkpoints import (
    LoopState,
    Trained,
    read_state,
    restore,
    save_checkpoint,
)
from musicgen_lora.training.record.run import FAILED, Run
from musicgen_lora.training.train import train_lora
from musicgen_lora.training.weights import LoraWeights, WholeModel


@pytest.mark.parametrize("fraction", [0.25, 0.0], ids=["validated", "nothing held out"])
def test_a_finished_run_is_read_and_written_to_the_byte(
    fraction: float, tmp_path: Path, data: Path, tiny_model_dir: Path
) -> None:
    settings = tiny_settings(
        tiny_model_dir, data, tmp_path / "out", max_steps=2, validation_fraction=fraction
    )
    returned = train_lora(settings)
    file = settings.output_dir / "run.json"
    before = file.read_bytes()
    assert list(json.loads(before)) == list(returned)
    assert (returned["best"] is None) == (fraction == 0.0)
    run = Run.read(settings.output_dir)
    assert run is not None
    run.write(settings.output_dir)
    assert file.read_bytes() == before


def test_what_somebody_wrote_into_a_run_stays(tmp_path: Path) -> None:
    content = Run("running", "abc").content() | {"notes": "my first beats"}
    (tmp_path / "run.json").write_text(json.dumps(content))
    run = Run.read(tmp_path)
    assert run is not None
    replace(run, status=FAILED).write(tmp_path)
    assert json.loads((tmp_path / "run.json").read_text()) == content | {"status": "failed"}


def test_what_is_not_there_yet_is_not_written() -> None:
    run = Run("running", "abc", steps=3)
    assert not {"best", "effect", "verdict", "other"} & run.content().keys()
    assert run.content()["steps"] == 3
    assert replace(run, status="finished").content()["best"] is None
    best = {"step": 2, "loss": 3.0}
    assert run.facts(best)["best"] == best
    assert not {"best", "status", "output_dir"} & run.facts(None).keys()


@pytest.mark.parametrize("missing", ["base", "base_loss"])
def test_an_unfinished_run_that_says_too_little_is_put_aside_with_a_word(
    missing: str,
    tmp_path: Path,
    data: Path,
    tiny_model_dir: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = tiny_settings(tiny_model_dir, data, tmp_path / "out", max_steps=3, save_every=1)
    train_interrupted(settings, 2)
    file = settings.output_dir / "run.json"
    content = json.loads(file.read_text())
    del content[missing]
    file.write_text(json.dumps(content))
    capsys.readouterr()
    assert train_lora(settings)["status"] == "finished"
    said = " ".join(capsys.readouterr().out.split())
    assert "lacks what is needed to resume its run" in said
    assert "The earlier run in" in said
    assert len(read_rows(settings.output_dir, "train")) == 3


STATES = [
    LoopState(4, step=7),
    LoopState(
        2,
        step=7,
        best={"step": 3, "loss": 2.5, "codebooks": [2.5] * 4},
        n_worse=2,
        scale={"scale": 512.0, "_growth_tracker": 3},
        other={"identity": "abc"},
    ),
]


@pytest.mark.parametrize("state", STATES, ids=["fresh", "full"])
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_checkpoint_holds_the_state_of_the_loop(
    kind: str, state: LoopState, tmp_path: Path, tiny_model_dir: Path
) -> None:
    model = BaseModel.load(tiny_model_dir)
    settings = tiny_settings(tiny_model_dir, tmp_path, tmp_path, trainable=kind)
    weights = LoraWeights(model, settings, "x") if kind == "lora" else WholeModel(model, settings)
    before = [parameter.detach().clone() for parameter in weights.parameters]
    trained = Trained(weights, [])
    checkpoint = save_checkpoint(tmp_path, state, trained, keep=1)
    assert read_state(checkpoint)["validations_since_best"] == state.n_worse
    for parameter in weights.parameters:
        parameter.data.add_(1.0)
    found = LoopState(8)
    restore(checkpoint, found, trained)
    assert found == state
    assert all(one.equal(two) for one, two in zip(before, weights.parameters, strict=True))


def test_a_checkpoint_that_names_no_batch_size_has_that_of_the_settings() -> None:
    state = LoopState(8)
    state.load({"step": 3, "best": None, "format_version": 2, "optimizer": {}})
    assert state == LoopState(8, step=3)
