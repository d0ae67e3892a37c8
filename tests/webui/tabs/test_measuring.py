"""What the tabs request of `evaluate`, `export` and `merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the page's library is not installed (make ui)")

import gradio as gr
from pages.unstarted import asked, page_with_runs

from musicgen_lora.config import EvaluateSettings
from musicgen_lora.errors import UserError
from musicgen_lora.training.record.run import FINISHED, Run
from musicgen_lora.webui.page import Page
from musicgen_lora.webui.safety import id_of
from musicgen_lora.webui.tabs.evaluate import Measuring, settings_form
from musicgen_lora.webui.tabs.exports import Exporting, numbers


@pytest.fixture
def page(tmp_path: Path) -> Page:
    return page_with_runs(tmp_path)


def test_runs_checkpoints_and_strengths_are_measured_side_by_side(page: Page) -> None:
    form, work = settings_form(), page.workspace
    measuring = Measuring(page, form)
    values = ["0 0.5 1", *(setting.shown for setting in form[1:])]
    step = work.runs / "one" / "checkpoints" / "step-000040"
    step.mkdir(parents=True)
    (step / "adapter_model.safetensors").write_bytes(b"x")
    (step / "adapter_config.json").write_text("{}")
    (work.runs / "one" / "checkpoints" / ".staging-1").mkdir()
    best = {name: work.runs / name / "best_model" for name in ("one", "two")}
    assert work.adapters() == best | {"one/step-000040": step}
    measuring.start([id_of("one"), id_of("one/step-000040")], 3, True, *values)
    measuring.start([id_of("two"), id_of("one"), id_of("two")], 3, False, *values)
    own, several = asked(page)
    assert own["lora_model_path"] == [str(best["one"]), str(step)]
    assert EvaluateSettings(**own).strengths == [0.0, 0.5, 1.0]
    assert own["output_dir"] == str(work.runs / "one" / "evaluation")
    assert several["lora_model_path"] == [str(best["two"]), str(best["one"])]
    assert several["output_dir"] == str(work.evaluations / "two and one")


def test_wrong_evaluations_ask_for_nothing(page: Page) -> None:
    form, work = settings_form(), page.workspace
    measuring, plain = Measuring(page, form), [setting.shown for setting in form]
    Run(FINISHED, "two", base={"path": "facebook/musicgen-small"}).write(work.runs / "two")
    both = [id_of("one"), id_of("two")]
    for ids, strengths, said in (
        ([], "", "Choose an adapter"),
        ("x", "", "Choose an adapter"),
        (["../one"], "", "no longer exists"),
        ([str(work.runs / "one")], "", "no longer exists"),
        ([id_of("one/step-000040")], "", "no longer exists"),
        (both, "", "a different base model than one"),
        (both[:1], "3", "strengths = 3"),
        (both[:1], "loud", "strengths = 'loud'"),
    ):
        with pytest.raises(UserError, match=said):
            measuring.start(ids, 3, True, strengths, *plain[1:])
    assert asked(page) == []


def test_a_report_of_several_runs_is_shown_as_it_comes(page: Page) -> None:
    measuring, work = Measuring(page, settings_form()), page.workspace
    *_, report, names, _, seen = measuring.look("", [], None, None)
    assert report["value"] == id_of("one") or report["value"] == id_of("two")
    folder = work.evaluations / "one"
    folder.mkdir()
    (folder / "report.html").write_text("x")
    _, report, names, shown, seen = measuring.look(seen, names, None, report["value"])
    # A run of the same name has a report of its own.
    assert report["value"] == id_of("evaluations/one")
    assert id_of("evaluations/one") in shown
    assert work.report(id_of("evaluations/one")) == folder / "report.html"
    with pytest.raises(UserError):
        work.report(id_of("one"))
    assert measuring.look(seen, names, None, report["value"])[1] == gr.skip()


@pytest.mark.parametrize(
    ("runs", "strengths", "kind", "said"),
    [
        ([], "", "merge", "Choose a run"),
        ("x", "", "merge", "Choose a run"),
        ([id_of("one")], "", "doctor", "Choose what"),
        ([id_of("one")], "strong", "peft", "give a number for each adapter"),
        (["../one"], "", "peft", "no longer exists"),
    ],
)
def test_wrong_exports_ask_for_nothing(
    page: Page, runs: Any, strengths: str, kind: str, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        Exporting(page).write(runs, strengths, kind, "new")
    assert asked(page) == []


def test_strengths_as_people_type_them() -> None:
    assert numbers(" 0.7,  0.3 ") == [0.7, 0.3]
    assert numbers(None) == []
