"""What is asked of clips besides their prompts: tempo, bars, key, takes, format.

Nothing here needs torch or numpy: an impossible request is refused before they load.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from musicgen_lora.config import GenerateSettings
from musicgen_lora.config.kinds import SoundFormat
from musicgen_lora.config.prompts import ClipOrder, clip_orders
from musicgen_lora.dataset.caption_words import stated_bpm, with_tempo_and_key
from musicgen_lora.errors import UserError
from musicgen_lora.formats.kinds import shortened
from musicgen_lora.given import check_playing, check_prompts, check_strengths
from musicgen_lora.listening.pitch.key_names import normalise_key
from musicgen_lora.model.text.wording import english_of

LONGEST_S = 30.0
STRETCH_MOST = 0.04
"""Largest share by which a take is sped up or slowed down."""
TAIL_S = 0.25
"""What a take has beyond the loop and one bar to choose its start from."""


@dataclass(frozen=True)
class LoopRequest:
    """Bars of 4/4 at a tempo."""

    bpm: float
    n_bars: int
    sample_rate: int

    @property
    def bar_s(self) -> float:
        return 240.0 / self.bpm

    @property
    def n_samples(self) -> int:
        """Samples per channel, exactly."""
        return round(self.n_bars * self.bar_s * self.sample_rate)

    def take_s(self, longest_s: float, window_s: float | None = None) -> float:
        """Seconds of a take to cut the loop from: a bar to choose its start from and a margin for
        stretching, as far as `longest_s` allows. A take for a loop that fits into the base's window
        of `window_s` stays within it; beyond, the model forgets how the music began.

        Raises:
            UserError: not even the loop itself fits.
        """
        loop_s = self.n_bars * self.bar_s
        if loop_s > longest_s:
            most = int(longest_s / self.bar_s)
            way_out = f"use --bars {most} or fewer" if most else "use a faster --bpm"
            raise UserError(
                f"--bpm {self.bpm:g} --bars {self.n_bars} make {loop_s:.1f} s, but a loop is at "
                f"most {longest_s:g} s long; {way_out}."
            )
        needed_s = (1.0 + STRETCH_MOST) * loop_s + TAIL_S
        wanted_s = needed_s + self.bar_s
        if window_s is not None and needed_s <= window_s:
            wanted_s = min(wanted_s, window_s)
        return min(longest_s, wanted_s)


@dataclass(frozen=True)
class Wanted:
    """What is asked of the clips besides their prompts.

    Args:
        n_bars: of a loop; None for clips.
        key: as in "C# minor".
        best_of: how many takes are drawn in any case.
        tries: how many takes of a loop are drawn at most.
        loudness_lufs: target loudness; None leaves it.
        keeps_level: the clip contains a recording, whose level stays.
    """

    bpm: float | None
    n_bars: int | None
    key: str | None
    best_of: int
    tries: int
    format: SoundFormat
    loudness_lufs: float | None
    midi: bool
    spectrogram: bool
    keeps_level: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether each prompt has one take, so that prompts can be batched."""
        return self.n_bars is None and self.best_of == 1

    def request(self, sample_rate: int) -> LoopRequest | None:
        """The requested loop; None for clips."""
        if self.n_bars is None or self.bpm is None:
            return None
        return LoopRequest(self.bpm, self.n_bars, sample_rate)

    def facts(self) -> dict[str, Any]:
        """The part that affects the samples, for the JSON and the names."""
        given = {
            "bpm": self.bpm,
            "bars": self.n_bars,
            "key": self.key,
            "loudness": self.loudness_lufs,
            "best_of": None if self.best_of == 1 else self.best_of,
            "loop_tries": None if self.n_bars is None else self.tries,
        }
        return {"format": self.format} | {k: v for k, v in given.items() if v is not None}


