"""Continuing a generated clip from some second, or regenerating some of its bars, by the `generate`
command's own flags."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from musicgen_lora.errors import UserError
from musicgen_lora.webui.page import QUIET, Page
from musicgen_lora.webui.safety import NO_LONGER, id_of
from musicgen_lora.webui.words import beginning
from musicgen_lora.webui.workspace import Choices, Workspace, facts_of

GO_ON, ANEW = "go_on", "anew"
KINDS = {GO_ON: "Continue it", ANEW: "Regenerate some of its bars"}
HEARD_S = 4.0
"""Context that the embedded base can hear and still add six seconds at once."""
LISTED = 100


@dataclass(frozen=True)
class AskedRecording:
    """A request about a generated clip, as its fields hold it.

    Args:
        chosen: id of the clip; "" for none.
        at_s: second to continue from; None is its end.
        heard_s: seconds before that which the model hears.
        from_bar: first bar to regenerate.
    """

    chosen: Any = ""
    kind: Any = GO_ON
    at_s: Any = None
    heard_s: Any = HEARD_S
    from_bar: Any = 1
    to_bar: Any = 1

    @property
    def keeps_length(self) -> bool:
        """Whether the clip stays as long as it is."""
        return bool(self.chosen) and self.kind == ANEW

    def settings(self, work: Workspace) -> dict[str, Any]:
        """The flags of the command; none if no clip is chosen.

        Raises:
            UserError: the clip is gone, or the kind is unknown.
        """
        if not self.chosen:
            return {}
        path = str(work.sound(self.chosen))
        if self.kind == ANEW:
            bars = {"from_bar": self.from_bar, "to_bar": self.to_bar}
            return {"regenerate": path} | bars
        if self.kind != GO_ON:
            raise UserError(NO_LONGER)
        seconds = {"continue_at": self.at_s, "heard": self.heard_s}
        given = {name: value for name, value in seconds.items() if str(value or "").strip()}
        return {"continue_from": path} | given

    @classmethod
    def that_made(cls, facts: dict[str, Any], work: Workspace) -> AskedRecording:
        """The request that a clip's JSON says it came from; an empty one if its source is gone."""
        for kind, name in ((GO_ON, "continued"), (ANEW, "regenerated")):
            source = facts.get(name)
            if not isinstance(source, dict):
                continue
            path = Path(str(source.get("path", "")))
            if path.parent != work.generated or not path.is_file():
                continue
            if kind == ANEW:
                bars = (source.get("from_bar"), source.get("to_bar"))
                return cls(id_of(path.name), kind, None, HEARD_S, *bars)
            return cls(id_of(path.name), kind, source.get("begin_s"), source.get("heard_s"))
        return cls()

    @property
    def values(self) -> tuple[Any, ...]:
        """Values of the fields, in their order."""
        return self.chosen, self.kind, self.at_s, self.heard_s, self.from_bar, self.to_bar


class Fields:
    def __init__(self, page: Page) -> None:
        self._page = page
        say = page.words
        with gr.Accordion(
            say("Continue or redo a clip"), open=False, elem_id="recording-box"
        ) as self.box:
            chosen = gr.Dropdown(
                self.choices(), value="", label=say("Generated clip"), elem_id="recording"
            )
            kind = gr.Radio(
                [(say(label), name) for name, label in KINDS.items()],
                value=GO_ON,
                label=say("What to do with it"),
                elem_id="recording-kind",
            )
            with gr.Row() as self.seconds:
                # Not numbers: an empty one would show 0.
                at_s, heard_s = (
                    gr.Textbox(value, max_lines=1, max_length=20, label=say(label), elem_id=name)
                    for label, value, name in (
                        ("From second (empty: the end)", "", "at"),
                        ("Seconds heard before that", f"{HEARD_S:g}", "heard"),
                    )
                )
            with gr.Row(visible=False) as self.bars:
                from_bar, to_bar = (
                    gr.Number(1, precision=0, label=say(label), elem_id=name)
                    for label, name in (("From bar", "from-bar"), ("To bar", "to-bar"))
                )
        self.inputs = [chosen, kind, at_s, heard_s, from_bar, to_bar]
        kind.change(self.shown, kind, [self.seconds, self.bars], **QUIET)

    @property
    def outputs(self) -> list[Any]:
        """What `filled` gives values for."""
        return [*self.inputs, self.box]

    def choices(self) -> Choices:
        """The clips that can be chosen, and none."""
        say, work = self._page.words, self._page.workspace
        sounds = [(_told(sound.name, sound.facts), sound.name) for sound in work.sounds(LISTED)]
        return [(say("none"), ""), *((told, id_of(name)) for told, name in sounds)]

    def shown(self, kind: Any) -> tuple[Any, Any]:
        """Shows only the fields of a kind."""
        return gr.update(visible=kind != ANEW), gr.update(visible=kind == ANEW)

    def hide_unused(self, seconds: Any, bars: Any) -> None:
        """Shows the field of a length only where one is asked for: a loop has that of its bars."""

        def look(bars: Any, *asked: Any) -> Any:
            return gr.update(visible=not bars and not AskedRecording(*asked).keeps_length)

        deciding = [bars, *self.inputs[:2]]
        gr.on([field.change for field in deciding], look, deciding, seconds, **QUIET)

    def filled(self, recording: AskedRecording) -> list[Any]:
        """Updates of `outputs`; the box opens if a clip is chosen."""
        first, *others = recording.values
        listed, work = self.choices(), self._page.workspace
        if first and first not in [identity for _, identity in listed]:
            # An older one, which the page shows on request.
            path = work.sound(first)
            listed.append((_told(path.name, facts_of(path) or {}), first))
        box = gr.update(open=True) if recording.chosen else gr.skip()
        return [gr.update(choices=listed, value=first), *others, box]


def _told(name: str, facts: dict[str, Any]) -> str:
    prompt, seed = str(facts.get("prompt", name)), facts.get("seed")
    return f"{beginning(prompt)} · {seed} · {Path(name).stem[-6:]}"
