"""What is chosen by the clock stays chosen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from musicgen_lora.errors import UserError
from musicgen_lora.generation.decoding import choices, precision, products
from musicgen_lora.generation.decoding.choices import kept_choice
from musicgen_lora.generation.decoding.precision import choose_precision, fastest_near_lossless
from musicgen_lora.model.musicgen import MusicGen, load_base

CPU = torch.device("cpu")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "musicgen_lora" / choices.FILE


def never() -> str:
    raise AssertionError("chosen again")


def test_a_choice_is_made_once(cache: Path) -> None:
    assert kept_choice("x", ["a", "b"], lambda: "b") == "b"
    assert kept_choice("x", ["a", "b"], never) == "b"
    assert kept_choice("y", ["a", "b"], lambda: "a") == "a"
    assert len(json.loads(cache.read_text())) == 2


def test_an_option_that_is_gone_and_a_damaged_file_are_chosen_anew(cache: Path) -> None:
    kept_choice("x", ["a", "b"], lambda: "b")
    assert kept_choice("x", ["a", "c"], lambda: "c") == "c"
    for content in ("{", "[]", '{"x": 3}', ""):
        cache.write_text(content)
        assert kept_choice("x", ["a", "c"], lambda: "a") == "a"


def test_the_first_is_taken_unmeasured_where_nothing_can_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert kept_choice("x", ["a", "b"], never) == "a"


def test_forms_that_depend_on_the_rows_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def uneven(weight: torch.Tensor) -> products.Product:
        return lambda x: x @ weight.T * (1.0 + 1e-6 * len(x))

    def missing(weight: torch.Tensor) -> products.Product:
        raise NotImplementedError

    weight = torch.randn(24, 16)
    known = list(products.FORMS)
    added = {"uneven": uneven, "missing": missing} | products.FORMS
    monkeypatch.setattr(products, "FORMS", added)
    assert products.usable_forms(weight) == [n for n in known if n in products.usable_forms(weight)]
    assert "uneven" not in products.usable_forms(weight)


@pytest.mark.parametrize("name", products.FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(96, 32), (33, 17), (512, 128)])
def test_each_form_multiplies(name, dtype, shape, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "PART", 8)
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    x = torch.randn(5, shape[1], generator=torch.Generator().manual_seed(1)).to(dtype).float()
    product = products.FORMS[name](weight)
    close = {"atol": 1e-4, "rtol": 1e-4} if dtype == torch.float32 else {"atol": 0.1, "rtol": 0.02}
    torch.testing.assert_close(product(x), x @ weight.float().T, **close)
    sequence = x[:4].view(2, 2, -1)
    torch.testing.assert_close(product(sequence), sequence @ weight.float().T, **close)
    if name in products.usable_forms(weight):
        assert products.rows_are_independent(product, shape[1])


def test_more_inputs_than_are_added_in_one_go_are_taken_in_parts_and_fewer_are_not() -> None:
    few, many = torch.randn(8, products.PART), torch.randn(8, 4 * products.PART)
    assert "packed_in_parts" not in products.usable_forms(few)
    # On any processor whose oneDNN keeps to one order for one part.
    assert ("packed_in_parts" in products.usable_forms(many)) == (
        "packed" in products.usable_forms(few)
    )


@pytest.mark.parametrize("with_onednn", [True, False])
@pytest.mark.parametrize("shape", [(96, 32), (40, 24), (512, 128)])
def test_integers_are_near_and_independent(
    shape, with_onednn, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not with_onednn:
        monkeypatch.setattr(products, "_onednn", None)
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    weight[3] = 0.0
    x = torch.randn(6, shape[1], generator=torch.Generator().manual_seed(1))
    x[2] = 0.0
    product = products.integers(weight)
    exact = x @ weight.T
    assert float((product(x) - exact).norm() / exact.norm()) < 0.02
    assert products.rows_are_independent(product, shape[1])
    assert product(x.view(2, 3, -1)).shape == (2, 3, shape[0])


def test_auto_takes_what_is_fast_and_near(
    cache: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_base(tiny_model_dir)
    assert choose_precision(MusicGen(model), "auto", CPU)[0] == "fp32"
    assert choose_precision(MusicGen(model), "int8", CPU)[0] == "int8"
    with pytest.raises(UserError, match="int8 is for CPUs"):
        choose_precision(MusicGen(model), "int8", torch.device("cuda"))
    monkeypatch.setattr(precision, "ONE_THREAD_UP_TO", 0)
    found, sentence = choose_precision(MusicGen(model), "auto", CPU)
    assert found in sentence
    monkeypatch.setattr(precision, "fastest_near_lossless", never)
    assert choose_precision(MusicGen(model), "auto", CPU)[0] == found


@pytest.mark.parametrize(
    ("limit", "faster", "expected"),
    [(1.0, "int8", "int8"), (0.0, "int8", "fp32"), (1.0, "bf16", "bf16"), (1.0, "fp32", "fp32")],
)
def test_the_fastest_near_lossless_is_both(
    limit, faster, expected, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = precision._read

    def timed(decoder, tokens):
        found, columns, _ = read(decoder, tokens)
        return found, columns, 1.0 if decoder.precision == faster else 2.0

    monkeypatch.setattr(precision, "_read", timed)
    monkeypatch.setattr(precision, "NEAR_LOSSLESS", limit)
    assert fastest_near_lossless(MusicGen.load(tiny_model_dir)) == expected
