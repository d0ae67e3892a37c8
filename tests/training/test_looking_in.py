"""What a run shows of itself: previews, trackers, curves, the verdict, early stopping."""

from __future__ import annotations

import inspect
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from made_datasets import read_rows, timeless, tiny_settings
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.image import imread
from safetensors.torch import load_file
from trainer import find_losses, train_interrupted

from musicgen_lora import extras
from musicgen_lora.errors import UserError
from musicgen_lora.training.record.curves import draw_curves
from musicgen_lora.training.record.verdict import verdict
from musicgen_lora.training.train import train_lora

PNG = b"\x89PNG\r\n\x1a\n"


def test_curves_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Figure, "savefig", inspect.unwrap(Figure.savefig))
    rows = [{"event": "train", "step": step, "loss": 5.0 - 0.1 * step} for step in range(1, 9)]
    rows += [{"event": "validation", "step": step, "loss": 4.5} for step in (4, 8)]
    draw_curves(tmp_path / "curves.png", rows, 4.8)
    picture = imread(tmp_path / "curves.png")
    assert picture.shape == (520, 910, 4)
    for colour in ("#8a8f98", "#1971c2", "#d9480f"):
        assert np.isclose(picture, to_rgba(colour), atol=0.01).all(axis=2).any(), colour


@pytest.mark.parametrize(
    ("base", "losses", "said"),
    [
        (
            4.0,
            [3.5, 3.2, 3.0, 3.0],
            "It learned: held-out loss 4.0000 -> 3.0000 (-25.0 %, the best of 4 validations) at",
        ),
        (4.0, [3.0], "It learned: held-out loss 4.0000 -> 3.0000 (-25.0 %) at"),
        (4.0, [3.6, 3.3, 3.0], "It learned and was still learning"),
        (4.0, [3.5, 3.0, 3.2, 3.5], "It learned, then overfitted"),
        (4.0, [4.0, 3.99, 3.98], "It did next to nothing"),
        (4.0, [4.001, 4.0011], "It did next to nothing: held-out loss 4.0000 -> 4.0010 (+0.0 %,"),
        (
            4.0,
            [4.02, 4.01, 4.03],
            "It improved nothing: held-out loss 4.0000 -> 4.0100 (+0.2 %, the best of 3 "
            "validations); no validation was better than the base. Lower the learning rate, or add",
        ),
        (4.0, [4.03], "It improved nothing: held-out loss 4.0000 -> 4.0300 (+0.8 %); no "),
        (
            4.0,
            [4.1, 4.3, 4.6],
            "It made things worse: held-out loss 4.0000 -> 4.1000 (+2.5 %, the best of 3 "
            "validations), and 4.6000 at the end. Lower the",
        ),
        (
            4.0,
            [3.98, 4.3],
            "It made things worse: held-out loss 4.0000 -> 3.9800 (-0.5 %, the best of 2 "
            "validations), and 4.3000 at the end. Lower the",
        ),
        (4.0, [4.2], "It made things worse: held-out loss 4.0000 -> 4.2000 (+5.0 %). Lower the"),
        (4.0, [], "Nothing was held out"),
    ],
)
def test_the_verdict_on_known_curves(base: float, losses: list[float], said: str) -> None:
    sentence = verdict(base, [(10 * (i + 1), loss) for i, loss in enumerate(losses)])
    assert sentence.startswith(said)
    assert "\n" not in sentence


def test_an_overfitted_run_is_told_which_step_was_best() -> None:
    sentence = verdict(4.0, [(10, 3.5), (20, 3.0), (30, 3.6)])
    assert "at step 20, and 3.6000 at the end" in sentence
    assert "best_model is from step 20" in sentence


def sound(path: Path) -> np.ndarray:
    return soundfile.read(path)[0]


