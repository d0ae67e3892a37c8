"""Adapters: where LoRA sits, and which base it belongs to."""

from __future__ import annotations

import json
import re
import shutil
import socket
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import add_lora, rename_tensors
from safetensors.torch import load_file, save_file
from tiny import make_tiny_musicgen

from musicgen_lora import atomic
from musicgen_lora.config import EMBEDDED_NAME, TrainSettings
from musicgen_lora.errors import UserError
from musicgen_lora.given import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from musicgen_lora.model.base.loading import load_base, load_processor, load_tokenizer
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.fingerprint import base_fingerprint
from musicgen_lora.model.lora import adapter as module
from musicgen_lora.model.lora.adapter import load_adapter, read_adapter
from musicgen_lora.model.lora.facts import FACTS_FILE
from musicgen_lora.model.lora.targets import target_pattern
from musicgen_lora.model.lora.trainable import save_adapter
from musicgen_lora.model.text.states import TextStates
from musicgen_lora.training.weights import make_weights

CAPTIONS = ["hip hop 808 beat", "dark trap drums with bass and the 808"]


def random_codes(n_codebooks: int) -> torch.Tensor:
    return torch.randint(0, 64, (2, n_codebooks, 24), generator=torch.Generator().manual_seed(1))


def logits_of(model, folder: Path) -> torch.Tensor:
    texts = TextStates(model, load_tokenizer(folder)).batch(CAPTIONS)
    with torch.no_grad():
        codes = random_codes(model.config.decoder.num_codebooks)
        return BaseModel(model).logits(codes, texts)


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
    # Nor does a library's word of its own future stand in a notebook.
    warnings.simplefilter("error", FutureWarning)
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
    load_adapter(BaseModel(model), adapter)
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
    load_adapter(BaseModel(model), adapter)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert (logits_of(model, tiny_model_dir) - before).abs().nan_to_num().max() > 0.1


def test_an_adapter_of_another_tool_is_taken(tiny_model_dir: Path, adapter: Path) -> None:
    own, foreign = load_base(tiny_model_dir), load_base(tiny_model_dir)
    load_adapter(BaseModel(own), adapter)
    (adapter / FACTS_FILE).unlink()
    load_adapter(BaseModel(foreign), adapter)
    found, expected = (logits_of(model, tiny_model_dir) for model in (foreign, own))
    torch.testing.assert_close(found, expected, rtol=0.0, atol=0.0, equal_nan=True)


def test_an_adapter_that_is_replaced_while_it_is_read_is_the_new_one(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the best of a training that goes on is, which somebody listens to."""
    best, read = tmp_path / "best_model", module.read_bytes

    def publish() -> None:
        atomic.publish_folder(best, lambda to: shutil.copytree(adapter, to, dirs_exist_ok=True))

    publish()
    old = read_adapter(best).fingerprint
    weights = load_file(adapter / ADAPTER_WEIGHTS)
    save_file({name: tensor + 1.0 for name, tensor in weights.items()}, adapter / ADAPTER_WEIGHTS)
    new = read_adapter(adapter).fingerprint
    pending = [publish]

    def read_slowly(path: Path, most: int) -> bytes:
        content = read(path, most)
        if pending:
            pending.pop()()
        return content

    monkeypatch.setattr(module, "read_bytes", read_slowly)
    assert read_adapter(best).fingerprint == new != old
    # One that nobody replaces is refused as before.
    (best / ADAPTER_WEIGHTS).write_bytes(b"torn")
    with pytest.raises(UserError, match="not what training wrote"):
        read_adapter(best)


@pytest.mark.parametrize(
    "change", [{"lora_alpha": 9}, {"use_rslora": True}, {"bias": "all"}, {"r": 2}]
)
def test_all_that_decides_the_sound_is_in_the_fingerprint(
    change: dict[str, Any], adapter: Path
) -> None:
    before = read_adapter(adapter).fingerprint
    assert read_adapter(adapter).fingerprint == before
    config = json.loads((adapter / ADAPTER_CONFIG).read_text())
    (adapter / ADAPTER_CONFIG).write_text(json.dumps(config | change))
    changed = read_adapter(adapter).fingerprint
    assert changed != before
    rename_tensors(adapter, lambda name: name + "x")
    assert read_adapter(adapter).fingerprint not in (before, changed)


def test_saving_asks_nobody(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PEFT would look the base's name up on the hub at each save."""

    def refuse(*_, **__):
        raise AssertionError("something was looked up on the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    weights = make_weights(BaseModel(load_base(tiny_model_dir)), TrainSettings(), "tiny-beats")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=UserWarning)
        weights.save(tmp_path, None)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors"}
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny-beats"


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
    load_adapter(BaseModel(again), tmp_path)
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
