"""Generate: words to beats, by the base, an adapter or both, and everything that was ever made."""

from __future__ import annotations

import random
from typing import Any

import gradio as gr

from musicgen_lora.errors import UserError
from musicgen_lora.webui.drawing import pair, player
from musicgen_lora.webui.forms import Setting, changed, form_of
from musicgen_lora.webui.page import PRIVATE, QUIET, Page, chosen
from musicgen_lora.webui.safety import folders_of
from musicgen_lora.webui.workspace import (
    BASES,
    Sound,
    choices,
    has_adapter,
    run_of,
    trained_entries,
)

BASE_ONLY = "base"
HISTORY = 24
MAX_VARIATIONS = 8
MAX_SEED = 2**31
CHIPS = {
    "Style": ("trap", "drill", "boom bap", "phonk", "lo-fi", "memphis hip hop"),
    "Instruments": ("808 bass", "rolling hi-hats", "claps", "snare", "piano", "bells", "strings"),
    "Tempo": ("70 bpm", "90 bpm", "120 bpm", "140 bpm", "160 bpm"),
    "Key": ("C minor", "D minor", "F minor", "G minor", "A minor", "C major"),
}
"""English words that the text encoder knows, whatever their labels say."""
ADD_WORD = "(text) => { text = text || ''; return text.trim() ? text.trim() + ', ' + WORD : WORD; }"


def build(page: Page, demo: gr.Blocks) -> None:
    """Builds the tab."""
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            _build_form(page, demo)
        with gr.Column(scale=1, min_width=300):
            _build_history(page, demo)


def _build_form(page: Page, demo: gr.Blocks) -> None:
    say = page.words
    prompt = gr.Textbox(
        label=say("What to play"),
        lines=3,
        max_length=1000,
        elem_id="prompt",
        placeholder="trap beat with gliding 808 bass, rolling hi-hats, 140 bpm, C# minor",
    )
    _build_chips(page, prompt)
    dice = gr.Button(say("A caption of my datasets"), size="sm", elem_id="dice")
    with gr.Row():
        adapter = gr.Dropdown(
            [(say("the base alone"), BASE_ONLY)], label=say("Adapter"), elem_id="adapter"
        )
        base = gr.Dropdown(list(BASES), value=BASES[0], label=say("Base model, without an adapter"))
    both = gr.Checkbox(True, label=say("The base as well, side by side"), elem_id="both")
    with gr.Row():
        seconds = gr.Slider(1, 30, value=10, step=1, label=say("Seconds"), elem_id="seconds")
        count = gr.Slider(
            1, MAX_VARIATIONS, value=2, step=1, label=say("Variations"), elem_id="variations"
        )
    with gr.Row():
        seed = gr.Number(0, label=say("Seed"), precision=0, minimum=0, elem_id="seed")
        lock = gr.Checkbox(False, label=say("Keep the seed"), elem_id="lock")
    own = frozenset(("duration", "seed", "lora_model_path", "melody", "output_dir"))
    form = form_of("generate", own)
    with gr.Accordion(say("Advanced settings"), open=False):
        fields = page.fields(form, "generate")
    go = gr.Button(say("Generate (Ctrl+Enter)"), variant="primary", elem_id="generate")

    playing = Playing(page, form)
    inputs = [prompt, adapter, base, both, seconds, count, seed, lock, *fields]
    go.click(
        page.guarded(playing.generate),
        inputs,
        seed,
        **PRIVATE,
    )
    dice.click(page.guarded(playing.throw), None, prompt, **PRIVATE)
    listed = gr.State("")
    page.timer.tick(playing.look, listed, [adapter, listed], **QUIET)
    demo.load(lambda: playing.look(""), None, [adapter, listed], **QUIET)


def _build_chips(page: Page, prompt: gr.Textbox) -> None:
    """Buttons that add a word to the prompt."""
    say = page.words
    for title, words in CHIPS.items():
        with gr.Row(elem_classes="chips"):
            gr.HTML(f"<small>{say(title)}</small>", elem_classes="chips-title")
            for word in words:
                chip = gr.Button(say(word), size="sm", min_width=40)
                js = ADD_WORD.replace("WORD", f"'{word}'")
                chip.click(None, prompt, prompt, js=js, **PRIVATE)


