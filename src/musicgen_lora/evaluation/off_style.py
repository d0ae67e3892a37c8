"""Prompts in other styles: what does an adapter do to music that it wasn't meant to change?

They are kept apart from the other prompts: only prompts in the adapter's own style are compared
with held-out clips.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from musicgen_lora.model.text.wording import english_of

CAPTION_ORIGIN, OWN_ORIGIN = "caption of other music", "prompt of another style"
OFF_STYLE_PROMPTS = (
    "solo piano ballad, slow and tender",
    "string quartet, classical, adagio",
    "acoustic folk guitar, fingerpicking",
    "jazz trio with upright bass and brushed drums",
    "ambient pad, no drums, long reverb",
    "reggae groove with organ and rhythm guitar",
    "rock band, distorted guitars, live drums",
    "church choir a cappella",
    "bossa nova with nylon guitar",
    "four-on-the-floor techno with a synth lead",
)
_WORD = re.compile(r"[a-z][a-z'&-]+")
_SAID_OF_ALL = frozenset(
    {
        *("a", "an", "and", "at", "by", "in", "is", "it", "its", "no", "not", "of", "on", "only"),
        *("just", "alone", "the", "to", "with", "without", "bpm", "tempo", "key", "major", "minor"),
        *("music", "beat", "groove", "time"),
    }
)
"""Words that do not distinguish styles."""


def choose_off_style(
    others: Sequence[str], known: Iterable[str], asked: Iterable[str], n_prompts: int
) -> list[dict[str, str]]:
    """Choose the prompts that have the fewest words in common with the adapter's own style and with
    each other: captions of other music first, then our own.

    Args:
        others: captions of other music; may be empty.
        known: captions of the adapter's own clips.
        asked: the other prompts of the evaluation; none of them is chosen.

    Returns:
        `{"prompt", "origin"}` for each, without duplicates; fewer than `n_prompts` if there are
        not enough.
    """
    asked = set(asked)
    words = set[str]().union(*(_words(text) for text in (*known, *asked)))
    chosen: dict[str, str] = {}
    for texts, origin in ((others, CAPTION_ORIGIN), (OFF_STYLE_PROMPTS, OWN_ORIGIN)):
        left = [text for text in dict.fromkeys(texts) if _words(text) and text not in asked]
        while left and len(chosen) < n_prompts:
            furthest = min(left, key=lambda text: len(_words(text) & words) / len(_words(text)))
            left.remove(furthest)
            chosen.setdefault(furthest, origin)
            words |= _words(furthest)
    return [{"prompt": prompt, "origin": origin} for prompt, origin in chosen.items()]


def _words(text: str) -> set[str]:
    return set(_WORD.findall(english_of(text).lower())) - _SAID_OF_ALL
