"""What the report says: findings, the summary, the console, in both languages."""

from __future__ import annotations

import copy
import json
import re
from io import StringIO
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chinese import english_in, english_in_page, in_chinese  # noqa: F401
from html_page import Page
from reports import compare_clips
from rich.console import Console

from musicgen_lora.console import CommandConsole
from musicgen_lora.evaluation.compared import Compared
from musicgen_lora.evaluation.decisions.protocol import judge_primaries
from musicgen_lora.evaluation.decisions.regressions import find_regressions
from musicgen_lora.evaluation.measures.damage import Damage
from musicgen_lora.evaluation.remarks import silent, too_loud
from musicgen_lora.evaluation.report import between
from musicgen_lora.evaluation.report.findings import MOST, find_findings, tell_sections
from musicgen_lora.evaluation.report.report import (
    interval,
    make_page,
    percent,
    print_report,
    write_report,
)
from musicgen_lora.evaluation.report.summary import (
    list_not_computed,
    loss_sentence,
    loss_sentences,
    moved_words,
)
from musicgen_lora.evaluation.report.verdicts import number, primary_rows, share_text, signed
from musicgen_lora.evaluation.sound.comparison import SHOWN, compare_descriptors
from musicgen_lora.evaluation.sound.ear import Heard
from musicgen_lora.evaluation.sound.references import References
from musicgen_lora.formats.documents import plain
from musicgen_lora.language.translate import translated, word


def without_reference(report: dict[str, Any]) -> dict[str, Any]:
    """The same report for an adapter made by another tool, without --compare."""
    poor = copy.deepcopy(report)
    why = "the adapter has no musicgen_lora.json"
    poor["held_out"] |= {"origin": "", "why_none": why, "is_unseen": False}
    poor["loss"] = {"computed": False, "why": why}
    poor["forgetting"] = {
        "computed": False,
        "why": "needs --other_data_dir, a dataset of other music",
    }
    poor["reference"] = {"computed": False, "why": why, "descriptors": []}
    poor["generation"]["compared"] = False
    for clip in poor["generation"]["clips"]:
        clip["base"] = None
    heard = [
        Heard(
            {name: np.nan if v is None else v for name, v in own["descriptors"].items()},
            vectors={},
            damage=Damage(**own["damage"]),
            fingerprint=np.zeros(0, np.uint64),
            bpm=np.nan,
            key=None,
        )
        for own in (clip["adapter"] for clip in poor["generation"]["clips"])
    ]
    clips = poor["generation"]["clips"]
    poor |= plain(compare_clips(clips, Compared(None, heard), References(), why))
    nothing = {"computed": False, "why": why}
    poor |= {"overfitting": nothing, "memorisation": {"continuations": nothing, "nearest": nothing}}
    poor["captions"] = nothing
    poor["off_style"] = {"computed": False, "why": "needs --compare"}
    poor["primaries"] = plain(judge_primaries(poor, compared=False))
    poor["regressions"] = plain(find_regressions(poor))
    poor["not_computed"] = list_not_computed(poor)
    poor["findings"], poor["told"] = find_findings(poor), tell_sections(poor)
    return poor


def test_the_sub_moved_most_of_the_way(evaluated: tuple[dict[str, Any], Path]) -> None:
    report, _ = evaluated
    row = next(row for row in report["descriptors"] if row["name"] == "band_20_60_share")
    assert row["moved"]["share"] > 0.5
    assert row["paired"]["n"] == 5
    told = next(s for s in report["told"]["descriptors"] if s.startswith("Energy 20 to 60 Hz"))
    assert "of the way" in told
    assert "n = 5 prompts, 5 held-out sources" in told


