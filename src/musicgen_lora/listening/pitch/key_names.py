"""Names of keys, in metadata and in file names. "Bbm" is read as "Bb minor", in its author's
spelling; a measured key has the usual spelling, Bb and not A#.

"Am" is a key and a word, "A minor" a key and an adjective: `I Am The One 140bpm.wav` names no key.
So if it could also be English, a key needs something beside it that makes it one: a tempo, or a
musical word.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from musicgen_lora.beats.sequencer import NOTE_NAMES

_USUAL = {
    "minor": ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "G#", "A", "Bb", "B"),
    "major": ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"),
}
"""The spelling with fewer sharps or flats, by mode; with six of either, the more common one."""
_WHITE = {"E#", "B#", "Cb", "Fb"}

_ACCIDENTAL = r"#|♯|b|♭|[ -]?(?i:sharp|flat)"
_MINOR, _MAJOR = (
    {"m", "min", "minor", "moll", "aeolian"},
    {"", "M", "maj", "major", "dur", "ionian"},
)
_GERMAN = {"c": "C", "d": "D", "e": "E", "f": "F", "g": "G", "a": "A", "b": "Bb", "h": "B"}
"""Notes before "moll" and "dur", whose languages call Bb "B" and B "H"."""


def normalise_key(value: object) -> str | None:
    """Normalise a key such as "C#m", "Db minor", "c sharp min", "F", "升C小调", "8A" (Camelot) or
    "1m" (Open Key) to the form "C# minor"; sharps stay sharps, and flats flats. A bare note is
    major, as in ID3's TKEY. None for anything else."""
    if not isinstance(value, str):
        return None
    value = _from_german(_from_chinese(unicodedata.normalize("NFKC", value)))
    wheel = re.fullmatch(r"\s*(1[0-2]|[1-9])\s*([ABabdm])\s*", value)
    if wheel:
        # Both wheels go in fifths; Camelot's 8B and Open Key's 1d are C major.
        number, is_camelot = int(wheel[1]), wheel[2] in "ABab"
        minor = wheel[2] in "Aam"
        fifths = number - (8 if is_camelot else 1)
        return _usual_name((9 if minor else 0) + 7 * fifths, minor)
    match = re.fullmatch(rf"\s*([A-Ga-g])({_ACCIDENTAL})?[ :_-]*([A-Za-z]*)\s*", value)
    if not match:
        return None
    mode = match[3] if match[3] in {"m", "M"} else match[3].lower()
    if mode not in _MINOR | _MAJOR:
        return None
    return _spelled(match[1], match[2], mode in _MINOR)


def _from_chinese(value: str) -> str:
    """Convert a key such as "升C小调" to "C# minor"; anything else is returned as it is."""
    match = re.fullmatch(
        r"\s*([升降#♯♭]|b(?=[A-G]))?\s*([A-Ga-g])\s*([#b♯♭升降])?\s*(?:自然|和[声聲]|旋律)?([大小])[调調]\s*",
        value,
    )
    if not match:
        return value
    sign = match[1] or match[3] or ""
    mode = "minor" if match[4] == "小" else "major"
    sign = {"升": "#", "降": "b"}.get(sign, sign)
    return f"{match[2]}{sign} {mode}"


def _from_german(value: str) -> str:
    """Convert a key such as "cis-Moll", "Es-Dur", "h-Moll" or "B-Dur" (Bb major) to "C# minor" and
    so on; anything else is returned as it is."""
    match = re.fullmatch(r"\s*([a-h])(is|es|s)?[ :_-]*(moll|dur)\s*", value, re.IGNORECASE)
    if not match:
        return value
    note, sign = match[1].lower(), (match[2] or "").lower()
    # "As" and "Es" are short for "Aes" and "Ees", which nobody writes; "Hes" is "B".
    if note in "bh" and sign in ("es", "s"):
        return value
    if sign == "s" and note not in "ae":
        return value
    name = _GERMAN[note] + {"": "", "is": "#"}.get(sign, "b")
    return f"{name} {'minor' if match[3].lower() == 'moll' else 'major'}"


def _pitch_class(note: str, accidental: str | None) -> int:
    sign = (accidental or "").strip(" -").lower()
    return (NOTE_NAMES.index(note.upper()) + {"": 0, "#": 1, "♯": 1, "sharp": 1}.get(sign, -1)) % 12


def _usual_name(pitch_class: int, minor: bool) -> str:
    mode = "minor" if minor else "major"
    return f"{_USUAL[mode][pitch_class % 12]} {mode}"


def _spelled(note: str, accidental: str | None, minor: bool) -> str:
    """The key in its author's spelling, except white keys with unusual names (E#, Cb)."""
    pitch_class = _pitch_class(note, accidental)
    steps = (pitch_class - NOTE_NAMES.index(note.upper()) + 6) % 12 - 6
    name = note.upper() + {0: "", 1: "#", -1: "b"}[steps]
    if name in _WHITE:
        return _usual_name(pitch_class, minor)
    return f"{name} {'minor' if minor else 'major'}"


def usual_key(key: str) -> str:
    """A key in its usual spelling: "A# minor" as "Bb minor"; anything else is returned as it is."""
    read = _read(key)
    return key if read is None else _usual_name(*read)


def key_distance(key: str, other: str) -> str | None:
    """How two keys are related: "same", however they are spelled, "relative" (C major and A minor),
    or None for others and if either is not a key."""
    first, second = _read(key), _read(other)
    if first is None or second is None:
        return None
    if first == second:
        return "same"
    (a, a_minor), (b, b_minor) = first, second
    if a_minor == b_minor:
        return None
    major, minor = (b, a) if a_minor else (a, b)
    return "relative" if (minor + 3) % 12 == major else None


