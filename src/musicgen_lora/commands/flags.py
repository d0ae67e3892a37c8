"""From command-line words to settings: flags win over a file, a file over the defaults."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import ValidationError

from musicgen_lora.commands.wrong_flags import flag_error
from musicgen_lora.config import SETTINGS, groups
from musicgen_lora.config.kinds import base_at_home, explained
from musicgen_lora.config_file import check_given_values, read_config
from musicgen_lora.errors import UserError, printable
from musicgen_lora.given import BASES
from musicgen_lora.language.flags import spoken_help, with_help
from musicgen_lora.language.translate import translated, word
from musicgen_lora.urls import places_in

_DASHES = "\u2013\u2014\u2015\u2212\uff0d"
"""En dash, em dash, horizontal bar, minus sign, full-width hyphen."""


def take_config(flags: Sequence[str], config: Path | None) -> tuple[list[str], Path | None]:
    """Takes `--config FILE` out of the flags; `config` if there is none."""
    # `--config=FILE` is `--config FILE`.
    left = [w for word in flags for w in re.split("(?<=^--config)=", word, maxsplit=1)]
    if left.count("--config") > 1:
        raise UserError("--config is given twice; put all settings into one file.")
    if "--config" in left:
        at = left.index("--config")
        if not (given := "".join(left[at + 1 : at + 2])):
            raise UserError("--config needs a file.")
        config = _as_shell("--config", Path(given))
        del left[at : at + 2]
    return left, config


def parse_settings(command: str, flags: Sequence[str], config: Path | None) -> Any:
    """Settings of a command from its flags, a file and the defaults, in this order.

    Raises:
        UserError: there is no such flag, a value is of the wrong type or out of range, or two
            conflict.
        SystemExit: help was asked for.
    """
    settings = SETTINGS[command]
    from_file = read_config(config, command) if config else {}
    try:
        parts = _parts(settings, from_file)
    except ValidationError as error:
        raise UserError(f"{config}: {explained(error)}") from error
    if config:
        check_given_values(config, from_file, _values(parts))
        if not from_file:
            _say_nothing_given(config, command)
    try:
        _check_dashes(list(_values(parts)), flags)
        _check_repeated(_values(parts), flags)
        flags, texts = _take_dashed_texts(settings, flags)
        parts = _parts(settings, _values(parts) | texts)
        # Rules between settings apply once file and flags have been merged.
        made = settings(**_values(_parse(command, parts, flags)))
    except ValidationError as error:
        raise UserError(explained(error)) from error
    _check_paths(made, flags)
    for name, value in vars(made).items():
        setattr(made, name, _as_shell(name, value))
    return made


def _say_nothing_given(config: Path, command: str) -> None:
    """To standard error: standard output may carry a clip."""
    if os.environ.get("RANK", "0") == "0":
        line = f"{config}: has no settings for {command}; flags and defaults apply."
        print(printable(translated(line)), file=sys.stderr, flush=True)


def _parts(settings: type, values: dict[str, Any]) -> dict[str, Any]:
    """The groups of a command's settings, each made from its own values."""
    parts = {}
    for name, group in groups(settings).items():
        own = {field.name for field in dataclasses.fields(group)}
        parts[name] = group(**{key: value for key, value in values.items() if key in own})
    return parts


def _values(parts: dict[str, Any]) -> dict[str, Any]:
    """The values of all groups by setting name."""
    return {
        field.name: getattr(part, field.name)
        for part in parts.values()
        for field in dataclasses.fields(part)
    }


def _parse(command: str, parts: dict[str, Any], flags: Sequence[str]) -> dict[str, Any]:
    """The groups with the flags applied.

    Raises:
        ValidationError: a value is out of range.
        UserError: a flag is wrong.
        SystemExit: one asks for help.
    """
    if {"-h", "--help"} & set(flags):
        parts = {name: with_help(part) for name, part in parts.items()}
    # tyro prints a box of help for each field that is a dataclass; the flags are flat.
    fields = [
        (
            name,
            Annotated[type(part), tyro.conf.arg(help="")],
            dataclasses.field(default_factory=type(part)),
        )
        for name, part in parts.items()
    ]
    form = dataclasses.make_dataclass("Flags", fields)
    said = io.StringIO()
    try:
        # tyro catches pydantic's errors and prints them in a box of many lines, with a link.
        with contextlib.redirect_stderr(said), spoken_help():
            parsed = tyro.cli(
                form,
                default=form(**parts),
                args=list(flags),
                prog=f"musicgen-lora {command}",
                description=word(" ".join((SETTINGS[command].__doc__ or "").split())),
                use_underscores=True,
                config=(tyro.conf.OmitArgPrefixes,),
            )
    except SystemExit as stop:
        if (invalid := _behind(stop)) is not None:
            raise invalid from stop
        if stop.code:
            raise UserError(flag_error(said.getvalue(), list(_values(parts)))) from stop
        # After --help; its reader may be gone.
        sys.stdout.flush()
        raise
    return {name: getattr(parsed, name) for name in parts}


