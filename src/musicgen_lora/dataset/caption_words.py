"""The wording of tempo and key in captions that `prepare` writes and in prompts that ask for them.

A model follows the words that it was trained on, so both sides take them from here.
"""

from __future__ import annotations

import re

from musicgen_lora.errors import UserError
from musicgen_lora.formats.kinds import is_number
from musicgen_lora.listening.pitch.key_names import NameKey, find_key, key_distance
from musicgen_lora.model.text.wording import english_of

BPM_WORDS = ("{bpm} bpm", "{bpm} BPM", "at {bpm} bpm", "tempo {bpm} bpm")
KEY_WORDS = ("{key}", "in {key}", "key of {key}")
BPM_RANGE = (20.0, 400.0)


def normalise_bpm(value: object) -> float | None:
    """A tempo given as 140, "140", "140.5 BPM", "140,5" or "140拍"; None for anything else or
    outside 20 to 400 (many programs write 0 for "unknown")."""
    if isinstance(value, str):
        said = english_of(value[:100])
        match = re.fullmatch(r"\s*(\d{1,3}(?:[.,]\d{1,6})?)\s*(?:bpm)?\s*", said, re.IGNORECASE)
        value = float(match[1].replace(",", ".")) if match else None
    if not is_number(value):
        return None
    return float(value) if BPM_RANGE[0] <= value <= BPM_RANGE[1] else None


def stated_bpm(words: str) -> float | None:
    """The tempo that a text states explicitly, as in "140 bpm", "tempo 140" or "140 beats per
    minute"; None for none or several."""
    number = r"(\d{2,3}(?:\.\d{1,2})?)"
    before = rf"(?<![\d.]){number}[ -]?(?:bpm|beats per minute)(?![a-z])"
    after = rf"(?<![a-z])(?:bpm|tempo)[ =:-]*{number}(?![\d.]*\d)"
    found = re.findall(before, words, re.IGNORECASE) or re.findall(after, words, re.IGNORECASE)
    return normalise_bpm(found[0]) if len(set(found)) == 1 else None


def named_key(words: str) -> NameKey | None:
    """The key that a text names, as in "C# minor", "Am" or "in G major"."""
    return find_key(re.sub("[,.]", " ", words), has_tempo=False, music=lambda _: False)


def stated_key(words: str) -> str | None:
    """The key that a text certainly names: "Am" alone may be English."""
    found = named_key(words)
    return found.name if found is not None and found.is_sure else None


def with_tempo_and_key(prompt: str, bpm: float | None, key: str | None) -> str:
    """The prompt with a tempo and a key added in the captions' words, unless it states them itself.

    Raises:
        UserError: it states a different one.
    """
    said_bpm = stated_bpm(prompt)
    if bpm is not None and said_bpm is not None and abs(said_bpm - bpm) > 0.5:
        raise UserError(
            f'--bpm {bpm:g}: the prompt "{prompt}" says {said_bpm:g} bpm; take one of them out.'
        )
    said_key = stated_key(prompt)
    if key is not None and said_key is not None and key_distance(key, said_key) != "same":
        raise UserError(
            f'--key "{key}": the prompt "{prompt}" says {said_key}; take one of them out.'
        )
    parts = [prompt.rstrip(" .,")]
    if bpm is not None and said_bpm is None:
        # Captions have whole numbers.
        parts.append(BPM_WORDS[0].format(bpm=f"{round(bpm)}"))
    if key is not None and said_key is None:
        parts.append(KEY_WORDS[0].format(key=key))
    return prompt if len(parts) == 1 else ", ".join(parts)
