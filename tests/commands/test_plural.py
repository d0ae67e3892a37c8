"""One file is, two files are."""

from __future__ import annotations

import pytest

from musicgen_lora.plural import count, count_that
from musicgen_lora.prepare.report.findings import CHECKS


def test_numbers_and_nouns() -> None:
    assert [count(n, "clip") for n in (0, 1, 2, 1200)] == [
        "0 clips",
        "1 clip",
        "2 clips",
        "1,200 clips",
    ]


def test_verbs_go_with_the_number() -> None:
    assert count_that(2, "file", "are clipped") == "2 files are clipped"
    assert count_that(1, "file", "are clipped") == "1 file is clipped"
    assert count_that(1, "file", "end before their header says") == (
        "1 file ends before its header says"
    )


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_every_fault_can_be_told_of_one_file(check) -> None:
    one = count_that(1, "file", check.told)
    assert one.startswith("1 file ")
    assert " their " not in one
