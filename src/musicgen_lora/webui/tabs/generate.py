"""Generate: prompts to beats, by the base, an adapter or both, and everything generated so far."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from musicgen_lora.errors import UserError
from musicgen_lora.formats.kinds import is_number
from musicgen_lora.webui.edits import row_of
from musicgen_lora.webui.forms import Setting, changed, form_of, written
from musicgen_lora.webui.kept import Kept, wanted
from musicgen_lora.webui.page import FIELD_WIDTH, PRIVATE, SLIDER_WIDTH, Page, chosen, side_by_side
from musicgen_lora.webui.safety import NO_LONGER, folders_of, id_of
from musicgen_lora.webui.tabs import history
from musicgen_lora.webui.tabs.recordings import ANEW, AskedRecording, Fields
from musicgen_lora.webui.words import beginning
from musicgen_lora.webui.workspace import (
    BASES,
    adapter_names,
    choices,
    facts_of,
    has_adapter,
    trained_entries,
)

BASE_ONLY = "base"
MORE = "again"
EXAMPLE = "trap beat with gliding 808 bass, rolling hi-hats, 140 bpm, C# minor"
BARS, TAKES = (1, 2, 4, 8, 16), (1, 2, 4, 8, 16)
MAX_STRENGTH = 2
OWN = frozenset(("duration", "seed", "lora_model_path", "strength", "melody", "output_dir"))
"""Settings that have fields of their own in the tab, and a melody, which it doesn't take."""
FRONT = ("bpm", "bars", "key", "best_of")
"""Settings that are not under "advanced", in the command's order."""
DRAWN = ("guidance_scale", "top_k", "top_p", "temperature", "negative_prompt", "guidance_end")
"""Those under "advanced" that change a clip; its JSON has them by these names."""
DRAWN_SEEDS = 2**31
"""A new seed is drawn below it: short enough to be copied by hand."""
CHIPS = {
    "Style": ("trap", "drill", "boom bap", "phonk", "lo-fi", "memphis hip hop"),
    "Instruments": ("808 bass", "rolling hi-hats", "claps", "snare", "piano", "bells", "strings"),
    "Tempo": ("70 bpm", "90 bpm", "120 bpm", "140 bpm", "160 bpm"),
    "Key": ("C minor", "D minor", "F minor", "G minor", "A minor", "C major"),
}
"""English words that the text encoder knows, whatever their labels say."""
ADD_WORD = "(text) => { text = text || ''; return text.trim() ? text.trim() + ', ' + WORD : WORD; }"


def build(page: Page) -> None:
    (form, kept), shown = side_by_side(page, _build_form, history.build, wider=1)
    kept.after(shown.click(page.guarded(form.take_up), None, form.outputs, **PRIVATE))


def _build_form(page: Page) -> tuple[Form, Kept]:
    say, kept = page.words, Kept(page)
    prompt = gr.Textbox(
        label=say("Prompt"),
        lines=3,
        value="",
        max_length=1000,
        elem_id="prompt",
        placeholder=EXAMPLE,
    )
    dice = gr.Button(f"⚄ {say('Random caption from my datasets')}", size="sm", elem_id="dice")
    _build_chips(page, prompt)
    players = _build_players(page, kept)
    both = gr.Checkbox(
        True, label=say("Also generate with the base, in the same player"), elem_id="both"
    )
    asked = _build_asked(page)
    recording = Fields(page)
    recording.hide_unused(asked[0], bars=asked[5])
    advanced = form_of("generate", OWN | frozenset(FRONT))
    fields = kept.advanced(advanced, "generate")
    go = gr.Button(say("Generate (Ctrl+Enter)"), variant="primary", elem_id="generate")

    front = [setting for setting in form_of("generate") if setting.name in FRONT]
    by_name = {setting.name: field for setting, field in zip(advanced, fields, strict=True)}
    drawn = {name: by_name[name] for name in DRAWN}
    form = Form(page, [*front, *advanced], [prompt, *asked], recording, players, drawn)
    inputs = [prompt, *players, both, *asked, *fields, *recording.inputs]
    went = go.click(page.guarded(form.generate, "generate"), inputs, asked[2], **PRIVATE)
    dice.click(page.guarded(form.throw), None, prompt, **PRIVATE)
    kept.keep([prompt, *players, both, *asked, *fields], listed=[players[0], *players[2::2]])
    kept.after(went)
    return form, kept


