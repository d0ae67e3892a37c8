"""Adapters: where LoRA sits, which base it belongs to, and that bare PEFT plays it the same."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapters import add_lora
from safetensors.torch import load_file, save_file
from tiny import make_tiny_musicgen

from musicgen_lora import atomic
from musicgen_lora.atomic import MANIFEST
from musicgen_lora.config import EMBEDDED_NAME, TrainSettings
from musicgen_lora.errors import UserError
from musicgen_lora.model.lora.adapter import (
    CONFIG_FILE,
    FACTS_FILE,
    WEIGHTS_FILE,
    load_adapter,
    read_adapter,
    save_adapter,
)
from musicgen_lora.model.lora.targets import target_pattern
from musicgen_lora.model.musicgen import (
    MusicGen,
    base_fingerprint,
    load_base,
    load_processor,
    load_tokenizer,
)
from musicgen_lora.model.text import TextStates
from musicgen_lora.training.weights import make_weights

CAPTIONS = ["hip hop 808 beat", "dark trap drums with bass and the 808"]


def random_codes(n_codebooks: int) -> torch.Tensor:
    return torch.randint(0, 64, (2, n_codebooks, 24), generator=torch.Generator().manual_seed(1))


def logits_of(model, folder: Path) -> torch.Tensor:
    states, mask = TextStates(model, load_tokenizer(folder)).batch(CAPTIONS)
    with torch.no_grad():
        codes = random_codes(model.config.decoder.num_codebooks)
        return MusicGen(model).logits(codes, states, mask)


def write_facts(folder: Path, fingerprint: str) -> None:
    facts = {"format_version": 1, "base": {"path": "somewhere", "fingerprint": fingerprint}}
    (folder / FACTS_FILE).write_text(json.dumps(facts))


def make_adapter(model, folder: Path, *, rank: int = 4) -> Path:
    """An adapter that moves the predictions, saved by PEFT with our facts beside it."""
    adapted = add_lora(model, base_name="somewhere", rank=rank, alpha=2 * rank)
    generator = torch.Generator().manual_seed(5)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            with torch.no_grad():
                parameter.normal_(0.0, 0.3, generator=generator)
    adapted.save_pretrained(str(folder), save_embedding_layers=False)
    write_facts(folder, base_fingerprint(model))
    return folder


@pytest.fixture
def adapter(tmp_path: Path, tiny_model_dir: Path) -> Path:
    return make_adapter(load_base(tiny_model_dir), tmp_path / "adapter")


@pytest.mark.parametrize(
    ("targets", "per_layer"),
    [(("attention", "feed_forward"), 10), (("attention",), 8), (("feed_forward",), 2)],
)
def test_lora_sits_on_the_decoders_attention_and_feed_forward_alone(
    targets: tuple[str, ...], per_layer: int, tiny_model_dir: Path
) -> None:
    model = load_base(tiny_model_dir)
    add_lora(model, base_name="x", rank=4, alpha=8, pattern=target_pattern(model, targets=targets))
    places = {
        name.split(".lora_A")[0] for name, _ in model.named_modules() if name.endswith("lora_A")
    }
    assert len(places) == 2 * per_layer, "the tiny decoder has two layers"
    kinds = {"attention": r"(self|encoder)_attn\.(q|k|v|out)_proj", "feed_forward": "fc[12]"}
    expected = re.compile(
        rf"decoder\.model\.decoder\.layers\.\d\.({'|'.join(kinds[t] for t in targets)})"
    )
    assert all(expected.fullmatch(place) for place in places), places
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    assert not any(name.startswith(("audio_encoder", "text_encoder")) for name in trained)


def test_a_fresh_adapter_changes_nothing(tiny_model_dir: Path) -> None:
    model = load_base(tiny_model_dir)
    before = logits_of(model, tiny_model_dir)
    add_lora(model, base_name="x", rank=4, alpha=8)
    assert torch.equal(logits_of(model, tiny_model_dir).nan_to_num(), before.nan_to_num())


def test_an_adapter_is_scaled_by_alpha_over_rank(tiny_model_dir: Path) -> None:
    model = load_base(tiny_model_dir)
    adapted = add_lora(model, base_name="x", rank=4, alpha=12)
    layer = model.decoder.model.decoder.layers[0].fc1
    with torch.no_grad():
        layer.lora_B["default"].weight.fill_(0.1)
    x = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    low = x @ layer.lora_A["default"].weight.T @ layer.lora_B["default"].weight.T
    assert torch.allclose(layer(x), layer.base_layer(x) + 3.0 * low, atol=1e-6)
    assert adapted.peft_config["default"].base_model_name_or_path == "x"


def test_the_base_is_the_same_with_and_without_an_adapter(
    tiny_model_dir: Path, adapter: Path, tmp_path: Path
) -> None:
    model = load_base(tiny_model_dir)
    alone = base_fingerprint(model)
    load_adapter(model, adapter)
    assert base_fingerprint(model) == alone
    other = load_base(make_tiny_musicgen(tmp_path / "other", seed=1))
    assert base_fingerprint(other) != alone
    with torch.no_grad():
        other = load_base(tiny_model_dir)
        other.decoder.lm_heads[3].weight[5, 7] += 0.01
    assert base_fingerprint(other) != alone


def test_a_loaded_adapter_is_frozen_and_changes_the_predictions(
    tiny_model_dir: Path, adapter: Path
) -> None:
    model = load_base(tiny_model_dir)
    before = logits_of(model, tiny_model_dir)
    load_adapter(model, adapter)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert (logits_of(model, tiny_model_dir) - before).abs().nan_to_num().max() > 0.1


def test_an_adapter_of_another_base_is_refused(adapter: Path, tmp_path: Path) -> None:
    other = load_base(make_tiny_musicgen(tmp_path / "other", seed=1))
    with pytest.raises(UserError, match="adapter: this adapter was trained on another base"):
        load_adapter(other, adapter)


def test_an_adapter_of_another_size_is_refused_without_facts_too(
    adapter: Path, tmp_path: Path
) -> None:
    (adapter / FACTS_FILE).unlink()
    wide = load_base(make_tiny_musicgen(tmp_path / "wide", hidden_size=64))
    with pytest.raises(UserError, match="adapter: does not fit this base model") as raised:
        load_adapter(wide, adapter)
    assert "\n" not in str(raised.value)


def test_an_adapter_of_another_tool_is_taken(tiny_model_dir: Path, adapter: Path) -> None:
    (adapter / FACTS_FILE).unlink()
    load_adapter(load_base(tiny_model_dir), adapter)


def rename_tensors(folder: Path, rename: Callable[[str], str | None]) -> None:
    """Gives an adapter's tensors other names, or takes those named None away."""
    tensors = load_file(folder / WEIGHTS_FILE)
    named = {rename(name): tensor for name, tensor in tensors.items()}
    kept = {name: tensor for name, tensor in named.items() if name is not None}
    save_file(kept, folder / WEIGHTS_FILE, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("rename", "said"),
    [
        # As a PEFT of the decoder alone names them, and as other trainers do.
        (lambda name: name.replace("model.decoder.model.", "model.model."), "40 of 40 tensors"),
        (lambda name: name.replace("base_model.model.", ""), "40 of 40 tensors"),
        (lambda name: name.replace("fc1", "fc9"), "4 of 40 tensors"),
        (lambda name: None if "fc1" in name else name, "4 of 40 tensors"),
        (lambda name: None, "40 of 40 tensors"),
    ],
    ids=["foreign", "kohya", "some foreign", "some missing", "empty"],
)
def test_tensors_that_fit_no_layer_and_layers_without_tensors_are_counted(
    rename: Callable[[str], str | None], said: str, tiny_model_dir: Path, adapter: Path
) -> None:
    rename_tensors(adapter, rename)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with pytest.raises(UserError, match=rf"adapter_model\.safetensors: {said}") as raised:
            load_adapter(load_base(tiny_model_dir), adapter)
    assert "\n" not in str(raised.value)


