"""Prompt adherence: tempo, key and words of a prompt, compared with what is detected in the clip.

A hit alone says nothing: half of all beats may have rolling hi-hats. So clips of prompts that ask
for something else are judged as if they had asked for it too, and so are other music and noise; and
held-out clips, which match their captions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from musicgen_lora.dataset.caption_words import named_key, stated_bpm
from musicgen_lora.evaluation.compared import Compared
from musicgen_lora.evaluation.measures.between import share_between
from musicgen_lora.evaluation.sound.asked_words import WORDS, Middle, Word, asked_words
from musicgen_lora.evaluation.sound.ear import Heard
from musicgen_lora.evaluation.sound.references import ANCHORS, RECORDED, References
from musicgen_lora.listening.pitch.key_names import key_distance, usual_key
from musicgen_lora.model.text.wording import english_of

TOLERANCE = 0.04
"""Relative tolerance for the tempo, as in tempo estimation challenges."""
OCTAVES = (0.5, 1.0, 2.0)
"""A beat at 140 may be felt at 70."""
_BY_NAME = {word.name: word for word in WORDS}
MEASURES = ("tempo", "tempo_or_octave", "key", "key_or_relative", *_BY_NAME)
NOT_ASKED = "no prompt asks for it"


@dataclass(frozen=True)
class PromptFacts:
    """What a prompt asks for; None for what it doesn't mention."""

    bpm: float | None
    key: str | None
    """In its usual spelling."""
    words: Sequence[Word] = ()

    @property
    def by_measure(self) -> Mapping[str, Any]:
        """The requested values, by measure."""
        asked: dict[str, Any] = {word.name: True for word in self.words}
        if self.bpm is not None:
            asked |= dict.fromkeys(("tempo", "tempo_or_octave"), self.bpm)
        if self.key is not None:
            asked |= dict.fromkeys(("key", "key_or_relative"), self.key)
        return asked


def read_prompt(prompt: str) -> PromptFacts:
    """Tempo, key and words of a prompt, in the captions' wording: "at 140 bpm", "in C# minor", "no
    hi-hats"."""
    prompt = english_of(prompt)
    key = named_key(prompt)
    return PromptFacts(
        bpm=stated_bpm(prompt),
        key=None if key is None else usual_key(key.name),
        words=asked_words(prompt),
    )


def judge_obedience(asked: PromptFacts, clip: Heard, middle: Middle) -> dict[str, bool | None]:
    """Whether a clip is as requested, by measure; None if nothing was requested, or if it can't be
    measured. A tempo or key that isn't detected counts as a miss.

    Args:
        middle: the medians that relative words are compared with.
    """
    asks = asked.by_measure
    return {
        name: _judge(name, asks[name], clip, middle) if name in asks else None for name in MEASURES
    }


def _judge(name: str, ask: Any, clip: Heard, middle: Middle) -> bool | None:
    """Whether a clip is as requested; None if that can't be measured."""
    if name == "tempo":
        return _near(clip.bpm, ask)
    if name == "tempo_or_octave":
        return any(_near(clip.bpm, ask * times) for times in OCTAVES)
    if name == "key":
        return key_distance(ask, clip.key or "") == "same"
    if name == "key_or_relative":
        return key_distance(ask, clip.key or "") is not None
    word = _BY_NAME[name]
    return None if word.why_not(middle) else bool(word.holds(clip.descriptors, middle))


def _near(bpm: float, asked: float) -> bool:
    """Whether a tempo is within the tolerance; NaN (not detected) never is."""
    return bool(abs(bpm / asked - 1.0) <= TOLERANCE)