def _build_player(label: str, nobody: str, strength: str, ending: str) -> tuple[Any, Any]:
    """A list of adapters and the strength of the one that is chosen."""
    with gr.Row():
        listed = gr.Dropdown(
            [(nobody, BASE_ONLY)],
            value=BASE_ONLY,
            label=label,
            min_width=SLIDER_WIDTH,
            elem_id=f"adapter{ending}",
        )
        slider = gr.Slider(
            0,
            MAX_STRENGTH,
            value=1,
            step=0.05,
            label=strength,
            min_width=SLIDER_WIDTH,
            elem_id=f"strength{ending or '-1'}",
        )
    return listed, slider


def _build_players(page: Page, kept: Kept) -> list[Any]:
    """What generates: an adapter and its strength, a second one mixed in, or the base alone."""
    say, work = page.words, page.workspace
    found = [
        *_build_player(say("Adapter"), say("the base alone"), say("Strength"), ""),
        *_build_player(say("Mixed with"), say("none"), say("Strength"), "-2"),
    ]
    base = gr.Dropdown(
        list(BASES),
        value=BASES[0],
        label=say("Base model if there is no adapter"),
        elem_id="generate-base",
    )

    def still(players: list[tuple[str, str]], value: Any) -> Any:
        """An adapter that is gone is replaced by none."""
        update = page.still_chosen(players, value)
        return update | {"value": BASE_ONLY} if update.get("value", value) is None else update

    def look(before: list[str] | None, first: Any, second: Any) -> Any:
        names = adapter_names(work.runs)
        if before is not None and sorted(names) == before:
            return gr.skip(), gr.skip(), before
        several = choices(names)
        one = [*several, (say("the base alone"), BASE_ONLY)]
        other = [(say("none"), BASE_ONLY), *several]
        if before is None:
            return chosen(one, first), chosen(other, second), sorted(names)
        new = [name for name in names if name not in before]
        if new and len(names) == len(before) + len(new):
            # A new one is chosen as it appears, but not a renamed one.
            return chosen(one, id_of(new[0])), still(other, second), sorted(names)
        return still(one, first), still(other, second), sorted(names)

    def first(saved: Any) -> Any:
        return look(None, *(wanted(saved, name) for name in ("adapter", "adapter-2")))

    listed = gr.State(None)
    seen = [found[0], found[2], listed]
    page.watches.always(look, [listed, found[0], found[2]], seen)
    page.watches.when_opened(first, [kept.state], seen)
    page.watches.when_opened(
        lambda saved: chosen(work.bases(), wanted(saved, "generate-base")), [kept.state], [base]
    )
    return [*found, base]


def _build_asked(page: Page) -> list[Any]:
    """Length, number, seed; then the settings of `FRONT` in the form's order."""
    say = page.words
    with gr.Row():
        # Without bounds: what the command refuses, it explains.
        seconds = gr.Number(10, label=say("Seconds"), min_width=FIELD_WIDTH, elem_id="seconds")
        count = gr.Number(
            2, label=say("Variations"), precision=0, min_width=FIELD_WIDTH, elem_id="variations"
        )
    with gr.Row():
        bpm = gr.Textbox(
            "", label=say("Tempo (BPM)"), max_lines=1, min_width=FIELD_WIDTH, elem_id="bpm"
        )
        bars = gr.Dropdown(
            [(say("no loop"), ""), *((str(n), str(n)) for n in BARS)],
            value="",
            label=say("Loop length in bars"),
            min_width=FIELD_WIDTH,
            elem_id="bars",
        )
        key = gr.Textbox(
            "",
            label=say("Key"),
            placeholder="C# minor",
            max_lines=1,
            min_width=FIELD_WIDTH,
            elem_id="key",
        )
        best_of = gr.Dropdown(
            [str(n) for n in TAKES],
            value="1",
            label=say("Best of N takes"),
            min_width=FIELD_WIDTH,
            elem_id="best-of",
        )
    with gr.Row():
        seed = gr.Number(0, label=say("Seed"), precision=0, elem_id="seed")
        lock = gr.Checkbox(False, label=say("Keep the seed"), elem_id="lock")
    return [seconds, count, seed, lock, bpm, bars, key, best_of]


