"""The model card of an adapter: its facts, and its command, which is run as a reader would run it.

Its code for bare PEFT is run with the kinds of adapters, in the process that has bare PEFT."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from made_datasets import make_dataset, tiny_settings
from safetensors import safe_open

from musicgen_lora.cli import main
from musicgen_lora.training.train import train_lora


@pytest.fixture(scope="module")
def output_dir(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    root = tmp_path_factory.mktemp("a card")
    data = make_dataset(root / "data", [0.4, 0.5, 0.6, 0.7])
    train_lora(tiny_settings(tiny_model_dir, data, root / "out", max_steps=2))
    return root / "out"


def blocks(output_dir: Path, language: str) -> list[str]:
    card = (output_dir / "best_model" / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)


def test_its_command_plays_the_adapter(output_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (command,) = blocks(output_dir, "sh")
    program, *words = shlex.split(command.replace("\\\n", " "))
    assert program == "musicgen-lora"
    monkeypatch.chdir(output_dir)
    assert main([*words, "--duration", "0.2", "--output_dir", "played"]) == 0
    (said,) = [json.loads(path.read_text()) for path in Path("played").glob("*.json")]
    assert said["prompt"] == "hip hop 808 beat with trap drums"
    assert len(said["adapters"]) == 1


def test_it_says_what_it_is(output_dir: Path, tiny_model_dir: Path) -> None:
    best = output_dir / "best_model"
    card = (best / "README.md").read_text(encoding="utf-8")
    _, front, text = card.split("---\n", 2)
    assert yaml.safe_load(front)["library_name"] == "peft"
    run = json.loads((output_dir / "run.json").read_text())
    assert f"- Base: `{tiny_model_dir}` (fingerprint `{run['base']['fingerprint']}`)" in text
    assert "3 training clips, 1 held out, split by source" in text
    assert run["data"]["fingerprint"] in text
    assert "lora, rank 12, alpha 24" in text
    assert "learning rate 0.003, cosine" in text
    assert "CC-BY-NC 4.0" in text
    assert f"| mean | {run['base_loss']['loss']:.4f} | {run['best']['loss']:.4f} |" in text
    with safe_open(best / "adapter_model.safetensors", "pt") as file:
        header = json.loads(file.metadata()["musicgen_lora"])
    assert header["base"] == run["base"]
    assert header["data"]["fingerprint"] == run["data"]["fingerprint"]
    assert header["best"] == run["best"]
    assert header["versions"] == run["versions"]
    assert header["identity"] == run["identity"]
