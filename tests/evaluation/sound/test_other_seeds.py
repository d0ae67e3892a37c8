"""Variation across seeds, for clips with known distances."""

from __future__ import annotations

import numpy as np
import pytest

from musicgen_lora.evaluation.compared import Compared
from musicgen_lora.evaluation.report.seeds import seed_rows, seed_sentences
from musicgen_lora.evaluation.sound.ear import Vectors
from musicgen_lora.evaluation.sound.references import References
from musicgen_lora.evaluation.sound.seeds import measure_seeds


def clips(*levels_db: float) -> list[Vectors]:
    return [{"log_mel": np.full(4, level)} for level in levels_db]


def test_distances_are_of_one_prompt_by_two_seeds() -> None:
    found = measure_seeds(
        Compared(clips(0.0, 10.0, 40.0), clips(0.0, 4.0, 8.0)),
        Compared(clips(6.0, 6.0), clips(3.0, 5.0)),
        References(),
        seed=0,
    )
    assert found["n"] == 2
    assert found["base"]["values"] == pytest.approx([6.0, 4.0])
    assert found["adapter"]["among_seeds"] == pytest.approx(2.0)
    assert found["adapter"]["among_prompts"] == pytest.approx(16.0 / 3.0)
    assert found["paired"]["difference"] == pytest.approx(-3.0)
    assert found["reference"] is None
    assert not found["collapsed"]
    (said,) = seed_sentences(found)
    assert said == (
        "Another seed changes the adapter's clip of a prompt by 2.0 dB, the base's by 5.0 dB "
        "(n = 2 prompts)."
    )


def test_clips_that_are_alike_whatever_the_seed_are_a_collapse() -> None:
    made = Compared(clips(0.0, 10.0), clips(0.0, 10.0))
    again = Compared(clips(6.0, 16.0), clips(1.0, 11.0))
    found = measure_seeds(made, again, References(), seed=0)
    # Different prompts are as far apart as with the base, which the spread of a set goes by.
    assert found["adapter"]["among_prompts"] == found["base"]["among_prompts"]
    assert found["collapsed"]
    assert seed_sentences(found)[0].startswith("Warning: ")


def test_without_a_base_and_with_one_prompt() -> None:
    found = measure_seeds(
        Compared(None, clips(0.0)), Compared(None, clips(2.0)), References(), seed=0
    )
    assert found["base"] is found["paired"] is found["adapter"]["among_prompts"] is None
    assert not found["collapsed"]
    assert seed_sentences(found) == [
        "Another seed changes the adapter's clip of a prompt by 2.0 dB (n = 1 prompt)."
    ]
    assert [row["adapter"] for row in seed_rows(found)] == ["2.0", "\N{EN DASH}"]