def measure_obedience(
    prompts: Sequence[str],
    clips: Compared[Sequence[Heard]],
    references: References,
) -> dict[str, Any]:
    """The report's `obedience`. `others` are the adapter's clips whose prompts ask for something
    else, judged as if they had asked for it, and so are other music and noise; `recorded` clips are
    judged by their captions. Intervals are Wilson's, `p_value` is from the exact McNemar test.

    Args:
        references: held-out clips, which match their captions, so that misses in them are detection
            errors; and anchors.
    """
    captions = [clip.texts[0] for clip in references.clips]
    reference = references.heard
    middle = Middle.of(reference, [*(clips.base or ()), *clips.adapter, *reference])
    asked = [read_prompt(prompt) for prompt in prompts]
    judged = clips.each(lambda heard: _judge_all(asked, heard, middle))
    sides = {
        "base": judged.base,
        "adapter": judged.adapter,
        "reference": _judge_all([read_prompt(text) for text in captions], reference, middle),
    }
    rows = {name: _row(name, sides, asked) for name in MEASURES}
    for name, row in rows.items():
        row["others"] = _judge_others(name, asked, clips.adapter, middle)
        row["anchors"] = _anchors(name, asked, references, middle)
        row["position"] = {
            side: share_between(*(_share(row[own]) for own in (side, "others", "reference")))
            for side in ("base", "adapter")
        }
        word = _BY_NAME.get(name)
        row["why"] = word.why_not(middle) if word and row["asked"] else row["why"]
    is_computed = any(row["adapter"] for row in rows.values())
    return {
        "computed": is_computed,
        "why": "" if is_computed else "no prompt asks for anything that can be measured",
        "tolerance": TOLERANCE,
        "measures": rows,
    }


Judgements = Sequence[Mapping[str, bool | None]]
"""For each clip, by measure, whether it is as requested; None if nothing was requested, or if it
can't be measured."""


def _judge_all(asked: Sequence[PromptFacts], heard: Sequence[Heard], middle: Middle) -> Judgements:
    pairs = zip(asked, heard, strict=True)
    return [judge_obedience(own, clip, middle) for own, clip in pairs]


def _row(
    name: str, sides: Mapping[str, Judgements | None], asked: Sequence[PromptFacts]
) -> dict[str, Any]:
    found = {
        side: None if judged is None else [one[name] for one in judged]
        for side, judged in sides.items()
    }
    n_asked = sum(name in own.by_measure for own in asked)
    before, after = found["base"], found["adapter"] or []
    return {
        "asked": n_asked,
        "why": "" if n_asked else NOT_ASKED,
        **{side: None if judged is None else _count(judged) for side, judged in found.items()},
        "p_value": None if before is None else _mcnemar(before, after),
    }


def _judge_others(
    name: str, asked: Sequence[PromptFacts], heard: Sequence[Heard], middle: Middle
) -> dict[str, Any] | None:
    """The chance level: clips judged by prompts that ask for something else. A clip is judged by
    each of them, so there is no interval."""
    own = [asks.by_measure.get(name) for asks in asked]
    results = [
        _judge(name, ask, clip, middle)
        for ask in dict.fromkeys(ask for ask in own if ask is not None)
        for theirs, clip in zip(own, heard, strict=True)
        if theirs != ask
    ]
    return _hits(results)


def _anchors(
    name: str, asked: Sequence[PromptFacts], references: References, middle: Middle
) -> dict[str, Any]:
    """Recordings judged by their captions, other music and noise by everything that prompts ask
    for; None if there are no clips or nothing can be measured."""
    some, found = references.some, {}
    for anchor in ANCHORS:
        results = []
        for row, clip in some.get(anchor, {}).items():
            asking = [read_prompt(references.clips[row].texts[0])] if anchor == RECORDED else asked
            asks = [own.by_measure.get(name) for own in asking]
            wanted = dict.fromkeys(ask for ask in asks if ask is not None)
            results += [_judge(name, ask, clip, middle) for ask in wanted]
        found[anchor] = _hits(results)
    return found


def _hits(results: Sequence[bool | None]) -> dict[str, Any] | None:
    told = [result for result in results if result is not None]
    if not told:
        return None
    return {"hits": sum(told), "n": len(told), "share": float(np.mean(told))}


def _share(found: Mapping[str, Any] | None) -> float | None:
    return None if found is None else found["share"]


def _count(results: Sequence[bool | None]) -> dict[str, Any] | None:
    found = _hits(results)
    if found is None:
        return None
    interval = stats.binomtest(found["hits"], found["n"]).proportion_ci(method="wilson")
    return found | {"ci_low": float(interval.low), "ci_high": float(interval.high)}


def _mcnemar(base: Sequence[bool | None], adapter: Sequence[bool | None]) -> float | None:
    pairs = list(zip(base, adapter, strict=True))
    gained = sum(before is False and after is True for before, after in pairs)
    lost = sum(before is True and after is False for before, after in pairs)
    if all(before is None for before, _ in pairs):
        return None
    return float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
