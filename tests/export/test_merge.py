"""Adapters merged into a base: bit for bit as PEFT merges, and playable by plain transformers."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from adapters import KINDS, draw_adapter, halves, merged_by_peft
from safetensors.torch import load_file, save_file
from tiny import make_tiny_musicgen

from musicgen_lora.config import MergeSettings
from musicgen_lora.errors import UserError
from musicgen_lora.export import merge as merging
from musicgen_lora.export.folder import publish
from musicgen_lora.export.merge import merge_adapters
from musicgen_lora.model.base.loading import load_base
from musicgen_lora.model.base_model import BaseModel

WEIGHTS = "model.safetensors"


def merge(base: Path, out: Path, *adapters: Path, strength: list[float] | None = None) -> Path:
    return merge_adapters(
        MergeSettings(
            model_path=str(base),
            lora_model_path=list(adapters),
            strength=strength or [],
            output_dir=out,
        )
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / WEIGHTS)


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    return draw_adapter(tiny_model_dir, tmp_path_factory.mktemp("merge") / "lora", seed=1)


@pytest.mark.parametrize("kind", KINDS)
def test_strength_one_is_what_peft_merges(kind: str, tiny_model_dir: Path, tmp_path: Path) -> None:
    adapter = draw_adapter(tiny_model_dir, tmp_path / kind, **KINDS[kind])
    found = weights(merge(tiny_model_dir, tmp_path / "out", adapter))
    expected, before = merged_by_peft(tiny_model_dir, adapter), weights(tiny_model_dir)
    assert found.keys() == before.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found if name in expected)
    assert any(not torch.equal(found[name], before[name]) for name in found)


@pytest.mark.parametrize("kind", ["lora", "dora", "bias"])
def test_strength_zero_is_the_base_to_the_byte(
    kind: str, tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = draw_adapter(tiny_model_dir, tmp_path / kind, **KINDS[kind])
    out = merge(tiny_model_dir, tmp_path / "out", adapter, strength=[0.0])
    assert f"{adapter}: changes no weight at strength 0" in capsys.readouterr().out
    assert (out / WEIGHTS).read_bytes() == (tiny_model_dir / WEIGHTS).read_bytes()
    assert (out / "config.json").read_bytes() == (tiny_model_dir / "config.json").read_bytes()


def test_two_halves_of_an_adapter_are_the_adapter(
    tiny_model_dir: Path, lora: Path, tmp_path: Path
) -> None:
    left, right = halves(lora, tmp_path / "left", tmp_path / "right")
    whole = weights(merge(tiny_model_dir, tmp_path / "whole", lora))
    both = weights(merge(tiny_model_dir, tmp_path / "both", left, right))
    assert all(torch.allclose(both[name], whole[name], atol=1e-7) for name in whole)
    alone = weights(merge(tiny_model_dir, tmp_path / "alone", left))
    assert any(not torch.allclose(alone[name], whole[name], atol=1e-4) for name in whole)


def test_several_adapters_add_up_in_any_order(
    tiny_model_dir: Path, lora: Path, tmp_path: Path
) -> None:
    other = draw_adapter(tiny_model_dir, tmp_path / "other", seed=2, **KINDS["dora"])
    one = weights(merge(tiny_model_dir, tmp_path / "1", lora, other, strength=[0.7, 0.3]))
    two = weights(merge(tiny_model_dir, tmp_path / "2", other, lora, strength=[0.3, 0.7]))
    before = weights(tiny_model_dir)
    made = [merged_by_peft(tiny_model_dir, adapter) for adapter in (lora, other)]
    for name in one:
        assert torch.allclose(one[name], two[name], atol=1e-7)
        if name in made[0]:
            sums = 0.7 * (made[0][name] - before[name]) + 0.3 * (made[1][name] - before[name])
            assert torch.allclose(one[name], before[name] + sums, atol=1e-6)


@pytest.mark.parametrize("stereo", [False, True])
def test_transformers_own_pipeline_plays_it(stereo: bool, tmp_path: Path) -> None:
    from transformers import pipeline

    base = make_tiny_musicgen(tmp_path / "base", stereo=stereo)
    out = merge(base, tmp_path / "out", draw_adapter(base, tmp_path / "lora"))
    greedy = {"do_sample": False, "guidance_scale": 1.0, "max_new_tokens": 30}

    def play(folder: Path) -> Any:
        found: Any = pipeline("text-to-audio", model=str(folder))("808 beat", forward_params=greedy)
        assert found["sampling_rate"] == 32_000
        return torch.as_tensor(found["audio"]).squeeze()

    sound = play(out)
    assert sound.shape[0] == 2 if stereo else sound.ndim == 1
    assert not torch.equal(sound, play(base))


def test_a_melody_model_is_merged(tiny_melody_dir: Path, tmp_path: Path) -> None:
    adapter = draw_adapter(
        tiny_melody_dir, tmp_path / "lora", target_modules=["audio_enc_to_dec_proj", "q_proj"]
    )
    out = merge(tiny_melody_dir, tmp_path / "out", adapter)
    expected, read = merged_by_peft(tiny_melody_dir, adapter), load_base(out).state_dict()
    assert all(torch.equal(read[name], tensor) for name, tensor in expected.items())
    assert (out / "preprocessor_config.json").is_file()


def test_bases_facts_and_other_bytes_are_kept(
    tiny_model_dir: Path, lora: Path, tmp_path: Path
) -> None:
    """A base in two files, in half precision, that states how long it was trained on."""
    base = tmp_path / "base"
    base.mkdir()
    for path in tiny_model_dir.iterdir():
        if path.name not in (WEIGHTS, "manifest.json"):
            (base / path.name).write_bytes(path.read_bytes())
    config = json.loads((base / "config.json").read_text())
    config["musicgen_lora"] = {"trained_duration_s": 7.0, "later": "kept"}
    (base / "config.json").write_text(json.dumps(config))
    held = {name: tensor.half() for name, tensor in weights(tiny_model_dir).items()}
    files = {name: f"model-{1 + ('fc1' in name)}.safetensors" for name in held}
    for file in set(files.values()):
        save_file(
            {n: t for n, t in held.items() if files[n] == file}, base / file, {"format": "pt"}
        )
    index = {"metadata": {"total_size": 1, "made_by": "x"}, "weight_map": files}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    (base / "notes.txt").write_text("mine")
    adapter = draw_adapter(base, tmp_path / "half", target_modules=["q_proj"])

    out = merge(base, tmp_path / "out", adapter)
    assert (out / "model-2.safetensors").read_bytes() == (base / "model-2.safetensors").read_bytes()
    written = json.loads((out / "model.safetensors.index.json").read_text())
    read = {name: t for file in set(files.values()) for name, t in load_file(out / file).items()}
    assert written["metadata"] == {
        "total_size": sum(t.nbytes for t in read.values()),
        "made_by": "x",
    }
    assert all(
        torch.equal(read[name], held[name]) and read[name].dtype == torch.float16
        for name in held
        if "q_proj" not in name
    )
    assert BaseModel.load(out).facts.trained_duration_s == 7.0
    assert (out / "config.json").read_bytes() == (base / "config.json").read_bytes()
    assert not (out / "notes.txt").exists()


def test_what_it_was_made_of_is_said_without_a_path(
    tiny_model_dir: Path, lora: Path, tmp_path: Path
) -> None:
    out = merge(tiny_model_dir, tmp_path / "out", lora, strength=[0.5])
    facts = json.loads((out / "made_of.json").read_text())
    assert facts["base"]["name"] == tiny_model_dir.name
    (said,) = facts["adapters"]
    assert (said["name"], said["strength"]) == ("lora", 0.5)
    card = (out / "README.md").read_text()
    block = re.match(r"---\n(.*?)---\n", card, re.DOTALL)
    assert block
    front = yaml.safe_load(block[1])
    assert front["pipeline_tag"] == "text-to-audio"
    assert front["library_name"] == "transformers"
    assert "base_model" not in front, "a folder is no name on the Hub"
    assert "CC-BY-NC 4.0" in card
    for text in (card, json.dumps(facts), (out / "manifest.json").read_text()):
        assert str(tmp_path.parent) not in text


def test_an_adapter_on_a_weight_that_two_layers_share_is_refused(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    adapter = draw_adapter(tiny_model_dir, tmp_path / "a", target_modules=r"text_encoder\.shared")
    with pytest.raises(UserError, match=r"which shares its weight with text_encoder\.encoder\.emb"):
        merge(tiny_model_dir, tmp_path / "out", adapter)


def test_a_bias_that_no_layer_has_room_for_is_refused(tiny_model_dir: Path, tmp_path: Path) -> None:
    adapter = draw_adapter(tiny_model_dir, tmp_path / "a", lora_bias=True)
    with pytest.raises(UserError, match=r"lora_bias: .*_proj has no bias to which"):
        merge(tiny_model_dir, tmp_path / "out", adapter)
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_over(tiny_model_dir: Path, lora: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("x")
    with pytest.raises(UserError, match=f"{out}: is not empty"):
        merge(tiny_model_dir, out, lora)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    (out / "mine").unlink()
    assert (merge(tiny_model_dir, out, lora) / WEIGHTS).is_file(), "an empty folder will do"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lora_model_path": []}, "--lora_model_path is empty"),
        ({"strength": [1.0, 0.5]}, "--strength has 2 values for 1 adapter"),
        ({"lora_model_path": ["gone"]}, "gone: no such adapter folder"),
    ],
)
def test_what_does_not_fit_is_refused(
    changes: dict[str, Any], said: str, tiny_model_dir: Path, lora: Path, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"lora_model_path": [lora], "output_dir": tmp_path / "out"}
    with pytest.raises(UserError, match=said) as raised:
        merge_adapters(MergeSettings(model_path=str(tiny_model_dir), **given | changes))
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_an_adapter_of_another_base_is_refused(lora: Path, tmp_path: Path) -> None:
    base = make_tiny_musicgen(tmp_path / "other", seed=9)
    with pytest.raises(UserError, match="trained on another base"):
        merge(base, tmp_path / "out", lora)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("lost", ["config.json", "tokenizer.json", WEIGHTS, ""])
@pytest.mark.parametrize("is_cut", [False, True])
def test_a_base_that_vanishes_meanwhile_leaves_no_half_checkpoint(
    lost: str, is_cut: bool, lora: Path, tiny_model_dir: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """Without its tokenizer, the checkpoint was published and the exit code 0."""
    base, out = tmp_path / "base", tmp_path / "out"
    shutil.copytree(tiny_model_dir, base)

    def lose(*given: Any) -> Any:
        if is_cut and lost:
            os.truncate(base / lost, 40)
        elif lost:
            (base / lost).unlink()
        else:
            shutil.rmtree(base)
        return publish(*given)

    monkeypatch.setattr(merging, "publish", lose)
    with pytest.raises(UserError) as raised:
        merge(base, out, lora)
    assert str(raised.value).startswith(f"{base}/{lost}")
    assert not out.exists()
