"""Finds the template that a text was made from, and the values in it.

A template's literal pieces must appear in the text in order. Taking each at its first place finds a
match whenever there is one, in time that grows with the text alone: file names come from strangers,
and none may hold up a command as it could hold up a regular expression.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

STRONG = 8
"""With this many letters, a template almost always fits only what was made from it."""
LONG = 6
"""With this many characters, a template without words, such as "{0}: {1} (n = {2}).", is tried."""
_SLOT = re.compile(r"\{(\d+)(?::([^}]*))?\}")
_CHOICE = re.compile(r"⟨([^⟩]*)⟩")
_WORD = re.compile(r"[^\W\d_]+")
_PLAIN_VALUE = re.compile(
    r"[+\-\u2212<±]?\s?\d[\W\d_]*|(?!.*: )\S.*\.\w{2,7}|'[^']*'|--\w+( \w+)?"
    r"|[A-G][#b]?m?( major| minor)?|[A-Z][A-Za-z]*-?\d+",
    re.DOTALL,
)
"""A number, a file name, something in quotes, a flag, a key, or an encoding."""
_NAME = re.compile(r"[a-z][a-z0-9_]*")
"""Name of a library."""
_NUMBER = re.compile(r"[+-]?\d[\d,.]*")


def words_of(text: str) -> list[str]:
    """The words of a text, letters only."""
    return _WORD.findall(text)


@dataclass(frozen=True)
class Template:
    """An English template.

    Args:
        text: as the catalogue has it.
        pieces: its text before, between and after its values, each in all its wordings.
        nouns: of each value; "" if it has none.
    """

    text: str
    pieces: tuple[tuple[str, ...], ...]
    nouns: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> Template:
        pieces, nouns, at = [], [], 0
        for slot in _SLOT.finditer(text):
            pieces.append(_wordings(text[at : slot.start()]))
            nouns.append(slot[2] or "")
            at = slot.end()
        return cls(text, (*pieces, _wordings(text[at:])), tuple(nouns))

    @cached_property
    def weight(self) -> int:
        """Letters of its own: of two templates that fit, the heavier says more."""
        return sum(len(wordings[0]) for wordings in self.pieces) + sum(map(len, self.nouns))

    @cached_property
    def own_words(self) -> list[str]:
        """Words that every text made from it has."""
        found, last = [], len(self.pieces) - 1
        for at, wordings in enumerate(self.pieces):
            # A value may continue a word with which a piece begins or ends.
            whole = [_whole_words(w, opens=at > 0, closes=at < last) for w in wordings]
            found += [word for word in whole[0] if all(word in words for words in whole)]
        return found

    @cached_property
    def literals(self) -> str:
        """All of its own text."""
        return "\0".join(wordings[0] for wordings in self.pieces)

    @cached_property
    def is_weak(self) -> bool:
        """Whether it has hardly any words of its own, and so fits texts not made from it."""
        return bool(self.nouns) and sum(map(len, self.own_words)) < STRONG

    @cached_property
    def begins(self) -> bool:
        """Whether it is a word at the start of a line, such as "Note: ..."."""
        return self.is_weak and bool(words_of(self.pieces[0][0]))

    def values(self, text: str) -> list[str] | None:
        """The values that turn it into `text`; None if none do."""
        if not self.nouns:
            return [] if text in self.pieces[0] else None
        start = next((p for p in self.pieces[0] if text.startswith(p)), None)
        end = next((p for p in self.pieces[-1] if text.endswith(p)), None)
        if start is None or end is None or len(start) + len(end) > len(text):
            return None
        inside = text[len(start) : len(text) - len(end)]
        found = self._split(inside)
        if found is None or all(map(_is_balanced, found)):
            return found
        # A name with brackets of its own, such as "beat (1).wav", before a piece with one.
        from_end = self._split(inside, from_end=True)
        return from_end if from_end is not None and all(map(_is_balanced, from_end)) else found

    def _split(self, text: str, *, from_end: bool = False) -> list[str] | None:
        """The values, each piece between them at its first place, or last if `from_end`."""
        between = self.pieces[1:-1][:: -1 if from_end else 1]
        values = []
        for wordings in between:
            # One wording may begin another: the longer goes first.
            places = [
                (text.rfind(w) if from_end else text.find(w), len(w)) for w in wordings if w in text
            ]
            if not places:
                return None
            if from_end:
                at, length = max(places, key=lambda place: (place[0] + place[1], place[1]))
                value, text = text[at + length :], text[:at]
            else:
                at, length = min(places, key=lambda place: (place[0], -place[1]))
                value, text = text[:at], text[at + length :]
            values.append(value)
        values = [*values, text][:: -1 if from_end else 1]
        if any(n and not is_counted(v, n) for v, n in zip(values, self.nouns, strict=True)):
            return None
        return values


def _is_balanced(value: str) -> bool:
    """Whether every opened bracket is closed, and none before."""
    depths = itertools.accumulate((letter == "(") - (letter == ")") for letter in value)
    depth = 0
    for depth in depths:
        if depth < 0:
            return False
    return depth == 0


def _wordings(piece: str) -> tuple[str, ...]:
    parts = _CHOICE.split(piece)
    choices = [p.split("|") if i % 2 else [p] for i, p in enumerate(parts)]
    return tuple("".join(chosen) for chosen in itertools.product(*choices))


def _whole_words(piece: str, *, opens: bool, closes: bool) -> list[str]:
    if opens:
        piece = re.sub(r"^\w+", "", piece)
    return words_of(re.sub(r"\w+$", "", piece) if closes else piece)


def is_counted(text: str, noun: str) -> bool:
    """Whether a text is a number with this noun."""
    number, _, rest = text.partition(" ")
    return rest in (noun, f"{noun}s") and _NUMBER.fullmatch(number) is not None


class Index:
    """Templates by the rarest word that all their texts have."""

    def __init__(self, texts: Iterable[str]) -> None:
        templates = [Template.of(text) for text in texts]
        rarity = Counter(word for t in templates for word in set(t.own_words))
        self._by_word: dict[str, list[Template]] = {}
        self._of_any: list[Template] = []
        for template in sorted(templates, key=lambda t: -t.weight):
            if own := template.own_words:
                rarest = min(own, key=lambda word: (rarity[word], word))
                self._by_word.setdefault(rarest, []).append(template)
            elif sum(len(wordings[0]) for wordings in template.pieces) >= LONG:
                self._of_any.append(template)

    def find(
        self, text: str, *, is_line: bool = False, is_known: Callable[[str], bool] = lambda _: False
    ) -> tuple[Template, list[str]] | None:
        """The heaviest template that fits a text, with its values.

        Args:
            is_line: whether the text is a whole line. A weak template comes before all others for
                lines that begin with its word, such as "Note: ...".
            is_known: whether a weak template may have this value; numbers, keys and file names are
                always allowed.
        """
        candidates = [t for word in set(words_of(text)) for t in self._by_word.get(word, ())]
        candidates += self._of_any

        def order(template: Template) -> tuple[bool, bool, bool, int]:
            begins = template.begins
            return not (is_line and begins), template.is_weak, not begins, -template.weight

        for template in sorted(candidates, key=order):
            values = template.values(text)
            if values is None:
                continue
            if not template.is_weak or template.pieces[0][0].startswith("--"):
                return template, values
            if is_line and template.begins:
                return template, values
            of_flag = values[0].startswith("--")
            if all(
                _PLAIN_VALUE.fullmatch(v) or (of_flag and _NAME.fullmatch(v)) or is_known(v)
                for v in values
            ):
                return template, values
        return None
