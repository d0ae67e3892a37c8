"""Several adapters and strengths in one evaluation, and what it reuses from an earlier one."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from clap import make_tiny_clap
from made_datasets import make_dataset, tiny_settings
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file

from musicgen_lora.config import EvaluateSettings
from musicgen_lora.evaluation import generations
from musicgen_lora.evaluation.evaluate import evaluate_adapter
from musicgen_lora.evaluation.report.document import Report
from musicgen_lora.given import ADAPTER_WEIGHTS
from musicgen_lora.model.lora.facts import FACTS_FILE
from musicgen_lora.training.train import train_lora

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
DOCUMENT = TypeAdapter(Report)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    """A run with a second adapter, half as strong, as one of its checkpoints."""
    root = tmp_path_factory.mktemp("several")
    data = make_dataset(root / "data", [1.5] * 6)
    settings = tiny_settings(
        tiny_model_dir, data, root / "run", num_epochs=2, validation_fraction=0.5, max_duration=1.0
    )
    train_lora(settings)
    second = root / "run" / "checkpoints" / "step-000001"
    shutil.copytree(root / "run" / "best_model", second, dirs_exist_ok=True)
    for name in ("manifest.json", FACTS_FILE):
        (second / name).unlink()
    tensors = load_file(second / ADAPTER_WEIGHTS)
    save_file({name: 0.5 * own for name, own in tensors.items()}, second / ADAPTER_WEIGHTS)
    return root / "run"


def settings_for(run: Path, base: Path, output_dir: Path, **changes: Any) -> EvaluateSettings:
    values: dict[str, Any] = {
        "base_model_path": str(base),
        "lora_model_path": [run / "best_model"],
        "output_dir": output_dir,
        "duration": 0.6,
        "num_prompts": 2,
        "num_off_style": 0,
        "batch_size": 1,
        "compare": True,
    }
    return EvaluateSettings(**(values | changes))


@pytest.fixture(scope="module")
def alone(run: Path, tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One adapter, and its folder."""
    folder = tmp_path_factory.mktemp("alone")
    return evaluate_adapter(settings_for(run, tiny_model_dir, folder)), folder


