"""The codec's training: its second part begins with what the first leaves, and both resume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pretraining.codec.checkpoints import export, load_newest, newest_step, save
from pretraining.codec.network import HOP, codes, load_codec
from pretraining.codec.train import RECIPES, Recipe, Trainer, learning_rate, main, run_folder

FIRST = replace(RECIPES["waveform"], n_steps=4, quantise_from=1, critic_from=2)


def crops(step: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(step)
    return 0.1 * torch.randn(2, 16 * HOP, generator=generator)


def trained(recipe: Recipe, steps: range, resume_from: Path | None = None) -> Trainer:
    torch.manual_seed(0)
    trainer = Trainer(recipe)
    if resume_from is not None:
        assert load_newest(resume_from, trainer.parts)[0] == steps.start
    for step in steps:
        torch.manual_seed(step)
        trainer.step(crops(step), 0.7 * crops(step), step)
    return trainer


def test_the_second_part_begins_with_the_firsts_codec_and_resumes_as_if_unbroken(
    tmp_path: Path,
) -> None:
    first = trained(FIRST, range(3))
    export(first.model, first.quantiser, tmp_path / "first")
    second = replace(RECIPES["consistent"], n_steps=4, critic_from=0, quantise_from=0)
    second = replace(second, start=tmp_path / "first")

    unbroken = trained(second, range(3))
    stopped = trained(second, range(2))
    save(tmp_path / "run", stopped.parts, 2, 1.0)
    assert newest_step(tmp_path / "run") == 2
    resumed = trained(second, range(2, 3), tmp_path / "run")

    for name, part in unbroken.parts.items():
        if isinstance(part, torch.nn.Module):
            others = resumed.parts[name]
            assert isinstance(others, torch.nn.Module)
            for key, value in part.state_dict().items():
                assert torch.equal(value, others.state_dict()[key]), (name, key)

    export(resumed.model, resumed.quantiser, tmp_path / "second")
    loaded = load_codec(tmp_path / "second")
    coded = codes(loaded.eval(), crops(9)[0].numpy())
    assert coded.shape == (4, 16)
    assert coded[0].max() < second.n_live[0]


def test_a_part_that_was_killed_before_its_codec_was_written_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "codec"
    save(run_folder(out), trained(FIRST, range(4)).parts, 4, 1.0)
    arguments = ["train", "--recipe", "waveform", "--n-steps", "4", "--out", str(out)]
    monkeypatch.setattr("sys.argv", arguments)
    main()
    assert codes(load_codec(out).eval(), crops(9)[0].numpy()).shape == (4, 16)


def test_the_rate_rises_holds_and_falls() -> None:
    recipe = replace(RECIPES["consistent"], n_steps=1000, lr=1.0)
    rates = [learning_rate(step, recipe) for step in range(1000)]
    assert rates[0] == 0.01
    assert rates[100:750] == [1.0] * 650
    assert rates[-1] == 0.01
    assert sorted(rates[750:], reverse=True) == rates[750:]
