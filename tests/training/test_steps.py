"""What a step of a training weighs, and what moves the weights besides its gradient."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from made_datasets import make_dataset, read_rows, tiny_settings
from safetensors.torch import load_file

from musicgen_lora.training.train import train_lora

STILL = 1e-30
"""A learning rate at which nothing moves."""


def test_a_short_last_step_counts_as_much_as_its_clips(
    tmp_path: Path, tiny_model_dir: Path
) -> None:
    """Five clips, two a step, leave the last alone: half the gradient that a step of it alone has,
    and the same loss."""
    data = make_dataset(tmp_path / "data", [0.5, 0.6, 0.7, 0.8, 0.9])
    rows = {}
    for size in (1, 2, 5, 8):
        settings = tiny_settings(
            tiny_model_dir,
            data,
            tmp_path / str(size),
            batch_size=size,
            learning_rate=STILL,
            validation_fraction=0.0,
            num_epochs=1,
        )
        # Nothing moves, so the check of the effect has nothing to find.
        with pytest.raises(Exception, match="changes nothing"):
            train_lora(settings)
        rows[size] = read_rows(tmp_path / str(size), "train")
    assert [len(rows[size]) for size in rows] == [5, 3, 1, 1]
    alone, last = rows[1][-1], rows[2][-1]
    assert last["loss"] == pytest.approx(alone["loss"], rel=1e-5)
    assert last["grad_norm"] == pytest.approx(alone["grad_norm"] / 2, rel=1e-4)
    # With fewer clips than a step has room for, each step is as short, and a whole one.
    assert rows[8][0]["grad_norm"] == pytest.approx(rows[5][0]["grad_norm"], rel=1e-5)


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_decay_leaves_the_base_alone_where_the_adapter_holds_a_part_of_it(
    init: str, tmp_path: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_dataset(tmp_path / "data", [0.5, 0.6, 0.7])
    found = []
    for decay in (0.0, 0.5):
        folder = tmp_path / str(decay)
        settings = tiny_settings(
            tiny_model_dir, data, folder, lora_init=init, weight_decay=decay, max_steps=3
        )
        run = train_lora(settings)
        assert run["settings"]["weight_decay"] == 0.0
        said = f"No weight decay: with lora_init {init}" in capsys.readouterr().out
        assert said == (decay > 0.0)
        found.append(load_file(folder / "best_model" / "adapter_model.safetensors"))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
