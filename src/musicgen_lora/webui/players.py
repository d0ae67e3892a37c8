"""Players as HTML: versions (sides) of a sound switch in place, over pictures of waveform and
spectrum. `assets/report_player.js` plays them. Every text is escaped: strangers wrote names and
captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from musicgen_lora.webui.pictures import BESIDE, PICTURES
from musicgen_lora.webui.safety import id_of
from musicgen_lora.webui.words import Words


@dataclass(frozen=True)
class Side:
    """A sound that a player can switch to.

    Args:
        save_as: file name of its download, which comes with its MIDI and spectrogram; "" for none.
        at: when it was written, in nanoseconds: another sound may later have the same address.
        target: its id for the buttons' actions; "" if there are none.
    """

    name: str
    address: str
    save_as: str = ""
    at: int = 0
    target: str = ""

    @property
    def key(self) -> str:
        """Distinguishes it from the player's other sides, and from its own earlier content."""
        return id_of(f"{self.address} {self.at}")[:8]

    def source(self, what: str = "", query: str = "") -> str:
        """Its address, or that of something made from it, escaped for HTML."""
        return escape(f"{self.address}{what}?at={self.at}{query}")


def player(
    sides: Sequence[Side],
    label: str,
    words: Words,
    *,
    details: str = "",
    duration_s: float = 0.0,
    acts: Mapping[str, str] | None = None,
) -> str:
    """A player of sounds of equal length; the last one plays first.

    Args:
        sides: that it switches between; a single one has no button.
        acts: labels of the buttons below it, by their action on the side that is playing.
        duration_s: shown until the sound itself has been loaded; 0 if unknown.
    """
    if len(sides) > 1:
        details = " · ".join(filter(None, [details, words("All versions play equally loud.")]))
    # By this the player is recognised when the page redraws it.
    key = escape(f"{label} {sides[0].address}")
    buttons = "".join(
        f'<button type="button" data-side="{side.key}" data-target="{escape(side.target)}"'
        f"{' hidden' if len(sides) == 1 else ''}>"
        f"{escape(side.name)}</button>"
        for side in sides
    )
    return (
        f'<figure class="sound"><figcaption>{escape(label)}</figcaption>'
        f'<div class="player" tabindex="-1" hidden data-key="{key}" '
        f'data-duration="{duration_s:.3f}"><div class="bar" role="slider" tabindex="0" '
        f'aria-label="{escape(words("Position in the clip, in seconds"))}" aria-valuemin="0" '
        f'aria-valuenow="0">{_pictures(sides, words)}'
        '<div class="region" hidden></div><div class="head"></div></div>'
        f'<div class="controls"><button type="button" class="play" '
        f'aria-label="{escape(words("Play or pause"))}"></button>{buttons}'
        f'<button type="button" class="again" aria-pressed="false">{escape(words("Loop"))}</button>'
        f'<button type="button" class="whole" disabled>{escape(words("Whole clip"))}</button>'
        '<span class="clock"></span></div></div>'
        f'<div class="plain">{_plain(sides)}</div>'
        f'<small dir="auto">{escape(details)}</small>{_below(sides, acts or {}, words)}</figure>'
    )


def _pictures(sides: Sequence[Side], words: Words) -> str:
    return "".join(
        f'<img class="{picture}" data-side="{side.key}" loading="lazy" '
        f'src="{side.source(f"/{picture}")}" alt="{escape(words(alt))}">'
        for side in sides
        for picture, alt in PICTURES.items()
    )


def _plain(sides: Sequence[Side]) -> str:
    """The browser's own players, for what only it can decode."""
    return "".join(
        f'<audio controls loop preload="none" data-side="{side.key}" src="{side.source()}" '
        f'aria-label="{escape(side.name)}"></audio>'
        for side in sides
    )


def _below(sides: Sequence[Side], acts: Mapping[str, str], words: Words) -> str:
    saves = [link for side in sides if side.save_as for link in _saves(side, words)]
    buttons = [
        f'<button type="button" data-act="{act}">{escape(label)}</button>'
        for act, label in acts.items()
    ]
    below = f'<div class="acts">{"".join(saves + buttons)}</div>' if saves or buttons else ""
    return below + (_spectrograms(sides, words) if saves else "")


def _saves(side: Side, words: Words) -> list[str]:
    """Downloads of the sound and its MIDI; the player shows those of the side that is playing."""
    name = Path(side.save_as)
    midi = name.with_suffix(BESIDE["midi"][0])
    return [
        _save(side, "", name.name, name.suffix[1:].upper(), words),
        _save(side, "/beside/midi", midi.name, "MIDI", words),
    ]


def _save(side: Side, what: str, save_as: str, kind: str, words: Words) -> str:
    return (
        f'<a class="save" data-side="{side.key}" href="{side.source(what, "&save=1")}" '
        f'download="{escape(save_as)}" aria-label="{escape(f"{kind} ({side.name})")}" '
        f'title="{escape(words("Click to save it, or drag it into another program"))}">'
        f"⬇ {escape(kind)}</a>"
    )


def _spectrograms(sides: Sequence[Side], words: Words) -> str:
    """Large spectrograms; a browser loads only the one in view."""
    what, name = "/beside/spectrogram", escape(words(PICTURES["spectrum"]))
    images = "".join(
        f'<img data-side="{side.key}" loading="lazy" src="{side.source(what)}" alt="{name}">'
        for side in sides
        if side.save_as
    )
    return f'<details class="large"><summary>{name}</summary>{images}</details>'
