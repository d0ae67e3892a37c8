"""A run that goes on, and what becomes of the runs before it."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from made_datasets import (
    make_dataset,
    read_metadata,
    read_rows,
    timeless,
    tiny_settings,
    write_metadata,
)
from safetensors.torch import load_file
from trainer import file_hashes, interrupt_after, train_interrupted

from musicgen_lora.given import EMBEDDED
from musicgen_lora.model.base.loading import load_base, load_tokenizer
from musicgen_lora.runtime.processor import processor
from musicgen_lora.training import data as run_data
from musicgen_lora.training import train, trainer
from musicgen_lora.training.train import train_lora

CASES: dict[str, dict[str, Any]] = {
    "adamw": {},
    "average": {"ema_decay": 0.9, "group_by_length": True},
    "muon": {"trainable": "full", "optimizer": "muon", "ema_decay": 0.9, "lora_dropout": 0.0},
    "prodigy": {"optimizer": "prodigy", "learning_rate": 1.0},
    "pissa": {
        "lora_init": "pissa",
        "lora_targets": ["attention", "heads"],
        "optimizer": "muon",
    },
    "dora": {"adapter": "dora", "lora_targets": ["feed_forward", "embeddings", "text_encoder"]},
    "adamw8bit": {"optimizer": "adamw8bit"},
}
LIBRARIES = {"prodigy": "prodigyopt", "adamw8bit": "bitsandbytes"}


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(
    case: str,
    tmp_path: Path,
    data: Path,
    tiny_model_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if case in LIBRARIES:
        pytest.importorskip(LIBRARIES[case])
    # Three steps are an epoch, so that 20 and 4 are inside one.
    n_steps, broken_after = (40, 20) if case == "adamw" else (7, 4)

    def settings(name: str):
        changes: dict[str, Any] = {
            "num_epochs": 100,
            "max_steps": n_steps,
            "batch_size": 1,
            "gradient_accumulation_steps": 2,
            "validation_fraction": 0.25,
            "validate_every": n_steps // 2,
            "save_every": n_steps,
            "lora_dropout": 0.3,
            "condition_dropout": 0.3,
        }
        return tiny_settings(tiny_model_dir, data, tmp_path / name, **changes | CASES[case])

    train_lora(settings("whole"))
    with monkeypatch.context() as patch:
        interrupt_after(broken_after, patch)
        with pytest.raises(SystemExit) as raised:
            train_lora(settings("parts"))
    assert raised.value.code == 130
    saved = [path.name for path in (tmp_path / "parts" / "checkpoints").iterdir()]
    assert saved == [f"step-{broken_after:06d}"]
    assert json.loads((tmp_path / "parts" / "run.json").read_text())["status"] == "interrupted"
    capsys.readouterr()
    torch.manual_seed(99)
    train_lora(settings("parts"))
    assert f"Resuming after step {broken_after}" in capsys.readouterr().out
    rows = timeless(tmp_path / "whole")
    assert len([row for row in rows if row["event"] == "train"]) == n_steps
    assert timeless(tmp_path / "parts") == rows
    weights = "model" if "trainable" in CASES[case] else "adapter_model"
    for part in ("best_model", f"checkpoints/step-{n_steps:06d}"):
        whole, parts = (
            load_file(tmp_path / name / part / f"{weights}.safetensors")
            for name in ("whole", "parts")
        )
        assert whole.keys() == parts.keys()
        assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert not (tmp_path / "parts" / "previous").exists()


def test_captions_that_come_up_on_the_way_are_encoded_alike_after_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_dataset(tmp_path / "data", [0.4] * 8)
    captions = [f"808 beat {index}" + index * " and rolling hats" for index in range(8)]
    entries = zip(read_metadata(folder), captions, strict=True)
    write_metadata(folder, [entry | {"text": caption} for entry, caption in entries])
    monkeypatch.setattr(run_data, "CAPTIONS_AHEAD", 0)

    def settings(name: str):
        # The embedded base's encoder is no toy: company in its batches shows in the last bits.
        return tiny_settings(
            EMBEDDED, folder, tmp_path / name, batch_size=3, max_steps=6, num_epochs=9
        )

    train_lora(settings("whole"))
    train_interrupted(settings("parts"), 2)
    train_lora(settings("parts"))
    assert timeless(tmp_path / "parts") == timeless(tmp_path / "whole")


def test_a_run_that_was_cut_off_before_its_last_word_repeats_that_alone(
    tmp_path: Path, data: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def settings(name: str):
        changes = {"max_steps": 3, "lora_dropout": 0.5, "ema_decay": 0.9}
        return tiny_settings(tiny_model_dir, data, tmp_path / name, **changes)

    train_lora(settings("whole"))
    with monkeypatch.context() as patch:
        patch.setattr(train, "_finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train_lora(settings("parts"))
    assert len(read_rows(tmp_path / "parts", "effect")) == 1
    train_lora(settings("parts"))
    assert timeless(tmp_path / "parts") == timeless(tmp_path / "whole")


def test_a_finished_run_again_changes_nothing(
    tmp_path: Path, data: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tiny_settings(tiny_model_dir, data, tmp_path / "out", max_steps=2)
    first = train_lora(settings)
    before = file_hashes(settings.output_dir)
    capsys.readouterr()
    again = train_lora(settings)
    assert "already finished" in capsys.readouterr().out
    assert file_hashes(settings.output_dir) == before
    assert json.loads(json.dumps(first)) == again


@pytest.mark.parametrize("change", ["settings", "captions", "base"])
def test_another_run_puts_the_earlier_one_aside(
    change: str, tmp_path: Path, data: Path, tiny_model_dir: Path
) -> None:
    output_dir = tmp_path / "out"
    train_lora(tiny_settings(tiny_model_dir, data, output_dir, max_steps=2))
    (output_dir / "generated").mkdir()
    (output_dir / "generated" / "beat.json").write_text("{}")
    earlier = {name: h for name, h in file_hashes(output_dir).items() if name != ".lock"}
    changes: dict[str, Any] = {}
    model = tiny_model_dir
    if change == "settings":
        changes = {"lora_rank": 3}
    elif change == "captions":
        entries = read_metadata(data)
        entries[0]["text"] = "another caption"
        write_metadata(data, entries)
    else:
        model = tmp_path / "base"
        base = load_base(tiny_model_dir)
        with torch.no_grad():
            base.decoder.lm_heads[0].weight[0, 0] += 1.0
        base.save_pretrained(model)
        load_tokenizer(tiny_model_dir).save_pretrained(model)
    train_lora(tiny_settings(model, data, output_dir, max_steps=2, **changes))
    (aside,) = (output_dir / "previous").iterdir()
    assert file_hashes(aside) == earlier
    # What was played with the earlier adapter goes with it.
    assert not (output_dir / "generated").exists()
    assert len(read_rows(output_dir, "base")) == 1


@pytest.mark.parametrize("change", ["settings", "captions"])
def test_an_unfinished_run_says_why_it_is_not_gone_on_with_and_how_it_can_be(
    change: str,
    tmp_path: Path,
    data: Path,
    tiny_model_dir: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def settings(folder: Path, **changes: Any):
        return tiny_settings(tiny_model_dir, data, folder, max_steps=3, save_every=1, **changes)

    output_dir = tmp_path / "out"
    train_interrupted(settings(output_dir), 2)
    entries = read_metadata(data)
    changes = {"lora_rank": 3, "seed": 5} if change == "settings" else {}
    if change == "captions":
        write_metadata(data, [entries[0] | {"text": "another caption"}, *entries[1:]])
    capsys.readouterr()
    train_lora(settings(output_dir, **changes))
    (aside,) = (output_dir / "previous").iterdir()
    said = " ".join(capsys.readouterr().out.split())
    why = "settings: --lora_rank 3 (was 12), --seed 5 (was 0)"
    if change == "captions":
        why = "clips, captions, bar lines (bpm, first_bar_s) or splits"
    assert f"The unfinished run in this folder had different {why}." in said
    assert "To resume it, use its settings and data with --output_dir" in said
    write_metadata(data, entries)
    train_lora(settings(aside))
    assert "Resuming after step 2" in capsys.readouterr().out


def test_a_run_that_goes_on_in_another_precision_says_so_and_does(
    tmp_path: Path,
    data: Path,
    tiny_model_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On another device `auto` is another one. The step needs the precision that the model is in:
    with that of before, fp16 would lack its scaling, or fp32 be rounded on its way."""
    settings = tiny_settings(tiny_model_dir, data, tmp_path / "out", max_steps=3)
    used: list[str] = []
    learner = trainer._learner
    monkeypatch.setattr(
        trainer, "_learner", lambda *args: (used.append(args[3]), learner(*args))[1]
    )
    with monkeypatch.context() as patch:
        patch.setattr(train, "choose_training_precision", lambda *_: ("bf16", "as here."))
        train_interrupted(settings, 2)
    capsys.readouterr()
    assert train_lora(settings)["precision"] == "fp32"
    said = " ".join(capsys.readouterr().out.split())
    assert "trained with bf16 so far; here it goes on with fp32, so it won't quite equal" in said
    assert used == ["bf16", "fp32"]