def _read(key: str) -> tuple[int, bool] | None:
    """Pitch class and mode (True is minor) of a normalised key."""
    match = re.fullmatch(r"([A-G])([#b]?) (minor|major)", key)
    return (_pitch_class(match[1], match[2] or None), match[3] == "minor") if match else None


@dataclass(frozen=True)
class NameKey:
    """A key found in a name, and whether it certainly is one."""

    name: str
    is_sure: bool


_KEY = re.compile(
    rf"(?<![A-Za-z0-9#])([A-Ga-g])({_ACCIDENTAL})?([ -]?(?i:minor|major|min|maj)|m)(?![A-Za-z#])"
)
_TEMPO = re.compile(
    r"(?:bpm[=:-]*)?(?:[6-9]\d|1\d\d|200)(?:\.\d{1,2})?(?:-?bpm)?|\d{2,3}-?bpm|bpm", re.IGNORECASE
)
_HOUR = re.compile(r"\d|1[0-2]|\d{1,2}[:.]\d\d")
_ENGLISH_BESIDE = {
    "am": ({"i"}, {"i"}),
    "em": (
        {
            *("all", "beat", "break", "bring", "burn", "catch", "drop", "feel", "for", "fuck"),
            *("get", "give", "got", "hate", "hear", "hit", "hold", "keep", "kill", "leave", "let"),
            *("like", "love", "make", "need", "of", "on", "play", "put", "run", "see", "send"),
            *("shake", "shoot", "show", "stop", "take", "teach", "tell", "them", "want", "watch"),
            "with",
        },
        {"all", "dead", "down", "go", "how", "in", "know", "off", "on", "out", "say", "up"},
    ),
    "a": (
        {"got", "gimme", "hold", "just", "make", "need", "only", "such", "wait", "what"},
        {"key"},
    ),
}
"""Words before and after that make it English, by the letters of the key: "I Am", "Get Em"."""
_MUSIC = {
    *("arp", "beat", "beats", "chord", "chords", "fx", "instrumental", "keys", "lead", "loop"),
    *("loops", "master", "melody", "mix", "one-shot", "prod", "riff", "sample", "stem", "stems"),
    "type",
}
"""Musical words other than genres, moods and instruments."""
_INTRODUCES = {"in", "key", "of"}


def find_key(words: str, *, has_tempo: bool, music: Callable[[str], bool]) -> NameKey | None:
    """The key, with its mode, in a name; None if there is none, or several. A note without a mode
    doesn't count: half of the packs that write "F#" mean F# minor.

    Args:
        words: of the name, with single spaces.
        has_tempo: whether the name contains a tempo.
        music: tells whether a word is musical.
    """
    found: dict[str, bool] = {}
    for match in _KEY.finditer(words):
        note, accidental, mode = match[1], match[2], match[3].strip(" -")
        spelled_out = len(mode) > 1
        # "a minor hit" is English, "140bpm a minor" is not.
        if note.islower() and not (accidental or has_tempo):
            continue
        before, after = words[: match.start()].split(), words[match.end() :].split()
        english = _ENGLISH_BESIDE.get(note.lower() if spelled_out else match[0].lower())
        sure = bool(accidental) or has_tempo or spelled_out
        if english is not None and not accidental:
            meant = _is_meant(before, after, english, music, spelled_out=spelled_out)
            if meant is None:
                continue
            sure = meant
        name = _spelled(note, accidental, mode.lower() in _MINOR)
        # "Bbm" and "A#m" in one name are the same key.
        name = next((other for other in found if key_distance(other, name) == "same"), name)
        found[name] = found.get(name, False) or sure
    return NameKey(*next(iter(found.items()))) if len(found) == 1 else None


def _is_meant(
    before: Sequence[str],
    after: Sequence[str],
    english: tuple[set[str], set[str]],
    music: Callable[[str], bool],
    *,
    spelled_out: bool,
) -> bool | None:
    """Whether letters that may be English are certainly a key; None if they are English.

    Args:
        english: words before and after that make them English.
        spelled_out: whether the mode is a word, as in "A minor".
    """
    last = next((word.lower() for word in reversed(before) if word != "-"), None)
    following = next((word.lower() for word in after if word != "-"), None)
    if last in english[0] or following in english[1]:
        return None
    if last is not None and _HOUR.fullmatch(last):
        # "3 AM", even if a tempo follows.
        return None

    def is_company(word: str | None) -> bool:
        return word is not None and (bool(_TEMPO.fullmatch(word)) or word in _MUSIC or music(word))

    if spelled_out and last in _INTRODUCES:
        return True
    if spelled_out:
        # "A Minor Threat": a noun follows; after a key comes a number or a musical word.
        ends = following is None or not following.isalpha()
        return True if ends or is_company(following) else None
    return is_company(last) or is_company(following)


def short_key(key: str) -> str:
    """A key as in tags, with three letters at most: "C# minor" as "C#m", "F major" as "F"."""
    note, mode = key.split(" ")
    return f"{note}m" if mode == "minor" else note


def file_key(key: str) -> str:
    """A key as in file names: "C# minor" as "C#min", "F major" as "Fmaj"."""
    note, mode = key.split(" ")
    return f"{note}{mode[:3]}"


def root_pitch_class(key: str) -> int | None:
    """Pitch class of the root, 0 (C) to 11 (B), of a normalised key; None for others."""
    read = _read(key)
    return None if read is None else read[0]
