"""Do the clips do as they are told? Tempo and key that a prompt names, against what is heard."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from musicgen_lora.evaluation.sound.ear import Heard
from musicgen_lora.model.text.wording import english_of

TOLERANCE = 0.04
"""Share of the tempo that it may be off, as contests of tempo estimation have it."""
SLOWEST_BPM = 20.0
"""Fewer beats a minute are none."""
OCTAVES = (0.5, 1.0, 2.0)
"""A beat at 140 may be felt at 70."""
_TEMPO = re.compile(r"(\d{2,3}(?:\.\d+)?)\s?bpm|bpm:?\s?(\d{2,3}(?:\.\d+)?)", re.IGNORECASE)
_KEY = re.compile(
    r"(?<![A-Za-z])([A-G])(#|\u266f|b|\u266d|[\s-](?:sharp|flat))?\s?(minor|major|min|maj|m)(?![a-z])"
)
_SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_SHARP, _FLAT = {"#", "\u266f", "sharp"}, {"b", "\u266d", "flat"}
MEASURES = ("tempo", "tempo_or_octave", "key", "key_or_relative")


@dataclass(frozen=True)
class Asked:
    """What a prompt names; None is what it doesn't."""

    bpm: float | None
    key: tuple[int, bool] | None
    """Pitch class, C is 0, and whether it is minor."""


def read_prompt(prompt: str) -> Asked:
    """Tempo and key of a prompt, in the captions' wording: "at 140 bpm", "in C# minor"."""
    prompt = english_of(prompt)
    tempo = _TEMPO.search(prompt)
    bpm = float(tempo[1] or tempo[2]) if tempo else 0.0
    key = _KEY.search(prompt)
    return Asked(
        bpm=bpm if bpm >= SLOWEST_BPM else None,
        key=None if key is None else _key(key[1], key[2] or "", key[3]),
    )


def _key(note: str, sign: str, mode: str) -> tuple[int, bool]:
    sign = sign.strip(" -")
    step = (sign in _SHARP) - (sign in _FLAT)
    return (_SEMITONES[note] + step) % 12, mode in ("minor", "min", "m")


def _read_key(name: str | None) -> tuple[int, bool] | None:
    found = _KEY.fullmatch(name) if name else None
    return None if found is None else _key(found[1], found[2] or "", found[3])


def judge_clip(asked: Asked, bpm: float, key: str | None) -> dict[str, bool | None]:
    """Whether a clip is as it was asked for, by measure; None where nothing was asked."""
    heard = _read_key(key)
    results: dict[str, bool | None] = dict.fromkeys(MEASURES)
    if asked.bpm is not None:
        results["tempo"] = _near(bpm, asked.bpm)
        results["tempo_or_octave"] = any(_near(bpm, asked.bpm * times) for times in OCTAVES)
    if asked.key is not None:
        results["key"] = heard == asked.key
        results["key_or_relative"] = heard in (asked.key, _relative(asked.key))
    return results


def _near(bpm: float, asked: float) -> bool:
    """A tempo that isn't heard is no tempo."""
    return bool(abs(bpm / asked - 1.0) <= TOLERANCE)


def _relative(key: tuple[int, bool]) -> tuple[int, bool]:
    pitch, is_minor = key
    return ((pitch + 3) % 12, False) if is_minor else ((pitch - 3) % 12, True)


def measure_obedience(
    prompts: Sequence[str],
    base: Sequence[Heard] | None,
    adapter: Sequence[Heard],
    captions: Sequence[str],
    reference: Sequence[Heard],
) -> dict[str, Any]:
    """The report's `obedience`.

    Args:
        prompts: of the clips.
        base: its clips; None without a comparison.
        adapter: its clips.
        captions: of the reference.
        reference: held-out clips, which are what their captions say: what is missed in them is
            the hearing's fault.

    Returns:
        Of each measure, None or for each side `hits`, `n`, `share` and its 95 % interval (Wilson),
        and `p_value` of base against adapter (exact McNemar); `why` where no prompt asks.
    """
    sides = {
        "base": None if base is None else _judge(prompts, base),
        "adapter": _judge(prompts, adapter),
        "reference": _judge(captions, reference),
    }
    rows: dict[str, Any] = {}
    for name in MEASURES:
        found = {
            side: None if judged is None else _count([one[name] for one in judged])
            for side, judged in sides.items()
        }
        p_value = None
        if sides["base"] is not None:
            p_value = _mcnemar(
                [one[name] for one in sides["base"]],
                [one[name] for one in sides["adapter"] or ()],
            )
        rows[name] = {**found, "p_value": p_value}
    asked = any(rows[name]["adapter"] for name in MEASURES)
    return {
        "computed": asked,
        "why": "" if asked else "no prompt names a tempo or a key",
        "tolerance": TOLERANCE,
        "measures": rows,
    }


def _judge(prompts: Sequence[str], heard: Sequence[Heard]) -> list[dict[str, bool | None]]:
    pairs = zip(prompts, heard, strict=True)
    return [judge_clip(read_prompt(prompt), one.bpm, one.key) for prompt, one in pairs]


def _count(results: Sequence[bool | None]) -> dict[str, Any] | None:
    asked = [result for result in results if result is not None]
    if not asked:
        return None
    interval = stats.binomtest(sum(asked), len(asked)).proportion_ci(method="wilson")
    return {
        "hits": sum(asked),
        "n": len(asked),
        "share": float(np.mean(asked)),
        "ci_low": float(interval.low),
        "ci_high": float(interval.high),
    }


def _mcnemar(base: Sequence[bool | None], adapter: Sequence[bool | None]) -> float | None:
    pairs = list(zip(base, adapter, strict=True))
    gained = sum(before is False and after is True for before, after in pairs)
    lost = sum(before is True and after is False for before, after in pairs)
    if all(before is None for before, _ in pairs):
        return None
    return float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
