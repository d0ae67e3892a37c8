"""What is chosen by timing stays chosen."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from musicgen_lora.errors import UserError
from musicgen_lora.generation.decoding import choices, precision, products
from musicgen_lora.generation.decoding.choices import kept_choice
from musicgen_lora.generation.decoding.precision import choose_precision, fastest_near_lossless
from musicgen_lora.model.base.loading import load_base
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.runtime.precision import DTYPES

CPU = torch.device("cpu")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "musicgen_lora" / choices.FILE


def never(*given: object) -> str:
    raise AssertionError("chosen again")


@pytest.fixture
def restart(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """As for the next process."""

    def forget() -> None:
        monkeypatch.setattr(choices, "_chosen", {})
        monkeypatch.setattr(choices, "_unsaved", set())

    return forget


def test_a_choice_is_made_once(cache: Path, restart: Callable[[], None]) -> None:
    assert kept_choice("x", ["a", "b"], lambda _: "b") == "b"
    restart()
    assert kept_choice("x", ["a", "b"], never) == "b"
    assert kept_choice("y", ["a", "b"], lambda _: "a") == "a"
    assert choices.is_saved("y")
    assert len(json.loads(cache.read_text())) == 2


def test_a_process_stays_with_its_choice_whatever_happens_to_the_file(cache: Path) -> None:
    assert kept_choice("x", ["a", "b"], lambda _: "b") == "b"
    cache.unlink()
    assert kept_choice("x", ["a", "b"], never) == "b"


def test_choices_that_are_made_at_the_same_time_all_stay(
    cache: Path, restart: Callable[[], None]
) -> None:
    """Each reads the file, chooses, and writes what it knows: without a lock, which counts between
    threads as between processes, others' choices were lost, and a later process played the same
    seed otherwise."""

    def meanwhile(names: Sequence[str]) -> str:
        other = {choices._key("x"): "a", choices._key("y"): "a"}
        cache.write_text(json.dumps(other))
        return "b"

    assert kept_choice("x", ["a", "b"], meanwhile) == "a"
    assert kept_choice("z", ["a", "b"], lambda _: "b") == "b"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(_choose, range(40)))
    restart()
    assert kept_choice("y", ["a", "b"], never) == "a"
    assert [kept_choice(str(index), ["a", "b"], never) for index in range(40)] == ["b"] * 40


def _choose(index: int) -> str:
    return kept_choice(str(index), ["a", "b"], lambda _: "b")


def test_an_option_that_is_gone_and_a_damaged_file_are_chosen_anew(
    cache: Path, restart: Callable[[], None]
) -> None:
    kept_choice("x", ["a", "b"], lambda _: "b")
    assert kept_choice("x", ["a", "c"], lambda _: "c") == "c"
    for content in ("{", "[]", '{"x": 3}', ""):
        cache.write_text(content)
        restart()
        assert kept_choice("x", ["a", "c"], lambda _: "a") == "a"


def test_the_first_that_is_usable_is_taken_unmeasured_where_nothing_can_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert kept_choice("x", ["a", "b"], never) == "a"
    assert kept_choice("y", ["a", "b", "c"], never, lambda: ["b", "c"]) == "b"
    assert not choices.is_saved("y")


def test_forms_that_depend_on_the_rows_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def uneven(weight: torch.Tensor) -> products.Product:
        return lambda x: x @ weight.T * (1.0 + 1e-6 * len(x))

    def missing(weight: torch.Tensor) -> products.Product:
        raise NotImplementedError

    weight = torch.randn(24, 16)
    known = products.usable_forms(weight, "fp32")
    forms = products.FORMS["fp32"]
    monkeypatch.setitem(products.FORMS, "fp32", {"uneven": uneven, "missing": missing} | forms)
    assert products.usable_forms(weight, "fp32") == known


@pytest.mark.parametrize("name", products.FORMS["fp16"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("shape", [(96, 32), (33, 17), (512, 128)])
def test_each_form_multiplies(name, precision, shape, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "PART", 8)
    monkeypatch.setattr(products, "WIDE", 1)
    dtype = DTYPES[precision]
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    if name not in products.usable_forms(weight, precision):
        return
    x = torch.randn(5, shape[1], generator=torch.Generator().manual_seed(1)).to(dtype).float()
    product = products.FORMS[precision][name](weight)
    near = {"fp32": 1e-4, "fp16": 0.02, "bf16": 0.1}[precision]
    close = {"atol": near, "rtol": near}
    torch.testing.assert_close(product(x), x @ weight.float().T, **close)
    sequence = x[:4].view(2, 2, -1)
    torch.testing.assert_close(product(sequence), sequence @ weight.float().T, **close)
    assert products.rows_are_independent(product, shape[1])


@pytest.mark.parametrize("precision", products.FORMS)
def test_some_form_multiplies_in_each_precision_without_any_library(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in ("_mkldnn", "_onednn", "_quantized"):
        monkeypatch.setattr(products, library, None)
    weight = torch.randn(48, 32, generator=torch.Generator().manual_seed(0))
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(1))
    names = products.usable_forms(weight, precision)
    assert list(products.FORMS[precision])[-1] in names
    for name in names:
        found = products.FORMS[precision][name](weight)(x)
        assert float((found - x @ weight.T).norm() / (x @ weight.T).norm()) < 0.02


def test_few_rows_are_filled_up_without_a_trace() -> None:
    weight, x = torch.randn(64, products.WIDE), torch.randn(3, products.WIDE)
    plain, filled = (products.FORMS["fp32"][name](weight) for name in ("packed", "fours"))
    for n in (1, 2, 3):
        assert torch.equal(filled(x[:n]), plain(x[:n]))
    with pytest.raises(NotImplementedError):
        products.FORMS["fp32"]["fours"](weight[:, :8])


def test_more_inputs_than_are_added_in_one_go_are_taken_in_parts_and_fewer_are_not() -> None:
    few, many = torch.randn(8, products.PART), torch.randn(8, 4 * products.PART)
    assert "packed_in_parts" not in products.usable_forms(few, "fp32")
    # On any processor whose oneDNN keeps to one order for one part.
    assert ("packed_in_parts" in products.usable_forms(many, "fp32")) == (
        "packed" in products.usable_forms(few, "fp32")
    )


@pytest.mark.parametrize("shape", [(96, 32), (40, 24), (512, 128)])
def test_integers_are_near_independent_and_the_same_by_all_libraries(shape) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    weight[3] = 0.0
    x = torch.randn(6, shape[1], generator=torch.Generator().manual_seed(1))
    x[2] = 0.0
    plain = products.FORMS["int8"]["plain"](weight)(x)
    exact = x @ weight.T
    assert float((plain - exact).norm() / exact.norm()) < 0.02
    for name in products.usable_forms(weight, "int8"):
        product = products.FORMS["int8"][name](weight)
        torch.testing.assert_close(product(x), plain, rtol=1e-6, atol=1e-6)
        assert products.rows_are_independent(product, shape[1])
        assert product(x.view(2, 3, -1)).shape == (2, 3, shape[0])


def test_integers_that_are_added_up_in_16_bits_are_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def saturating(rounded: torch.Tensor, scales: torch.Tensor) -> products.Sums:
        def sums(x: torch.Tensor) -> torch.Tensor:
            pairs = ((x[..., None, :] + 128.0) * rounded).unflatten(-1, (-1, 2)).sum(-1)
            right = pairs.clamp(-(2.0**15), 2.0**15 - 1).sum(-1)
            return (right - 128.0 * rounded.float().sum(1)) * scales

        return sums

    form = functools.partial(products.integers_by, saturating)
    weight = torch.randn(24, 16)
    assert products.rows_are_independent(form(weight), 16)
    monkeypatch.setitem(products.FORMS, "int8", {"s": form} | products.FORMS["int8"])
    assert "s" not in products.usable_forms(weight, "int8")


def test_auto_takes_what_is_fast_and_near(
    cache: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Measured here, as elsewhere in the tests it is not.
    monkeypatch.setattr(precision, "fastest_near_lossless", fastest_near_lossless)
    monkeypatch.setattr(products, "fastest", choices.fastest)
    monkeypatch.setattr(choices, "_chosen", {})
    base = BaseModel(load_base(tiny_model_dir))
    assert choose_precision(base, "int8", CPU)[0] == "int8"
    with pytest.raises(UserError, match="int8 is for CPUs"):
        choose_precision(base, "int8", torch.device("cuda"))
    told: list[str] = []
    found, sentence = choose_precision(base, "auto", CPU, told.append)
    assert found in sentence
    assert len(told) == 1
    monkeypatch.setattr(precision, "fastest_near_lossless", never)
    assert choose_precision(base, "auto", CPU, told.append)[0] == found
    assert len(told) == 1


def test_auto_does_not_claim_a_measurement_that_it_has_not_made(
    tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(precision, "fastest_near_lossless", never)
    found, sentence = choose_precision(BaseModel(load_base(tiny_model_dir)), "auto", CPU)
    assert found == "fp32"
    assert sentence.startswith(f"Decoding in fp32: {tmp_path / 'file' / 'musicgen_lora'} is not")


@pytest.mark.parametrize(
    ("limit", "faster", "expected"),
    [(1.0, "int8", "int8"), (0.0, "int8", "fp32"), (1.0, "fp16", "fp16"), (1.0, "fp32", "fp32")],
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
    assert fastest_near_lossless(BaseModel.load(tiny_model_dir)) == expected
