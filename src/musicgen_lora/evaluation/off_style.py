"""Prompts of other styles: what does an adapter do to music that it wasn't asked to change?

They stand beside the others and never among them: what is compared with held-out clips is compared
on prompts of the adapter's own style alone.
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
"""Words that tell no style from another."""


def choose_off_style(
    others: Sequence[str], known: Iterable[str], asked: Iterable[str], n_prompts: int
) -> list[dict[str, str]]:
    """Prompts that have the fewest words in common with what the adapter is made for, and with each
    other: captions of other music, then our own.

    Args:
        others: captions of other music; may be none.
        known: captions of the adapter's own clips.
        asked: the other prompts of the evaluation; none of them is chosen.

    Returns:
        `{"prompt", "origin"}` each, none twice; fewer than `n_prompts` if there aren't more.
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
