"""The help of a command's flags in the user's language."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import inspect
import io
import itertools
import re
import sys
import textwrap
import typing
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import tyro
from rich.cells import cell_len, set_cell_size

from musicgen_lora.language.choice import chosen_language
from musicgen_lora.language.translate import word

_PARTS = re.compile(r"^ +|[\u4e00-\u9fff“（]+?[，。；：:、）”]* *|[^\u4e00-\u9fff\s“（]+ *|.")
"""Where a line may be broken: after a Chinese character and its punctuation, and after a word."""
_TOLD_DEFAULT = re.compile(r" ?\(default: ([^)]*)\)|（默认：([^）]*)）")
TYROS_WORDS = ("usage:", "options", "show this help message and exit", "(default:")


def field_docs(node: ast.stmt) -> dict[str, str]:
    """What a parsed class says of each field, in the string below it."""
    body = node.body if isinstance(node, ast.ClassDef) else []
    found = {}
    for field, below in itertools.pairwise(body):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            found[field.target.id] = " ".join(str(below.value.value).split())
    return found


def described(settings: type[Any]) -> dict[str, str]:
    """The same for a settings class and its base classes."""
    found: dict[str, str] = {}
    for base in reversed(settings.__mro__):
        if dataclasses.is_dataclass(base):
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
            found |= field_docs(tree.body[0])
    return found


def with_help(part: Any) -> Any:
    """A group of settings as tyro should show it: each field with its description, in the user's
    language, and with one default."""
    texts = described(type(part))
    hints = typing.get_type_hints(type(part), include_extras=True)
    fields: list[tuple[str, Any]] = []
    for field in dataclasses.fields(part):
        text, default = _parted(word(texts.get(field.name, "")))
        if getattr(part, field.name) != default_of(field):
            default = ""
        elif not default and default_of(field) == []:
            default = word("none")
        shown = tyro.conf.arg(help=text, help_behavior_hint=_behind(default))
        fields.append((field.name, Annotated[hints[field.name], shown]))
    made = dataclasses.make_dataclass(type(part).__name__, fields)
    return made(**{name: getattr(part, name) for name, _ in fields})


def _parted(text: str) -> tuple[str, str]:
    """What a field does, and its default if that is given in words, else empty."""
    found = _TOLD_DEFAULT.search(text)
    return (
        (text[: found.start()] + text[found.end() :], found[1] or found[2]) if found else (text, "")
    )


def default_of(field: dataclasses.Field[Any]) -> Any:
    """The default of a setting; a factory makes a new one."""
    factory = field.default_factory
    return field.default if factory is dataclasses.MISSING else factory()


def _behind(default: str) -> Callable[[str], str]:
    """What follows a field's text: its default in words, or else the value."""
    return lambda value: f"(default: {default or value})"


@contextlib.contextmanager
def spoken_help() -> Iterator[None]:
    """Translates help that tyro prints in the block."""
    if chosen_language() == "en":
        yield
        return
    shown = io.StringIO()
    try:
        with contextlib.redirect_stdout(shown):
            yield
    finally:
        sys.stdout.write(laid_out(shown.getvalue()))


def laid_out(text: str) -> str:
    """What tyro printed, with its own words translated, in lines of the width that it meant: it
    counts a Chinese character as one column, and it takes two."""
    for own in TYROS_WORDS:
        text = text.replace(own, word(own))
    lines = text.splitlines()
    width = max((len(line) for line in lines if not line.strip("-─ ╭╮╰╯")), default=80)
    return "".join(f"{part}\n" for line in lines for part in _in_columns(line, width))


def _in_columns(line: str, width: int) -> list[str]:
    edge = "│" if line.startswith("│") else ""
    content = line.strip("│").rstrip()
    room = width - 2 * len(edge)
    # Flags come before two spaces, their help after.
    beside = re.match(r" *(-\S.*?  +)?", content)
    indent = " " * (beside.end() if beside else 0)
    lines, left = [], room
    for part in _PARTS.findall(content):
        if cell_len(part.rstrip()) > left and lines:
            lines[-1] = lines[-1].rstrip()
            lines.append(indent)
            left = room - len(indent)
        lines[-1:] = [f"{lines[-1] if lines else ''}{part}"]
        left -= cell_len(part)
    if not edge:
        return lines or [""]
    return [f"{edge}{set_cell_size(part, room)}{edge}" for part in lines or [""]]
