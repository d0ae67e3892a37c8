"""Captions of the pretraining corpus: the facts of a clip in varied words.

Facts are dropped at random, as people do, but nothing false is said. About five captions in six
state the tempo, two in three the key.
"""

from __future__ import annotations

import numpy as np

from pretraining.corpus.composition import Clip
from pretraining.corpus.styles import STYLES

ENERGY_WORDS = {
    "sparse": ("sparse", "minimal", "laid-back", "stripped-down", "calm", "relaxed", "low energy"),
    "medium": ("steady", "solid", "mid-energy", "medium energy"),
    "energetic": ("energetic", "driving", "busy", "lively", "upbeat", "high energy", "powerful"),
}
DRUM_WORDS = {
    "acoustic": ("acoustic drums", "live drums", "tight drums", "drum kit", "drums"),
    "electronic": ("electronic drums", "drum machine", "punchy electronic drums", "drums"),
    "brush": ("jazz drums", "soft drums", "light acoustic drums", "drums"),
}
LOFI_WORDS = ("lo-fi", "lofi", "dusty", "muffled", "vintage tape sound")
HALF_TIME_WORDS = ("half-time", "half time drums", "half-time feel")
SWING_WORDS = ("swung", "with swing", "shuffle", "swing feel")
MISSING = {
    "hats": ("no hats", "without hi-hats", "no hi-hats", "without hats", "no cymbals"),
    "bass": ("no bass", "without bass", "without a bass"),
    "drums": ("no drums", "without drums", "beatless", "no beat"),
    "chords": ("no chords", "without chords"),
    "lead": ("no melody", "without melody", "no lead"),
    "percussion": ("no percussion",),
}
SYNONYMS = {
    "electric piano": ("electric piano", "rhodes", "e-piano"),
    "piano": ("piano", "grand piano", "keys"),
    "synth chords": ("synth chords", "synth", "synthesizer chords"),
    "synth lead": ("synth lead", "lead synth", "synth melody"),
    "synth bass": ("synth bass", "synthesizer bass", "bass synth"),
    "electric bass": ("electric bass", "bass guitar", "bass"),
    "picked bass": ("picked bass", "bass guitar", "bass"),
    "upright bass": ("upright bass", "double bass", "acoustic bass"),
    "warm pad": ("warm pad", "pad", "synth pad"),
    "strings": ("strings", "string section", "violins"),
    "distorted guitar": ("distorted guitar", "electric guitar", "overdriven guitar"),
    "clean guitar": ("clean guitar", "electric guitar", "guitar"),
    "acoustic guitar": ("acoustic guitar", "guitar"),
    "saxophone": ("saxophone", "sax"),
    "vibraphone": ("vibraphone", "vibes"),
    "brass": ("brass", "horns", "brass section"),
    "hi-hats": ("hi-hats", "hats", "hi hats", "hihats"),
    "open hats": ("open hats", "open hi-hats"),
    "claps": ("claps", "handclaps", "hand claps"),
    "ride cymbal": ("ride cymbal", "ride"),
    "bells": ("bells", "bell melody"),
    "choir": ("choir", "voices"),
}
TEMPO_FORMS = (
    *["{} bpm"] * 5, *["{} BPM"] * 2, "{}bpm", "tempo {}", "{} beats per minute",
)  # fmt: skip
KEY_FORMS = ("{}", "{}", "in {}", "key of {}", "in the key of {}")