def check_request(settings: GenerateSettings) -> None:
    """Raises a UserError if the request is impossible, as far as the settings and the prompts file
    alone tell."""
    check_playing(settings)
    check_strengths(settings.lora_model_path, settings.strength)
    if not checked_orders(settings):
        # An adapter's captions, which may state their tempi, are read later.
        captions_state_it = settings.from_captions and settings.bpm is None
        wanted_of(replace(settings, bars=None) if captions_state_it else settings)


def checked_orders(settings: GenerateSettings, further: Sequence[str] = ()) -> list[ClipOrder]:
    """Every clip of a request, including `further` prompts. A loop without a tempo takes the one
    that its prompt states.

    Raises:
        UserError: one is impossible; the message names its row in the prompts file.
    """
    orders = [_at_stated_tempo(order) for order in clip_orders(settings, further)]
    for order in orders:
        try:
            check_prompts(order.settings.prompts, needed=True)
            wanted_of(order.settings)
        except UserError as error:
            raise order.fault(error) from error
    return orders


def _at_stated_tempo(order: ClipOrder) -> ClipOrder:
    settings = order.settings
    if settings.bars is None or settings.bpm is not None:
        return order
    found = {stated_bpm(english_of(prompt)) for prompt in settings.prompts}
    if len(found) != 1 or None in found:
        return order
    return replace(order, settings=replace(settings, bpm=found.pop()), has_stated_bpm=True)


def stated_sentence(orders: Sequence[ClipOrder]) -> str:
    """Says which tempi loops take from their prompts; empty if none does."""
    found = [order.settings.bpm for order in orders if order.has_stated_bpm]
    if not found:
        return ""
    tempi = ", ".join(f"{bpm:g}" for bpm in dict.fromkeys(found))
    return f"--bars without --bpm: each loop has the tempo that its prompt states ({tempi} bpm)."


def wanted_of(settings: GenerateSettings) -> Wanted:
    """What the settings ask for.

    Raises:
        UserError: an unknown key, bars without a tempo, a loop that is too long, or a prompt that
            states another tempo or key.
    """
    key = normalise_key(settings.key) if settings.key.strip() else None
    if settings.key.strip() and key is None:
        raise UserError(
            f'--key "{settings.key}": no such key; give one such as "C# minor", "Bb major" or "Fm".'
        )
    if settings.bars is not None and settings.bpm is None:
        raise UserError(
            f"--bars {settings.bars}: a loop needs its tempo; give --bpm, or state one in "
            f"{shortened(settings.prompts[0])}."
        )
    wanted = Wanted(
        bpm=settings.bpm,
        n_bars=settings.bars,
        key=key,
        best_of=settings.best_of,
        tries=max(settings.loop_tries, settings.best_of),
        # `orders_of` has chosen that of a recording.
        format="wav" if settings.format == "auto" else settings.format,
        loudness_lufs=settings.loudness,
        midi=settings.midi,
        spectrogram=settings.spectrogram,
    )
    request = wanted.request(1)
    if request is not None:
        request.take_s(LONGEST_S)
    for prompt in settings.prompts:
        read_as(prompt, wanted)
    return wanted


def read_as(prompt: str, wanted: Wanted) -> str:
    """The prompt as the model reads it: in English, with the requested tempo and key."""
    return with_tempo_and_key(english_of(prompt), wanted.bpm, wanted.key)


def unused_sentence(settings: GenerateSettings) -> str:
    """Says which given length the clip doesn't have; empty if none was given, as far as one can
    tell from its value."""
    if settings.duration == GenerateSettings.duration:
        return ""
    said = f"--duration {settings.duration:g} has no effect: "
    if settings.bars is not None:
        return f"{said}a loop is as long as its --bars."
    if settings.regenerate is not None:
        return f"{said}with --regenerate, the recording keeps its length."
    return ""


def take_s(wanted: Wanted, duration_s: float, window_s: float) -> float:
    """Seconds of a take: those of the clip, or enough to cut its loop from."""
    request = wanted.request(1)
    return duration_s if request is None else request.take_s(LONGEST_S, window_s)