def test_a_run_that_goes_on_on_another_machine_says_so_and_records_it(
    tmp_path: Path,
    data: Path,
    tiny_model_dir: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Another number of threads rounds differently: the weights differ from there on."""
    settings = tiny_settings(tiny_model_dir, data, tmp_path / "out", max_steps=3)
    train_interrupted(settings, 2)
    path = settings.output_dir / "run.json"
    run = json.loads(path.read_text())
    assert run["computing"] == {"chip": processor(), "threads": 1, "processes": 1}
    run["computing"] |= {"threads": 3, "processes": 2, "chip": "Another CPU"}
    run["versions"]["torch"] = "2.1"
    path.write_text(json.dumps(run))
    capsys.readouterr()
    finished = train_lora(settings)
    said = " ".join(capsys.readouterr().out.split())
    pairs = {
        "Another CPU": processor(),
        "3 threads": "1 thread",
        "2 processes": "a single process",
        "torch 2.1": f"torch {torch.__version__}",
    }
    for before, now in pairs.items():
        assert f"was trained with {before} so far; here it goes on with {now}, so it won" in said
    assert "To go on with as many threads as before, set OMP_NUM_THREADS=3" in said
    assert finished["computing"] == {"chip": processor(), "threads": 1, "processes": 1}
    assert finished["versions"]["torch"] == torch.__version__


def test_a_run_that_goes_on_as_before_says_nothing_of_it(
    tmp_path: Path,
    data: Path,
    tiny_model_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nor one of a release that didn't record with what it was computed."""
    settings = tiny_settings(tiny_model_dir, data, tmp_path / "out", max_steps=4)
    for after, forget in ((1, False), (2, True), (9, True)):
        with monkeypatch.context() as patch:
            interrupt_after(after, patch)
            with pytest.raises(SystemExit) if after < 4 else nullcontext():
                train_lora(settings)
        assert "so far; here" not in capsys.readouterr().out
        path = settings.output_dir / "run.json"
        run = json.loads(path.read_text())
        if forget:
            del run["computing"]
            path.write_text(json.dumps(run))


def test_two_runs_in_the_same_second_are_both_kept(
    tmp_path: Path, data: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.strftime", lambda *_: "20260101-000000")
    for rank in (2, 3, 4):
        train_lora(
            tiny_settings(tiny_model_dir, data, tmp_path / "out", max_steps=1, lora_rank=rank)
        )
    ranks = {
        json.loads((path / "run.json").read_text())["settings"]["lora_rank"]
        for path in (tmp_path / "out" / "previous").iterdir()
    }
    assert ranks == {2, 3}
