"""The loss on other music."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
from evaluated import settings_for

from musicgen_lora.dataset.encoding import encode_clips
from musicgen_lora.dataset.metadata import load_dataset
from musicgen_lora.evaluation.evaluate import evaluate_adapter
from musicgen_lora.evaluation.losses import forgetting
from musicgen_lora.evaluation.losses.forgetting import other_styles_folder
from musicgen_lora.model.base_model import BaseModel

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def test_forgetting_is_the_loss_on_another_dataset(uncompared: tuple[dict[str, Any], Path]) -> None:
    report, output_dir = uncompared
    # The adapter's own dataset as "other music": what it learned there shows as a fall.
    forgetting = report["forgetting"]
    assert forgetting["n_sources"] == 8
    assert forgetting["mean"]["relative"] < 0
    assert any(s.startswith("Forgetting: the loss on other styles") for s in report["findings"])
    assert "<h2>Forgetting" in (output_dir / "report.html").read_text()


def test_without_other_music_forgetting_is_not_computed(
    compared: tuple[dict[str, Any], Path],
) -> None:
    report, output_dir = compared
    assert not report["forgetting"]["computed"]
    assert "--other_data_dir" in report["not_computed"][0]["why"]
    assert "<h2>Forgetting" not in (output_dir / "report.html").read_text()


def test_the_bundled_styles_are_a_dataset_that_the_embedded_base_predicts() -> None:
    folder = other_styles_folder(None, "tiny-beats")
    assert folder is not None
    clips = load_dataset(folder)
    assert len(clips) == 30
    assert not any("808" in text or "trap" in text for clip in clips for text in clip.texts)


def test_the_bundled_styles_come_with_their_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = BaseModel.load("tiny-beats")
    with monkeypatch.context() as patched:
        patched.setattr(forgetting, "encode_clips", None)
        kept, short = forgetting.other_style_windows(model, forgetting.BUNDLED, 10.0)
    assert not short
    clips = load_dataset(forgetting.BUNDLED)
    assert [window.caption for window in kept] == [clip.texts[0] for clip in clips]
    (first,) = encode_clips([clips[0]], model)
    # Another processor may round a frame's vector to the next entry.
    assert (kept[0].codes == first).mean() > 0.99


def test_forgetting_is_measured_on_the_same_windows_when_the_data_have_moved(
    trained: dict[str, Path], uncompared: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    """Windows are 1 s long, as in training; the clips are 1.5 s long."""
    there, _ = uncompared
    assert there["forgetting"]["n_frames"] == 8 * 50
    elsewhere = tmp_path / "copy" / "best_model"
    shutil.copytree(trained["adapter"], elsewhere)
    settings = settings_for(trained, tmp_path, num_prompts=1, other_data_dir=trained["data"])
    gone = evaluate_adapter(dataclasses.replace(settings, lora_model_path=elsewhere))
    assert not gone["loss"]["computed"]
    assert gone["forgetting"] == there["forgetting"]
