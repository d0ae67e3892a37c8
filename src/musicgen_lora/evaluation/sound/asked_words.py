"""Words of a prompt that can be measured: "no hi-hats" can be counted, "dark" can't.

A word is only here if its measure distinguishes clips with the feature from clips without it. The
thresholds separate composed beats with and without it, whose parts are known
(`benchmarks/evaluation_figures.py words`). The share of power below 60 Hz alone, for example, does
not distinguish an 808 bass from a ringing kick. Relative words, such as "busy", are compared with
the median of the held-out audio.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from musicgen_lora.evaluation.sound.ear import Heard
from musicgen_lora.model.text.wording import english_of

FEWEST_HATS_HZ = 2.4
"""High onsets per second: in 95 % of beats, snares alone have up to 2.1, hi-hats 2.7 or more."""
SUB_SHARE = 0.4
"""Share of power below 60 Hz: 95 % of 808 basses have 0.44 or more."""
ROLLING, SWUNG, GLIDING = 0.15, 0.535, 0.8
MONO = 0.01
"""Power share of the side signal."""

ClipDescriptors = Mapping[str, float]


@dataclass(frozen=True)
class Middle:
    """The medians that relative words are compared with, and whether clips are stereo.

    Args:
        onset_rate_hz: median of the held-out audio; None if there is none.
        bpm: the same for the tempo.
    """

    onset_rate_hz: float | None
    bpm: float | None
    is_stereo: bool

    @classmethod
    def of(cls, reference: Sequence[Heard], clips: Sequence[Heard]) -> Middle:
        """Compute the medians of the held-out audio, and whether any clip is stereo."""
        return cls(
            _median([one.descriptors.get("onset_rate_hz", np.nan) for one in reference]),
            _median([one.bpm for one in reference]),
            any(one.descriptors.get("side_share", 0.0) > 0.0 for one in clips),
        )


def _median(values: Sequence[float]) -> float | None:
    found = [value for value in values if np.isfinite(value)]
    return float(np.median(found)) if found else None


@dataclass(frozen=True)
class Word:
    """A word, or several with the same meaning.

    Args:
        rule: when a clip counts as having it.
        needs: what measuring it requires: "held-out audio", "two channels" or nothing.
    """

    name: str
    label: str
    rule: str
    pattern: re.Pattern[str]
    holds: Callable[[ClipDescriptors, Middle], bool]
    needs: str = ""

    def why_not(self, middle: Middle) -> str:
        """Why it can't be measured here; empty if it can."""
        if self.needs == "held-out audio" and (middle.onset_rate_hz is None or middle.bpm is None):
            return "needs held-out audio, whose median it is compared with"
        if self.needs == "two channels" and not middle.is_stereo:
            return "every clip is mono, whatever the prompt asks for"
        return ""


_HATS = r"(?:hi-?\s?hats?|hats)"
_NO = r"\b(?:no|without(?:\s+any)?)\s+"


def _pattern(words: str) -> re.Pattern[str]:
    return re.compile(words, re.IGNORECASE)


def _has_bass(facts: ClipDescriptors) -> bool:
    """Whether there is a sustained bass note: kicks and toms have none."""
    return bool(np.isfinite(facts["bass_decay_s"]))


WORDS = (
    Word(
        "no_hats",
        "no hi-hats",
        f"fewer than {FEWEST_HATS_HZ:g} high onsets per second",
        _pattern(rf"{_NO}{_HATS}\b"),
        lambda facts, _: facts["hat_onset_rate_hz"] < FEWEST_HATS_HZ,
    ),
    Word(
        "no_bass",
        "no bass",
        "no sustained bass note",
        _pattern(rf"{_NO}(?:808\s+|sub[ -]?)?bass\b|\b(?:only|just) drums(?! and)|\bdrums only\b"),
        lambda facts, _: not _has_bass(facts),
    ),
    Word(
        "bass_808",
        "an 808 bass",
        f"sustained bass notes, and {100 * SUB_SHARE:g} % of the power below 60 Hz",
        _pattern(
            r"(?<!no )(?<!without )\b(?:808s\b|808 (?:sub[ -]?)?bass\b|sub[ -]?bass\b"
            r"|(?:gliding|sliding|long|deep|booming) 808\b)"
        ),
        lambda facts, _: _has_bass(facts) and facts["band_20_60_share"] >= SUB_SHARE,
    ),
    Word(
        "gliding_bass",
        "gliding bass",
        f"bass notes glide by {GLIDING:g} semitones on average",
        _pattern(
            r"\b(?:gliding|sliding)\s+(?:808s?|(?:808\s+)?(?:sub[ -]?)?bass)\b|\b808 slides?\b"
        ),
        lambda facts, _: facts["bass_glide_semitones"] >= GLIDING,
    ),
    Word(
        "rolling_hats",
        "rolling hi-hats",
        f"{100 * ROLLING:g} % of the high onsets come within 90 ms of the previous one",
        _pattern(rf"\b(?:rolling|stuttering) {_HATS}\b|\b{_HATS} rolls?\b"),
        lambda facts, _: facts["roll_density"] >= ROLLING,
    ),
    Word(
        "swing",
        "a swung beat",
        f"swing of {100 * SWUNG:g} % or more",
        _pattern(r"(?<!no )(?<!without )\b(?:swing|swung|shuffled?)\b"),
        lambda facts, _: facts["swing"] >= SWUNG,
    ),
    Word(
        "busy",
        "busy, energetic",
        "more onsets per second than the median of the held-out audio",
        _pattern(r"\b(?:busy|energetic|lively|driving)\b"),
        lambda facts, middle: facts["onset_rate_hz"] > (middle.onset_rate_hz or 0.0),
        "held-out audio",
    ),
    Word(
        "sparse",
        "sparse, minimal",
        "fewer onsets per second than the median of the held-out audio",
        _pattern(r"\b(?:sparse|minimal|stripped[ -]down|laid[ -]back)\b"),
        lambda facts, middle: facts["onset_rate_hz"] < (middle.onset_rate_hz or 0.0),
        "held-out audio",
    ),
    Word(
        "slow",
        "a slow tempo",
        "a lower tempo than the median of the held-out audio",
        _pattern(r"\b(?:slow|down[ -]?tempo)\b"),
        lambda facts, middle: facts["tempo_bpm"] < (middle.bpm or 0.0),
        "held-out audio",
    ),
    Word(
        "fast",
        "a fast tempo",
        "a higher tempo than the median of the held-out audio",
        _pattern(rf"\b(?:fast(?![ -]+(?:\S+ )?(?:{_HATS}|rolls?|snares?))|up[ -]?tempo)\b"),
        lambda facts, middle: facts["tempo_bpm"] > (middle.bpm or 0.0),
        "held-out audio",
    ),
    Word(
        "mono",
        "mono sound",
        f"at most {100 * MONO:g} % of the power differs between left and right",
        _pattern(r"\bmono\b"),
        lambda facts, _: facts["side_share"] <= MONO,
        "two channels",
    ),
)
OPPOSITES = (("no_bass", "bass_808"), ("busy", "sparse"), ("slow", "fast"))


def asked_words(prompt: str) -> list[Word]:
    """The measurable words of a prompt; of two that contradict each other, neither."""
    prompt = english_of(prompt)
    found = {word.name for word in WORDS if word.pattern.search(prompt)}
    for pair in OPPOSITES:
        if found.issuperset(pair):
            found.difference_update(pair)
    return [word for word in WORDS if word.name in found]