def test_previews_are_of_fixed_prompts_and_seeds_and_leave_the_training_alone(
    tmp_path: Path, data: Path, tiny_model_dir: Path
) -> None:
    shown: dict[str, Any] = {
        "previews": "auto",
        "preview_prompts": ["808 beat", "dark trap!"],
        "preview_every": 2,
        "preview_duration": 0.4,
    }
    for name, changes in [("one", shown), ("two", shown), ("none", {})]:
        train_lora(
            tiny_settings(
                tiny_model_dir,
                data,
                tmp_path / name,
                max_steps=4,
                learning_rate=3e-2,
                lora_dropout=0.2,
                **changes,
            )
        )
    one, two = tmp_path / "one" / "previews", tmp_path / "two" / "previews"
    assert sorted(path.name for path in one.iterdir()) == ["base", "step-000002", "step-000004"]
    clips = ["00_808-beat", "01_dark-trap"]
    for folder in one.iterdir():
        names = sorted(path.stem for path in folder.glob("*.wav"))
        assert names == sorted(path.stem for path in folder.glob("*.png")) == clips
        for clip in clips:
            assert (folder / f"{clip}.png").read_bytes().startswith(PNG)
            assert soundfile.info(folder / f"{clip}.wav").duration == pytest.approx(0.4)
            again = two / folder.name / f"{clip}.wav"
            assert (folder / f"{clip}.wav").read_bytes() == again.read_bytes()
    first = f"{clips[0]}.wav"
    assert not np.array_equal(sound(one / "base" / first), sound(one / "step-000004" / first))
    assert timeless(tmp_path / "one") == timeless(tmp_path / "none")
    assert (tmp_path / "one" / "curves.png").read_bytes().startswith(PNG)
    run = json.loads((tmp_path / "one" / "run.json").read_text())
    rows = read_rows(tmp_path / "one", "validation")
    held_out = [(row["step"], row["loss"]) for row in rows]
    assert run["verdict"] == verdict(run["base_loss"]["loss"], held_out)


