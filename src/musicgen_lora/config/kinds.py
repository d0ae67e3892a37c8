"""The types and ranges of settings."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, ValidationError

from musicgen_lora.errors import UserError
from musicgen_lora.formats.kinds import shortened
from musicgen_lora.misspelt import hint

T = TypeVar("T")

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, str_max_length=10_000)


def _not_tiny(temperature: float) -> float:
    """Refuse temperatures so small that the logits divided by them overflow."""
    if 0.0 < temperature < 0.001:
        raise ValueError("is too small; give 0 (greedy) or at least 0.001")
    return temperature


Positive = Annotated[int, Field(ge=1, le=10**9)]
Few = Annotated[int, Field(ge=1, le=10_000)]
"""A number of things held in memory at once."""
MAX_SEED = 2**63 - 1
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Seconds = Annotated[float, Field(gt=0.0, le=3600.0)]
Guidance = Annotated[float, Field(ge=1.0, le=1000.0)]
Temperature = Annotated[float, Field(ge=0.0, le=1000.0), AfterValidator(_not_tiny)]
TopK = Annotated[int, Field(ge=0, le=10**9)]


def at_home(given: str | Path) -> Path:
    """A path whose `~` is the home folder, as shells write it; a file may be called `~me`.

    Raises:
        UserError: a value from Python that is no path.
    """
    try:
        path = Path(given)
    except TypeError:
        raise UserError(f"{shortened(given)}: is not a path; give text or a Path.") from None
    return path.expanduser() if path.parts[:1] == ("~",) else path


def base_at_home(path: str) -> str:
    """The same of a base, which may also be a hub id."""
    return str(at_home(path)) if path.startswith("~") else path


def _as_text(value: Any) -> Any:
    """A folder's path as text: from Python, it may be given as a Path."""
    return str(value) if isinstance(value, Path) else value


Place = Annotated[Path, AfterValidator(at_home)]
"""A file or folder."""
Base = Annotated[str, BeforeValidator(_as_text), AfterValidator(base_at_home)]
"""A base's folder or hub id."""


def _several(value: Any) -> Any:
    """Wrap a single value in a list: in a settings file one adapter needs no brackets."""
    if value is None:
        return []
    return value if isinstance(value, list | tuple) else [value]


Adapters = Annotated[list[Place], BeforeValidator(_several)]
"""Adapter folders."""
Strengths = Annotated[list[Annotated[float, Field(ge=0.0, le=2.0)]], BeforeValidator(_several)]
"""Strengths of adapters, in the adapters' order."""
DecodingPrecision = Literal["auto", "fp32", "fp16", "bf16", "int8"]
SoundFormat = Literal["wav", "wav24", "wav_float", "flac", "ogg", "mp3"]
AskedFormat = Literal["auto", SoundFormat]


def with_point(given: object) -> str:
    """A number with a decimal comma, with a point instead; "" for anything else."""
    found = re.fullmatch(r"\s*([-+]?\d+),(\d+)\s*", given) if isinstance(given, str) else None
    return f"{found[1]}.{found[2]}" if found else ""


def explained(error: ValidationError) -> str:
    """Return what pydantic found, in one line."""
    first = error.errors(include_url=False)[0]
    # The value shown says which item of a list it is; its index is left out.
    name = ".".join(part[:60] for part in first["loc"] if isinstance(part, str))
    given = first.get("input")
    shown = shortened(given)
    if first["type"] in ("string_type", "path_type") and isinstance(given, int | float | date):
        # YAML reads 808 as a number.
        return f"{name} = {shown}: must be text; put it in quotes."
    if first["type"] == "list_type" and isinstance(given, str):
        return f"{name} = {shown}: must be a list; put it in brackets."
    if first["type"] == "float_parsing" and (point := with_point(given)):
        return f"{name} = {shown}: must be a number; write a point: {point}."
    if first["type"] == "string_unicode":
        return (
            f"{name} = {shown}: is not UTF-8; type it again in UTF-8, or set PYTHONUTF8=1 if the "
            "locale is not UTF-8."
        )
    # What our own validators raise.
    said = first.get("ctx", {}).get("error", first["msg"])
    return f"{name} = {shown}: {str(said)[:200]}."


def settings_of_command(made: type[T]) -> type[T]:
    """Decorates the settings of a command: made from Python too, they are refused in one line, as
    a UserError that names the setting."""
    make = made.__init__

    @functools.wraps(make)
    def __init__(self: Any, *args: Any, **values: Any) -> None:
        if args:
            raise UserError(f"{made.__name__}: give each setting by its name, name=value.")
        known = [field.name for field in dataclasses.fields(self)]
        for name in values:
            if name not in known:
                raise no_such_setting(name, known)
        try:
            make(self, **values)
        except ValidationError as error:
            raise UserError(explained(error)) from None

    made.__init__ = __init__
    return made


def no_such_setting(name: str, known: Sequence[str]) -> UserError:
    """The error for a setting's name that is unknown."""
    return UserError(f"{name}: no such setting; {hint(name, sorted(known))}")
