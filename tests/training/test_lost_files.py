"""Files of a run that vanish, are damaged or are replaced while it trains, or before it goes on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from made_datasets import tiny_settings
from trainer import find_losses, train_interrupted

from musicgen_lora.errors import UserError
from musicgen_lora.training import trainer
from musicgen_lora.training.record.run_folder import best_model_faults
from musicgen_lora.training.train import train_lora


def _worse_and_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each validation finds a higher loss than the one before."""
    find_losses(map(float, range(1, 100)), monkeypatch)


@pytest.mark.parametrize("harm", ["deleted", "cut short"])
@pytest.mark.parametrize("when", ["in between", "before it goes on", "at its end"])
def test_an_adapter_that_is_lost_on_the_way_is_made_again_from_the_weights_there_are(
    when: str,
    harm: str,
    tmp_path: Path,
    data: Path,
    tiny_model_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = tiny_settings(
        tiny_model_dir, data, tmp_path / "out", max_steps=4, validation_fraction=0.25
    )
    settings.validate_every = settings.save_every = 1
    best = settings.output_dir / "best_model"

    def lose() -> None:
        if harm == "deleted":
            shutil.rmtree(best)
        else:
            (best / "adapter_model.safetensors").write_bytes(b"{}")

    with monkeypatch.context() as patch:
        _worse_and_worse(patch)
        if when == "in between":
            original = trainer.Trainer.step

            def step(self: trainer.Trainer) -> Any:
                if self.state.step == 2:
                    lose()
                return original(self)

            patch.setattr(trainer.Trainer, "step", step)
            run = train_lora(settings)
        else:
            train_interrupted(settings, 2)
            if when == "at its end":
                patch.setattr(trainer.Trainer, "_finish", lambda *_: 1 / 0)
                with pytest.raises(ZeroDivisionError):
                    train_lora(settings)
                patch.undo()
            lose()
            run = train_lora(settings)
    assert best_model_faults(settings.output_dir) == []
    assert run["best"]["step"] == (4 if when == "at its end" else 3)
    said = " ".join(capsys.readouterr().out.split())
    assert "best_model: missing or damaged" in said


def test_a_run_does_not_go_on_from_the_checkpoint_of_another(
    tmp_path: Path, data: Path, tiny_model_dir: Path
) -> None:
    def settings(name: str, **changes: Any):
        return tiny_settings(
            tiny_model_dir, data, tmp_path / name, save_every=1, num_epochs=9, **changes
        )

    train_lora(settings("other", max_steps=6, seed=7))
    train_interrupted(settings("own", max_steps=4), 2)
    foreign = tmp_path / "own" / "checkpoints" / "step-000006"
    shutil.copytree(tmp_path / "other" / "checkpoints" / "step-000006", foreign)
    with pytest.raises(UserError, match="step-000006: belongs to another run"):
        train_lora(settings("own", max_steps=4))
    assert foreign.is_dir()
    shutil.rmtree(foreign)
    assert train_lora(settings("own", max_steps=4))["steps"] == 4
