"""What the tabs ask of the commands: settings in a file, by ids of what is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("gradio", reason="the page's library is not installed (make ui)")

import gradio as gr

from musicgen_lora.errors import UserError
from musicgen_lora.training.record.run import FINISHED, Run
from musicgen_lora.webui.forms import form_of
from musicgen_lora.webui.jobs import Jobs
from musicgen_lora.webui.page import Page
from musicgen_lora.webui.safety import id_of
from musicgen_lora.webui.tabs.evaluate import OWN as EVALUATE_OWN
from musicgen_lora.webui.tabs.evaluate import Measuring
from musicgen_lora.webui.tabs.exports import Exporting, numbers
from musicgen_lora.webui.tabs.generate import BASE_ONLY, FRONT, OWN, Form
from musicgen_lora.webui.words import Words
from musicgen_lora.webui.workspace import Workspace

BASE = "tiny-beats"


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Page:
    """A page with two runs, whose jobs are never started."""
    monkeypatch.setattr(Jobs, "_start", lambda *_: None)
    work = Workspace(tmp_path / "w")
    for name in ("one", "two"):
        best = work.runs / name / "best_model"
        best.mkdir(parents=True)
        (best / "adapter_model.safetensors").write_bytes(b"x")
        (best / "adapter_config.json").write_text("{}")
        Run(FINISHED, name, base={"path": BASE}).write(work.runs / name)
    with gr.Blocks():
        return Page(work, Words("en"), gr.Timer(1), tmp_path)


def asked(page: Page) -> list[dict[str, Any]]:
    """The settings of all jobs, the oldest first."""
    jobs = page.workspace.jobs
    files = [jobs.folder / job.id / "settings.yaml" for job in reversed(jobs.all())]
    return [value for file in files for value in yaml.safe_load(file.read_text()).values()]


def form(page: Page) -> tuple[Form, list[Any]]:
    """The form of Generate, and its values as nobody has changed them."""
    settings = form_of("generate")
    front = [setting for setting in settings if setting.name in FRONT]
    rest = form_of("generate", OWN | frozenset(FRONT))
    return Form(page, [*front, *rest], []), [setting.shown for setting in [*front, *rest]]


def test_adapters_play_at_their_strengths_and_the_base_at_none(page: Page) -> None:
    made, values = form(page)
    values[:4] = ["140", "2", "C minor", "4"]
    who = [id_of("one"), 0.7, id_of("two"), 0.3]
    assert made.generate("trap", *who, BASE, True, 4, 2, 7, True, *values) == 7
    base, both = asked(page)
    loops = {"bpm": 140, "bars": 2, "key": "C minor", "best_of": 4}
    for settings in (base, both):
        assert loops.items() <= settings.items()
        assert (settings["prompts"], settings["seed"]) == (["trap", "trap"], 7)
    assert "lora_model_path" not in base
    assert "strength" not in base
    runs = page.workspace.runs
    assert both["lora_model_path"] == [str(runs / n / "best_model") for n in ("one", "two")]
    assert both["strength"] == [0.7, 0.3]


def test_the_base_alone_and_a_second_adapter_alone(page: Page) -> None:
    made, values = form(page)
    made.generate("trap", BASE_ONLY, 1, BASE_ONLY, 1, BASE, True, 4, 1, 7, True, *values)
    made.generate("trap", BASE_ONLY, 1, id_of("two"), 0.5, BASE, False, 4, 1, 7, True, *values)
    base, second = asked(page)
    assert "strength" not in base
    assert second["strength"] == [0.5]


def test_a_sound_comes_back_into_the_form(page: Page) -> None:
    folder = page.workspace.generated
    facts = {"prompt": "trap", "seed": 9, "duration_s": 6.0, "bpm": 140.0, "key": "C minor"}
    (folder / "a.wav").write_bytes(b"x")
    (folder / "a.json").write_text(json.dumps(facts))
    event = gr.EventData(None, {"act": "again", "target": id_of("a.wav")})
    prompt, seconds, _, seed, is_kept, *front = form(page)[0].again(event)
    assert (prompt, seconds, seed, is_kept) == ("trap", 6.0, 9, True)
    assert front == ["140.0", "", "C minor", "1"]
    with pytest.raises(UserError, match="not there any more"):
        form(page)[0].again(gr.EventData(None, {"act": "delete", "target": id_of("a.wav")}))


def test_what_is_merged_is_a_base_of_the_page(page: Page) -> None:
    work, exporting = page.workspace, Exporting(page)
    exporting.write([id_of("one"), id_of("two")], "0.7, 0.3", "merge", "Both")
    exporting.write([id_of("one")], "", "peft", "")
    merged, exported = asked(page)
    assert merged["strength"] == [0.7, 0.3]
    assert merged["output_dir"] == str(work.models / "Both")
    assert (exported["format"], exported["strength"]) == ("peft", [])
    assert exported["output_dir"] == str(work.models / "one")
    (work.models / "Both").mkdir()
    (work.models / "Both" / "config.json").write_text("{}")
    assert ("Both", id_of("Both")) in work.bases()
    for wanted in (id_of("Both"), str(work.models / "Both")):
        assert work.base(wanted) == str(work.models / "Both")
    for forged in (str(work.runs), "../models/Both", "/etc", id_of("one"), None, ["tiny-beats"]):
        with pytest.raises(UserError, match="no such base model"):
            work.base(forged)


def test_each_run_that_is_chosen_is_evaluated(page: Page) -> None:
    form = form_of("evaluate", EVALUATE_OWN)
    measuring, values = Measuring(page, form), [setting.shown for setting in form]
    measuring.start([id_of("one"), id_of("two")], 3, True, *values)
    runs = page.workspace.runs
    assert [settings["output_dir"] for settings in asked(page)] == [
        str(runs / name / "evaluation") for name in ("one", "two")
    ]
    with pytest.raises(UserError, match="Choose a run"):
        measuring.start([], 3, True, *values)


@pytest.mark.parametrize(
    ("runs", "strengths", "kind", "said"),
    [
        ([], "", "merge", "Choose a run"),
        ("x", "", "merge", "Choose a run"),
        ([id_of("one")], "", "doctor", "Choose what"),
        ([id_of("one")], "strong", "peft", "give a number for each adapter"),
        (["../one"], "", "peft", "not there any more"),
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