class Wording:
    """The random draws for one caption."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def pick(self, options: tuple[str, ...]) -> str:
        return options[int(self.rng.integers(len(options)))]

    def named(self, word: str) -> str:
        """The word, or in a third of the cases one of its synonyms."""
        return self.pick(SYNONYMS[word]) if word in SYNONYMS and self.chance(0.35) else word


def captions(rng: np.random.Generator, clip: Clip, n: int) -> list[str]:
    """`n` captions of a clip, the first as good as any."""
    return [_caption(Wording(rng), clip) for _ in range(n)]


def _caption(draw: Wording, clip: Clip) -> str:
    style = _style_word(draw, clip)
    # Nobody would hear it in chords or a bass alone.
    has_energy = clip.drums is not None or "lead" in clip.words
    said_energy = draw.chance(0.3 if clip.energy == "medium" else 0.75) and has_energy
    adjective = draw.pick(ENERGY_WORDS[clip.energy]) if said_energy else ""
    things = _instruments(draw, clip)
    remarks = _remarks(draw, clip)
    key = clip.harmony.key if clip.harmony and draw.chance(0.65) else ""
    form = float(draw.rng.random())
    subject = " ".join(word for word in (adjective, style) if word)
    if form < 0.2:
        return _merged(draw, clip, subject, things, remarks, key)
    tempo = draw.pick(TEMPO_FORMS).format(clip.bpm) if draw.chance(0.9) else ""
    said_key = draw.pick(KEY_FORMS).format(key) if key else ""
    if form < 0.52:
        parts = [_with(subject, things), *remarks, tempo, said_key]
    elif form < 0.68:
        parts = [f"{tempo} {subject}".strip(), *things, *remarks, said_key]
    elif form < 0.86:
        tail = [*things, *remarks, adjective, said_key, tempo]
        draw.rng.shuffle(tail)
        parts = [style, *tail]
    else:
        where = " ".join(filter(None, [tempo and f"at {tempo}", key and f"in {key}"]))
        parts = [f"{_with(subject, things)} {where}".strip(), *remarks]
    return _cased(draw, ", ".join(part for part in parts if part))


def _merged(
    draw: Wording, clip: Clip, subject: str, things: list[str], remarks: list[str], key: str
) -> str:
    """The description in the form in which audiocraft merges facts into it."""
    text = ", ".join([_with(subject, things), *remarks]) + "."
    facts = [f"bpm: {clip.bpm}."] if draw.chance(0.85) else []
    facts += [f"key: {key}."] if key else []
    facts += [f"genre: {clip.style}."] if draw.chance(0.15) else []
    if things and draw.chance(0.15):
        facts.append(f"instruments: {', '.join(clip.instruments[:4])}.")
    if draw.chance(0.4):
        draw.rng.shuffle(facts)
    return _cased(draw, " ".join([text, *facts]), as_it_is=0.9)


def _cased(draw: Wording, text: str, as_it_is: float = 0.72) -> str:
    """The text as it is, with a capital, in lower case, or rarely in all capitals."""
    if draw.chance(as_it_is):
        return text
    kind = float(draw.rng.random())
    if kind < 0.6:
        return text[0].upper() + text[1:]
    return text.lower() if kind < 0.95 else text.upper()


def _style_word(draw: Wording, clip: Clip) -> str:
    names = (*STYLES[clip.style].names, "beat") if clip.drums else STYLES[clip.style].names
    if not clip.drums:
        # "House beat" would be wrong for a clip without drums.
        names = (*(name for name in names if not _names_drums(name)), "music")
    # The last, general word is rare; the first, plain name is the most frequent.
    shares = np.ones(len(names))
    shares[0], shares[-1] = 2.5, 0.3
    return str(draw.rng.choice(names, p=shares / shares.sum()))


def _names_drums(name: str) -> bool:
    return name.startswith(("drum", "breakbeat")) or name.endswith((" beat", " trio", "beats"))


def _instruments(draw: Wording, clip: Clip) -> list[str]:
    solo = clip.parts[0] if len(clip.parts) == 1 else None
    if solo in clip.words:
        word = draw.named(clip.words[solo])
        return [draw.pick((f"solo {word}", f"only {word}", f"{word} alone", f"just {word}"))]
    said = [draw.named(word) for word in clip.words.values() if draw.chance(0.85)]
    if clip.drums and draw.chance(0.75):
        # A plain "drums" adds nothing to "drums only".
        options = DRUM_WORDS[clip.drums.family][: -1 if clip.layers == "drums only" else None]
        said.append(draw.pick(options))
    said += [draw.named(word) for word in clip.drum_words if draw.chance(0.22)]
    if draw.chance(0.5):
        draw.rng.shuffle(said)
    return list(dict.fromkeys(said))


def _remarks(draw: Wording, clip: Clip) -> list[str]:
    remarks = []
    if clip.layers == "drums only":
        options = ("drums only", "only drums", "just drums", "drums only, no melody")
        remarks.append(draw.pick(options))
    for what, odds in _absent(clip):
        if draw.chance(odds):
            remarks.append(draw.pick(MISSING[what]))
    if clip.is_lofi and draw.chance(0.8):
        remarks.append(draw.pick(LOFI_WORDS))
    if clip.layers == "drums and bass" and draw.chance(0.4):
        remarks.append("only drums and bass")
    if clip.timing.is_half_time and clip.drums and draw.chance(0.75):
        remarks.append(draw.pick(HALF_TIME_WORDS))
    if clip.timing.swing >= 0.58 and clip.drums and draw.chance(0.4):
        remarks.append(draw.pick(SWING_WORDS))
    return remarks


def _absent(clip: Clip) -> list[tuple[str, float]]:
    """What the whole track lacks, and how often that is stated: often if it would be expected."""
    absent = [("hats", 0.9)] if clip.drums and not clip.has_hats else []
    if len(clip.parts) == 1:
        return absent
    for part in ("drums", "bass"):
        if part not in clip.parts:
            absent.append((part, 0.9))
    for part in ("chords", "lead"):
        if part not in clip.parts:
            absent.append((part, 0.15))
    if clip.drums and not clip.has_percussion:
        absent.append(("percussion", 0.05))
    return absent


def _with(subject: str, things: list[str]) -> str:
    """ "funk groove with slap bass, organ and drums"."""
    if not things:
        return subject
    listed = ", ".join(things[:-1]) + (" and " if len(things) > 1 else "") + things[-1]
    joint = ", " if listed.startswith(("only ", "just ", "solo ")) else " with "
    return subject + joint + listed
