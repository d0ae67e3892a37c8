"""The report: figures, sentences, page, console."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from io import BytesIO, StringIO
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from chinese import english_in, english_in_page, in_chinese  # noqa: F401
from reports import RATE, hearing_of, make_report
from rich.console import Console

from musicgen_lora import fonts
from musicgen_lora.console import CommandConsole
from musicgen_lora.evaluation.decisions.protocol import judge_primaries
from musicgen_lora.evaluation.decisions.regressions import find_regressions
from musicgen_lora.evaluation.losses.held_out_loss import summarise_losses, summarise_positions
from musicgen_lora.evaluation.measures.damage import Damage
from musicgen_lora.evaluation.report import page_audio, plots
from musicgen_lora.evaluation.report.findings import MOST, find_findings, tell_sections
from musicgen_lora.evaluation.report.page_audio import spectrogram_png
from musicgen_lora.evaluation.report.report import (
    make_page,
    print_report,
    write_report,
)
from musicgen_lora.evaluation.report.summary import (
    list_not_computed,
    loss_sentence,
    moved_words,
)
from musicgen_lora.evaluation.report.verdicts import primary_rows
from musicgen_lora.evaluation.sound.comparison import SHOWN, band_label, compare_descriptors
from musicgen_lora.evaluation.sound.ear import Heard
from musicgen_lora.evaluation.sound.references import References
from musicgen_lora.evaluation.sound.sounds import compare_sounds
from musicgen_lora.formats.documents import plain
from musicgen_lora.listening.descriptors import describe


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """A full report on rendered beats, written to a folder."""
    folder = tmp_path_factory.mktemp("report")
    return make_report(folder), folder


def without_reference(report: dict[str, Any]) -> dict[str, Any]:
    """The same, as an adapter of another tool would have it, without --compare."""
    poor = copy.deepcopy(report)
    why = "the adapter has no musicgen_lora.json"
    poor["held_out"] |= {"origin": "", "why_none": why, "is_unseen": False}
    poor["loss"] = {"computed": False, "why": why}
    poor["forgetting"] = {
        "computed": False,
        "why": "--other_data_dir names no dataset of other music",
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
    hearing = hearing_of(References(), why, poor["generation"]["clips"])
    poor |= plain(compare_sounds(hearing, None, heard))
    nothing = {"computed": False, "why": why}
    poor |= {"overfitting": nothing, "memorisation": {"continuations": nothing, "nearest": nothing}}
    poor["captions"] = nothing
    poor["primaries"] = plain(judge_primaries(poor, compared=False))
    poor["regressions"] = plain(find_regressions(poor))
    poor["not_computed"] = list_not_computed(poor)
    poor["findings"], poor["told"] = find_findings(poor), tell_sections(poor)
    return poor


class Page(HTMLParser):
    """Collects tags, and what they would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "data")]
        if tag not in ("meta", "img", "br", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_all_files_are_there(evaluated: tuple[dict[str, Any], Path]) -> None:
    report, folder = evaluated
    assert json.loads((folder / "report.json").read_text()) == report
    assert len(report["plots"]) == 6
    for name in report["plots"]:
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    assert not list(folder.rglob(".staging*"))


def test_the_page_is_whole_and_loads_nothing(evaluated: tuple[dict[str, Any], Path]) -> None:
    report, folder = evaluated
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert page.loads
    assert all(load.startswith(("data:", "#pair-")) for load in page.loads)
    assert not re.search(r"https?://|url\(|@import", text)
    # Both sides of five prompts, and a training clip beside its likeness.
    assert page.tags.count("audio") == 12
    assert page.tags.count("img") == len(report["plots"]) + 12
    assert "default-src 'none'" in text


def test_the_page_runs_its_own_script_alone(evaluated: tuple[dict[str, Any], Path]) -> None:
    text = (evaluated[1] / "report.html").read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    # Every text of the page stands in its template, where it can be translated.
    assert text.count("<script") == 1
    # The page of `ui` shares the player and fetches; the report's policy lets nothing be fetched.
    assert "default-src 'none'" in text
    assert "connect-src" not in text
    assert not re.search(r"XMLHttpRequest|WebSocket|innerHTML|eval\(", script)


def test_a_page_that_would_be_too_large_names_the_files(
    evaluated: tuple[dict[str, Any], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    report, folder = evaluated
    shutil.copytree(folder / "audio", tmp_path / "audio")
    monkeypatch.setattr(page_audio, "PAGE_BYTES", 500_000)
    write_report(copy.deepcopy(report), tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 0 < Page(text).tags.count("audio") < 12
    assert "No room in the page; the files are <code>audio/base/4.wav</code>" in text
    assert len(text) < (folder / "report.html").stat().st_size


def test_sounds_in_the_page_are_those_of_the_files(
    evaluated: tuple[dict[str, Any], Path],
) -> None:
    _, folder = evaluated
    text = (folder / "report.html").read_text(encoding="utf-8")
    uris = re.findall(r'data:audio/mpeg;base64,([^"]+)"', text)
    played, rate = soundfile.read(BytesIO(base64.b64decode(uris[1])))
    original, _ = soundfile.read(folder / "audio/adapter/0.wav")
    assert rate == RATE
    n = min(len(played), len(original))
    assert np.corrcoef(played[:n], original[:n])[0, 1] > 0.98


def test_every_text_is_escaped(evaluated: tuple[dict[str, Any], Path]) -> None:
    text = (evaluated[1] / "report.html").read_text(encoding="utf-8")
    assert text.count("<script") == 1
    assert "bass &lt;script&gt;" in text
    assert "base &amp; co" in text
    assert "pack 0 &lt;b&gt;" in text


def test_the_page_has_the_figures_and_their_n(evaluated: tuple[dict[str, Any], Path]) -> None:
    report, folder = evaluated
    text = (folder / "report.html").read_text(encoding="utf-8")
    for sentence in report["findings"]:
        assert "n = " in sentence
    assert report["findings"][0] in text
    assert f"{report['loss']['mean']['mean_base']:.4f}" in text
    assert "n = 12 sources" in text
    assert "n = 5 prompts" in text
    assert all(shown.label in text for shown in SHOWN)


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
    table = console.export_text().partition("What it was to decide")[2].partition("Descriptors")[0]
    words = {word for line in table.splitlines() for word in re.findall("[\\w.(<)\u2212]+", line)}
    assert {"adapter", "verdict", "(KAD)", "descriptors", "sources", "prompts"} <= words
    assert {row["adapter"] for row in primary_rows(evaluated[0]["primaries"])} <= words


def test_the_console_has_findings_and_tables(evaluated: tuple[dict[str, Any], Path]) -> None:
    report, _ = evaluated
    for each in (report, without_reference(report)):
        console = Console(width=100, record=True, file=StringIO())
        print_report(each, console)
        text = console.export_text()
        assert each["findings"][0][:60] in text
        assert "Energy 20 to 60 Hz (%)" in text
    assert "Held-out loss: not computed: the adapter has no musicgen_lora.json" in text


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
        "The adapter lowered the held-out loss by 18.3 % (95 % interval 15.0 to 21.0 %, "
        "n = 12 sources)."
    )
    raised = result(relative=0.05, relative_ci_low=0.01, relative_ci_high=0.09)
    assert "raised the held-out loss by 5.0 % (95 % interval 1.0 to 9.0 %" in loss_sentence(raised)
    unclear = loss_sentence(result(relative_ci_high=0.02))
    assert unclear.startswith("No clear change")
    assert "-21.0 to +2.0 %" in unclear
    few = loss_sentence(result(n=1, relative_ci_low=None, relative_ci_high=None))
    assert few.endswith("(n = 1 source: too few for an interval).")
    assert "n = 12 sources; indicative: of fewer than 20" in loss_sentence(result(doubt="few"))
    assert "; indicative: a few sources differ" in loss_sentence(result(doubt="skewed"))


def test_a_loss_on_the_clips_that_chose_the_weights_is_said_to_be_one(
    evaluated: tuple[dict[str, Any], Path],
) -> None:
    report = copy.deepcopy(evaluated[0])
    assert any("The same clips chose best_model" in s for s in tell_sections(report)["loss"])
    report["held_out"]["chose_best"] = False
    assert not any("chose best_model" in said for said in tell_sections(report)["loss"])


def test_words_for_a_way() -> None:
    bounds = {"ci_low": 0.5, "ci_high": 0.9}
    assert moved_words({"share": 0.74, **bounds}).startswith("moved 74 % of the way, 95 %")
    assert moved_words({"share": 1.3, **bounds}).startswith("went past it, 130 %")
    assert moved_words({"share": -0.2, **bounds}).startswith("moved away from it by 20 %")


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
        "the adapter knows training clip",
        "1 of 5 generated clips repeat a",
        "the adapter knows its training ",
        "the captions of the training cl",
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
    assert "1 of 5 pairs of generated clips are identical" in warnings[0]
    assert "1 of 5 clips of the base are silent" in warnings[1]
    assert "1 of 5 clips of the adapter exceed full scale" in warnings[2]


def test_windows_of_a_source_are_one_observation() -> None:
    base = np.array([[4.0, 2.0], [6.0, 2.0], [3.0, 1.0]])
    counts = np.array([[1.0, 1.0], [3.0, 3.0], [2.0, 2.0]])
    loss = summarise_losses(base * counts, 0.5 * base * counts, counts, ["a", "a", "b"], seed=0)
    assert loss["n_sources"] == 2
    assert loss["n_windows"] == 3
    assert loss["sources"][0]["base"] == pytest.approx([5.5, 2.0])
    # Pooled over frames, then the mean of the codebooks: (28 / 6 + 10 / 6) / 2.
    assert loss["mean"]["mean_base"] == pytest.approx(38 / 12)
    assert loss["mean"]["relative"] == pytest.approx(-0.5)
    assert loss["mean"]["ci_low"] is None
    assert loss["codebooks"][0]["mean_base"] == pytest.approx(28 / 6)


def test_the_loss_along_the_clip_is_of_the_sources_that_reach_there() -> None:
    base = np.array([[[4.0, 2.0], [2.0, 0.0]], [[6.0, 3.0], [3.0, 1.0]], [[8.0, 4.0], [4.0, 2.0]]])
    counts = np.array([[[2, 1], [1, 0]], [[2, 1], [1, 1]], [[2, 1], [1, 1]]])
    first, second = summarise_positions(
        base, 0.5 * base, counts, ["a", "b", "c"], part_s=2.0, seed=0
    )
    assert (first["from_s"], first["to_s"], second["to_s"]) == (0.0, 2.0, 4.0)
    assert (first["loss"]["n"], second["loss"]["n"]) == (3, 2)
    assert first["loss"]["mean_base"] == pytest.approx((2.0 + 3.0 + 4.0) / 3)
    # Without the source whose second codebook is not predicted there.
    assert second["loss"]["mean_base"] == pytest.approx((2.0 + 3.0) / 2)
    assert second["loss"]["relative"] == pytest.approx(-0.5)


def test_a_long_clip_is_told_in_ten_stretches() -> None:
    counts = np.full((3, 1, 25), 10.0)
    base = counts * np.arange(1.0, 26.0)
    found = summarise_positions(base, base, counts, ["a", "b", "c"], part_s=0.5, seed=0)
    assert [own["from_s"] for own in found] == [1.5 * place for place in range(9)]
    # Three parts each, and one that is left.
    means = [own["loss"]["mean_base"] for own in found]
    assert means == pytest.approx([2.0, 5.0, 8.0, 11.0, 14.0, 17.0, 20.0, 23.0, 25.0])


def test_plain_values_are_json() -> None:
    values = {"a": float("nan"), "b": (1.0, float("inf")), "c": Path("x/y"), 3: None}
    assert plain(values) == {"a": None, "b": [1.0, None], "c": "x/y", "3": None}


def test_band_labels() -> None:
    assert band_label(20, 60) == "20 to 60 Hz"
    assert band_label(250, 2000) == "250 Hz to 2 kHz"
    assert band_label(6000, 14000) == "6 to 14 kHz"


@pytest.mark.parametrize("n_samples", [100, 3_000, 64_000])
def test_spectrograms_show_a_tone_where_it_is(n_samples: int) -> None:
    time = np.arange(n_samples) / RATE
    tone = np.sin(2 * np.pi * 1000.0 * time).astype(np.float32)[None]
    picture = plots.log_spectrogram(tone, RATE)
    assert np.isfinite(picture).all()
    row = int(picture.mean(axis=1).argmax())
    octaves = np.log2(RATE / 2 / 25.0)
    hz = 25.0 * 2 ** (octaves * (row + 0.5) / len(picture))
    assert hz == pytest.approx(1000.0, rel=0.1 if n_samples > 1000 else 0.4)


def test_a_silent_clip_has_pictures(evaluated: tuple[dict[str, Any], Path]) -> None:
    silence = np.zeros((1, RATE), dtype=np.float32)
    assert spectrogram_png(plots.log_spectrogram(silence, RATE), 0.0).startswith(b"\x89PNG")
    facts = plain([describe(silence, RATE)])
    assert plots.png_bytes(plots.bands_plot({"adapter": facts}))
    assert plots.moves_plot([{"name": "rms_db", "moved": None}]) is None


def with_descriptor(report: dict[str, Any], name: str, sides: list[list[float]]) -> dict[str, Any]:
    """The same report, where base, adapter and held-out audio have these values of one."""
    changed = copy.deepcopy(report)
    facts = [
        [{shown.name: 0.5 for shown in SHOWN} | {name: value} for value in values]
        for values in sides
    ]
    changed["descriptors"] = plain(compare_descriptors(facts[0], facts[1], facts[2], seed=0))
    return changed


def test_the_summary_says_that_it_is_no_beat(evaluated: tuple[dict[str, Any], Path]) -> None:
    sides = [[0.03, 0.04, 0.05, 0.04], [0.05, 0.04, 0.03, 0.04], [0.43, 0.4, 0.46, 0.43]]
    said = find_findings(with_descriptor(evaluated[0], "tempo_confidence", sides))
    assert said[-1 - sum(not s.startswith("Warning") for s in said)] == (
        "Warning: the clips have no steady beat. Steadiness: 0.04 with the adapter, 0.04 with the "
        "base, 0.43 in the held-out audio (n = 4 clips / 4 clips / 4 sources)."
    )
    steady = with_descriptor(evaluated[0], "tempo_confidence", [sides[0], sides[2], sides[2]])
    assert not any("no steady beat" in sentence for sentence in find_findings(steady))


def test_the_summary_names_what_is_furthest_off(evaluated: tuple[dict[str, Any], Path]) -> None:
    sides = [[500.0, 510.0, 520.0], [900.0, 905.0, 910.0], [3000.0, 3010.0, 3020.0]]
    said = find_findings(with_descriptor(evaluated[0], "spectral_centroid_hz", sides))
    calm = [sentence for sentence in said if not sentence.startswith("Warning")]
    assert calm[1].startswith("Furthest from the held-out audio: Brightness: 905 Hz with the")
    there = with_descriptor(evaluated[0], "spectral_centroid_hz", [sides[0], sides[2], sides[2]])
    assert not any("Furthest" in sentence for sentence in find_findings(there))


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
    plots_of = {Path(name).stem: b"" for name in report["plots"]}
    if is_poor:
        del plots_of["moved_towards_held_out"]
    page = make_page(report, plots_of, {}, {})
    assert '<html lang="zh-CN">' in page
    assert english_in_page(page, why, *own, *prompts) == []
    # A view: the figures and sentences on the disk are those of everybody.
    assert report["findings"] == find_findings(report)


@pytest.mark.usefixtures("in_chinese")
@pytest.mark.parametrize("font", [None, "DejaVu Sans"])
def test_pictures_are_chinese_where_a_font_has_the_letters(
    font: str | None, evaluated: tuple[dict[str, Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fonts, "chinese_font", lambda: font)
    with fonts.readable():
        figure = plots.loss_plot(evaluated[0]["loss"])
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert texts == (["base", "with adapter"] if font is None else ["基础模型", "加适配器"])
