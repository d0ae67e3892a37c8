"""What is asked of clips beside their prompts: tempo, bars, key, takes, format.

Nothing here needs torch or numpy: a request that can't be is refused before they load.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from musicgen_lora.config import GenerateSettings
from musicgen_lora.config.kinds import SoundFormat
from musicgen_lora.config.prompts import ClipOrder, clip_orders
from musicgen_lora.dataset.caption_words import with_tempo_and_key
from musicgen_lora.errors import UserError
from musicgen_lora.given import check_playing, check_prompts, check_strengths
from musicgen_lora.listening.pitch.key_names import normalise_key
from musicgen_lora.model.text.wording import english_of

LONGEST_S = 30.0
STRETCH_MOST = 0.04
"""A take is played faster or slower by this share at most."""
TAIL_S = 0.25
"""What a take has beyond the loop and a bar to choose from."""


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
        """Samples a channel, exactly."""
        return round(self.n_bars * self.bar_s * self.sample_rate)

    def take_s(self, longest_s: float, window_s: float | None = None) -> float:
        """Seconds of a take to cut it from: a bar to choose from and some stretching, as far as
        `longest_s` allows. A loop that fits into a base's own window of `window_s` is not played
        beyond it, where the music begins to forget.

        Raises:
            UserError: not even the loop itself fits.
        """
        loop_s = self.n_bars * self.bar_s
        if loop_s > longest_s:
            most = int(longest_s / self.bar_s)
            way_out = f"take --bars {most} or less" if most else "take a faster --bpm"
            raise UserError(
                f"--bpm {self.bpm:g} --bars {self.n_bars} are {loop_s:.1f} s, and a loop has "
                f"{longest_s:g} s at most; {way_out}."
            )
        needed_s = (1.0 + STRETCH_MOST) * loop_s + TAIL_S
        wanted_s = needed_s + self.bar_s
        if window_s is not None and needed_s <= window_s:
            wanted_s = min(wanted_s, window_s)
        return min(longest_s, wanted_s)


@dataclass(frozen=True)
class Wanted:
    """What is asked of the clips beside their prompts.

    Args:
        n_bars: of a loop; None for clips.
        key: as in "C# minor".
        best_of: takes that are drawn in any case.
        tries: takes of a loop that are drawn at most.
        loudness_lufs: that it is brought to; None leaves it.
        keeps_level: a recording is among it, whose level stays.
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
        """One take a prompt, so that prompts can be played together."""
        return self.n_bars is None and self.best_of == 1

    def request(self, sample_rate: int) -> LoopRequest | None:
        """The loop that is asked for; None for clips."""
        if self.n_bars is None or self.bpm is None:
            return None
        return LoopRequest(self.bpm, self.n_bars, sample_rate)

    def facts(self) -> dict[str, Any]:
        """What of it decides the samples, for the JSON and the names."""
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
    """Raises a UserError where what is asked for can't be, as far as the settings and the file of
    prompts alone tell."""
    check_playing(settings)
    check_strengths(settings.lora_model_path, settings.strength)
    if not checked_orders(settings):
        wanted_of(settings)


def checked_orders(settings: GenerateSettings, further: Sequence[str] = ()) -> list[ClipOrder]:
    """Every clip that is asked for, with further prompts.

    Raises:
        UserError: one can't be; the message names its row in the file of prompts.
    """
    orders = clip_orders(settings, further)
    for order in orders:
        try:
            check_prompts(order.settings.prompts, needed=True)
            wanted_of(order.settings)
        except UserError as error:
            raise order.fault(error) from error
    return orders


def wanted_of(settings: GenerateSettings) -> Wanted:
    """What a command asks for.

    Raises:
        UserError: a key that is none, bars without a tempo, a loop that is too long, or a prompt
            that says another tempo or key.
    """
    key = normalise_key(settings.key) if settings.key.strip() else None
    if settings.key.strip() and key is None:
        raise UserError(
            f'--key "{settings.key}": no such key; give one such as "C# minor", "Bb major" or "Fm".'
        )
    if settings.bars is not None and settings.bpm is None:
        raise UserError(f"--bars {settings.bars}: a loop needs its tempo; give --bpm as well.")
    wanted = Wanted(
        bpm=settings.bpm,
        n_bars=settings.bars,
        key=key,
        best_of=settings.best_of,
        tries=max(settings.loop_tries, settings.best_of),
        format=settings.format,
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
    """What a prompt is read as: in English, with the tempo and the key that are asked for."""
    return with_tempo_and_key(english_of(prompt), wanted.bpm, wanted.key)


def take_s(wanted: Wanted, duration_s: float, window_s: float) -> float:
    """Seconds of a take: the clip's, or what its loop is cut from."""
    request = wanted.request(1)
    return duration_s if request is None else request.take_s(LONGEST_S, window_s)
