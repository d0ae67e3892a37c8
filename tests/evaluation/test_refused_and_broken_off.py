"""Evaluations that are refused, fail, or run into another one: existing results stay."""

from __future__ import annotations

import errno
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluated import settings_for
from trainer import file_hashes

from musicgen_lora.errors import UserError
from musicgen_lora.evaluation import on_variant
from musicgen_lora.evaluation.evaluate import evaluate_adapter
from musicgen_lora.given import ADAPTER_WEIGHTS

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


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


def play_and(work: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make something happen while an evaluation generates its clips."""
    original = on_variant.play_prompts

    def play(*arguments: Any, **named: Any) -> list[np.ndarray]:
        work()
        return original(*arguments, **named)

    monkeypatch.setattr(on_variant, "play_prompts", play)


def test_another_evaluation_is_refused_meanwhile_and_the_adapter_may_go(
    trained: dict[str, Path],
    compared: tuple[dict[str, Any], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The report describes the adapter that was there at the start."""
    adapter = tmp_path / "adapter"
    shutil.copytree(trained["adapter"], adapter)
    settings = settings_for(trained, tmp_path / "out", lora_model_path=adapter, num_prompts=1)

    def meanwhile() -> None:
        with pytest.raises(UserError, match=r"out: in use by another run; wait"):
            evaluate_adapter(settings)
        shutil.rmtree(adapter)

    play_and(meanwhile, monkeypatch)
    report = evaluate_adapter(settings)
    assert not adapter.exists()
    digest = hashlib.sha256((trained["adapter"] / ADAPTER_WEIGHTS).read_bytes()).hexdigest()
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