def test_two_captions_are_played_where_no_prompts_are_given(
    tmp_path: Path, data: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the base and by the finished adapter alone, whatever the number of epochs; the training
    is that without them, stopped and gone on with or not."""
    shown: dict[str, Any] = {"previews": "auto", "preview_duration": 0.2, "num_epochs": 3}
    settings = tiny_settings(tiny_model_dir, data, tmp_path / "auto", lora_dropout=0.2, **shown)
    train_interrupted(settings, 2)
    train_lora(settings)
    said = capsys.readouterr().out
    assert said.count("2 captions, 0.2 s each") == 2
    assert "--previews off turns them off" in said
    plain = replace(settings, previews="off", preview_duration=None, output_dir=tmp_path / "off")
    run = train_lora(plain)
    assert "Previews" not in capsys.readouterr().out
    assert timeless(tmp_path / "auto") == timeless(tmp_path / "off")
    assert not (tmp_path / "off" / "previews").exists()
    folders = sorted((tmp_path / "auto" / "previews").iterdir())
    assert [folder.name for folder in folders] == ["base", f"step-{run['steps']:06d}"]
    # The first is that of a clip held out.
    caption = run["data"]["validation"][0]["text"]
    for folder in folders:
        first, second = sorted(folder.glob("*.wav"))
        assert first.stem == f"00_{caption.replace(' ', '-')}"
        assert soundfile.info(second).duration == pytest.approx(0.2)


@pytest.mark.parametrize("trainable", ["lora", "full"])
def test_previews_switched_on_at_a_resume_have_those_of_the_base(
    trainable: str,
    tmp_path: Path,
    data: Path,
    tiny_model_dir: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """They were announced and not made; those that exist are neither announced nor made again."""
    plain = tiny_settings(tiny_model_dir, data, tmp_path / "out", max_steps=6, trainable=trainable)
    shown = replace(plain, previews="auto", preview_prompts=["808"], preview_duration=0.2)
    other = replace(shown, preview_prompts=["trap"])
    base = tmp_path / "out" / "previews" / "base"
    for step, (settings, is_made) in enumerate(
        [(plain, False), (shown, True), (shown, False), (other, True)], 1
    ):
        train_interrupted(settings, step)
        assert (f"Previews: {base}" in capsys.readouterr().out) is is_made
        names = [path.stem for path in base.glob("*.wav")]
        assert names == [f"00_{prompt}" for prompt in settings.preview_prompts]
    first = replace(other, output_dir=tmp_path / "first", max_steps=1)
    train_lora(first)
    assert (base / "00_trap.wav").read_bytes() == (
        tmp_path / "first" / "previews" / "base" / "00_trap.wav"
    ).read_bytes(), "what has been trained so far is not heard in it"


def test_memory_that_is_short_for_previews_ends_them_alone(
    tmp_path: Path,
    data: Path,
    tiny_model_dir: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr("musicgen_lora.training.trainer.make_previews", exhausted)
    settings = tiny_settings(tiny_model_dir, data, tmp_path, previews="auto", max_steps=2)
    assert train_lora(settings)["status"] == "finished"
    assert capsys.readouterr().out.count("Out of memory for previews") == 1


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_tracker_is_named_with_its_command(
    name: Any, tmp_path: Path, data: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda library: None)
    with pytest.raises(UserError) as raised:
        train_lora(tiny_settings(tiny_model_dir, data, tmp_path / "out", report_to=[name]))
    command = f"pip install 'musicgen-lora[{name}]'"
    assert str(raised.value) == f"--report_to {name} needs {name}: {command}"


def test_trackers_get_the_figures_of_every_row(
    tmp_path: Path, data: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both stand-ins have the few calls that are made of the real ones."""
    scalars: list[tuple[str, float, int]] = []
    logged: list[tuple[dict[str, float], int]] = []
    begun: list[dict[str, Any]] = []
    ended: list[str] = []

    class Writer:
        def __init__(self, log_dir: str, purge_step: int) -> None:
            begun.append({"log_dir": log_dir, "purge_step": purge_step})

        def add_scalar(self, name: str, value: float, step: int) -> None:
            scalars.append((name, value, step))

        def close(self) -> None:
            ended.append("tensorboard")

    def init(**named: Any) -> SimpleNamespace:
        begun.append(named)
        return SimpleNamespace(
            log=lambda figures, step: logged.append((figures, step)),
            finish=lambda: ended.append("wandb"),
        )

    tensorboard, wandb = ModuleType("torch.utils.tensorboard"), ModuleType("wandb")
    tensorboard.SummaryWriter = Writer
    wandb.init = init
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", tensorboard)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setattr(extras, "find_spec", lambda library: object())
    monkeypatch.delenv("WANDB_MODE", raising=False)
    output_dir = tmp_path / "out"
    run = train_lora(
        tiny_settings(
            tiny_model_dir, data, output_dir, max_steps=3, report_to=["tensorboard", "wandb"]
        )
    )
    assert begun[0] == {"log_dir": str(output_dir / "tensorboard"), "purge_step": 1}
    assert begun[1]["mode"] == "offline", "nothing leaves the machine unless asked for"
    assert begun[1]["config"] == run["settings"]
    assert sorted(ended) == ["tensorboard", "wandb"]
    rows = read_rows(output_dir)
    assert [step for _, step in logged] == [row["step"] for row in rows]
    for row, (figures, _) in zip(rows, logged, strict=True):
        event = row["event"]
        if "loss" in row:
            assert figures[f"{event}/loss"] == row["loss"]
        if "codebooks" in row:
            assert figures[f"{event}/codebooks_3"] == row["codebooks"][3]
        assert all((name, value, row["step"]) in scalars for name, value in figures.items())


def test_early_stopping_keeps_the_best_and_says_so(
    tmp_path: Path,
    data: Path,
    tiny_model_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The base's loss, then one better, then worse ones."""
    find_losses([4.0, 3.5, 3.0, 3.1, 3.2, 3.3], monkeypatch)
    output_dir = tmp_path / "out"
    settings = tiny_settings(
        tiny_model_dir,
        data,
        output_dir,
        num_epochs=10,
        validate_every=1,
        save_every=1,
        keep_checkpoints=1,
        early_stopping_patience=2,
    )
    run = train_lora(settings)
    assert run["steps"] == 4
    assert (run["best"]["step"], run["best"]["loss"]) == (2, 3.0)
    said = capsys.readouterr().out
    assert "Stopped early after step 4" in said
    assert "2 validations in a row found nothing better than step 2" in " ".join(said.split())
    kept = sorted(path.name for path in (output_dir / "checkpoints").iterdir())
    assert kept == ["step-000002", "step-000004"]
    best, second, last = (
        load_file(output_dir / part / "adapter_model.safetensors")
        for part in ("best_model", "checkpoints/step-000002", "checkpoints/step-000004")
    )
    assert all(torch.equal(best[name], second[name]) for name in best)
    assert not all(torch.equal(best[name], last[name]) for name in best)


def test_the_best_of_validations_worse_than_the_base_is_said_to_be_worse(
    tmp_path: Path,
    data: Path,
    tiny_model_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The base's loss, then three that are worse, and one that is better."""
    find_losses([4.0, 4.5, 4.2, 4.3, 4.0, 3.9], monkeypatch)
    settings = tiny_settings(
        *(tiny_model_dir, data, tmp_path / "out"), num_epochs=10, max_steps=5, validate_every=1
    )
    train_lora(settings)
    said = [line for line in capsys.readouterr().out.splitlines() if "validation loss" in line]
    assert [line.partition(" %)")[2].strip() for line in said] == [
        "best so far, but worse than the base",
        "best so far, but worse than the base",
        "",
        "best so far",
        "best so far",
    ]
