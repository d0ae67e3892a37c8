"""Every kind of adapter: trained, saved, and played the same by bare PEFT and by us."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapters import make_adapter
from made_datasets import make_dataset, tiny_settings

from musicgen_lora.config import EvaluateSettings, GenerateSettings, TrainSettings
from musicgen_lora.errors import UserError
from musicgen_lora.evaluation.evaluate import evaluate_adapter
from musicgen_lora.generation.generate import generate_audio
from musicgen_lora.model.base.loading import load_base, load_tokenizer
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.lora import initial as start
from musicgen_lora.model.lora import spec
from musicgen_lora.model.lora.adapter import load_adapter
from musicgen_lora.model.lora.targets import matching, target_pattern
from musicgen_lora.model.text.states import TextStates
from musicgen_lora.training.train import train_lora
from musicgen_lora.training.weights import LoraWeights, lora_spec

CAPTIONS = ["hip hop 808 beat", "dark trap drums with bass and the 808"]
EVERYWHERE = ["attention", "feed_forward", "heads", "text_projection"]
KINDS: dict[str, dict[str, Any]] = {
    "rslora": {
        "adapter": "rslora",
        "lora_init": "orthogonal",
        "lora_alpha": 4,
        "lora_targets": EVERYWHERE,
    },
    "dora": {"adapter": "dora", "lora_targets": [*EVERYWHERE, "embeddings"]},
    "pissa": {"lora_init": "pissa", "lora_targets": EVERYWHERE},
    "pissa-dora": {"lora_init": "pissa", "adapter": "dora"},
    "olora-rslora": {"lora_init": "olora", "adapter": "rslora", "lora_alpha": 3},
    "text": {
        "lora_init": "gaussian",
        "lora_targets": ["attention", "text_encoder"],
        "condition_dropout": 0.5,
    },
}

BARE = """
import gc, os, sys

# Libraries load in less time.
gc.disable()
import numpy as np
import torch
from peft import PeftModel
from transformers import AutoTokenizer, MusicgenForConditionalGeneration

torch.set_num_threads(1)
captions = sys.argv[2].split("|")
for base, adapter, delayed in [line.rstrip().split("|") for line in open(sys.argv[1])]:
    model = MusicgenForConditionalGeneration.from_pretrained(base)
    model = PeftModel.from_pretrained(model, adapter).eval()
    text = AutoTokenizer.from_pretrained(base)(captions, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**text, decoder_input_ids=torch.from_numpy(np.load(delayed))).logits
    np.save(adapter + "/bare.npy", logits.numpy())
