"""Generated clips, newest first; base and adapters with the same prompt and seed share a player."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from musicgen_lora.formats.kinds import is_number
from musicgen_lora.webui.page import QUIET, Page, quiet
from musicgen_lora.webui.players import Side, player
from musicgen_lora.webui.safety import id_of
from musicgen_lora.webui.words import beginning
from musicgen_lora.webui.workspace import Sound, saved_name

SHOWN = 24
"""Sounds shown at first, and how many more each press adds."""
ALIKE = (
    *("prompt", "seed", "duration_s", "guidance_scale", "top_k", "top_p", "temperature"),
    *("negative_prompt", "guidance_end", "bpm", "bars", "key", "best_of", "melody"),
    *("continued", "regenerated"),
)
"""What the sounds of one player have in common."""


def build(page: Page) -> gr.HTML:
    """Builds the list and has it follow the folder; returns it, for the actions on a sound."""
    say, work = page.words, page.workspace
    gr.Markdown(f"### {say('Generated clips')}")
    shown = gr.HTML(elem_id="history", js_on_load=PRESSED)
    older = gr.Button(visible=False, size="sm", elem_id="older")
    count, seen = gr.State(SHOWN), gr.State("")

    def look(before: str, count: int) -> Any:
        # The sounds' JSON is read only if there is something new.
        dated = work.dated_sounds()
        now = repr((dated[:count], len(dated)))
        if now == before:
            return gr.skip(), gr.skip(), before
        n_older = max(0, len(dated) - count)
        button = gr.update(value=say("Show older clips ({n} more)", n=n_older), visible=n_older > 0)
        return history(work.sounds(count), page) or quiet(say("Nothing yet.")), button, now

    def show_more(count: int) -> Any:
        return count + SHOWN, *look("", count + SHOWN)

    outputs = [shown, older, seen]
    page.watches.always(look, [seen, count], outputs)
    page.watches.when_opened(lambda: (SHOWN, *look("", SHOWN)), [], [count, *outputs])
    older.click(page.guarded(show_more), count, [count, *outputs], **QUIET)
    return shown


REMOVE = "remove"
ACTS = {
    "again": "More like this",
    "go_on": "Continue from here",
    "anew": "Regenerate bars",
    REMOVE: "Remove",
}
"""The actions on a sound."""
PRESSED = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-act]");
  if (!button) return;
  const sound = button.closest(".sound");
  const { side, at } = window.playerAt(sound.querySelector(".player"));
  const target = sound.querySelector(`button[data-side="${side}"]`).dataset.target;
  trigger("click", { act: button.dataset.act, target, at });
  if (button.dataset.act === "remove") return;
  const place = button.dataset.act === "again" ? "#prompt" : "#recording-box";
  document.querySelector(place).scrollIntoView({ block: "center" });
});
"""
"""Tells the server which button of which sound was pressed, and its player's position."""


def history(sounds: list[Sound], page: Page) -> str:
    """Players of sounds; those that differ only in model share one, the base first."""
    groups: dict[str, list[Sound]] = {}
    for sound in sounds:
        groups.setdefault(repr([sound.facts.get(name) for name in ALIKE]), []).append(sound)
    return "".join(_player(group, page) for group in groups.values())


def _player(group: list[Sound], page: Page) -> str:
    say, facts = page.words, group[0].facts
    ordered = sorted(group, key=lambda sound: (bool(_adapters(sound)), sound.made))
    sides = [
        Side(
            _who(sound, page),
            page.address("sound", sound.name),
            saved_name(Path(sound.name), sound.facts),
            int(sound.made * 1e9),
            id_of(sound.name),
        )
        for sound in ordered
    ]
    # If there is a choice, its buttons name the models.
    who = f"{sides[0].name} · " if len(sides) == 1 else ""
    faults = [
        line if who else f"{side.name}: {line}"
        for side, sound in zip(sides, ordered, strict=True)
        if (line := _faults(sound.facts, page))
    ]
    return player(
        sides,
        beginning(str(facts.get("prompt", group[0].name)), 200),
        say,
        details=who + _details(facts, faults, page),
        duration_s=_seconds(facts),
        acts={name: say(label) for name, label in ACTS.items()},
    )


def _who(sound: Sound, page: Page) -> str:
    """What generated it: the adapters with their strengths, or the base."""
    return " + ".join(map(_adapter_name, _adapters(sound))) or page.words("base")


def _adapters(sound: Sound) -> list[dict[str, Any]]:
    found = sound.facts.get("adapters")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _adapter_name(adapter: dict[str, Any]) -> str:
    parts = str(adapter.get("path", "")).replace("\\", "/").split("/")
    name = parts[-2] if len(parts) > 1 else parts[-1]
    strength = adapter.get("strength", 1.0)
    return name if strength == 1.0 else f"{name} x {strength}"


def _details(facts: dict[str, Any], faults: list[str], page: Page) -> str:
    """A line on how a sound was made, and what is wrong with it."""
    say, told = page.words, [f"{_seconds(facts):.1f} s"]
    if is_number(facts.get("bpm")):
        told.append(f"{facts['bpm']:g} BPM")
    if facts.get("bars"):
        told.append(say("{n} bars", n=facts["bars"]))
    if facts.get("key"):
        told.append(str(facts["key"]))
    return " · ".join([*told, *faults, f"{say('Seed')} {facts.get('seed')}"])


def _faults(facts: dict[str, Any], page: Page) -> str:
    faults = facts.get("faults")
    return "; ".join(page.words.line(str(f)) for f in faults) if isinstance(faults, list) else ""


def _seconds(facts: dict[str, Any]) -> float:
    bpm, bars, duration_s = (facts.get(name) for name in ("bpm", "bars", "duration_s"))
    if is_number(bpm) and isinstance(bars, int) and bpm > 0:
        return bars * 240.0 / bpm
    return float(duration_s) if is_number(duration_s) else 0.0
