"""An evaluation from adapter to report: its figures, files and clips."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from adapters import add_lora, rewrite
from evaluated import DOCUMENT, facts_of, settings_for
from made_datasets import make_dataset, tiny_settings
from safetensors.torch import load_file

from musicgen_lora.config import EvaluateSettings, ExportSettings
from musicgen_lora.errors import UserError
from musicgen_lora.evaluation.evaluate import evaluate_adapter
from musicgen_lora.evaluation.generations import DEFAULT_PROMPTS
from musicgen_lora.evaluation.off_style import OWN_ORIGIN
from musicgen_lora.evaluation.report.card import BEGIN
from musicgen_lora.evaluation.report.report import files_of_report
from musicgen_lora.export.export import export_model
from musicgen_lora.given import ADAPTER_WEIGHTS
from musicgen_lora.model.base.loading import load_base
from musicgen_lora.training.train import train_lora

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def test_the_report_and_its_files(compared: tuple[dict[str, Any], Path]) -> None:
    report, output_dir = compared
    assert json.loads((output_dir / "report.json").read_text()) == report
    DOCUMENT.validate_python(report, strict=True, extra="forbid")
    assert "<html" in (output_dir / "report.html").read_text()
    # The base plays prompts of other styles by another seed too.
    for side, n_files in (("base", 3 + 2 * 2), ("adapter", 3 + 2)):
        files = sorted((output_dir / "audio" / side).glob("*.wav"))
        assert len(files) == n_files
        for file in files:
            info = soundfile.info(file)
            assert (info.samplerate, info.subtype) == (32_000, "PCM_16")
            assert info.duration == pytest.approx(0.6)
    assert len(report["plots"]) >= 2
    assert all((output_dir / name).is_file() for name in report["plots"])
    assert [item["what"] for item in report["not_computed"]] == [
        "Loss on other styles (forgetting)",
        "Prompt adherence",
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
    """Windows of 1 s in two stretches; codebooks end within the last one."""
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


def test_prompts_of_other_styles_stand_apart(compared: tuple[dict[str, Any], Path]) -> None:
    report, output_dir = compared
    found = report["off_style"]
    asked = {clip["prompt"] for clip in report["generation"]["clips"]}
    assert len(asked) == 3
    assert [clip["origin"] for clip in found["clips"]] == [OWN_ORIGIN] * 2
    assert not asked & {clip["prompt"] for clip in found["clips"]}
    assert [(clip["seed"], clip["other_seed"]) for clip in found["clips"]] == [(3, 7), (4, 8)]
    names = [
        clip[side]["audio"] for clip in found["clips"] for side in ("base", "again", "adapter")
    ]
    assert len(set(names)) == 6
    assert all((output_dir / name).is_file() for name in names)
    assert set(names) <= set(files_of_report(output_dir))
    assert found["change"]["n"] == found["towards_style"]["n"] == 2
    assert found["another_prompt"] > 0.0
    assert found["change"]["note"] == "n = 2: too few for an interval"
    told = report["told"]["off_style"]
    assert told
    page = (output_dir / "report.html").read_text(encoding="utf-8")
    assert all(said.replace("'", "&#39;") in page for said in told)
    assert all(row["n"] <= 3 for row in report["primaries"] if row["unit"] == "prompt")


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
    assert "Held-out loss in nats per token at step" in own_card
    assert section in (tmp_path / "shared" / "README.md").read_text(encoding="utf-8")
    loss = report["primaries"][0]
    cells = f"{loss['base']:.3f} | {loss['adapter']:.3f} | {loss['difference']:+.3f}"
    interval = f"{loss['ci_low']:+.3f} to {loss['ci_high']:+.3f}"
    # Four sources are too few for a test.
    said = f"(nats per token) | not tested | {cells} | {interval} | \N{EN DASH} | 4 s"
    assert said in section
    assert "n = 4 training and 4 held-out sources" in section
    # What a report says of its owner's files stays at home.
    assert not any(source["source"] in section for source in report["loss"]["sources"])
    other = json.loads((folder / "report.json").read_text())
    other["adapter"]["fingerprint"] = "0" * 64
    (tmp_path / "report.json").write_text(json.dumps(other))
    moved = {"evaluation": tmp_path / "report.json", "output_dir": tmp_path / "other"}
    with pytest.raises(UserError, match="is for another adapter"):
        export_model(dataclasses.replace(settings, **moved))
    assert not (tmp_path / "other").exists()


def test_without_compare_the_base_is_not_played(uncompared: tuple[dict[str, Any], Path]) -> None:
    report, output_dir = uncompared
    DOCUMENT.validate_python(report, strict=True, extra="forbid")
    assert not (output_dir / "audio" / "base").exists()
    assert report["generation"]["clips"][0]["base"] is None
    assert report["loss"]["computed"]
    assert report["not_computed"][-1]["why"] == "needs --compare"


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
    settings = settings_for(
        trained, tmp_path / "report", data_dir=alone, from_tokens=True, compare=True
    )
    report = evaluate_adapter(settings)
    assert report["held_out"]["is_unseen"]
    assert report["loss"] == compared[0]["loss"]
    # What is compared with the reference is the same without prompts of other styles.
    for name in ("reference", "primaries"):
        assert report[name] == compared[0][name]
    for name, own in report["damage"].items():
        other = compared[0]["damage"][name]
        assert own["anchors"].pop("recorded")["why"]
        assert own | {"anchors": other["anchors"]} == other
        assert own["anchors"].items() <= other["anchors"].items()
    for own, other in zip(report["descriptors"], compared[0]["descriptors"], strict=True):
        # Without the audio there is nothing as it was recorded.
        assert own["anchors"] | {"recorded": other["anchors"]["recorded"]} == other["anchors"]
        assert own | {"anchors": other["anchors"]} == other
    assert report["off_style"] == {"computed": False, "why": "--num_off_style 0"}
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


def test_the_audio_is_what_was_described(compared: tuple[dict[str, Any], Path]) -> None:
    report, output_dir = compared
    clip = report["generation"]["clips"][0]["adapter"]
    samples, _ = soundfile.read(output_dir / clip["audio"])
    rms_db = 10 * np.log10(np.square(samples).mean())
    gain_db = max(0.0, clip["descriptors"]["peak_db"] + 0.1)
    assert rms_db == pytest.approx(clip["descriptors"]["rms_db"] - gain_db, abs=0.05)


def test_an_adapter_that_changes_nothing_is_told(
    trained: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before its first step, for example: its figures would pass for a harmless adapter's."""
    tensors = load_file(trained["adapter"] / ADAPTER_WEIGHTS)
    start = {name: t * 0 if "lora_B" in name else t for name, t in tensors.items()}
    adapter = rewrite(trained["adapter"], tmp_path / "start", start)
    settings = settings_for(trained, tmp_path / "out", lora_model_path=adapter, num_prompts=1)
    report = evaluate_adapter(settings)
    said = f"Warning: {adapter} changes no weight at strength 1"
    assert report["remarks"][0].startswith(said)
    assert report["remarks"][0] in report["findings"]
    assert said in " ".join(capsys.readouterr().out.split())
