from __future__ import annotations

import numpy as np
import pytest

from musicgen_lora.evaluation.decisions.statistics import paired_bootstrap
from musicgen_lora.evaluation.measures.power import (
    detectable_difference,
    effect_size,
    found_shift,
    holm,
)


def test_holm_is_the_textbook_s() -> None:
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert found == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert holm({"only": 0.2}) == {"only": 0.2}
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}


@pytest.mark.parametrize(("n", "n_tests"), [(8, 1), (24, 3), (6, 1)])
def test_a_detectable_difference_is_found_as_often_as_it_says(n: int, n_tests: int) -> None:
    """Power of the actual sign-flip test, Holm-adjusted in a family whose other tests are null."""
    rng = np.random.default_rng(0)
    shift = found_shift(n, n_tests)
    assert shift is not None
    trials = rng.normal(shift / np.sqrt(n), 1.0, size=(200, n))
    found = [
        paired_bootstrap(np.zeros(n), own)["p_value"] * n_tests < 0.05  # pyright: ignore[reportOptionalOperand]
        for own in trials
    ]
    assert np.mean(found) == pytest.approx(0.8, abs=0.07)


def test_of_few_pairs_no_difference_is_found() -> None:
    assert found_shift(5) is None
    assert found_shift(6, n_tests=3) is None
    assert found_shift(0, n_tests=0) is None
    assert found_shift(2_000) == pytest.approx(2.8, abs=0.01)
    assert detectable_difference(np.arange(5.0)) is None


def test_more_pairs_see_smaller_differences() -> None:
    rng = np.random.default_rng(1)
    few, many = (detectable_difference(rng.normal(size=n)) for n in (8, 200))
    assert few is not None
    assert many is not None
    assert many < few / 3
    assert detectable_difference(np.ones(8)) is None
    assert detectable_difference(np.array([1.0, 2.0])) is None


def test_effect_size() -> None:
    assert effect_size(np.array([1.0, 2.0, 3.0])) == pytest.approx(2.0)
    assert effect_size(np.full(5, 0.3)) is None
