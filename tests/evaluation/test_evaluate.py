"""An evaluation from adapter to report, and what it does where something is missing."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from adapters import add_lora
from datasets import make_dataset, read_metadata, tiny_settings, write_metadata
from pydantic import TypeAdapter
from trainer import file_hashes

from musicgen_lora.config import EvaluateSettings, ExportSettings
from musicgen_lora.dataset.metadata import load_dataset
from musicgen_lora.errors import UserError
from musicgen_lora.evaluation import on_variant
from musicgen_lora.evaluation.evaluate import evaluate_adapter
from musicgen_lora.evaluation.generations import DEFAULT_PROMPTS, choose_prompts
from musicgen_lora.evaluation.held_out import HeldOut, find_held_out
from musicgen_lora.evaluation.losses.forgetting import other_styles_folder
from musicgen_lora.evaluation.report.card import BEGIN
from musicgen_lora.evaluation.report.document import Report
from musicgen_lora.export.export import export_model
from musicgen_lora.model.lora.adapter import FACTS_FILE, WEIGHTS_FILE
from musicgen_lora.model.lora.facts import AdapterFacts
from musicgen_lora.model.musicgen import load_base
from musicgen_lora.training.train import train_lora

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> dict[str, Path]:
    """A dataset of eight sources, four of them held out, and an adapter trained on the others."""
    root = tmp_path_factory.mktemp("evaluate")
    data = make_dataset(root / "data", [1.5] * 8)
    settings = tiny_settings(
        tiny_model_dir, data, root / "run", num_epochs=3, validation_fraction=0.5, max_duration=1.0
    )
    train_lora(settings)
    return {"base": tiny_model_dir, "data": data, "adapter": root / "run" / "best_model"}


DOCUMENT = TypeAdapter(Report)
"""Checks that a report is what its type says."""


def settings_for(trained: dict[str, Path], output_dir: Path, **changes: Any) -> EvaluateSettings:
    values: dict[str, Any] = {
        "base_model_path": str(trained["base"]),
        "lora_model_path": trained["adapter"],
        "output_dir": output_dir,
        "duration": 0.6,
        "num_prompts": 3,
        "batch_size": 2,
    }
    return EvaluateSettings(**(values | changes))


@pytest.fixture(scope="module")
def compared(
    trained: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    output_dir = tmp_path_factory.mktemp("compared") / "evaluation"
    return evaluate_adapter(settings_for(trained, output_dir, compare=True)), output_dir


def facts_of(trained: dict[str, Path]) -> dict[str, Any]:
    return json.loads((trained["adapter"] / FACTS_FILE).read_text())


def held_out_of(facts: dict[str, Any], *where: Any, **options: Any) -> HeldOut:
    return find_held_out(AdapterFacts(facts), *where, **options)


def test_the_report_and_its_files(compared: tuple[dict[str, Any], Path]) -> None:
    report, output_dir = compared
    assert json.loads((output_dir / "report.json").read_text()) == report
    DOCUMENT.validate_python(report, strict=True, extra="forbid")
    assert "<html" in (output_dir / "report.html").read_text()
    for side in ("base", "adapter"):
        files = sorted((output_dir / "audio" / side).glob("*.wav"))
        assert len(files) == 3
        for file in files:
            info = soundfile.info(file)
            assert (info.samplerate, info.subtype) == (32_000, "PCM_16")
            assert info.duration == pytest.approx(0.6)
    assert len(report["plots"]) >= 2
    assert all((output_dir / name).is_file() for name in report["plots"])
    assert [item["what"] for item in report["not_computed"]] == [
        "Loss on other styles (forgetting)",
        "Obedience to tempo and key",
        "Agreement with the prompts",
    ]


def test_the_loss_is_the_one_that_training_printed(
    trained: dict[str, Path], compared: tuple[dict[str, Any], Path]
) -> None:
    report, facts = compared[0], facts_of(trained)
    loss = report["loss"]
    assert loss["n_sources"] == 4
    assert loss["mean"]["n"] == 4
    assert loss["mean"]["mean_base"] == pytest.approx(facts["base_loss"]["loss"], rel=1e-5)
    assert loss["mean"]["mean_adapter"] == pytest.approx(facts["best"]["loss"], rel=1e-5)
    bases = [result["mean_base"] for result in loss["codebooks"]]
    assert bases == pytest.approx(facts["base_loss"]["codebooks"], rel=1e-5)
    assert loss["mean"]["ci_low"] is not None
    assert report["findings"][0].startswith(("The adapter lowered", "No clear change"))


def test_the_loss_along_the_clip_adds_up_to_the_loss(
    compared: tuple[dict[str, Any], Path],
) -> None:
    """Windows of 1 s in two stretches, the last of which codebooks end in."""
    positions = compared[0]["loss"]["positions"]
    assert [(part["from_s"], part["to_s"]) for part in positions] == [(0.0, 0.5), (0.5, 1.0)]
    assert [part["loss"]["n"] for part in positions] == [4] * 2
    found = [part["loss"]["mean_base"] for part in positions]
    assert np.mean(found) == pytest.approx(compared[0]["loss"]["mean"]["mean_base"], rel=0.01)
    assert found[0] != found[1]


def test_prompts_are_held_out_captions_and_seeds_are_shared(
    trained: dict[str, Path], compared: tuple[dict[str, Any], Path]
) -> None:
    clips = compared[0]["generation"]["clips"]
    held_out = {entry["text"] for entry in facts_of(trained)["data"]["validation"]}
    from_captions = [c["prompt"] for c in clips if c["origin"] == "held-out caption"]
    assert set(from_captions) <= held_out
    assert from_captions
    assert [clip["seed"] for clip in clips] == [0, 1, 2]
    assert not any(clip["identical"] for clip in clips)
    assert all(clip["base"] and clip["adapter"] for clip in clips)


def test_its_figures_go_into_the_card_of_the_adapter_that_was_measured(
    trained: dict[str, Path], compared: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    report, folder = compared
    settings = ExportSettings(
        format="peft",
        model_path=str(trained["base"]),
        lora_model_path=[trained["adapter"]],
        hub_base="me/base",
        evaluation=folder,
        output_dir=tmp_path / "shared",
    )
    export_model(settings)
    section = (folder / "summary.md").read_text(encoding="utf-8")
    # The card beside it has the figures of its last evaluation already.
    own_card = (trained["adapter"] / "README.md").read_text(encoding="utf-8")
    assert own_card.count(BEGIN) == own_card.count("## Evaluation") == 1
    assert "Held-out loss in nats a token, at step" in own_card
    assert section in (tmp_path / "shared" / "README.md").read_text(encoding="utf-8")
    loss = report["primaries"][0]
    cells = f"{loss['base']:.3f} | {loss['adapter']:.3f} | {loss['difference']:+.3f}"
    interval = f"{loss['ci_low']:+.3f} to {loss['ci_high']:+.3f}"
    said = f"(nats a token) | {loss['verdict']} | {cells} | {interval} | {loss['p_holm']:.3f} | 4 s"
    assert said in section
    assert "n = 4 training and 4 held-out clips" in section
    # What a report says of its owner's files stays at home.
    assert not any(source["source"] in section for source in report["loss"]["sources"])
    other = json.loads((folder / "report.json").read_text())
    other["adapter"]["fingerprint"] = "0" * 64
    (tmp_path / "report.json").write_text(json.dumps(other))
    moved = {"evaluation": tmp_path / "report.json", "output_dir": tmp_path / "other"}
    with pytest.raises(UserError, match="is of another adapter"):
        export_model(dataclasses.replace(settings, **moved))
    assert not (tmp_path / "other").exists()


def test_a_second_evaluation_gives_the_same_and_clears_the_first(
    trained: dict[str, Path], compared: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    first, output_dir = compared
    copy = tmp_path / "evaluation"
    shutil.copytree(output_dir, copy)
    (copy / "notes.txt").write_text("mine")
    (copy / "audio" / "base" / "mine.wav").write_bytes(b"mine")
    again = evaluate_adapter(settings_for(trained, copy, num_prompts=1))
    assert (copy / "notes.txt").is_file()
    assert [path.name for path in (copy / "audio" / "base").iterdir()] == ["mine.wav"]
    assert len(list((copy / "audio" / "adapter").iterdir())) == 1
    assert again["loss"] == first["loss"]
    theirs, ours = (r["generation"]["clips"][0]["adapter"] for r in (first, again))
    assert theirs["descriptors"] == ours["descriptors"]


def test_without_compare_the_base_is_not_played(trained: dict[str, Path], tmp_path: Path) -> None:
    report = evaluate_adapter(settings_for(trained, tmp_path, num_prompts=1))
    DOCUMENT.validate_python(report, strict=True, extra="forbid")
    assert not (tmp_path / "audio" / "base").exists()
    assert report["generation"]["clips"][0]["base"] is None
    assert report["loss"]["computed"]
    assert report["not_computed"][-1]["why"] == "needs --compare"


def test_forgetting_is_the_loss_on_another_dataset(
    trained: dict[str, Path], tmp_path: Path
) -> None:
    report = evaluate_adapter(
        settings_for(trained, tmp_path, num_prompts=1, other_data_dir=trained["data"])
    )
    # The adapter's own dataset as "other music": what it learned there shows as a fall.
    forgetting = report["forgetting"]
    assert forgetting["n_sources"] == 8
    assert forgetting["mean"]["relative"] < 0
    assert any(s.startswith("Forgetting: the loss on other styles") for s in report["findings"])
    assert "What was forgotten" in (tmp_path / "report.html").read_text()


def test_without_other_music_forgetting_is_not_computed(
    compared: tuple[dict[str, Any], Path],
) -> None:
    report, output_dir = compared
    assert not report["forgetting"]["computed"]
    assert "--other_data_dir" in report["not_computed"][0]["why"]
    assert "What was forgotten" not in (output_dir / "report.html").read_text()


def test_the_bundled_styles_are_a_dataset_that_the_embedded_base_predicts() -> None:
    folder = other_styles_folder(None, "tiny-beats")
    assert folder is not None
    clips = load_dataset(folder)
    assert len(clips) == 30
    assert not any("808" in text or "trap" in text for clip in clips for text in clip.texts)


def test_an_adapter_of_another_tool_is_evaluated_without_reference(
    trained: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = tmp_path / "bare"
    torch.manual_seed(0)
    base = str(trained["base"])
    adapted = add_lora(load_base(base), base_name=base, rank=2, alpha=4)
    adapted.save_pretrained(str(adapter))
    settings = settings_for(
        trained, tmp_path / "out", lora_model_path=adapter, compare=True, num_prompts=2
    )
    report = evaluate_adapter(settings)
    assert not report["loss"]["computed"]
    assert "--data_dir" in report["loss"]["why"]
    assert not report["reference"]["computed"]
    assert "Held-out loss: not computed: " in capsys.readouterr().out
    assert "ot computed: the adapter has no" in (tmp_path / "out" / "report.html").read_text()
    assert [c["prompt"] for c in report["generation"]["clips"]] == list(DEFAULT_PROMPTS[:2])
    # Fresh LoRA changes nothing, and the report says so.
    assert all(clip["identical"] for clip in report["generation"]["clips"])
    assert any("identical token by token" in finding for finding in report["findings"])


def test_the_tokens_alone_measure_what_the_audio_measures(
    trained: dict[str, Path], compared: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(trained["data"] / "tokens", alone / "tokens")
    shutil.copy(trained["data"] / "metadata.json", alone)
    settings = settings_for(trained, tmp_path / "report", data_dir=alone, from_tokens=True)
    report = evaluate_adapter(settings)
    assert report["held_out"]["is_unseen"]
    assert report["loss"] == compared[0]["loss"]
    assert report["reference"] == compared[0]["reference"]
    with pytest.raises(UserError, match=r"beat0\.wav does not exist"):
        evaluate_adapter(settings_for(trained, tmp_path / "report", data_dir=alone))
    (alone / "tokens" / "hashes.arrow").unlink()
    with pytest.raises(UserError, match=r"8 of 8 clips are not.*run musicgen-lora tokenise"):
        evaluate_adapter(settings)


def test_given_prompts_and_stereo(tiny_stereo_dir: Path, tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", [1.0, 1.0, 1.0])
    train_lora(tiny_settings(tiny_stereo_dir, data, tmp_path / "run", max_steps=1))
    report = evaluate_adapter(
        EvaluateSettings(
            base_model_path=str(tiny_stereo_dir),
            lora_model_path=tmp_path / "run" / "best_model",
            output_dir=tmp_path / "out",
            duration=0.5,
            prompts=["hip hop", "../../etc/808: beat"],
            compare=True,
        )
    )
    names = [clip["adapter"]["audio"] for clip in report["generation"]["clips"]]
    assert names == ["audio/adapter/01_hip-hop.wav", "audio/adapter/02_etc-808-beat.wav"]
    assert soundfile.info(tmp_path / "out" / names[0]).channels == 2
    assert len(report["loss"]["codebooks"]) == 8
    assert report["loss"]["mean"]["n"] == 1
    assert "too few for an interval" in report["findings"][0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora_model_path": Path("nowhere")}, "no such adapter folder"),
        ({"base_model_path": "./nowhere"}, "no such model folder"),
        ({"data_dir": Path("nowhere")}, "no such data folder"),
        ({"prompts": ["beat", " "]}, "--prompts has an empty one"),
    ],
)
def test_unusable_inputs_are_named(
    trained: dict[str, Path], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        evaluate_adapter(settings_for(trained, tmp_path / "out", **changes))
    assert not (tmp_path / "out" / "report.json").exists()


def test_an_output_dir_that_is_a_file(trained: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        evaluate_adapter(settings_for(trained, tmp_path / "out"))


def test_a_given_dataset_with_a_broken_clip_is_an_error_a_remembered_one_a_reason(
    trained: dict[str, Path], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(trained["data"], data, ignore=shutil.ignore_patterns("tokens"))
    broken = facts_of(trained)["data"]["validation"][0]["audio"]
    (data / broken).write_bytes(b"not audio")
    # With an id on record it is known to be another file, and left out with a word.
    found = held_out_of(facts_of(trained), data, "metadata.json")
    assert found.missing == [broken]
    adapter = tmp_path / "run" / "adapter"
    shutil.copytree(trained["adapter"], adapter)
    (adapter / "manifest.json").unlink()
    facts = facts_of(trained)
    for entry in facts["data"]["validation"]:
        del entry["id"]
    facts["data"]["data_dir"] = str(data)
    (adapter / FACTS_FILE).write_text(json.dumps(facts))
    run = {name: facts[name] for name in ("identity", "data")}
    content = run | {"status": "finished", "output_dir": str(adapter.parent)}
    (adapter.parent / "run.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="not readable as audio"):
        evaluate_adapter(
            settings_for(trained, tmp_path / "out", lora_model_path=adapter, data_dir=data)
        )
    settings = settings_for(trained, tmp_path / "out", lora_model_path=adapter, num_prompts=1)
    report = evaluate_adapter(settings)
    assert "not readable as audio" in report["loss"]["why"]


def test_held_out_clips_are_found_in_a_moved_dataset(
    trained: dict[str, Path], tmp_path: Path
) -> None:
    facts = facts_of(trained)
    moved = tmp_path / "moved"
    shutil.copytree(trained["data"], moved)
    facts["data"]["data_dir"] = str(tmp_path / "gone")
    recorded = [entry["audio"] for entry in facts["data"]["validation"]]
    found = held_out_of(facts, moved, "metadata.json")
    assert sorted(clip.audio for clip in found.clips) == sorted(recorded)
    assert found.is_unseen
    assert (found.max_duration_s, found.n_sources) == (1.0, 4)
    gone = held_out_of(facts, None, "metadata.json", own_run=True)
    assert not gone.clips
    assert "any more; --data_dir says where" in gone.why_none
    # One of them deleted: the others are measured, and that is said.
    entries = [entry for entry in read_metadata(moved) if entry["audio"] != recorded[0]]
    write_metadata(moved, entries)
    fewer = held_out_of(facts, moved, "metadata.json")
    assert fewer.missing == [recorded[0]]
    assert fewer.origin.startswith("Measured on 3 of the 4 clips")


def test_another_dataset_gives_its_validation_split_or_everything(
    trained: dict[str, Path], tmp_path: Path
) -> None:
    facts = facts_of(trained)
    for entry in facts["data"]["validation"]:
        entry["name"] = entry["audio"] = f"elsewhere/{entry['audio']}"
    data = tmp_path / "data"
    shutil.copytree(trained["data"], data)
    everything = held_out_of(facts, data, "metadata.json")
    assert len(everything.clips) == 8
    assert not everything.is_unseen
    assert "is not known" in everything.origin
    own = held_out_of(facts, trained["data"], "metadata.json")
    assert "a lower loss proves nothing" in own.origin
    entries = read_metadata(data)
    entries[0]["split"] = "test"
    write_metadata(data, entries)
    split = held_out_of(facts, data, "metadata.json")
    assert [clip.audio for clip in split.clips] == [entries[0]["audio"]]
    assert "its validation split (1 clip)" in split.origin


def test_other_audio_under_a_held_out_name_is_not_held_out(
    trained: dict[str, Path], tmp_path: Path
) -> None:
    facts = facts_of(trained)
    data = tmp_path / "data"
    shutil.copytree(trained["data"], data)
    names = [entry["audio"] for entry in facts["data"]["validation"]]
    trained_on = next(e["audio"] for e in read_metadata(data) if e["audio"] not in names)
    for name in names:
        shutil.copy(data / trained_on, data / name)
    found = held_out_of(facts, data, "metadata.json")
    assert not found.is_unseen


def test_reasons_for_having_none(trained: dict[str, Path], tmp_path: Path) -> None:
    assert "musicgen_lora.json" in find_held_out(None, None, "metadata.json").why_none
    facts = facts_of(trained)
    facts["data"]["validation"] = []
    assert "held no clips out" in held_out_of(facts, None, "metadata.json", own_run=True).why_none
    facts = facts_of(trained)
    facts["data"]["metadata_file"] = "gone.json"
    assert "not usable" in held_out_of(facts, None, "metadata.json", own_run=True).why_none


def test_prompts_take_turns_among_the_sources(trained: dict[str, Path]) -> None:
    clips = find_held_out(
        AdapterFacts(facts_of(trained)), None, "metadata.json", own_run=True
    ).clips
    chosen = choose_prompts([], clips, 6)
    assert len({item["prompt"] for item in chosen}) == 6
    assert chosen[-1]["origin"] == "default prompt"
    assert [c["prompt"] for c in choose_prompts(["a", "a"], clips, 1)] == ["a", "a"]
    assert len(choose_prompts([], [], 100)) == len(DEFAULT_PROMPTS)


def test_the_audio_is_what_was_described(compared: tuple[dict[str, Any], Path]) -> None:
    report, output_dir = compared
    clip = report["generation"]["clips"][0]["adapter"]
    samples, _ = soundfile.read(output_dir / clip["audio"])
    rms_db = 10 * np.log10(np.square(samples).mean())
    gain_db = max(0.0, clip["descriptors"]["peak_db"] + 0.1)
    assert rms_db == pytest.approx(clip["descriptors"]["rms_db"] - gain_db, abs=0.05)


def play_and(work: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Has something happen while an evaluation plays its clips."""
    original = on_variant.play_prompts

    def play(*arguments: Any, **named: Any) -> list[np.ndarray]:
        work()
        return original(*arguments, **named)

    monkeypatch.setattr(on_variant, "play_prompts", play)


