from __future__ import annotations

import numpy as np
import pytest

from musicgen_lora.evaluation.measures import diversity
from musicgen_lora.evaluation.measures.diversity import measure_diversity


def _normal(n: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return scale * np.random.default_rng(seed).normal(size=(n, 4)) + shift


def test_a_set_of_the_same_kind_is_plausible_and_covers() -> None:
    found = measure_diversity(_normal(200, 0), _normal(200, 1))
    assert found.precision > 0.8
    assert found.recall > 0.8
    assert found.spread == pytest.approx(1.0, abs=0.1)
    assert not found.collapsed


def test_music_of_another_kind_is_neither() -> None:
    found = measure_diversity(_normal(100, 0), _normal(100, 1, shift=20.0))
    assert found.precision == found.recall == 0.0


def test_one_clip_again_and_again_is_plausible_and_covers_nothing() -> None:
    found = measure_diversity(_normal(100, 0), _normal(50, 1, scale=0.01))
    assert found.precision == 1.0
    assert found.recall < 0.1
    assert found.collapsed


def test_known_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diversity, "NEIGHBOURS", 1)
    reference = np.array([[0.0], [1.0], [3.0]])
    rows = np.array([[0.5], [10.0], [3.5]])
    found = measure_diversity(reference, rows)
    # Reaches of the reference: 1, 1, 2; of the rows: 3, 6.5, 3.
    assert found.precision == pytest.approx(2 / 3)
    assert found.recall == 1.0
    assert found.spread == pytest.approx(6.5 / 2.0)


def test_too_few_clips_are_refused() -> None:
    with pytest.raises(ValueError, match="more than 3"):
        measure_diversity(_normal(3, 0), _normal(50, 1))
    with pytest.raises(ValueError, match="all sound the same"):
        measure_diversity(np.ones((9, 2)), _normal(9, 1)[:, :2])