def test_a_config_that_names_fewer_layers_than_the_weights_is_refused(
    tiny_model_dir: Path, adapter: Path
) -> None:
    config = json.loads((adapter / CONFIG_FILE).read_text())
    (adapter / CONFIG_FILE).write_text(json.dumps(config | {"target_modules": ["q_proj"]}))
    with pytest.raises(UserError, match=r"32 of 40 tensors .* fit no layer \(.*lora_A"):
        load_adapter(load_base(tiny_model_dir), adapter)


def test_an_adapter_that_adapts_no_layer_is_refused(tiny_model_dir: Path, adapter: Path) -> None:
    """A prompt that was learned goes through PEFT's own forward pass, which nothing here calls."""
    prompt = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 2, "task_type": "SEQ_2_SEQ_LM"}
    (adapter / CONFIG_FILE).write_text(json.dumps(prompt))
    with pytest.raises(UserError, match="only adapters of type LORA are read"):
        load_adapter(load_base(tiny_model_dir), adapter)


@pytest.mark.parametrize(
    "change", [{"lora_alpha": 9}, {"use_rslora": True}, {"bias": "all"}, {"r": 2}]
)
def test_all_that_decides_the_sound_is_in_the_fingerprint(
    change: dict[str, Any], adapter: Path
) -> None:
    before = read_adapter(adapter).fingerprint
    assert read_adapter(adapter).fingerprint == before
    config = json.loads((adapter / CONFIG_FILE).read_text())
    (adapter / CONFIG_FILE).write_text(json.dumps(config | change))
    changed = read_adapter(adapter).fingerprint
    assert changed != before
    rename_tensors(adapter, lambda name: name + "x")
    assert read_adapter(adapter).fingerprint not in (before, changed)