def _build_chips(page: Page, prompt: gr.Textbox) -> None:
    """Buttons that add a word to the prompt."""
    say = page.words
    for title, words in CHIPS.items():
        with gr.Row(elem_classes="chips"):
            gr.HTML(f"<small>{say(title)}</small>", elem_classes="chips-title")
            for word in words:
                chip = gr.Button(say(word), size="sm", min_width=30)
                js = ADD_WORD.replace("WORD", f"'{word}'")
                chip.click(None, prompt, prompt, js=js, **PRIVATE)


class Form:
    """Requests to the `generate` command.

    Args:
        form: of the settings, those of `FRONT` first.
        plain: components of prompt, seconds, variations, seed, lock, and those of `FRONT`.
        recording: fields of a clip to continue or regenerate; None if there are none.
        players: components of two adapters, each with its strength, and of the base.
        drawn: components of `DRAWN`, by name.
    """

    def __init__(
        self,
        page: Page,
        form: list[Setting],
        plain: list[Any],
        recording: Fields | None = None,
        players: Sequence[Any] = (),
        drawn: Mapping[str, Any] = {},
    ) -> None:
        self._page, self._work, self._form = page, page.workspace, form
        self._recording, self._who, self._drawn = recording, players, drawn
        taken = recording.outputs if recording else []
        self.outputs = [*plain, *players, *drawn.values(), *taken]

    def generate(self, text: Any, *rest: Any) -> int:
        """Starts the jobs of a prompt.

        Args:
            rest: id of the adapter's run or `BASE_ONLY`, its strength, both of a second one, the
                base to use without any, whether to use an adapter's base as well, seconds,
                variations, seed, whether it is kept, the form's values, and the recording's.

        Returns:
            The seed of the first clip.
        """
        *who, base, side = rest[:6]
        seconds, many, given, is_locked, *values = rest[6:]
        recording = AskedRecording(*values[len(self._form) :])
        prompt = str(text or "").strip()
        if not prompt:
            raise UserError("Enter a prompt first.")
        seed = int(given or 0) if is_locked else random.randrange(DRAWN_SEEDS)
        settings = {
            "prompts": [prompt],
            "variations": many,
            "duration": seconds,
            "seed": seed,
            "output_dir": str(self._work.generated),
            **changed(self._form, values[: len(self._form)]),
            **recording.settings(self._work),
        }
        if "bars" in settings or recording.keeps_length:
            del settings["duration"]
        asked = self._players(who, base, side)
        for more in asked:
            title = beginning(prompt)
            if len(asked) > 1:
                title = f"{title} · {self._who_plays(more)}"
            self._page.submit("generate", settings | more, title, self._work.generated)
        return seed

    def _who_plays(self, settings: dict[str, Any]) -> str:
        """The adapters' runs, or the base."""
        names = [Path(path).parent.name for path in settings.get("lora_model_path", [])]
        return " + ".join(names) or self._page.words("base")

    def take_up(self, at: gr.EventData) -> list[Any]:
        """Fills the form with the settings of a sound, to make more like it, to continue it from
        some second, or to regenerate bars of it; or removes the sound."""
        asked = getattr(at, "_data", None)
        asked = asked if isinstance(asked, dict) else {}
        act, target = asked.get("act"), asked.get("target")
        if act not in history.ACTS:
            raise UserError(NO_LONGER)
        if act == history.REMOVE:
            place = self._work.remove_sound(target)
            gr.Info(self._page.words("Moved to {folder}", folder=escape(str(place))))
            return [gr.skip() for _ in self.outputs]
        facts = facts_of(self._work.sound(target)) or {}
        shown = {name: _written(facts.get(name)) for name in FRONT}
        shown["best_of"] = shown["best_of"] or "1"
        seconds, seed = _asked_s(facts), facts.get("seed")
        recording = AskedRecording.that_made(facts, self._work)
        if act != MORE:
            recording = AskedRecording(target, act, second_of(asked.get("at")))
            if act == ANEW and shown["bars"]:
                # The JSON beside a loop knows its bars more exactly than the tempo alone.
                shown["bpm"] = ""
            shown |= {"bars": "", "best_of": "1"}
        return [
            str(facts.get("prompt", ""))[:1000],
            seconds if seconds and act == MORE else gr.skip(),
            gr.skip(),
            seed if isinstance(seed, int) else gr.skip(),
            act == MORE,
            *shown.values(),
            *(self._who_played(facts) if self._who else []),
            *self._how_drawn(facts),
            *(self._recording.filled(recording) if self._recording else []),
        ]

    def _who_played(self, facts: dict[str, Any]) -> list[Any]:
        """Updates of two adapters with their strengths, and of the base: those that a clip's JSON
        names, if they still exist."""
        adapters = facts.get("adapters")
        found: list[Any] = []
        for each in adapters if isinstance(adapters, list) else []:
            folder = Path(str(each.get("path", ""))).parent if isinstance(each, dict) else Path()
            if folder.parent == self._work.runs and has_adapter(folder):
                strength = each.get("strength")
                is_number = isinstance(strength, (int, float)) and 0 <= strength <= MAX_STRENGTH
                found += [id_of(folder.name), strength if is_number else 1]
        return [*[*found, *[BASE_ONLY, 1] * 2][:4], self._base_of(facts)]

    def _base_of(self, facts: dict[str, Any]) -> Any:
        """The base of a clip, as the page lists it; no update if it doesn't."""
        base, work = facts.get("base"), self._work
        path = base.get("path") if isinstance(base, dict) else None
        listed = work.bases()
        found = (each for name, each in listed if path in (each, str(work.models / name)))
        return next(found, gr.skip())

    def _how_drawn(self, facts: dict[str, Any]) -> list[str]:
        """Values of the fields of `DRAWN`: a clip's own, or the defaults."""
        shown = {setting.name: setting.shown for setting in self._form}
        found = {name: facts.get(name) for name in self._drawn}
        return [
            written(value) if isinstance(value, str) or is_number(value) else shown[name]
            for name, value in found.items()
        ]

    def _players(self, who: Sequence[Any], base: Any, side: Any) -> list[dict[str, Any]]:
        pairs = zip(who[::2], who[1::2], strict=True)
        mixed = [(each, strength) for each, strength in pairs if each not in (BASE_ONLY, None)]
        if not mixed:
            return [{"base_model_path": self._work.base(base)}]
        alone = {"base_model_path": self._work.base_of(mixed[0][0])}
        adapters = {
            "lora_model_path": [str(self._work.adapter(each)) for each, _ in mixed],
            "strength": [float(strength) for _, strength in mixed],
        }
        return [*([alone] if side else []), alone | adapters]

    def throw(self) -> str:
        """A random caption from the datasets."""
        captions = [
            row_of(entry)[1]
            for name in folders_of(self._work.datasets)[:20]
            for entry in trained_entries(self._work.datasets / name)
        ]
        if not captions:
            raise UserError("There are no captions yet; prepare a dataset first.")
        return random.choice(captions)


def _written(value: Any) -> str:
    """A number without needless decimals; anything else as in a settings file."""
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else written(value)


def _asked_s(facts: dict[str, Any]) -> float | None:
    """The length that was requested for a clip, in seconds; for a continued one, what was added.
    None for a loop, and for one that is no length."""
    source, found = facts.get("continued"), facts.get("duration_s")
    if isinstance(source, dict):
        begin_s, end_s = source.get("begin_s"), source.get("end_s")
        if not isinstance(begin_s, (int, float)) or not isinstance(end_s, (int, float)):
            return None
        found = round(end_s - begin_s, 3)
    if not isinstance(found, (int, float)) or facts.get("bars"):
        return None
    return float(found) if found > 0 else None


def second_of(sent: Any) -> float | None:
    """A player's position from the browser; None for its beginning or end, or for nonsense."""
    return round(float(sent), 2) if is_number(sent) and 0.0 < sent < 3600.0 else None