@pytest.fixture(scope="module")
def several(
    run: Path, alone: Any, tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """Two adapters at two strengths, in a folder where one of them was measured before."""
    folder = tmp_path_factory.mktemp("several") / "evaluation"
    shutil.copytree(alone[1], folder)
    settings = settings_for(
        run,
        tiny_model_dir,
        folder,
        lora_model_path=[run / "best_model", run / "checkpoints" / "step-000001"],
        strengths=[0.0, 1.0],
        compare=False,
        clap=str(make_tiny_clap(folder / "clap")),
    )
    return evaluate_adapter(settings), folder


def test_each_is_measured_as_if_it_were_alone(alone: Any, several: Any) -> None:
    report, folder = several
    DOCUMENT.validate_python(report, strict=True, extra="forbid")
    assert json.loads((folder / "report.json").read_text()) == report
    labels = [own["label"] for own in report["variants"]]
    assert labels == ["best_model x 0", "best_model", "step-000001 x 0", "step-000001"]
    nothing, best, _, half = report["variants"]
    for name in ("loss", "descriptors", "overfitting"):
        assert best[name] == alone[0][name]
    assert [own["sha256"] for own in (nothing, best)] == [alone[0]["adapter"]["sha256"]] * 2
    # At strength 0 it is the base; the checkpoint has half of what the other one learned.
    assert nothing["loss"]["mean"]["difference"] == 0.0
    assert best["loss"]["mean"]["difference"] < half["loss"]["mean"]["difference"] < 0.0
    assert half["loss"]["n_sources"] == best["loss"]["n_sources"] == 3


def test_a_clap_is_one_more_distance_and_reads_the_prompts(alone: Any, several: Any) -> None:
    report, folder = several
    assert [row["name"] for row in report["distances"]["embeddings"]][-1] == "clap"
    found = report["text_agreement"]
    assert [len(found[side]) for side in ("base", "adapter", "reference")] == [2, 2, 3]
    assert all(-1.0 <= value <= 1.0 for value in (*found["base"], found["others"]))
    assert any(
        told.startswith("Agreement with the prompts by CLAP")
        for told in report["told"]["agreement"]
    )
    assert "Agreement with the prompts" in (folder / "report.html").read_text(encoding="utf-8")
    without = alone[0]["text_agreement"]
    assert without == {
        "computed": False,
        "why": "needs a CLAP model: --clap laion/larger_clap_general, or the folder of a copy",
    }


def test_nothing_is_played_or_scored_twice(several: Any) -> None:
    cache = several[0]["cache"]
    # Two prompts by two seeds of one new adapter; the base, the other adapter and strength 0 are
    # known.
    assert cache["made"]["clips"] == 4
    assert cache["reused"]["clips"] == 4 + 4 + 4 + 4
    # Two windows of each of three held-out clips, one of each of three training clips.
    assert cache["made"]["losses"] == 9
    assert cache["damaged"] == []


def test_the_choice_is_told_with_its_doubts(several: Any) -> None:
    report, _ = several
    choice = report["choice"]
    assert choice["best"] in {own["name"] for own in report["variants"]}
    assert report["adapter"]["name"] == choice["best"]
    primaries = [p for own in report["variants"] for p in own["primaries"]]
    tested = [p for p in primaries if p["p_value"] is not None]
    assert {p["n_tests"] for p in primaries} == {len(tested)}
    assert all(p["p_holm"] >= p["p_value"] for p in tested)
    told = " ".join(report["findings"])
    assert "Best of 4 variants by " in told
    assert "its figures are too optimistic" in told
    assert "--data_dir" in told


def test_the_page_switches_between_all_of_them(several: Any) -> None:
    report, folder = several
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Side by side" in page
    first = page.split('<div class="player"', 2)[1]
    for label in ("base", *(own["label"] for own in report["variants"])):
        assert f">{label}</button>" in first or label == report["adapter"]["label"]
    assert first.count("<button") == 2 + 5
    names = [own["name"] for own in report["variants"]]
    assert all(len(list((folder / "audio" / name).glob("*.wav"))) == 2 for name in names)
    # The clips of the evaluation before it are gone.
    assert not (folder / "audio" / "adapter" / "01").exists()
    assert not list((folder / "audio" / "adapter").glob("*.wav"))


def test_one_adapter_is_told_as_before(alone: Any) -> None:
    report, folder = alone
    assert (report["variants"], report["choice"]["computed"]) == ([], False)
    assert "Side by side" not in (folder / "report.html").read_text(encoding="utf-8")
    assert report["cache"]["reused"] == {}
    # Its four sources are too few for a test.
    assert {p["n_tests"] for p in report["primaries"]} == {0}


def test_a_killed_evaluation_goes_on(
    run: Path,
    alone: Any,
    tiny_model_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = settings_for(run, tiny_model_dir, tmp_path / "out")
    played = 0

    def killed(*arguments: Any, **named: Any) -> Any:
        nonlocal played
        played += 1
        if played == 2:
            raise KeyboardInterrupt
        return whole(*arguments, **named)

    whole = generations.generate_codes
    with monkeypatch.context() as patched:
        # One after another, as those of a large base are.
        patched.setattr(generations, "TOGETHER", 1)
        patched.setattr(generations, "generate_codes", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluate_adapter(settings)
    # One of its files is altered meanwhile: that is said, and what it held made anew.
    cache = tmp_path / "out" / "cache"
    (clip,) = cache.glob("clips-*")
    assert len(list(cache.iterdir())) == 1
    report = evaluate_adapter(settings)
    assert report["cache"]["reused"]["clips"] == 1
    clip.write_bytes(clip.read_bytes()[:-1])
    capsys.readouterr()
    again = evaluate_adapter(dataclasses.replace(settings, guidance_scale=3.0))
    out = capsys.readouterr().out
    assert again["cache"]["damaged"] == [clip.name]
    assert clip.name in out.replace("\n", "")
    assert again["cache"]["made"] == {"clips": 1}
    for name in ("loss", "descriptors", "distances", "primaries"):
        assert report[name] == again[name] == alone[0][name]
