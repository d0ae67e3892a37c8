"""Translates what the program says in English into the user's language.

English text is made where it is known what happened, and is what every document has. Text shown to
a person passes through here: the template that it was made from is looked up and filled with the
same values. Whatever has no translation stays English as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache, lru_cache

from musicgen_lora.language import catalogue
from musicgen_lora.language.choice import chosen_language
from musicgen_lora.language.templates import Index, Template, words_of
from musicgen_lora.plural import OF_ONE

MAX_DEPTH = 5
"""Depth of messages within messages."""
MAX_TEXT = 20_000
"""Characters of the longest text that is translated; longer ones stay as they are."""
MAX_SENTENCES = 24
MAX_KEPT = 8192
"""Texts whose translation is cached."""
MAX_LOOKUPS = 300
"""Look-ups for one line: one made to look like many nested messages stays English."""
_NAME = "a.wav"
"""A file name, for messages that begin with one."""
_VALUE = re.compile(r"\{(\w+)(!w)?\}")
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_LATIN, _LATIN_END = re.compile(r"[\w/'\"+-]", re.ASCII), re.compile(r"[\w%)]$", re.ASCII)
_BETWEEN_SENTENCES = re.compile(r"(?<=[.!?]) (?=[^a-z ])")
_COUNTED = re.compile(r"(\d[\d,.]*) (.+)", re.DOTALL)
_SEPARATORS = {"; ": "；", ", ": "、", " and ": " 和 "}
_IN_ROW = re.compile(r"[^,;]*\.\w{2,7}|[+\-\u2212]?\d[\d.]*|'[^',;]*'|--\w+( \w+)?|\S*/[^\s,;]*")
"""What may be in a list: a file name, a number, something in quotes, a flag, a path."""
_PERCENT = re.compile(r"([+\-\u2212]?\d[\d.,]*) %")
_OWN_WORDS = re.compile(r"“[^“”]*”( = “[^“”]*”)?(; “[^“”]*”( = “[^“”]*”)?)*")
"""What a person wrote, in quotes: never a message."""
_OF_MANY = {one: many for many, one in OF_ONE.items()}


def translated(text: str) -> str:
    """A line in the user's language. A single word stays: it may be a name."""
    return text if chosen_language() == "en" else _of(chosen_language()).line(text)


def word(text: str) -> str:
    """One of the program's own words or sentences, in the user's language."""
    return text if chosen_language() == "en" else _of(chosen_language()).word(text)


def filled(template: str, *values: object) -> str:
    """A template that is known where it is used, in the user's language, with these values."""
    said = "" if chosen_language() == "en" else _of(chosen_language()).texts.get(template, "")
    return _VALUE.sub(lambda match: str(values[int(match[1])]), said or template)


def joined(texts: Iterable[str], separator: str = ", ") -> str:
    """Texts joined, each in the user's language.

    Args:
        separator: the English one: ", ", "; " or " and ".
    """
    own = separator if chosen_language() == "en" else _SEPARATORS[separator]
    return own.join(map(translated, texts))


def gettext(message: str) -> str:
    """A page's message; for jinja."""
    if chosen_language() == "en":
        return message
    said = _of(chosen_language()).texts.get(catalogue.from_gettext(message))
    return catalogue.to_gettext(said) if said else message


@cache
def _of(language: str) -> Translator:
    return Translator(catalogue.read(catalogue.path_of(language)))


