"""Names of keys: as metadata gives them, and as titles of files hide them. Who wrote "Bbm" reads
"Bb minor"; a key that nobody wrote is spelled as most do, Bb and not A#.

"Am" is a key and a word, "A minor" a key and an adjective: `I Am The One 140bpm.wav` says nothing
of a key. So where English could mean it too, a key needs company that makes it one: a tempo beside
it, or a word of music.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from musicgen_lora.beats.sequencer import NOTE_NAMES

_USUAL = {
    "minor": ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "G#", "A", "Bb", "B"),
    "major": ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"),
}
"""The spelling with fewer sharps or flats, by mode; the commoner one where there are six."""
_WHITE = {"E#", "B#", "Cb", "Fb"}

_ACCIDENTAL = r"#|♯|b|♭|[ -]?(?i:sharp|flat)"
_MINOR, _MAJOR = (
    {"m", "min", "minor", "moll", "aeolian"},
    {"", "M", "maj", "major", "dur", "ionian"},
)


def normalise_key(value: object) -> str | None:
    """A key given as "C#m", "Db minor", "c sharp min", "F", "升C小调", "8A" (Camelot) or "1m" (Open
    Key), as in "C# minor"; sharps stay sharps, and flats flats. A bare note is major, as in ID3's
    TKEY. None for anything else."""
    if not isinstance(value, str):
        return None
    value = _from_chinese(value)
    wheel = re.fullmatch(r"\s*(1[0-2]|[1-9])\s*([ABabdm])\s*", value)
    if wheel:
        # Both wheels go round in fifths; Camelot's 8B and Open Key's 1d are C major.
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
    """A key written as in "升C小调", as in "C# minor"; anything else as it is."""
    match = re.fullmatch(r"\s*([升降])?\s*([A-Ga-g])\s*([#b♯♭升降])?\s*([大小])调\s*", value)
    if not match:
        return value
    sign = match[1] or match[3] or ""
    mode = "minor" if match[4] == "小" else "major"
    sign = {"升": "#", "降": "b"}.get(sign, sign)
    return f"{match[2]}{sign} {mode}"


def _pitch_class(note: str, accidental: str | None) -> int:
    sign = (accidental or "").strip(" -").lower()
    return (NOTE_NAMES.index(note.upper()) + {"": 0, "#": 1, "♯": 1, "sharp": 1}.get(sign, -1)) % 12


def _usual_name(pitch_class: int, minor: bool) -> str:
    mode = "minor" if minor else "major"
    return f"{_USUAL[mode][pitch_class % 12]} {mode}"


def _spelled(note: str, accidental: str | None, minor: bool) -> str:
    """The key in its author's spelling, but for names of white keys that nobody uses (E#, Cb)."""
    pitch_class = _pitch_class(note, accidental)
    steps = (pitch_class - NOTE_NAMES.index(note.upper()) + 6) % 12 - 6
    name = note.upper() + {0: "", 1: "#", -1: "b"}[steps]
    if name in _WHITE:
        return _usual_name(pitch_class, minor)
    return f"{name} {'minor' if minor else 'major'}"


def usual_key(key: str) -> str:
    """A key in its usual spelling: "A# minor" as "Bb minor"; what is no key as it is."""
    read = _read(key)
    return key if read is None else _usual_name(*read)


def key_distance(key: str, other: str) -> str | None:
    """How two keys are to each other: "same", however they are spelled, "relative" (C major and A
    minor), or None for any other; None as well where either is no key."""
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
    """Pitch class and mode (True is minor) of a key as it is written here."""
    match = re.fullmatch(r"([A-G])([#b]?) (minor|major)", key)
    return (_pitch_class(match[1], match[2] or None), match[3] == "minor") if match else None


@dataclass(frozen=True)
class NameKey:
    """A key that a name has, and whether the name surely means one."""

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
"""Words before and after, by what the key reads as, that make it English: "I Am", "Get Em"."""
_MUSIC = {
    *("arp", "beat", "beats", "chord", "chords", "fx", "instrumental", "keys", "lead", "loop"),
    *("loops", "master", "melody", "mix", "one-shot", "prod", "riff", "sample", "stem", "stems"),
    "type",
}
"""Words of music that are no genre, mood or instrument."""
_INTRODUCES = {"in", "key", "of"}


def find_key(words: str, *, has_tempo: bool, music: Callable[[str], bool]) -> NameKey | None:
    """The key with its mode that a name has; None for none or several. A note without a mode is
    no key: half of the packs that write "F#" mean F# minor.

    Args:
        words: of the name, with single spaces.
        has_tempo: whether the name says a tempo anywhere.
        music: whether a word is one of music.
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
        # "Bbm" and "A#m" beside each other are one.
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
    """Whether letters that may be English are surely a key; None where they are English.

    Args:
        english: words beside them that make them English.
        spelled_out: the mode is a word, as in "A minor".
    """
    last = next((word.lower() for word in reversed(before) if word != "-"), None)
    following = next((word.lower() for word in after if word != "-"), None)
    if last in english[0] or following in english[1]:
        return None
    if last is not None and _HOUR.fullmatch(last):
        # "3 AM", though a tempo follows.
        return None

    def is_company(word: str | None) -> bool:
        return word is not None and (bool(_TEMPO.fullmatch(word)) or word in _MUSIC or music(word))

    if spelled_out and last in _INTRODUCES:
        return True
    if spelled_out:
        # "A Minor Threat": what follows is a noun; behind a key stands a number, or music.
        ends = following is None or not following.isalpha()
        return True if ends or is_company(following) else None
    return is_company(last) or is_company(following)


def short_key(key: str) -> str:
    """A key as tags hold it, in three letters at most: "C# minor" as "C#m", "F major" as "F"."""
    note, mode = key.split(" ")
    return f"{note}m" if mode == "minor" else note


def file_key(key: str) -> str:
    """A key as names of files have it: "C# minor" as "C#min", "F major" as "Fmaj"."""
    note, mode = key.split(" ")
    return f"{note}{mode[:3]}"


def root_pitch_class(key: str) -> int | None:
    """The root's pitch class, 0 (C) to 11 (B), of a key as it is written here; None for others."""
    read = _read(key)
    return None if read is None else read[0]
