"""Nothing is asked of a base past the length that it was trained on, and its advice is taken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from made_datasets import make_dataset, read_rows, tiny_settings

from musicgen_lora.config import EvaluateSettings, GenerateSettings
from musicgen_lora.errors import UserError
from musicgen_lora.evaluation.evaluate import evaluate_adapter
from musicgen_lora.generation.decoding import decode
from musicgen_lora.generation.decoding.decode import generate_codes, window_frames, windows_sentence
from musicgen_lora.generation.decoding.request import Conditions, Request
from musicgen_lora.generation.decoding.sampling import GREEDY
from musicgen_lora.generation.decoding.window import DecodingWindow
from musicgen_lora.generation.generate import generate_audio
from musicgen_lora.given import EMBEDDED
from musicgen_lora.model.base.loading import load_base, load_tokenizer
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.text.states import TextStates
from musicgen_lora.training.train import train_lora

PROMPTS = ["hip hop 808 beat", "trap drums with bass and the 808 pattern"]


def stating(folder: Path, copy: Path, facts: object) -> Path:
    """A copy of a base whose config has other facts of ours."""
    shutil.copytree(folder, copy)
    path = copy / "config.json"
    config = json.loads(path.read_text()) | {"musicgen_lora": facts}
    path.write_text(json.dumps(config))
    return copy


@pytest.fixture
def short_base(tiny_model_dir: Path, tmp_path: Path) -> Path:
    """A base that was trained on 0.4 s: 20 frames."""
    advice = {"advised_guidance_scale": 2.5, "advised_temperature": 0.9}
    facts = {"trained_duration_s": 0.4, "more": [1]} | advice
    return stating(tiny_model_dir, tmp_path / "short", facts)


def test_what_bases_state(tiny_model_dir: Path, short_base: Path) -> None:
    assert BaseModel.load(tiny_model_dir).facts.trained_duration_s == 30.0
    assert BaseModel.load(short_base).facts.trained_duration_s == 0.4
    assert window_frames(BaseModel.load(str(EMBEDDED))) == (500, 300)
    assert BaseModel.load(tiny_model_dir).facts.advised_learning_rate is None
    assert BaseModel.load(str(EMBEDDED)).facts.advised_learning_rate == 2e-3


@pytest.mark.parametrize(
    "facts",
    [
        [],
        None,
        {"trained_duration_s": "10"},
        {"trained_duration_s": -1.0},
        {"trained_duration_s": float("inf")},
        {"trained_duration_s": float("nan")},
        {"trained_duration_s": True},
        {"trained_duration_s": 10**400},
        {"advised_learning_rate": 0.0},
        {"advised_learning_rate": "fast"},
        {"advised_learning_rate": float("nan")},
        {"advised_guidance_scale": 0.5},
        {"advised_temperature": 0.0},
    ],
)
def test_facts_that_are_none_are_refused_in_one_line(
    facts: object, tiny_model_dir: Path, tmp_path: Path
) -> None:
    folder = stating(tiny_model_dir, tmp_path / "base", facts)
    with pytest.raises(UserError, match=r"base(: |/)config\.json") as raised:
        load_base(folder)
    assert "\n" not in str(raised.value)


def test_a_long_clip_goes_on_from_the_end_of_each_window(
    short_base: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, whole = load_base(short_base), load_base(tiny_model_dir)
    texts = TextStates(model, load_tokenizer(short_base)).batch(PROMPTS)
    positions: list[int] = []

    class NotedWindow(DecodingWindow):
        def _make_ready(self) -> None:
            positions.append(self.n_steps)

    monkeypatch.setattr(decode, "window_kind", lambda decoder: NotedWindow)
    steps: list[tuple[int, int]] = []
    codes = generate_codes(
        BaseModel(model),
        Request(Conditions(texts), n_frames=37, seeds=[0, 1], sampling=GREEDY),
        on_step=lambda done, total: steps.append((done, total)),
    )
    # 20 frames, then 12 more after the last 8, then the 5 that are left.
    expected = generate_codes(
        BaseModel(whole),
        Request(Conditions(texts), n_frames=20, seeds=[0, 1], sampling=GREEDY),
    )
    for n_frames in (20, 13):
        last = generate_codes(
            BaseModel(whole),
            Request(
                Conditions(texts),
                n_frames=n_frames,
                seeds=[0, 1],
                sampling=GREEDY,
                prompt_codes=expected[..., -8:],
            ),
        )
        expected = torch.cat([expected, last[..., 8:]], dim=-1)
    assert codes.shape == (2, 4, 37)
    assert torch.equal(codes, expected)
    # The delay adds three steps to a window.
    assert max(positions) == 20 + 3
    assert steps[-1] == (40, 40)
    unbroken = generate_codes(
        BaseModel(whole),
        Request(Conditions(texts), n_frames=37, seeds=[0, 1], sampling=GREEDY),
    )
    assert not torch.equal(codes, unbroken)


def test_a_long_clip_has_its_own_draws_in_any_batch(short_base: Path) -> None:
    model = load_base(short_base)
    texts = TextStates(model, load_tokenizer(short_base)).batch(PROMPTS)
    both = generate_codes(BaseModel(model), Request(Conditions(texts), n_frames=50, seeds=[5, 6]))
    alone = generate_codes(
        BaseModel(model), Request(Conditions(texts.rows([1])), n_frames=50, seeds=[6])
    )
    assert torch.equal(both[1:], alone)
    assert not torch.equal(both[0, :, 8:20], both[0, :, 20:32]), "draws begin anew in each window"


def test_a_melody_models_tune_goes_on_with_the_music(tiny_melody_dir: Path, tmp_path: Path) -> None:
    model = load_base(stating(tiny_melody_dir, tmp_path / "base", {"trained_duration_s": 0.4}))
    whole = load_base(tiny_melody_dir)
    texts = TextStates(model, load_tokenizer(tiny_melody_dir)).batch(PROMPTS)
    tune = torch.arange(11)[None].expand(2, -1)
    how = {"seeds": [0, 1], "sampling": GREEDY}
    codes = generate_codes(
        BaseModel(model), Request(Conditions(texts, melodies=tune), n_frames=32, **how)
    )
    first = generate_codes(
        BaseModel(whole), Request(Conditions(texts, melodies=tune), n_frames=20, **how)
    )
    # The second window begins after 12 of 20 frames, so after 6.6 of the tune's 11.
    second = generate_codes(
        BaseModel(whole),
        Request(
            Conditions(texts, melodies=tune.roll(-7, dims=-1)),
            n_frames=20,
            prompt_codes=first[..., -8:],
            **how,
        ),
    )
    assert torch.equal(codes, torch.cat([first, second[..., 8:]], dim=-1))


def test_a_base_may_play_shorter_windows_than_it_was_trained_on(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    facts = {"trained_duration_s": 30.0, "advised_window_s": 0.4}
    advised = BaseModel.load(stating(tiny_model_dir, tmp_path / "base", facts))
    assert advised.facts.trained_duration_s == 30.0
    assert window_frames(advised) == (20, 12)
    said = windows_sentence(advised, 50)
    assert said.startswith("The base plays 0.4 s at a time: 1 s are played in windows of 0.4 s")
    # Advice doesn't go past what was learnt.
    facts = {"trained_duration_s": 0.4, "advised_window_s": 30.0}
    assert window_frames(BaseModel.load(stating(tiny_model_dir, tmp_path / "more", facts)))[0] == 20


def test_no_command_goes_past_it_and_each_says_so(
    short_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_dataset(tmp_path / "data", [1.5, 1.0, 0.3, 1.2])
    run = train_lora(
        tiny_settings(short_base, data, tmp_path / "run", num_epochs=2, validation_fraction=0.5)
    )
    said = capsys.readouterr().out
    assert said.count("at most 0.4 s long, not 30 s as --max_duration says") == 1
    assert run["settings"]["max_duration"] == run["base"]["trained_duration_s"] == 0.4
    report = evaluate_adapter(
        EvaluateSettings(
            base_model_path=str(short_base),
            lora_model_path=tmp_path / "run" / "best_model",
            output_dir=tmp_path / "evaluation",
            prompts=PROMPTS,
            duration=1.0,
        )
    )
    said = capsys.readouterr().out
    assert "1 s are played in windows of 0.4 s" in said
    assert said.count("As this base recommends: --guidance_scale 2.5 --temperature 0.9.") == 1
    settings = report["settings"]
    assert (settings["guidance_scale"], settings["temperature"]) == (2.5, 0.9)
    (base,) = read_rows(tmp_path / "run", "base")
    assert report["loss"]["mean"]["mean_base"] == pytest.approx(base["loss"], rel=1e-4)
    assert "windows of 0.4 s" in report["generation"]["windows"]
    page = (tmp_path / "evaluation" / "report.html").read_text(encoding="utf-8")
    assert "1 s are played in windows of 0.4 s" in page
    (path,) = generate_audio(
        GenerateSettings(
            base_model_path=str(short_base),
            prompts=PROMPTS[:1],
            duration=1.0,
            output_dir=tmp_path / "generated",
        )
    )
    said = capsys.readouterr().out
    assert "1 s are played in windows of 0.4 s" in said
    assert said.count("As this base recommends: --guidance_scale 2.5 --temperature 0.9.") == 1
    facts = json.loads(path.with_suffix(".json").read_text())
    assert (facts["window_s"], facts["guidance_scale"], facts["temperature"]) == (0.4, 2.5, 0.9)


def test_an_adapter_of_longer_windows_is_measured_on_the_bases(
    short_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_dataset(tmp_path / "data", [1.5, 1.0, 0.3, 1.2])
    train_lora(
        tiny_settings(short_base, data, tmp_path / "run", max_steps=1, validation_fraction=0.5)
    )
    facts_path = tmp_path / "run" / "best_model" / "musicgen_lora.json"
    facts = json.loads(facts_path.read_text())
    facts["settings"]["max_duration"] = 30.0
    facts_path.write_text(json.dumps(facts))
    facts_path.with_name("manifest.json").unlink()
    (base,) = read_rows(tmp_path / "run", "base")
    capsys.readouterr()
    report = evaluate_adapter(
        EvaluateSettings(
            base_model_path=str(short_base),
            lora_model_path=tmp_path / "run" / "best_model",
            output_dir=tmp_path / "evaluation",
            prompts=PROMPTS,
            duration=0.3,
        )
    )
    said = capsys.readouterr().out
    assert "Losses are measured on windows of 0.4 s, not 30 s" in said
    assert "are played in windows" not in said
    assert report["loss"]["mean"]["mean_base"] == pytest.approx(base["loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("advised", "changes", "rate", "said"),
    [
        (2e-3, {}, 2e-3, "Learning rate 0.002, as this base advises for adapters"),
        (None, {}, 3e-4, "Learning rate 0.0003, the default"),
        (2e-3, {"learning_rate": 1e-4}, 1e-4, "0.0001, as given; this base advises 0.002"),
        (2e-3, {"learning_rate": 2e-3}, 2e-3, None),
        (None, {"learning_rate": 1e-4}, 1e-4, None),
        (2e-3, {"trainable": "full"}, 3e-4, "Learning rate 0.0003, the default"),
    ],
)
def test_the_rate_is_the_given_one_else_the_bases_else_the_guides(
    advised: float | None,
    changes: dict[str, Any],
    rate: float,
    said: str | None,
    tiny_model_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    facts = {} if advised is None else {"advised_learning_rate": advised}
    base = stating(tiny_model_dir, tmp_path / "base", facts)
    data = make_dataset(tmp_path / "data", [0.5, 0.6])
    changes = {"learning_rate": None, "max_steps": 1, "warmup_share": 0.0} | changes
    run = train_lora(tiny_settings(base, data, tmp_path / "out", **changes))
    assert run["settings"]["learning_rate"] == rate
    assert read_rows(tmp_path / "out", "train")[0]["learning_rate"] == rate
    text = " ".join(capsys.readouterr().out.split())
    assert ("Learning rate" in text) == (said is not None)
    assert said is None or said in text
