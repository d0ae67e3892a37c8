from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from musicgen_lora.evaluation.measures.power import detectable_difference, effect_size, holm


def test_holm_is_the_textbook_s() -> None:
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert found == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert holm({"only": 0.2}) == {"only": 0.2}
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}


def test_a_detectable_difference_is_found_as_often_as_it_says() -> None:
    n, rng = 8, np.random.default_rng(0)
    pattern = rng.normal(size=n)
    pattern = (pattern - pattern.mean()) / pattern.std(ddof=1)
    # With a spread of exactly 1.
    shift = detectable_difference(pattern)
    assert shift is not None
    trials = rng.normal(shift, 1.0, size=(4_000, n))
    tested = stats.ttest_1samp(trials, 0.0, axis=1)
    assert (np.asarray(tested.pvalue) < 0.05).mean() == pytest.approx(0.8, abs=0.03)


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