def _behind(error: BaseException) -> ValidationError | None:
    """The out-of-range value that led to an error."""
    before = error.__context__
    while before is not None and not isinstance(before, ValidationError):
        before = before.__context__
    return before


def _check_repeated(values: dict[str, Any], flags: Sequence[str]) -> None:
    """Raises a UserError if a flag of several values is given twice: tyro keeps only the last."""
    names = [_flag_name(word) for word in flags]
    for name, value in values.items():
        if isinstance(value, list) and names.count(name) > 1:
            raise UserError(f"--{name} is given twice; list all values after one: --{name} A B.")


def _check_dashes(names: Sequence[str], flags: Sequence[str]) -> None:
    """Raises a UserError for a flag with one hyphen, or with the dashes that word processors and
    Chinese keyboards make of two: after a list of texts it would be one of them, and played."""
    for flag in flags:
        found = re.fullmatch(rf"(?:-|[{_DASHES}]+)([A-Za-z][\w-]*)(=.*)?", flag, re.DOTALL)
        if found and (name := found[1].replace("-", "_")) in names:
            given = flag.partition("=")[0]
            raise UserError(f"{given}: a flag begins with two hyphens: --{name}.")


def _take_dashed_texts(
    settings: Any, flags: Sequence[str]
) -> tuple[list[str], dict[str, list[str]]]:
    """Takes lists of texts out of `flags` if one of the texts begins with a dash, as a prompt may:
    tyro would look for a flag of that name. Two dashes and a name are a flag."""
    left, texts = list(flags), {}
    for field in dataclasses.fields(settings):
        if field.type not in ("list[str]", list[str]):
            continue
        at = next((i for i, word in enumerate(left) if _flag_name(word) == field.name), None)
        if at is None or "=" in left[at]:
            continue
        end = next(
            (i for i, word in enumerate(left[at + 1 :], at + 1) if _flag_name(word)), len(left)
        )
        words = left[at + 1 : end]
        if any(word.startswith("-") for word in words):
            texts[field.name] = words
            del left[at:end]
    return left, texts


def _flag_name(word: str) -> str:
    """The setting that a flag names; empty for a word that isn't a flag."""
    found = re.fullmatch(r"--([A-Za-z][\w-]*)(=.*)?|(-h)", word, re.DOTALL)
    return (found[1] or found[3]).replace("-", "_") if found else ""


def _as_shell(name: str, value: Any) -> Any:
    """A setting's path with `~` and variables expanded, as a shell does except in a settings file
    and after `--flag=`: a folder of that literal name would be made.

    Raises:
        UserError: there is no such variable.
    """
    if isinstance(value, list):
        return [_as_shell(name, one) for one in value]
    is_place = isinstance(value, Path) or (isinstance(value, str) and name in BASES)
    given = str(value)
    if not is_place or ("$" in given and os.path.lexists(given)):
        return value
    place = base_at_home(os.path.expandvars(given))
    unset = re.search(r"(?<![^/])\$(\w+|\{\w+\})(?![^/])", place)
    if unset and not os.path.lexists(place[: unset.end()]):
        raise UserError(
            f"{name} = {given}: the variable {unset[0]} is not set; set it, or make a folder of "
            "that name first."
        )
    return value if place == given else type(value)(place)


def _empty_flags(flags: Sequence[str]) -> set[str]:
    """The settings whose flags are given empty text."""
    name, found = "", set()
    for given in flags:
        name = _flag_name(given) or name
        if not given or (_flag_name(given) and given.endswith("=")):
            found.add(name)
    return found


def _check_paths(settings: Any, flags: Sequence[str]) -> None:
    """Raises a UserError if a path is invalid, can't be written into a JSON file, or is an input
    path given twice: only the last would count."""
    empty, given = _empty_flags(flags), [_flag_name(word) for word in flags]
    for name, path in places_in(settings):
        if given.count(name) > 1 and name != "output_dir":
            raise UserError(f"--{name} is given twice but takes one value; run once for each.")
        if name in empty:
            raise UserError(f"--{name} is empty; name a folder or file (. is the current folder).")
        if "\0" in str(path):
            raise UserError(f"{name} = {path}: a path can't contain zero bytes.")
        try:
            str(path).encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"{name} = {path}: is not UTF-8; rename it, or set PYTHONUTF8=1 if the locale is "
                "not UTF-8."
            ) from error
