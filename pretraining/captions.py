"""Captions of the pretraining corpus: the facts of a clip in varied words.

Facts are dropped at random, as people do, but nothing false is said. The tempo stands in
about four captions of five as "<n> bpm".
"""

from __future__ import annotations

import numpy as np
from styles import STYLES, Clip

ENERGY_WORDS = {
    "sparse": ("sparse", "minimal", "laid-back", "stripped-down"),
    "medium": ("steady", "solid", "mid-energy"),
    "energetic": ("energetic", "driving", "busy", "lively"),
}
DRUM_WORDS = {
    "acoustic": ("acoustic drums", "live drums", "tight drums", "drums"),
    "electronic": ("electronic drums", "drum machine", "punchy electronic drums", "drums"),
    "brush": ("jazz drums", "soft drums", "light acoustic drums", "drums"),
}
LOFI_WORDS = ("lo-fi", "dusty", "muffled", "vintage tape sound")
MISSING = {
    "hats": ("no hats", "without hi-hats", "no hi-hats", "without hats"),
    "bass": ("without bass", "no bass"),
    "drums": ("no drums", "without drums", "beatless"),
}


def captions(rng: np.random.Generator, clip: Clip, n: int) -> list[str]:
    """`n` captions of a clip, the first as good as any."""
    return [_caption(rng, clip) for _ in range(n)]


def _caption(rng: np.random.Generator, clip: Clip) -> str:
    def chance(share: float) -> bool:
        return bool(rng.random() < share)

    def pick(options: tuple[str, ...]) -> str:
        return options[int(rng.integers(len(options)))]

    style = _style_word(rng, clip)
    # Only drums and leads are played with more or less energy.
    has_energy = clip.drums is not None or "lead" in clip.words
    said_energy = chance(0.3 if clip.energy == "medium" else 0.75) and has_energy
    adjective = pick(ENERGY_WORDS[clip.energy]) if said_energy else ""
    things = _instruments(rng, clip)
    remarks = _remarks(rng, clip)
    key = clip.harmony.key if clip.harmony and chance(0.65) else ""
    form = float(rng.random())
    subject = " ".join(word for word in (adjective, style) if word)
    if form < 0.12:
        # The form in which audiocraft merges facts into a description.
        text = ", ".join([_with(subject, things), *remarks]) + "."
        text += f" bpm: {clip.bpm}." if chance(0.8) else ""
        return text + (f" key: {key}." if key else "")
    tempo = f"{clip.bpm} bpm" if chance(0.92) else ""
    if form < 0.50:
        parts = [_with(subject, things), *remarks, tempo, key]
    elif form < 0.68:
        parts = [f"{tempo} {subject}".strip(), *things, *remarks, f"in {key}" if key else ""]
    elif form < 0.86:
        parts = [style, *things, *remarks, adjective, key, tempo]
        tail = parts[1:]
        rng.shuffle(tail)
        parts = [style, *tail]
    else:
        where = " ".join(filter(None, [tempo and f"at {tempo}", key and f"in {key}"]))
        parts = [f"{_with(subject, things)} {where}".strip(), *remarks]
    text = ", ".join(part for part in parts if part)
    return text[0].upper() + text[1:] if chance(0.15) else text


def _style_word(rng: np.random.Generator, clip: Clip) -> str:
    names = (*STYLES[clip.style].names, "beat") if clip.drums else STYLES[clip.style].names
    if not clip.drums:
        # "House beat" would be a lie where nothing is beaten.
        names = (*(name for name in names if not _names_drums(name)), "music")
    # The last, general word is rare; the first, plain name is the most frequent.
    shares = np.array([2.0] + [1.0] * (len(names) - 2) + [0.3])
    return str(rng.choice(names, p=shares / shares.sum()))


def _names_drums(name: str) -> bool:
    return name.startswith("drum") or name.endswith((" beat", " trio"))


def _instruments(rng: np.random.Generator, clip: Clip) -> list[str]:
    solo = {"bass only": "bass", "chords only": "chords", "lead only": "lead"}.get(clip.layers)
    if solo:
        word = clip.words[solo]
        forms = [f"solo {word}", f"only {word}", f"{word} alone", f"just {word}"]
        return [forms[int(rng.integers(len(forms)))]]
    said = [word for word in clip.words.values() if rng.random() < 0.85]
    if clip.drums and rng.random() < 0.75:
        # A plain "drums" says nothing beside "drums only".
        options = DRUM_WORDS[clip.drums.family][: -1 if clip.layers == "drums only" else None]
        said.append(options[int(rng.integers(len(options)))])
    said += [word for word in clip.drum_words if rng.random() < 0.22]
    if rng.random() < 0.5:
        rng.shuffle(said)
    return list(dict.fromkeys(said))


def _remarks(rng: np.random.Generator, clip: Clip) -> list[str]:
    absent = []
    if clip.drums and not clip.has_hats:
        absent.append("hats")
    if clip.layers == "no bass":
        absent.append("bass")
    if clip.layers == "no drums":
        absent.append("drums")
    remarks = []
    if clip.layers == "drums only":
        options = ("drums only", "only drums", "just drums", "drums only, no melody")
        remarks.append(options[int(rng.integers(len(options)))])
    for what in absent:
        if rng.random() < 0.9:
            remarks.append(MISSING[what][int(rng.integers(len(MISSING[what])))])
    if clip.is_lofi and rng.random() < 0.8:
        remarks.append(LOFI_WORDS[int(rng.integers(len(LOFI_WORDS)))])
    if clip.layers == "drums and bass" and rng.random() < 0.4:
        remarks.append("only drums and bass")
    if clip.pattern.swing >= 0.58 and clip.drums and rng.random() < 0.4:
        remarks.append("swung" if rng.random() < 0.5 else "with swing")
    return remarks


def _with(subject: str, things: list[str]) -> str:
    """ "funk groove with slap bass, organ and drums"."""
    if not things:
        return subject
    listed = ", ".join(things[:-1]) + (" and " if len(things) > 1 else "") + things[-1]
    joint = ", " if listed.startswith(("only ", "just ", "solo ")) else " with "
    return subject + joint + listed
