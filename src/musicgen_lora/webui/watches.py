"""What the page reads by itself: once when it opens, and every few seconds.

All looks of one tick share a request. Separately they would be ten, each costing more than the look
itself on a computer whose cores are busy with training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import gradio as gr

from musicgen_lora.errors import UserError, printable
from musicgen_lora.webui.words import Words


@dataclass(frozen=True)
class Look:
    """A function of some components' values, and the components that get its results.

    Args:
        find: returns a value or an update for each output; skips if nothing is new.
    """

    find: Callable[..., Any]
    inputs: Sequence[Any]
    outputs: Sequence[Any]

    def found(self, values: Sequence[Any]) -> list[Any]:
        """Returns a value for each output."""
        found = self.find(*values)
        return [found] if len(self.outputs) == 1 else list(found)

    @property
    def nothing(self) -> list[Any]:
        """What leaves its outputs as they are."""
        return [gr.skip() for _ in self.outputs]


@dataclass
class Watches:
    """The looks of a page.

    Args:
        first: when it opens.
        again: every few seconds.
    """

    first: list[Look] = field(default_factory=list)
    again: list[Look] = field(default_factory=list)

    def when_opened(
        self, find: Callable[..., Any], inputs: Sequence[Any], outputs: Sequence[Any]
    ) -> None:
        """Looks once when a browser opens or reloads the page."""
        self.first.append(Look(find, inputs, outputs))

    def always(
        self, find: Callable[..., Any], inputs: Sequence[Any], outputs: Sequence[Any]
    ) -> None:
        """Looks every few seconds while the page is open."""
        self.again.append(Look(find, inputs, outputs))


def all_of(looks: Sequence[Look], say: Words) -> Callable[..., list[Any]]:
    """One handler for several looks. If one fails, its error is shown, and the others still look.

    The first value that it takes and returns is the errors shown, as HTML: Gradio shows no messages
    for such quiet events.
    """

    def look(told: Any, *values: Any) -> list[Any]:
        found, lines, at = [], [], 0
        for each in looks:
            given = values[at : at + len(each.inputs)]
            at += len(each.inputs)
            try:
                found += each.found(given)
            except (UserError, OSError) as error:
                found += each.nothing
                lines.append(say.error(error))
        now = "".join(f'<p role="alert">! {escape(printable(line))}</p>' for line in lines)
        return [gr.skip() if now == (told or "") else now, *found]

    return look


def inputs_of(looks: Sequence[Look]) -> list[Any]:
    """The components of all looks, in the order of `all_of`."""
    return [component for look in looks for component in look.inputs]


def outputs_of(looks: Sequence[Look]) -> list[Any]:
    """The output components of all looks, in the same order."""
    return [component for look in looks for component in look.outputs]
