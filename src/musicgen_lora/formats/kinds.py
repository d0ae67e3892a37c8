"""Schemas for JSON values: small composable checks that say which part is wrong.

Settings go through pydantic; documents are also read where that is not installed, on machines that
only train.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from musicgen_lora.errors import UserError


class Wrong(ValueError):
    """A part that is wrong, by its path in the whole, and what it should be."""

    def __init__(self, part: str, value: object, wanted: str) -> None:
        super().__init__(f"{part} = {shortened(value)}: should be {wanted}".removeprefix(" = "))
        self.part, self.value, self.wanted = part, value, wanted


Kind = Callable[[Any], None]
"""Raises `Wrong` for a value that is not of the kind."""


def check_kind(value: Any, kind: Kind, where: str | Path) -> None:
    """Raises a UserError that names the first part of `value` that is not of the kind."""
    try:
        kind(value)
    except Wrong as error:
        raise UserError(f"{where}: {error}.") from error


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether it is a number; booleans are not, though Python counts them among the integers."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def integer(low: float, high: float) -> Kind:
    """A whole number within bounds."""
    return _holds(
        lambda v: type(v) is int and low <= v <= high, f"a whole number from {low:,} to {high:,}"
    )


def real(low: float, high: float) -> Kind:
    """A number within bounds, which NaN is not."""
    return _holds(
        lambda v: type(v) in (int, float) and low <= v <= high, f"a number from {low:,} to {high:,}"
    )


def text(max_length: int = 10_000) -> Kind:
    """A text of at most `max_length` characters."""
    return _holds(
        lambda v: isinstance(v, str) and len(v) <= max_length,
        f"text of at most {max_length:,} characters",
    )


def path_text() -> Kind:
    """A text that can name a file: the system refuses null bytes."""
    return _holds(
        lambda v: isinstance(v, str) and len(v) <= 4_096 and "\0" not in v,
        "the path of a file or folder",
    )


def one_of(*known: str) -> Kind:
    """One of these texts."""
    return _holds(lambda v: isinstance(v, str) and v in known, " or ".join(map(repr, known)))


def _holds(condition: Callable[[Any], bool], wanted: str) -> Kind:
    def check(value: Any) -> None:
        if not condition(value):
            raise Wrong("", value, wanted)

    return check


anything: Kind = _holds(lambda v: True, "")
truth: Kind = _holds(lambda v: isinstance(v, bool), "true or false")
nothing: Kind = _holds(lambda v: v is None, "null")


def either(*kinds: Kind) -> Kind:
    """A value of one of these kinds."""

    def check(value: Any) -> None:
        faults = []
        for kind in kinds:
            try:
                return kind(value)
            except Wrong as error:
                faults.append(error)
        # The kind that matched furthest explains best what is wrong.
        raise max(faults, key=lambda fault: fault.part.count(".") + bool(fault.part))

    return check


def or_null(kind: Kind) -> Kind:
    return either(kind, nothing)


def many(kind: Kind, at_least: int = 0, at_most: int = 10_000_000) -> Kind:
    """A list of values of a kind."""

    def check(value: Any) -> None:
        if not isinstance(value, list) or not at_least <= len(value) <= at_most:
            raise Wrong("", value, f"a list of {at_least:,} to {at_most:,} items")
        for index, item in enumerate(value):
            _within(str(index), kind, item)

    return check


def named(kind: Kind, name: Kind = anything) -> Kind:
    """An object whose values are of one kind, and whose keys of another."""

    def check(value: Any) -> None:
        if not isinstance(value, dict):
            raise Wrong("", value, "an object")
        for key, item in value.items():
            _within(key[:60], name, key)
            _within(key[:60], kind, item)

    return check


def fields(
    required: Mapping[str, Kind] | None = None, optional: Mapping[str, Kind] | None = None
) -> Kind:
    """An object with these fields, and any others."""
    needed, known = required or {}, {**(required or {}), **(optional or {})}

    def check(value: Any) -> None:
        if not isinstance(value, dict):
            raise Wrong("", value, "an object")
        for name in needed:
            if name not in value:
                raise Wrong(name, None, "there")
        for name, item in value.items():
            if name in known:
                _within(name, known[name], item)

    return check


def _within(part: str, kind: Kind, value: Any) -> None:
    try:
        kind(value)
    except Wrong as error:
        raise Wrong(f"{part}.{error.part}".rstrip("."), error.value, error.wanted) from error


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict = 2, 4, 4


def shortened(value: object) -> str:
    """A value's `repr`, cut to a few of its parts: a settings file of ten lines can expand to
    millions of values."""
    try:
        return _SHORT.repr(value)
    except ValueError:
        # Python doesn't print integers of more than 4,300 digits.
        return f"a {type(value).__name__}"