def test_an_adapter_that_goes_while_it_is_measured_is_the_one_of_the_report(
    trained: dict[str, Path],
    compared: tuple[dict[str, Any], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(trained["adapter"], adapter)
    play_and(lambda: shutil.rmtree(adapter), monkeypatch)
    settings = settings_for(trained, tmp_path / "out", lora_model_path=adapter, num_prompts=1)
    report = evaluate_adapter(settings)
    assert not adapter.exists()
    digest = hashlib.sha256((trained["adapter"] / WEIGHTS_FILE).read_bytes()).hexdigest()
    assert report["adapter"]["sha256"] == digest
    assert report["adapter"]["fingerprint"] == compared[0]["adapter"]["fingerprint"]


def test_an_evaluation_that_fails_leaves_the_report_before_it(
    trained: dict[str, Path],
    compared: tuple[dict[str, Any], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    shutil.copytree(compared[1], out)
    killed = out / ".staging-0123abcd" / "audio"
    killed.mkdir(parents=True)
    (killed / "half.wav").write_bytes(b"RIFF")
    before = file_hashes(compared[1])

    def fail() -> None:
        assert not killed.exists(), "what a killed evaluation left is swept at the start"
        raise OSError(errno.ENOSPC, "No space left on device")

    play_and(fail, monkeypatch)
    with pytest.raises(OSError, match="No space left"):
        evaluate_adapter(settings_for(trained, out, num_prompts=1))
    assert file_hashes(out) == before


def test_two_evaluations_into_one_folder(
    trained: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(trained, tmp_path / "out", num_prompts=1)

    def second() -> None:
        monkeypatch.undo()
        with pytest.raises(UserError, match=r"out: in use by another run; wait"):
            evaluate_adapter(settings)

    play_and(second, monkeypatch)
    assert evaluate_adapter(settings)["loss"]["computed"]


def test_forgetting_is_measured_on_the_same_windows_when_the_data_have_moved(
    trained: dict[str, Path], tmp_path: Path
) -> None:
    """Of a second, as in training; the clips have 1.5 s."""
    settings = settings_for(
        trained, tmp_path / "there", num_prompts=1, other_data_dir=trained["data"]
    )
    there = evaluate_adapter(settings)
    assert there["forgetting"]["n_frames"] == 8 * 50
    elsewhere = tmp_path / "copy" / "best_model"
    shutil.copytree(trained["adapter"], elsewhere)
    gone = evaluate_adapter(
        dataclasses.replace(settings, lora_model_path=elsewhere, output_dir=tmp_path / "gone")
    )
    assert not gone["loss"]["computed"]
    assert gone["forgetting"] == there["forgetting"]


def test_an_adapter_from_elsewhere_chooses_no_folder(
    trained: dict[str, Path], compared: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    """Its facts may name any dataset of this user's."""
    data = tmp_path / "data"
    shutil.copytree(trained["data"], data, ignore=shutil.ignore_patterns("tokens"))
    adapter = tmp_path / "downloaded" / "best_model"
    shutil.copytree(trained["adapter"], adapter)
    facts = facts_of(trained)
    facts["data"]["data_dir"] = str(data)
    (adapter / FACTS_FILE).write_text(json.dumps(facts))
    (adapter / "manifest.json").unlink()
    before = file_hashes(data)
    settings = settings_for(trained, tmp_path / "out", lora_model_path=adapter, num_prompts=1)
    report = evaluate_adapter(settings)
    assert f"the adapter names {data} as its dataset" in report["loss"]["why"]
    assert "--data_dir" in report["loss"]["why"]
    assert file_hashes(data) == before
    given = evaluate_adapter(dataclasses.replace(settings, data_dir=data))
    assert given["loss"] == compared[0]["loss"]