os.chdir(sys.argv[3])
card = {}
exec(sys.argv[4], card)
model = card["model"]
assert type(model).__name__.startswith("PeftModel")
assert any("lora_B" in name and bool(p.any()) for name, p in model.named_parameters())
assert "musicgen_lora" not in sys.modules
"""
MONO, STEREO = [0, 1, 2, 3], [0, 0, 1, 1, 2, 2, 3, 3]
"""Delays of the codebooks, by hand."""


def codes(n_codebooks: int = 4) -> torch.Tensor:
    return torch.randint(0, 64, (2, n_codebooks, 24), generator=torch.Generator().manual_seed(1))


def logits_of(model, folder: Path) -> torch.Tensor:
    texts = TextStates(model, load_tokenizer(folder)).batch(CAPTIONS)
    with torch.no_grad():
        return BaseModel(model).logits(codes(model.config.decoder.num_codebooks), texts)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("kinds") / "data", [0.4, 0.4, 0.4, 0.4])


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path, data: Path
) -> dict[str, tuple[dict[str, Any], Path]]:
    """What `run.json` says of each kind, and its adapter."""
    work = tmp_path_factory.mktemp("kinds")
    made = {}
    for name, changes in KINDS.items():
        settings = tiny_settings(
            tiny_model_dir,
            data,
            work / name,
            max_steps=4,
            save_every=4,
            validate_every=4,
            **changes,
        )
        made[name] = (train_lora(settings), work / name / "best_model")
    return made


@pytest.fixture(scope="module")
def drawn(
    tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path, tiny_stereo_dir: Path
) -> dict[str, tuple[Path, Path]]:
    """Base and adapter, mono and stereo, whose weights are drawn and large."""
    work = tmp_path_factory.mktemp("drawn")
    made = {"mono": (tiny_model_dir, work / "mono"), "stereo": (tiny_stereo_dir, work / "stereo")}
    for base, folder in made.values():
        make_adapter(load_base(base), folder)
    return made


@pytest.fixture(scope="module")
def bare(
    runs, drawn, tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path
) -> subprocess.CompletedProcess[str]:
    """Bare PEFT on bare transformers in one fresh process: it puts its logits beside each adapter,
    and runs the code of a card where a reader would."""
    work = tmp_path_factory.mktemp("bare")
    for name, delays in (("mono", MONO), ("stereo", STEREO)):
        n_codebooks = len(delays)
        delayed = np.full((2, n_codebooks, 24), 64)
        for k, delay in enumerate(delays):
            delayed[:, k, delay + 1 :] = codes(n_codebooks)[:, k, : 23 - delay]
        np.save(work / f"{name}.npy", delayed.reshape(-1, 24))
    jobs = [(tiny_model_dir, folder, work / "mono.npy") for _, folder in runs.values()]
    jobs += [(*both, work / f"{name}.npy") for name, both in drawn.items()]
    (work / "jobs.txt").write_text("\n".join("|".join(map(str, job)) for job in jobs))
    best = runs["rslora"][1]
    card = (best / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)
    words = [work / "jobs.txt", "|".join(CAPTIONS), best.parent, code]
    return subprocess.run(
        [sys.executable, "-c", BARE, *map(str, words)],
        cwd=work,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_cards_code_loads_the_adapter_with_bare_peft(
    bare: subprocess.CompletedProcess[str],
) -> None:
    assert bare.returncode == 0, bare.stderr


@pytest.mark.parametrize(("kind", "delays"), [("mono", MONO), ("stereo", STEREO)])
def test_bare_peft_on_bare_transformers_gives_equal_logits(
    kind: str, delays: list[int], drawn, bare
) -> None:
    base, folder = drawn[kind]
    theirs = np.load(folder / "bare.npy").reshape(2, len(delays), -1, 64)
    model = load_base(base)
    without = logits_of(model, base)
    load_adapter(BaseModel(model), folder)
    ours = logits_of(model, base)
    n_frames = theirs.shape[2]
    for k, delay in enumerate(delays):
        expected = theirs[:, k, delay:]
        assert np.allclose(ours[:, k, : n_frames - delay].numpy(), expected, atol=1e-5)
        assert not np.allclose(without[:, k, : n_frames - delay].numpy(), expected, atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_bare_peft_and_we_play_an_adapter_alike(kind, runs, bare, tiny_model_dir: Path) -> None:
    run, folder = runs[kind]
    assert run["best"]["loss"] < run["base_loss"]["loss"], "it learned"
    model = load_base(tiny_model_dir)
    without = logits_of(model, tiny_model_dir)
    load_adapter(BaseModel(model), folder)
    ours = logits_of(model, tiny_model_dir)
    theirs = np.load(folder / "bare.npy").reshape(2, 4, 24, 64)
    for k in range(4):
        expected = torch.from_numpy(theirs[:, k, k:])
        assert torch.allclose(ours[:, k, : 24 - k], expected, atol=1e-5)
    assert (ours - without).abs().nan_to_num().max() > 1e-3
    assert run["effect"]["max_logit_change"] > 1e-3


def test_evaluation_finds_the_measured_losses_again(runs, tmp_path: Path) -> None:
    """With the text encoder adapted, base and adapter have each their own text states."""
    run, folder = runs["text"]
    report = evaluate_adapter(
        EvaluateSettings(
            base_model_path=run["settings"]["model_path"],
            lora_model_path=folder,
            output_dir=tmp_path,
            duration=0.2,
            prompts=["808 beat"],
        )
    )
    mean = report["loss"]["mean"]
    assert mean["mean_base"] == pytest.approx(run["base_loss"]["loss"], abs=1e-5)
    assert mean["mean_adapter"] == pytest.approx(run["best"]["loss"], abs=1e-5)


@pytest.mark.parametrize("kind", ["dora", "pissa", "text"])
def test_generate_plays_it(kind, runs, tiny_model_dir: Path, tmp_path: Path) -> None:
    def play(folder: Path | None) -> bytes:
        settings = GenerateSettings(
            base_model_path=str(tiny_model_dir),
            lora_model_path=folder,
            prompts=["hip hop 808 beat"],
            output_dir=tmp_path,
            duration=0.5,
        )
        return generate_audio(settings)[0].read_bytes()

    assert play(runs[kind][1]) != play(None)


def test_an_adapter_on_the_text_encoder_leaves_the_null_condition_alone(
    runs, tiny_model_dir: Path
) -> None:
    model = load_base(tiny_model_dir)
    load_adapter(BaseModel(model), runs["text"][1])
    states, mask = TextStates(model, load_tokenizer(tiny_model_dir)).batch([None, "808 beat"])
    plain = TextStates(load_base(tiny_model_dir), load_tokenizer(tiny_model_dir))
    base_states, _ = plain.batch([None, "808 beat"])
    assert not states[0].any()
    assert not mask[0].any()
    assert (states[1] - base_states[1]).abs().max() > 1e-4


def test_adapters_sit_where_they_were_asked_to(tiny_model_dir: Path) -> None:
    model = load_base(tiny_model_dir)
    layer = "decoder.model.decoder.layers."

    def places(**chosen: Any) -> set[str]:
        return set(matching(model, target_pattern(model, **chosen)))

    fc = {f"{layer}1.fc1", f"{layer}1.fc2"}
    assert places(targets=["feed_forward"], layers="1") == fc
    assert places(targets=["feed_forward"], layers="0,1") == fc | {
        n.replace(".1.", ".0.") for n in fc
    }
    modules = r"decoder\.model\.decoder\.layers\.0\.fc1|decoder\.lm_heads\.3"
    assert places(modules=modules) == {f"{layer}0.fc1", "decoder.lm_heads.3"}
    rest = places(targets=["heads", "text_projection", "embeddings"])
    ends = {
        f"decoder.{part}.{k}"
        for part in ("lm_heads", "model.decoder.embed_tokens")
        for k in range(4)
    }
    assert rest == ends | {"enc_to_dec_proj"}
    encoder = "text_encoder.encoder.block.0.layer.0.SelfAttention."
    assert places(targets=["text_encoder"]) == {encoder + name for name in "qkvo"}


def test_a_start_from_the_base_is_saved_with_twice_the_rank(runs) -> None:
    config = json.loads((runs["pissa"][1] / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (24, 48)
    assert config["init_lora_weights"] is True
    assert runs["pissa"][0]["settings"]["lora_rank"] == 12


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lora_layers": "0-2"}, r"0-2 is not among the model's layers, 0-1"),
        ({"lora_layers": "first"}, r"must be like 0-11 or 0,4,8-11"),
        ({"lora_layers": "0", "lora_targets": ["heads"]}, "needs attention or feed_forward"),
        ({"lora_layers": "0", "lora_modules": "x"}, "lora_modules replaces lora_targets"),
        ({"lora_targets": []}, "lora_targets is empty"),
        ({"lora_modules": "nothing"}, "matches no module"),
        ({"lora_modules": "("}, "not a regular expression"),
        ({"lora_modules": "audio_encoder.*lstm"}, "in the codec"),
        ({"lora_modules": "decoder.model.decoder.layers.0"}, "only Linear and Embedding"),
        ({"lora_init": "orthogonal", "lora_rank": 3}, "even lora_rank"),
        ({"lora_init": "pissa", "lora_rank": 33}, "more than the rank of"),
        ({"lora_init": "olora", "lora_targets": ["embeddings"]}, "linear layers only"),
    ],
)
def test_targets_that_do_not_fit_are_refused(changes, said: str, tiny_model_dir: Path) -> None:
    with pytest.raises(UserError, match=said) as raised:
        lora_spec(load_base(tiny_model_dir), TrainSettings(**changes))
    assert "\n" not in str(raised.value)


def test_they_are_refused_before_the_work(data: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    settings = tiny_settings(tiny_model_dir, data, tmp_path / "out", lora_layers="7")
    with pytest.raises(UserError, match="not among the model's layers"):
        train_lora(settings)
    assert not (tmp_path / "out" / "run.json").exists()


def test_resuming_where_the_decomposition_came_out_otherwise(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base's residual follows the start that the checkpoint has, as from another machine."""
    settings = TrainSettings(lora_init="pissa", lora_rank=4)
    first = LoraWeights(BaseModel(load_base(tiny_model_dir)), settings, "x")
    started = start.adapter_tensors(first.peft)
    with torch.no_grad():
        for parameter in first.parameters:
            parameter.add_(0.05 * torch.randn(parameter.shape))
    first.save(tmp_path)

    monkeypatch.setitem(spec.INITIALISATIONS, "pissa", "olora")
    model, plain = load_base(tiny_model_dir), load_base(tiny_model_dir)
    before = logits_of(plain, tiny_model_dir).nan_to_num()
    second = LoraWeights(BaseModel(model), settings, "x")
    other = start.adapter_tensors(second.peft)
    assert not all(torch.equal(started[name], other[name]) for name in started)
    second.load(tmp_path)
    load_adapter(BaseModel(plain), tmp_path)
    after = logits_of(plain, tiny_model_dir).nan_to_num()
    assert torch.allclose(logits_of(model, tiny_model_dir).nan_to_num(), after, atol=1e-4)
    assert (after - before).abs().max() > 0.1
    with second.base_alone():
        assert torch.allclose(logits_of(model, tiny_model_dir).nan_to_num(), before, atol=1e-4)
    assert torch.allclose(logits_of(model, tiny_model_dir).nan_to_num(), after, atol=1e-4)