@pytest.mark.parametrize("file", [CONFIG_FILE, WEIGHTS_FILE, FACTS_FILE, MANIFEST])
def test_a_manifest_beside_an_adapter_is_checked(file: str, tmp_path: Path, adapter: Path) -> None:
    best = tmp_path / "best_model"
    (adapter / "README.md").write_text("card")
    atomic.publish_folder(best, lambda to: shutil.copytree(adapter, to, dirs_exist_ok=True))
    # The card is there to be edited.
    (best / "README.md").write_text("mine")
    read_adapter(best)
    content = bytearray((best / file).read_bytes())
    content[len(content) // 2] ^= 1
    (best / file).write_bytes(content)
    with pytest.raises(UserError, match=r"not what training wrote .*delete .*manifest\.json"):
        read_adapter(best)
    if file == WEIGHTS_FILE:
        (best / MANIFEST).unlink()
        read_adapter(best)


def test_a_pickled_adapter_is_refused(tiny_model_dir: Path, adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(UserError, match="pickled adapters are not read"):
        load_adapter(load_base(tiny_model_dir), adapter)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("adapter_model.safetensors", b"\x08\0\0\0\0\0\0\0torn", "not readable as safetensors"),
        ("adapter_model.safetensors", b"", "not readable as safetensors"),
        ("adapter_config.json", b"{torn", "line 1: not valid JSON"),
        ("adapter_config.json", b"{}", "peft_type = None: only adapters of type LORA"),
        ("adapter_config.json", b"[]", "should be an object"),
        ("adapter_config.json", b'{"peft_type": "NOTHING"}', "peft_type = 'NOTHING'"),
        (FACTS_FILE, b"{torn", "line 1: not valid JSON"),
        (FACTS_FILE, b'{"format_version": 1}', "not readable as adapter facts"),
        (FACTS_FILE, b'{"format_version": "1"}', "not readable as adapter facts"),
        (FACTS_FILE, b'{"format_version": 99}', "newer than this release"),
    ],
)
def test_a_damaged_adapter_is_named(
    file: str, content: bytes, said: str, tiny_model_dir: Path, adapter: Path
) -> None:
    (adapter / file).write_bytes(content)
    with pytest.raises(UserError, match=said) as raised:
        load_adapter(load_base(tiny_model_dir), adapter)
    assert str(adapter) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_saving_asks_nobody(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PEFT would look the base's name up on the hub at each save."""

    def refuse(*_, **__):
        raise AssertionError("something was looked up on the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    weights = make_weights(MusicGen(load_base(tiny_model_dir)), TrainSettings(), "tiny-beats")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=UserWarning)
        weights.save(tmp_path, None)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors"}
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny-beats"


def test_folders_that_are_no_adapter_are_named(tiny_model_dir: Path, tmp_path: Path) -> None:
    model = load_base(tiny_model_dir)
    with pytest.raises(UserError, match="gone: no such adapter folder"):
        load_adapter(model, tmp_path / "gone")
    with pytest.raises(UserError, match=r"no adapter_config\.json in it"):
        load_adapter(model, tiny_model_dir)


BARE = """
import sys
import numpy as np
import torch
from peft import PeftModel
from transformers import AutoTokenizer, MusicgenForConditionalGeneration

torch.set_num_threads(1)
captions = sys.argv[2].split("|")
for base, adapter, delayed, out in [line.split("|") for line in open(sys.argv[1])]:
    model = MusicgenForConditionalGeneration.from_pretrained(base)
    model = PeftModel.from_pretrained(model, adapter).eval()
    text = AutoTokenizer.from_pretrained(base)(captions, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**text, decoder_input_ids=torch.from_numpy(np.load(delayed))).logits
    np.save(out.strip(), logits.numpy())
assert "musicgen_lora" not in sys.modules
"""


def test_bare_peft_on_bare_transformers_gives_equal_logits(
    tmp_path: Path, tiny_model_dir: Path, tiny_stereo_dir: Path
) -> None:
    """In a fresh process, mono and stereo, on codes that are delayed by hand."""
    kinds = [(tiny_model_dir, [0, 1, 2, 3]), (tiny_stereo_dir, [0, 0, 1, 1, 2, 2, 3, 3])]
    jobs = []
    for base, delays in kinds:
        work = tmp_path / base.name
        make_adapter(load_base(base), work / "adapter")
        codes = random_codes(len(delays))
        n_frames = codes.shape[-1]
        delayed = np.full((len(codes), len(delays), n_frames), 64)
        for k, delay in enumerate(delays):
            delayed[:, k, delay + 1 :] = codes[:, k, : n_frames - 1 - delay]
        np.save(work / "delayed.npy", delayed.reshape(-1, n_frames))
        places = (base, work / "adapter", work / "delayed.npy", work / "logits.npy")
        jobs.append("|".join(str(path) for path in places))
    (tmp_path / "jobs.txt").write_text("\n".join(jobs))
    (tmp_path / "bare.py").write_text(BARE)
    words = [str(tmp_path / "bare.py"), str(tmp_path / "jobs.txt"), "|".join(CAPTIONS)]
    subprocess.run([sys.executable, *words], check=True, cwd=tmp_path)
    for base, delays in kinds:
        bare = np.load(tmp_path / base.name / "logits.npy").reshape(2, len(delays), -1, 64)
        model = load_base(base)
        without = logits_of(model, base)
        load_adapter(model, tmp_path / base.name / "adapter")
        ours = logits_of(model, base)
        n_frames = bare.shape[2]
        for k, delay in enumerate(delays):
            expected = bare[:, k, delay:]
            assert np.allclose(ours[:, k, : n_frames - delay].numpy(), expected, atol=1e-5)
            assert not np.allclose(without[:, k, : n_frames - delay].numpy(), expected, atol=1e-2)


def test_dora_leaves_out_layers_with_rows_that_have_no_direction(
    tmp_path: Path, tiny_model_dir: Path
) -> None:
    """PEFT divides by each row's length: the loss would not be a number."""
    base = load_base(tiny_model_dir)
    dead = "decoder.model.decoder.layers.1.fc2"
    base.get_submodule(dead).weight[3] = 0.0
    expected = logits_of(base, tiny_model_dir)
    pattern = target_pattern(base, targets=("feed_forward",))
    adapted = add_lora(base, base_name="x", rank=4, alpha=8, kind="dora", pattern=pattern)
    assert adapted.peft_config["default"].exclude_modules == {dead}
    carriers = {
        name.rsplit(".lora_A", 1)[0] for name, _ in adapted.named_modules() if "lora_A." in name
    }
    assert len(carriers) == 3
    assert not any(name.endswith(dead) for name in carriers)
    assert torch.allclose(logits_of(base, tiny_model_dir), expected, atol=1e-5, equal_nan=True)
    save_adapter(adapted, tmp_path)
    again = load_base(tiny_model_dir)
    again.get_submodule(dead).weight[3] = 0.0
    load_adapter(again, tmp_path)
    assert torch.allclose(logits_of(again, tiny_model_dir), expected, atol=1e-5, equal_nan=True)


def test_dora_says_where_no_layer_can_carry_it(tiny_model_dir: Path) -> None:
    base = load_base(tiny_model_dir)
    dead = "decoder.model.decoder.layers.1.fc2"
    base.get_submodule(dead).weight[3] = 0.0
    with pytest.raises(UserError, match=f"{dead}.*rslora"):
        add_lora(base, base_name="x", rank=4, alpha=8, kind="dora", pattern=re.escape(dead))


def test_the_embedded_model_has_a_processor() -> None:
    """Full training puts it beside its weights."""
    processor: Any = load_processor(EMBEDDED_NAME)
    assert processor.tokenizer("808").input_ids
    with pytest.raises(UserError, match="nowhere/at/all"):
        load_processor("nowhere/at/all")
