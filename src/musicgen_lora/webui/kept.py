"""What was typed and chosen, kept by the browser so that a reload loses none of it.

Like anything from a browser, it is untrusted. A field accepts a kept value, by the field's name,
only if it could have been typed there, so what an older page has kept breaks nothing. Settings that
are still changed under "advanced" are listed below it, so that none acts unseen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from musicgen_lora.formats.kinds import is_number
from musicgen_lora.webui.forms import Setting
from musicgen_lora.webui.page import QUIET, Page, quiet
from musicgen_lora.webui.words import beginning

MAX_TEXT = 1000
ADD = "(...values) => window.keptFields.add(NAMES, values)"


class Kept:
    """The fields of a tab that the browser keeps."""

    def __init__(self, page: Page) -> None:
        self._page, self.state = page, page.kept
        self._fields: list[Any] = []
        self._plain: list[Any] = []
        self._js = ""

    def keep(self, fields: Sequence[Any], listed: Sequence[Any] = ()) -> None:
        """Keeps fields from now on, and restores what was kept of them.

        Args:
            fields: each with an `elem_id`, under which it is kept.
            listed: those of `fields` whose choices come from folders; their lister calls `wanted`.
        """
        self._fields = list(fields)
        self._plain = [field for field in fields if field not in listed]
        self._js = _add(fields)
        typed = [field.input for field in fields]
        gr.on(typed, None, self._fields, None, js=self._js, **QUIET)
        for field in fields:
            # Gradio reports keys, but not what was pasted or composed by an input method.
            if isinstance(field, (gr.Textbox, gr.Number)):
                field.change(None, field, None, js=_add([field]), **QUIET)
        self._page.watches.when_opened(self.back, [self.state], self._plain)

    def after(self, event: Any) -> None:
        """Keeps what the fields hold once an event has filled them."""
        event.then(None, self._fields, None, js=self._js, **QUIET)

    def back(self, kept: Any) -> Any:
        """An update of each plain field to what was kept."""
        values = [wanted(kept, field.elem_id) for field in self._plain]
        updates = [
            gr.update(value=value) if fits(field, value) else gr.skip()
            for field, value in zip(self._plain, values, strict=True)
        ]
        return updates[0] if len(updates) == 1 else updates

    def advanced(self, form: list[Setting], prefix: str) -> list[Any]:
        """A closed box with a field for each setting, in order, and below it which of them are
        changed."""
        with gr.Accordion(self._page.words("Advanced settings"), open=False):
            fields = self._page.fields(form, prefix)
        self._tell(form, fields, prefix)
        return fields

    def _tell(self, form: Sequence[Setting], fields: Sequence[Any], prefix: str) -> None:
        """Shows which settings are changed, with a button to reset them."""
        say = self._page.words
        told = gr.HTML(elem_id=f"{prefix}-changed")
        back = gr.Button(
            say("Reset to the defaults"), size="sm", visible=False, elem_id=f"{prefix}-defaults"
        )

        def look(*values: Any) -> tuple[str, Any]:
            named = [
                f"{setting.name} = {beginning(str(value))}"
                for setting, value in zip(form, values, strict=True)
                if value != setting.shown
            ]
            line = quiet(say("Changed: {names}", names=", ".join(named))) if named else ""
            return line, gr.update(visible=bool(named))

        often = {**QUIET, "trigger_mode": "always_last"}
        gr.on([field.change for field in fields], look, list(fields), [told, back], **often)
        taken = back.click(lambda: [each.shown for each in form], None, list(fields), **QUIET)
        self.after(taken)


def _add(fields: Sequence[Any]) -> str:
    return ADD.replace("NAMES", json.dumps([field.elem_id for field in fields]))


def wanted(kept: Any, name: str | None) -> Any:
    """What was kept of a field; None if nothing was."""
    return kept.get(name) if isinstance(kept, dict) else None


def fits(field: Any, value: Any) -> bool:
    """Whether a value, other than None, could have been entered into a field."""
    check: Callable[[Any, Any], bool] | None = _CHECKS.get(type(field))
    return value is not None and check is not None and check(field, value)


def _is_within(field: Any, value: Any) -> bool:
    if not is_number(value):
        return False
    low, high = field.minimum, field.maximum
    return (low is None or value >= low) and (high is None or value <= high)


def _is_choice(field: Any, value: Any) -> bool:
    return isinstance(value, str) and value in [identity for _, identity in field.choices]


_CHECKS: dict[type, Callable[[Any, Any], bool]] = {
    gr.Textbox: lambda _, value: isinstance(value, str) and len(value) <= MAX_TEXT,
    gr.Checkbox: lambda _, value: isinstance(value, bool),
    gr.Slider: _is_within,
    gr.Number: _is_within,
    gr.Radio: _is_choice,
    gr.Dropdown: _is_choice,
}