def test_without_a_reference_it_says_why(
    evaluated: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    report, folder = evaluated
    poor = without_reference(report)
    for clip in poor["generation"]["clips"]:
        name = clip["adapter"]["audio"]
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    write_report(poor, tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert page.tags.count("audio") == 5
    assert "ot computed: the adapter has no musicgen_lora.json" in text
    assert "plots/held_out_loss.png" not in poor["plots"]
    assert json.loads((tmp_path / "report.json").read_text())["loss"]["computed"] is False


def test_the_verdicts_are_whole_in_a_narrow_terminal(
    evaluated: tuple[dict[str, Any], Path],
) -> None:
    console = Console(width=80, record=True, file=StringIO())
    print_report(evaluated[0], console)
    table = console.export_text().partition("Primary outcomes")[2].partition("Descriptor means")[0]
    words = {word for line in table.splitlines() for word in re.findall("[\\w.(<)\u2212]+", line)}
    assert {"adapter", "verdict", "(KAD)", "Descriptor", "sources", "prompts"} <= words
    assert {row["adapter"] for row in primary_rows(evaluated[0]["primaries"])} <= words
    # And what they stand between.
    assert {"chance", "0.30", "2.00", "itself", "stuck", "DC", "music"} <= words


def test_the_console_has_findings_and_tables(evaluated: tuple[dict[str, Any], Path]) -> None:
    report, _ = evaluated
    for each in (report, without_reference(report)):
        console = Console(width=100, record=True, file=StringIO())
        print_report(each, console)
        text = console.export_text()
        assert each["findings"][0][:60] in text
        assert "Energy 20 to 60 Hz (%)" in text
    # A reason is said once, with all that it keeps from being computed.
    said = " ".join(text.rpartition("Descriptor means")[2].split())
    assert said.count(": not computed: the adapter has no musicgen_lora.json") == 1
    assert "Held-out loss; Descriptors of held-out audio;" in said


def result(**changes: Any) -> Any:
    return {
        "n": 12,
        "relative": -0.183,
        "relative_ci_low": -0.21,
        "relative_ci_high": -0.15,
        "doubt": "",
        **changes,
    }


def test_sentences_about_the_loss() -> None:
    assert loss_sentence(result()) == (
        "The adapter lowered the held-out loss by 18.3 % (95 % CI 15.0 to 21.0 %, n = 12 sources)."
    )
    raised = result(relative=0.05, relative_ci_low=0.01, relative_ci_high=0.09)
    assert "raised the held-out loss by 5.0 % (95 % CI 1.0 to 9.0 %" in loss_sentence(raised)
    unclear = loss_sentence(result(relative_ci_high=0.02))
    assert unclear.startswith("No clear change")
    assert "-21.0 to +2.0 %" in unclear
    # A change of less than what is printed is none, whatever its sign and interval.
    for size in (-0.0004, 0.0004):
        ends = {"relative_ci_low": 0.9 * size, "relative_ci_high": 1.1 * size}
        for given in (dict.fromkeys(ends), ends):
            same = loss_sentence(result(relative=size, **given))
            assert same.startswith("The adapter left the held-out loss as it was")
            assert "0.0 %" not in same or "95 % CI" in same
    few = loss_sentence(result(n=1, relative_ci_low=None, relative_ci_high=None))
    assert few.endswith("(n = 1 source: too few for an interval).")
    few = loss_sentence(result(doubt="few"))
    assert "n = 12 sources; indicative only: with fewer than 20" in few
    assert "; indicative only: a few sources differ" in loss_sentence(result(doubt="skewed"))


def test_a_loss_on_the_clips_that_chose_the_weights_is_said_to_be_one(
    evaluated: tuple[dict[str, Any], Path],
) -> None:
    report = copy.deepcopy(evaluated[0])
    assert any("Training picked best_model" in s for s in tell_sections(report)["loss"])
    report["held_out"]["chose_best"] = False
    assert not any("picked best_model" in said for said in tell_sections(report)["loss"])


def test_words_for_a_way() -> None:
    bounds = {"ci_low": 0.5, "ci_high": 0.9}
    assert moved_words({"share": 0.74, **bounds}).startswith("moved 74 % of the way, 95 %")
    assert moved_words({"share": 1.3, **bounds}).startswith("overshot it, at 130 %")
    assert moved_words({"share": -0.2, **bounds}).startswith("moved away from it by 20 %")
    assert moved_words({"share": -0.001, **bounds}).startswith("moved 0 % of the way")
    assert moved_words({"share": 1.001, **bounds}).startswith("moved 100 % of the way")


def test_what_rounds_to_zero_has_no_minus() -> None:
    none = {"share": -0.0, "ci_low": -0.001, "ci_high": -0.0}
    words = [percent(-0.0), interval(-1e-9, -0.0), number(-1e-9), share_text(-1e-9), signed(-1e-9)]
    for text in (*words, moved_words(none)):
        assert "\N{MINUS SIGN}" not in text
        assert "-" not in text


def test_warnings_come_first_and_the_worst_before_the_others(
    evaluated: tuple[dict[str, Any], Path],
) -> None:
    report = copy.deepcopy(evaluated[0])
    report["overfitting"]["excess"] |= {"flagged": True, "share": 0.94}
    report["captions"]["flagged"] = True
    loss = report["loss"]["mean"]
    report["loss"]["mean"] = loss | {
        "relative": 0.2,
        "relative_ci_low": 0.1,
        "relative_ci_high": 0.3,
    }
    said = find_findings(report)
    assert [sentence[9:40] for sentence in said[:5]] == [
        "the adapter raised the held-out",
        "the adapter has memorised train",
        "1 of 5 generated clips repeats ",
        "the adapter learned its trainin",
        "the training captions don't mat",
    ]
    assert len(said) == MOST
    assert set(said) <= {*chain(*tell_sections(report).values())}


def test_findings_are_few(evaluated: tuple[dict[str, Any], Path]) -> None:
    assert len(evaluated[0]["findings"]) <= MOST
    assert len([*chain(*evaluated[0]["told"].values())]) > MOST


def test_warnings_about_silent_loud_and_identical_clips(
    evaluated: tuple[dict[str, Any], Path],
) -> None:
    report = copy.deepcopy(evaluated[0])
    report["generation"]["clips"][1]["identical"] = True
    report["generation"]["clips"][2]["base"]["descriptors"]["silence_share"] = 0.9
    report["generation"]["clips"][3]["adapter"]["descriptors"]["clipped_share"] = 0.02
    warnings = [
        sentence
        for sentence in find_findings(report)
        if sentence.startswith("Warning") and " of 5 " in sentence and "repeat" not in sentence
    ]
    assert len(warnings) == 3
    assert "1 of 5 pairs of generated clips is identical" in warnings[0]
    assert "1 of 5 clips of the base is silent" in warnings[1]
    assert "1 of 5 clips of the adapter exceeds full scale in more than 0.1 % of its" in warnings[2]


def test_clipping_is_a_warning_where_the_adapter_brought_it(
    evaluated: tuple[dict[str, Any], Path],
) -> None:
    def told(base: int, adapter: int, *, compared: bool = True) -> list[str]:
        report = copy.deepcopy(evaluated[0])
        report["generation"]["compared"] = compared
        for side, n in (("base", base), ("adapter", adapter)):
            for place, clip in enumerate(report["generation"]["clips"]):
                clip[side]["descriptors"]["clipped_share"] = 0.02 if place < n else 0.0
                if not compared:
                    clip["base"] = None
        return [said for said in tell_sections(report)["faults"] if " full scale" in said]

    assert told(0, 0) == []
    (said,) = told(1, 1)
    assert said.startswith("1 of 5 clips of the base exceeds full scale")
    assert "of its samples and was turned down" in said
    (said,) = told(2, 2)
    assert said.startswith("2 of 5 clips of the base exceed")
    assert said.endswith("(adapter: 2).")
    (said,) = told(1, 2)
    assert said.startswith("Warning: 2 of 5 clips of the adapter exceed")
    assert said.endswith("(base: 1).")
    (said,) = told(0, 2, compared=False)
    assert said.endswith("of their samples and were turned down.")


def test_what_lacks_for_one_reason_is_told_once(evaluated: tuple[dict[str, Any], Path]) -> None:
    why = "the adapter has no musicgen_lora.json"
    report = without_reference(evaluated[0])
    report["primaries"] = [own | {"why": why} for own in report["primaries"]]
    assert [why in said for said in find_findings(report)].count(True) == 1


def with_descriptor(report: dict[str, Any], name: str, sides: list[list[float]]) -> dict[str, Any]:
    """The same report with these values of one descriptor for base, adapter and held-out audio."""
    changed = copy.deepcopy(report)
    facts = [
        [{shown.name: 0.5 for shown in SHOWN} | {name: value} for value in values]
        for values in sides
    ]
    changed["descriptors"] = plain(
        compare_descriptors(Compared(facts[0], facts[1]), facts[2], seed=0)
    )
    return changed


def test_the_summary_says_that_it_is_no_beat(evaluated: tuple[dict[str, Any], Path]) -> None:
    sides = [[0.03, 0.04, 0.05, 0.04], [0.05, 0.04, 0.03, 0.04], [0.43, 0.4, 0.46, 0.43]]
    said = find_findings(with_descriptor(evaluated[0], "tempo_confidence", sides))
    assert said[-1 - sum(not s.startswith("Warning") for s in said)] == (
        "Warning: the clips have no steady beat. Beat steadiness: 0.04 with the adapter, 0.04 with "
        "the base, 0.43 in the held-out audio (n = 4 clips / 4 clips / 4 sources)."
    )
    steady = with_descriptor(evaluated[0], "tempo_confidence", [sides[0], sides[2], sides[2]])
    assert not any("no steady beat" in sentence for sentence in find_findings(steady))


def test_the_summary_names_what_is_furthest_off(evaluated: tuple[dict[str, Any], Path]) -> None:
    sides = [[500.0, 510.0, 520.0], [900.0, 905.0, 910.0], [3000.0, 3010.0, 3020.0]]
    said = find_findings(with_descriptor(evaluated[0], "spectral_centroid_hz", sides))
    calm = [sentence for sentence in said if not sentence.startswith("Warning")]
    assert calm[1].startswith(
        "Largest difference from the held-out audio: Brightness: 905 Hz with the"
    )
    there = with_descriptor(evaluated[0], "spectral_centroid_hz", [sides[0], sides[2], sides[2]])
    assert not any("Largest difference" in sentence for sentence in find_findings(there))


@pytest.mark.usefixtures("in_chinese")
@pytest.mark.parametrize("is_poor", [False, True])
def test_a_chinese_reader_finds_no_english(
    is_poor: bool, evaluated: tuple[dict[str, Any], Path]
) -> None:
    report = without_reference(evaluated[0]) if is_poor else evaluated[0]
    console = CommandConsole(file=StringIO(), width=200)
    print_report(report, console)
    assert isinstance(console.file, StringIO)
    own = (
        "musicgen_lora.json",
        "pack",
        "adapter",
        "CLAP",
        *report["settings"],
        *report["versions"],
    )
    why = "the adapter has no musicgen_lora.json"
    assert english_in(console.file.getvalue(), why, *own) == []
    prompts = [clip["prompt"] for clip in report["generation"]["clips"]]
    prompts += [clip["prompt"] for clip in report["off_style"].get("clips", [])]
    plots_of = {Path(name).stem: b"" for name in report["plots"]}
    if is_poor:
        del plots_of["moved_towards_held_out"]
    page = make_page(report, plots_of, {}, {})
    assert '<html lang="zh-CN">' in page
    assert english_in_page(page, why, *own, *prompts) == []
    # A view: the figures and sentences on the disk are those of everybody.
    assert report["findings"] == find_findings(report)


@pytest.mark.usefixtures("in_chinese")
def test_names_of_reference_points_are_translated() -> None:
    source = Path(between.__file__).read_text(encoding="utf-8")
    names = re.findall(r'_end\(.*?"([A-Za-z][^"]*)"\)', source)
    assert "a copy" in names
    assert [name for name in names if word(name) == name] == []


@pytest.mark.usefixtures("in_chinese")
@pytest.mark.parametrize("n", [1, 2])
def test_one_and_two_are_translated(n: int, evaluated: tuple[dict[str, Any], Path]) -> None:
    report = copy.deepcopy(evaluated[0])
    for clip in report["generation"]["clips"][:n]:
        clip["identical"] = True
        clip["base"]["descriptors"]["silence_share"] = 0.9
        clip["adapter"]["descriptors"]["clipped_share"] = 0.02
    heard = {"n_heard": n, "n_clips": 4, "is_unseen": True, "chose_best": False}
    told = [
        *tell_sections(report)["faults"],
        *loss_sentences(report["loss"], heard)[1:],
        silent(["a.wav", "b.wav"][:n], 4),
        too_loud(["a.wav", "b.wav"][:n], 4),
    ]
    assert len(told) >= 6
    for said in told:
        assert translated(said).startswith("警告："), said
        assert n == 2 or re.search(r" (is|was|exceeds) ", said)


def test_one_is_one_in_warnings_about_damage(evaluated: tuple[dict[str, Any], Path]) -> None:
    report = copy.deepcopy(evaluated[0])
    for n in (1, 2):
        report["damage"]["bad_samples"]["adapter"]["n_with"] = n
        report["damage"]["stuck_share"]["adapter"]["n_with"] = n
        told = [said for said in tell_sections(report)["faults"] if "of the adapter (n" in said]
        clips = "1 clip" if n == 1 else "2 clips"
        assert [f" in {clips} of the adapter (n = 5 clips)." in said for said in told] == [True] * 2