class Playing:
    """What is asked of the `generate` command.

    Args:
        page: that asks.
        form: of the settings behind "advanced".
    """

    def __init__(self, page: Page, form: list[Setting]) -> None:
        self._page, self._work, self._form = page, page.workspace, form

    def generate(self, text: Any, who: Any, base: Any, side: Any, *rest: Any) -> int:
        """Starts the jobs of a prompt.

        Args:
            text: the prompt.
            who: id of the adapter's run, or `BASE_ONLY`.
            base: that plays without an adapter.
            side: whether an adapter's base plays as well.
            rest: seconds, variations, seed, whether it stays, and the form's values.

        Returns:
            The seed of the first clip.
        """
        seconds, many, given, is_locked, *values = rest
        prompt = str(text or "").strip()
        if not prompt:
            raise UserError("--prompts has an empty one; say what to play.")
        seed = int(given or 0) if is_locked else random.randrange(MAX_SEED)
        settings = {
            "prompts": [prompt] * min(max(int(many or 1), 1), MAX_VARIATIONS),
            "duration": float(seconds),
            "seed": seed,
            "output_dir": str(self._work.generated),
            **changed(self._form, values),
        }
        for more in self._players(who, base, side):
            asked = settings | more
            if "lora_model_path" not in more:
                # The base has none to be mixed at one.
                asked.pop("strength", None)
            self._page.submit("generate", asked, prompt[:60], self._work.generated)
        return seed

    def _players(self, who: Any, base: Any, side: Any) -> list[dict[str, Any]]:
        """The settings of who plays."""
        if who in (BASE_ONLY, None):
            return [{"base_model_path": self._work.base(base)}]
        path, found = self._work.adapter(who), run_of(self._work.run(who))
        alone = {"base_model_path": self._work.base(found.base.get("path") if found else None)}
        return [*([alone] if side else []), alone | {"lora_model_path": str(path)}]

    def throw(self) -> str:
        """A caption of the datasets."""
        captions = [
            str(entry.get("text") or (entry.get("texts") or [""])[0])
            for name in folders_of(self._work.datasets)[:20]
            for entry in trained_entries(self._work.datasets / name)
        ]
        if not captions:
            raise UserError("There is no caption yet; prepare a dataset first.")
        return random.choice(captions)

    def look(self, before: str) -> Any:
        """The adapters; a new one is chosen as it comes."""
        runs = self._work.runs
        names = [name for name in folders_of(runs) if has_adapter(runs / name)]
        now = repr(sorted(names))
        found = [*choices(names), (self._page.words("the base alone"), BASE_ONLY)]
        return (gr.skip(), before) if now == before else (chosen(found), now)


def _build_history(page: Page, demo: gr.Blocks) -> None:
    say, work = page.words, page.workspace
    gr.Markdown(f"### {say('What was made')}")
    shown = gr.HTML(elem_id="history")
    seen = gr.State("")

    def look(before: str) -> Any:
        sounds = work.sounds(HISTORY)
        now = repr([sound.name for sound in sounds])
        if now == before:
            return gr.skip(), before
        return history(sounds, page) or f'<p class="quiet">{say("Nothing yet.")}</p>', now

    page.timer.tick(look, seen, [shown, seen], **QUIET)
    demo.load(lambda: look(""), None, [shown, seen], **QUIET)


def history(sounds: list[Sound], page: Page) -> str:
    """Players of clips; base and adapter of the same words, seed and length in one as well."""
    plain: dict[Any, Sound] = {_same(s): s for s in sounds if not _adapters(s)}
    parts = []
    for sound in sounds:
        facts = sound.facts
        adapters = _adapters(sound)
        who = " + ".join(map(_adapter_name, adapters)) or page.words("base")
        seed = f"{page.words('Seed')} {facts.get('seed')}"
        label = f"{str(facts.get('prompt', sound.name))[:200]} · {who} · {seed}"
        address = page.address("sound", sound.name)
        parts.append(player(address, label, save_as=sound.name))
        if adapters and (other := plain.get(_same(sound))):
            title = page.words("Base and adapter, seed {seed}", seed=facts.get("seed"))
            parts.append(pair(page.address("sound", other.name), address, title, page.words))
    return "".join(parts)


def _adapters(sound: Sound) -> list[dict[str, Any]]:
    found = sound.facts.get("adapters")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _adapter_name(adapter: dict[str, Any]) -> str:
    parts = str(adapter.get("path", "")).replace("\\", "/").split("/")
    name = parts[-2] if len(parts) > 1 else parts[-1]
    strength = adapter.get("strength", 1.0)
    return name if strength == 1.0 else f"{name} x {strength}"


def _same(sound: Sound) -> Any:
    facts = sound.facts
    names = ("prompt", "seed", "duration_s", "guidance_scale", "top_k", "temperature")
    return repr([facts.get(name) for name in names])
