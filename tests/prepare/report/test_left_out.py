"""Files that are left out are grouped by reason, one line each; the report names every file."""

from __future__ import annotations

from musicgen_lora.prepare.reading.inputs import Dropped
from musicgen_lora.prepare.report.left_out import COPIES, by_reason


def test_reasons_that_differ_in_figures_are_one() -> None:
    drops = [
        Dropped("b.wav", "0.91 s is shorter than 1 s (--min_clip)."),
        Dropped("torn.wav", "not readable as audio (Format not recognised)."),
        Dropped("a.wav", "0.24 s is shorter than 1 s (--min_clip)."),
        Dropped("c.wav", "is silent for 93 % of its length."),
        Dropped("d.wav", "is silent for 96 % of its length."),
    ]
    short, silent, torn = by_reason(drops)
    assert short.told == "0.24 to 0.91 s is shorter than 1 s (--min_clip)."
    assert short.names == ("b.wav", "a.wav")
    assert short.in_one_line() == (
        "2 files: 0.24 to 0.91 s is shorter than 1 s (--min_clip): b.wav, a.wav"
    )
    assert torn.in_one_line() == "torn.wav: not readable as audio (Format not recognised)."
    assert silent.in_one_line() == (
        "2 files, each of which is silent for 93 to 96 % of its length: c.wav, d.wav"
    )


def test_one_copy_is_one_sentence() -> None:
    (copy,) = by_reason([Dropped("x.mp3", "sounds like a.wav, which is lossless.", "a.wav")])
    assert copy.in_one_line() == "x.mp3 (sounds like a.wav, which is lossless)"


def test_copies_are_one_kind_and_each_says_of_what() -> None:
    drops = [Dropped(f"{n}.wav", "the same bytes as a.wav.", "a.wav") for n in range(5)]
    drops.append(Dropped("x.mp3", "sounds like a.wav.", "a.wav"))
    (copies,) = by_reason(drops)
    assert copies.told == COPIES
    assert copies.names[-1] == "x.mp3 (sounds like a.wav)"
    assert copies.in_one_line().startswith(f"6 files: {COPIES}: 0.wav (the same bytes as a.wav), ")
    assert copies.in_one_line().endswith(" and 3 more, in the report")


def test_figures_in_a_path_are_no_figures() -> None:
    drops = [Dropped(f"{n}.wav", f"in/take {n} .json: not valid JSON.") for n in (1, 2)]
    assert [kind.told for kind in by_reason(drops)] == [drop.reason for drop in drops]


def test_no_file_is_lost() -> None:
    drops = [Dropped(f"{n}.wav", f"{n} s is shorter than 1 s.") for n in range(40)]
    drops += [Dropped(f"{n}.mp3", "broken audio.") for n in range(3)]
    kinds = by_reason(drops)
    assert sorted(name for kind in kinds for name in kind.names) == sorted(d.name for d in drops)
    assert [len(kind.names) for kind in kinds] == [40, 3]
