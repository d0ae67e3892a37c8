"""What the tabs request from the commands: settings in a file, from ids of what exists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gradio", reason="the page's library is not installed (make ui)")

import gradio as gr
from pages.unstarted import BASE, asked, page_with_runs

from musicgen_lora.audio.files import write_wav
from musicgen_lora.errors import UserError
from musicgen_lora.webui.forms import changed, form_of
from musicgen_lora.webui.page import Page
from musicgen_lora.webui.safety import id_of
from musicgen_lora.webui.tabs.exports import Exporting
from musicgen_lora.webui.tabs.generate import BASE_ONLY, DRAWN, FRONT, OWN, Form
from musicgen_lora.webui.tabs.history import history
from musicgen_lora.webui.tabs.recordings import ANEW, GO_ON, HEARD_S, Fields

RATE = 8000


@pytest.fixture
def page(tmp_path: Path) -> Page:
    return page_with_runs(tmp_path)


def form(page: Page) -> tuple[Form, list[Any]]:
    """The form of Generate, and its unchanged values."""
    settings = form_of("generate")
    front = [setting for setting in settings if setting.name in FRONT]
    rest = form_of("generate", OWN | frozenset(FRONT))
    with gr.Blocks():
        made = Form(page, [*front, *rest], [], Fields(page))
    return made, [setting.shown for setting in [*front, *rest]]


def sound(page: Page, name: str, **facts: Any) -> str:
    """The id of a generated clip."""
    folder = page.workspace.generated
    loop_s = 240 * facts["bars"] / facts["bpm"] if facts.get("bars") else 8.0
    write_wav(folder / f"{name}.wav", np.zeros((1, round(loop_s * RATE)), np.float32), RATE)
    (folder / f"{name}.json").write_text(json.dumps({"prompt": "trap", "seed": 9, **facts}))
    return id_of(f"{name}.wav")


def pressed(act: str, target: str, at: Any = None) -> gr.EventData:
    """What the browser sends for a button below a sound."""
    return gr.EventData(None, {"act": act, "target": target, "at": at})


def test_adapters_play_at_their_strengths_and_the_base_at_none(page: Page) -> None:
    made, values = form(page)
    values[:4] = ["140", "2", "C minor", "4"]
    who = [id_of("one"), 0.7, id_of("two"), 0.3]
    assert made.generate("trap", *who, BASE, True, 4, 2, 7, True, *values) == 7
    base, both = asked(page)
    loops = {"bpm": 140, "bars": 2, "key": "C minor", "best_of": 4}
    for settings in (base, both):
        assert loops.items() <= settings.items()
        assert (settings["prompts"], settings["seed"]) == (["trap"], 7)
        assert settings["variations"] == 2
        assert "duration" not in settings, "a loop is as long as its bars"
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


def test_each_side_of_a_player_has_its_own_faults(page: Page) -> None:
    one = str(page.workspace.runs / "one" / "best_model")
    loop = {"bpm": 140.0, "bars": 4}
    sound(page, "base", **loop, adapters=[], faults=["no steady beat"])
    sound(page, "own", **loop, adapters=[{"path": one, "strength": 1.0}], faults=[])
    sound(page, "alone", bpm=90.0, bars=2, faults=["starts late"])
    html = history(page.workspace.sounds(9), page)
    assert html.count("<figure") == 2
    assert "base: no steady beat" in html
    assert "one:" not in html
    assert "starts late" in html
    assert "base: starts late" not in html


def test_what_is_no_tempo_is_shown_as_none(page: Page) -> None:
    """The JSON is another program's, or written by hand: every look of the page used to fail on
    it."""
    for name, bpm in (("text", "140"), ("list", [None]), ("none", None), ("flag", True)):
        sound(page, name, bpm=bpm, duration_s=3.0, seed=name)
    html = history(page.workspace.sounds(9), page)
    assert "BPM" not in html
    assert html.count("3.0 s") == 4


def test_a_take_is_moved_away_with_what_lies_beside_it(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = page.workspace
    monkeypatch.setattr(gr, "Info", lambda *_, **__: None)
    target = sound(page, "a", duration_s=6.0)
    sound(page, "a b", duration_s=6.0)
    (work.generated / "a.mid").touch()
    job = work.jobs.submit(
        "generate",
        {"continue_from": str(work.generated / "a.wav")},
        title="on",
        folder=work.generated,
    )
    with pytest.raises(UserError, match="in use by a command"):
        form(page)[0].take_up(pressed("remove", target))
    (work.jobs.folder / job.id / "end.json").write_text('{"code": 0, "at": 1.0}')
    made = form(page)[0]
    assert made.take_up(pressed("remove", target)) == [gr.skip() for _ in made.outputs]
    assert [each.name for each in work.sounds(9)] == ["a b.wav"]
    kept = sorted(path.name for path in (work.generated / "removed").iterdir())
    assert kept == ["a.json", "a.mid", "a.wav"]


def test_a_sound_comes_back_into_the_form(page: Page) -> None:
    target = sound(page, "a", duration_s=6.0, bpm=140.0, key="C minor")
    prompt, seconds, _, seed, is_kept, *front = form(page)[0].take_up(pressed("again", target))
    assert (prompt, seconds, seed, is_kept) == ("trap", 6.0, 9, True)
    assert front[:4] == ["140", "", "C minor", "1"]
    assert front[4]["value"] == ""
    with pytest.raises(UserError, match="no longer exists"):
        form(page)[0].take_up(pressed("delete", target))


def test_who_played_a_sound_is_chosen_again(page: Page) -> None:
    """A player switches between sides; the next clip is made by the one that was playing."""
    runs = page.workspace.runs
    made = Form(page, [], [], None, ["four", "components", "of", "players", "base"])

    def who(*adapters: Any) -> list[Any]:
        target = sound(page, "a", adapters=list(adapters))
        return made.take_up(pressed("again", target))[-5:-1]

    one = {"path": str(runs / "one" / "best_model"), "strength": 0.7}
    two = {"path": str(runs / "two" / "best_model"), "strength": 0.3}
    assert who() == [BASE_ONLY, 1, BASE_ONLY, 1]
    assert who(one) == [id_of("one"), 0.7, BASE_ONLY, 1]
    assert who(two, one) == [id_of("two"), 0.3, id_of("one"), 0.7]
    for odd in ({"path": "/etc/best_model"}, {"path": str(runs / "gone" / "best_model")}, "x", {}):
        assert who(odd, one) == [id_of("one"), 0.7, BASE_ONLY, 1]


def test_the_base_that_played_a_sound_is_chosen_again(page: Page) -> None:
    merged = page.workspace.models / "my merge"
    merged.mkdir()
    (merged / "config.json").write_text("{}")
    made = Form(page, [], [], None, ["four", "components", "of", "players", "base"])
    for path, chosen in (
        ("facebook/musicgen-small", "facebook/musicgen-small"),
        (str(merged), id_of("my merge")),
        ("/etc", gr.skip()),
        (None, gr.skip()),
    ):
        target = sound(page, "a", base={"path": path}, adapters=[])
        assert made.take_up(pressed("again", target))[-1] == chosen
    assert made.take_up(pressed("again", sound(page, "a", base="x")))[-1] == gr.skip()


def test_how_a_sound_was_drawn_comes_back_too(page: Page) -> None:
    """With its seed kept, the same clip is generated again, whatever the form held before."""
    settings = form_of("generate", OWN | frozenset(FRONT))
    made = Form(page, settings, [], None, (), dict.fromkeys(DRAWN, "a component"))
    facts = {"guidance_scale": 4.0, "top_k": 20, "top_p": 0.0, "temperature": 1.3}
    target = sound(page, "a", **facts, negative_prompt="vocals: none", guidance_end=[1])
    drawn = dict(zip(DRAWN, made.take_up(pressed("again", target))[-len(DRAWN) :], strict=True))
    assert drawn == {
        "guidance_scale": "4.0",
        "top_k": "20",
        "top_p": "0.0",
        "temperature": "1.3",
        "negative_prompt": "vocals: none",
        "guidance_end": "",
    }
    values = [drawn.get(setting.name, setting.shown) for setting in settings]
    asked = changed(settings, values)
    assert asked == {k: facts[k] for k in ("guidance_scale", "top_k", "temperature")} | {
        "negative_prompt": "vocals: none"
    }
    plain = made.take_up(pressed("again", sound(page, "b")))[-len(DRAWN) :]
    assert plain == ["", "250", "0.0", "", "", ""]


def test_one_player_has_what_differs_in_who_plays_alone(page: Page) -> None:
    for number, negative in enumerate(("vocals", "piano", None)):
        sound(page, f"s{number}", adapters=[], negative_prompt=negative)
    assert history(page.workspace.sounds(9), page).count("<figure") == 3


def taken_up(page: Page, act: str, target: str, at: Any = None) -> tuple[list[Any], list[Any]]:
    """What a button below a sound puts into tempo, bars and best of, and into the recording."""
    *_, bpm, bars, _, best_of, chosen, kind, at_s, heard_s, first, last, _ = form(page)[0].take_up(
        pressed(act, target, at)
    )
    return [bpm, bars, best_of], [chosen["value"], kind, at_s, heard_s, first, last]


def asked_with(page: Page, recording: list[Any], **front: str) -> dict[str, Any]:
    """The settings of a clip by the base with these recording fields."""
    made, values = form(page)
    for name, value in front.items():
        values[FRONT.index(name)] = value
    who = [BASE_ONLY, 1, BASE_ONLY, 1, BASE, False]
    made.generate("trap", *who, 4, 1, 7, True, *values, *recording)
    return asked(page)[-1]


def test_a_sound_is_gone_on_with_where_its_player_stands(page: Page) -> None:
    target = sound(page, "a", bpm=140.0, bars=4, best_of=3)
    front, recording = taken_up(page, GO_ON, target, 2.504)
    assert front == ["140", "", "1"]
    settings = asked_with(page, recording, bpm=front[0])
    path = str(page.workspace.generated / "a.wav")
    more = {"continue_from": path, "continue_at": 2.5, "heard": HEARD_S, "bpm": 140.0}
    assert more.items() <= settings.items()
    assert "from_bar" not in settings
    # A player at its beginning or end, and nonsense, mean the end.
    for at in (None, 0, -1.0, float("nan"), 1e9, "3", True, [2]):
        assert taken_up(page, GO_ON, target, at)[1] == [target, GO_ON, None, HEARD_S, 1, 1]
    assert "continue_at" not in asked_with(page, [target, GO_ON, "", HEARD_S, 1, 1])
    # It meant the end, which the field showed as 0.
    with pytest.raises(UserError, match="continue_at"):
        asked_with(page, [target, GO_ON, "0", HEARD_S, 1, 1])


def test_bars_of_a_sound_are_played_anew(page: Page) -> None:
    loop, clip = sound(page, "a", bpm=140.0, bars=4), sound(page, "b", bpm=90.0)
    # The JSON beside a loop knows its bars; those of another clip are counted by its tempo.
    assert taken_up(page, ANEW, loop)[0] == ["", "", "1"]
    assert taken_up(page, ANEW, clip)[0] == ["90", "", "1"]
    settings = asked_with(page, [loop, ANEW, 2.0, 4.0, 3, 4])
    path = str(page.workspace.generated / "a.wav")
    assert settings.items() >= {"regenerate": path, "from_bar": 3, "to_bar": 4}.items()
    assert settings.keys().isdisjoint(("continue_from", "continue_at", "heard"))
    assert "duration" not in settings
    with pytest.raises(UserError, match="--from_bar 3 is after --to_bar 2"):
        asked_with(page, [loop, ANEW, None, None, 3, 2])


def test_bars_that_a_sound_lacks_are_refused_at_the_form(page: Page) -> None:
    """The job loaded the model first, for half a minute."""
    loop, clip = sound(page, "a", bpm=120.0, bars=4), sound(page, "b")
    for target, bars, front, said in [
        (loop, [3, 9], {}, "--to_bar 9: .* has 4 bars at 120 bpm .its JSON.; give bars within it"),
        (loop, [1, 4], {}, "this is all of"),
        (loop, [0, 2], {}, "from_bar = 0"),
        (loop, [None, 2], {}, "needs --from_bar and --to_bar"),
        (clip, [3, 9], {"bpm": "120"}, "--to_bar 9: .* has 4 bars at 120 bpm .--bpm.; give bars"),
    ]:
        with pytest.raises(UserError, match=said):
            asked_with(page, [target, ANEW, None, None, *bars], **front)
    assert asked(page) == []
    asked_with(page, [clip, ANEW, None, None, 3, 9])
    assert len(asked(page)) == 1, "its bars have to be measured"


@pytest.mark.parametrize(
    ("seconds", "many", "said"),
    [
        *((60, 9, ""), (600, 1, ""), (601, 1, "duration = 601"), (None, 1, "duration = None")),
        *((0, 1, "duration = 0"), (4, 0, "variations = 0"), (4, 1001, "variations = 1001")),
    ],
)
def test_lengths_and_numbers_go_as_far_as_the_commands(
    page: Page, seconds: float | None, many: int, said: str
) -> None:
    made, values = form(page)
    who = [BASE_ONLY, 1, BASE_ONLY, 1, BASE, False]
    if said:
        with pytest.raises(UserError, match=said):
            made.generate("trap", *who, seconds, many, 7, True, *values)
        return
    made.generate("trap", *who, seconds, many, 7, True, *values)
    (settings,) = asked(page)
    assert (settings["duration"], settings["variations"]) == (seconds, many)


def test_more_like_what_was_gone_on_with_is_gone_on_with(page: Page) -> None:
    first = sound(page, "a")
    source = {"path": str(page.workspace.generated / "a.wav")}
    more = sound(
        page, "b", duration_s=8.5, continued=source | {"begin_s": 2.5, "heard_s": 2.0, "end_s": 8.5}
    )
    bars = sound(page, "c", regenerated=source | {"from_bar": 2, "to_bar": 3})
    assert taken_up(page, "again", more)[1] == [first, GO_ON, 2.5, 2.0, 1, 1]
    # The seconds of the form are what is added.
    assert form(page)[0].take_up(pressed("again", more))[1] == 6.0
    assert form(page)[0].take_up(pressed("again", sound(page, "e", duration_s=90)))[1] == 90.0
    assert form(page)[0].take_up(pressed("again", sound(page, "e", duration_s=0)))[1] == gr.skip()
    assert taken_up(page, "again", bars)[1] == [first, ANEW, None, HEARD_S, 2, 3]
    for path in ("/etc/passwd", str(page.workspace.generated / "gone.wav"), 3):
        other = sound(page, "d", continued={"path": path})
        assert taken_up(page, "again", other)[1][0] == ""


def test_recordings_are_clips_of_the_page(page: Page) -> None:
    for forged in ("../secret.wav", "/etc/passwd", "http://example.org/a.wav", id_of("gone.wav")):
        with pytest.raises(UserError, match="no longer exists"):
            asked_with(page, [forged, GO_ON, None, None, 1, 1])
    with pytest.raises(UserError, match="no longer exists"):
        asked_with(page, [sound(page, "a"), "delete", None, None, 1, 1])
    assert asked(page) == []


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