class Translator:
    """Translates with a catalogue.

    Args:
        texts: translations by their English templates.
    """

    def __init__(self, texts: dict[str, str]) -> None:
        self.texts = {english: said for english, said in texts.items() if said}
        # "{0:clip}" alone says how clips are counted.
        self._nouns = [t[3:-1] for t in self.texts if re.fullmatch(r"\{0:[^{}]+\}", t)]
        lines = [t for t in self.texts if len(words_of(t)) > 1 or "{0" in t]
        # What begins with a space, a comma or a colon is appended to other texts.
        self._tails = Index(f"{{0}}{_renumbered(t, 1)}" for t in lines if t[0] in " ,;:")
        self._index = Index(lines)
        self._lookups = 0
        self._said: dict[tuple[str, int], str | None] = {}
        """Cached translations: lines are much alike."""
        self._found: dict[tuple[str, bool], tuple[Template, list[str]] | None] = {}
        self.line = lru_cache(MAX_KEPT)(self._line)

    def word(self, text: str) -> str:
        """The translation of a text that is known to be the program's own."""
        return self.texts.get(text) or self.line(text)

    def _line(self, text: str) -> str:
        body = text.strip()
        if len(text) > MAX_TEXT or not body:
            return text
        self._lookups = 0
        if len(self._said) > MAX_KEPT or len(self._found) > MAX_KEPT:
            self._said.clear()
            self._found.clear()
        if (said := self._whole(text, 0)) is not None:
            return said
        said = self._message(body, 0) or _figure(body)
        at = text.index(body)
        return text[:at] + said + text[at + len(body) :]

    def _message(self, text: str, depth: int) -> str | None:
        """The translation of a text; None where it has none."""
        if depth > MAX_DEPTH or not words_of(text) or _OWN_WORDS.fullmatch(text):
            return None
        if (text, depth) not in self._said:
            said = self._any_way(text, depth)
            if self._lookups > MAX_LOOKUPS:
                return said
            self._said[text, depth] = said
        return self._said[text, depth]

    def _any_way(self, text: str, depth: int) -> str | None:
        ways = (self._exactly, self._whole, self._with_stop, self._listed, self._counted)
        further = (self._with_tail, self._in_brackets, self._sentences, self._after_name)
        for way in (*ways, *further, self._nameless):
            if (said := way(text, depth)) is not None:
                return said
        if text.endswith(".") and not text.endswith("..."):
            said = self._message(text[:-1], depth + 1)
            return None if said is None else f"{said}。"
        return None

    def _exactly(self, text: str, depth: int) -> str | None:
        if len(words_of(text)) < 2:
            return None
        if text not in self.texts and text.endswith(".") and text[:-1] in self.texts:
            return f"{self.texts[text[:-1]]}。"
        return self.texts.get(text)

    def _whole(self, text: str, depth: int) -> str | None:
        if (said := self._exactly(text, depth)) is not None:
            return said
        found = self._find(text, depth)
        if found is None:
            return None
        template, values = found[0], list(found[1])
        # A list of messages may as a whole fit the template of its last.
        if (said := self._listed(text, depth, without=template.literals)) is not None:
            return said
        stop = ""
        if text.endswith(".") and not text.endswith("...") and not template.pieces[-1][0]:
            # The full stop is the sentence's, unless its last value is a sentence itself.
            last = values[-1]
            if self._value(last, template.nouns[-1], depth) == last:
                values[-1], stop = last[:-1], "。"
        said = [self._value(v, noun, depth) for v, noun in zip(values, template.nouns, strict=True)]
        return self._fill(self.texts[template.text], values, said).removesuffix(stop) + stop

    def _find(self, text: str, depth: int) -> tuple[Template, list[str]] | None:
        key = text, depth == 0
        if key not in self._found:
            self._lookups += 1
            if self._lookups > MAX_LOOKUPS:
                return None

            def is_known(value: str) -> bool:
                if value in self.texts:
                    return True
                return ": " not in value and self._message(value, depth + 1) is not None

            self._found[key] = self._index.find(text, is_line=depth == 0, is_known=is_known)
        return self._found[key]

    def _fill(self, template: str, values: list[str], said: list[str]) -> str:
        filled, end = "", 0
        for match in _VALUE.finditer(template):
            at = int(match[1])
            value = self.texts.get(values[at], said[at]) if match[2] else said[at]
            filled = _spaced(filled + template[end : match.start()], value)
            end = match.end()
            if template.startswith("）", end):
                filled = filled.removesuffix("。")
            if _LATIN_END.search(value) and _CHINESE.match(template, end):
                filled += " "
        return filled + template[end:]

    def _value(self, value: str, noun: str, depth: int) -> str:
        """A value in a message: translated if it is a message itself, else as it is."""
        if noun:
            said = self.texts.get(f"{{0:{noun}}}")
            return value if said is None else said.replace("{0}", value.partition(" ")[0])
        body = value.strip()
        is_message = len(words_of(body)) > 1 or _COUNTED.fullmatch(body)
        said = self._message(body, depth + 1) if is_message else None
        if said is None:
            said = self._row(body, depth) or _figure(body)
        return value if said == body else value.replace(body, said, 1)

    def _row(self, text: str, depth: int) -> str | None:
        """A list of names and numbers, some perhaps with what is said of them."""
        for separator, own in _SEPARATORS.items():
            parts = text.split(separator)
            if 1 < len(parts) <= MAX_SENTENCES:
                said = [
                    part if _IN_ROW.fullmatch(part) else self._run(part, depth + 1)
                    for part in parts
                ]
                if all(s is not None for s in said):
                    return own.join(str(s) for s in said)
        return None

    def _with_stop(self, text: str, depth: int) -> str | None:
        """With a full stop that its template lacks, or without one that it has."""
        if text.endswith("."):
            said = None if text.endswith("...") else self._whole(text[:-1], depth)
            return None if said is None else f"{said.removesuffix('。')}。"
        said = self._whole(f"{text}.", depth)
        return None if said is None else said.removesuffix("。")

    def _counted(self, text: str, depth: int) -> str | None:
        """`3 files are clipped`, `2 rows of the metadata name no audio file here`."""
        match = _COUNTED.fullmatch(text.removesuffix("."))
        if match is None:
            return None
        number, rest = match.groups()
        stop = "。" if text.endswith(".") else ""
        for noun in self._nouns:
            for own in (noun, f"{noun}s"):
                if rest == own:
                    return self.texts[f"{{0:{noun}}}"].replace("{0}", number)
                if rest.startswith(f"{own} "):
                    told = self._told(rest[len(own) + 1 :])
                    if told is not None:
                        return self.texts[f"{{0:{noun}}}"].replace("{0}", number) + told + stop
        return f"{number} {self.texts[rest]}{stop}" if rest in self.texts else None

    def _told(self, told: str) -> str | None:
        if told in self.texts:
            return self.texts[told]
        verb, _, rest = told.partition(" ")
        many = f"{_OF_MANY.get(verb, verb)} {rest}"
        return self.texts.get(many) or self.texts.get(many.replace(" its ", " their "))

    def _with_tail(self, text: str, depth: int) -> str | None:
        """`a.wav, b.wav and 3 more, in the report`: only the end is a message."""
        found = self._tails.find(text, is_known=lambda _: True)
        if found is None:
            return None
        template, values = found
        said = self.texts[_renumbered(template.text.removeprefix("{0}"), -1)]
        tail = [
            self._value(value, noun, depth)
            for value, noun in zip(values[1:], template.nouns[1:], strict=True)
        ]
        head = self._message(values[0], depth + 1)
        return (values[0] if head is None else head) + self._fill(said, values[1:], tail)

    def _in_brackets(self, text: str, depth: int) -> str | None:
        """`kick.wav (the same bytes as a.wav)`."""
        head, bracket, inside = text.removesuffix(")").partition(" (")
        while bracket and text.endswith(")"):
            said = self._message(inside, depth + 1)
            if said is not None:
                return f"{head}（{said.removesuffix('。')}）"
            if (said := self._message(head, depth + 1)) is not None:
                return f"{said}（{inside}）"
            more, bracket, inside = inside.partition(" (")
            head = f"{head} ({more}"
        return None

    def _sentences(self, text: str, depth: int) -> str | None:
        parts = _BETWEEN_SENTENCES.split(text)
        if not 1 < len(parts) <= MAX_SENTENCES:
            return None
        said, at = "", 0
        translated_any = False
        while at < len(parts):
            # The longest run of sentences that is one message.
            for end in range(len(parts), at, -1):
                run = " ".join(parts[at:end])
                one = None if run == text else self._run(run, depth)
                if one is not None:
                    break
            else:
                end, one = at + 1, None
            translated_any |= one is not None
            piece = parts[at] if one is None else one
            said += piece if not said or (said.endswith(("。", "；")) and one) else f" {piece}"
            at = end
        return said if translated_any else None

    def _run(self, text: str, depth: int) -> str | None:
        for way in (self._whole, self._with_stop, self._counted, self._with_tail, self._after_name):
            if (said := way(text, depth)) is not None:
                return said
        if text.endswith("."):
            said = self._run(text[:-1], depth)
            return None if said is None else f"{said}。"
        return None

    def _after_name(self, text: str, depth: int) -> str | None:
        """`kick.wav: is empty`: what follows a name, a path or a setting is a message."""
        at, tries = text.find(": "), 0
        place: str | None = None
        while at > 0 and tries < MAX_DEPTH:
            head, rest = text[:at], text[at + 2 :]
            said, place_here = (self._message(part, depth + 1) for part in (rest, head))
            if said is not None:
                return f"{head if place_here is None else place_here}：{said}"
            if place is None and place_here is not None:
                place = f"{place_here}：{rest}"
            at, tries = text.find(": ", at + 1), tries + 1
        return place

    def _nameless(self, text: str, depth: int) -> str | None:
        """What is said of a file whose name is elsewhere."""
        found = None if text.startswith(_NAME) else self._find(f"{_NAME}: {text}", depth + 1)
        if found is None or found[1][:1] != [_NAME]:
            return None
        said = self._whole(f"{_NAME}: {text}", depth + 1)
        return None if said is None else said.removeprefix(_NAME).lstrip(":： ")

    def _listed(self, text: str, depth: int, without: str = "") -> str | None:
        """Messages in a list, unless its separator is in `without`, the text of a template."""
        for separator, own in ((" / ", " / "), ("; ", "；"), (", ", "，"), (" and ", "，而且")):
            parts = text.split(separator)
            if (
                1 < len(parts) <= MAX_SENTENCES
                and separator not in without
                and ". " not in parts[0]
            ):
                said = [self._run(part, depth + 1) for part in parts]
                if all(s is not None for s in said):
                    return own.join(str(s) for s in said)
        return None


def _figure(text: str) -> str:
    """A percentage as Chinese writes it; anything else as it is."""
    share = _PERCENT.fullmatch(text)
    return text if share is None else f"{share[1]}%"


def _spaced(before: str, value: str) -> str:
    """A value after a text, with a space between Chinese and Latin letters."""
    space = " " if _CHINESE.match(before[-1:]) and _LATIN.match(value) else ""
    return f"{before}{space}{value}"


def _renumbered(text: str, by: int) -> str:
    """A template with its values renumbered."""
    return re.sub(r"\{(\d+)", lambda m: f"{{{int(m[1]) + by}", text)
