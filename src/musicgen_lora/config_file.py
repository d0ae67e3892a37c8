"""The YAML file that settings are read from: bounded, every key once, each fault in one line."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from musicgen_lora.config import SETTINGS
from musicgen_lora.errors import UserError
from musicgen_lora.formats.documents import read_bytes
from musicgen_lora.formats.kinds import shortened
from musicgen_lora.misspelt import hint
from musicgen_lora.urls import as_list

MAX_BYTES = 256 << 10


_BOOL, _INT = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:int"


class SettingsLoader(yaml.SafeLoader):
    """PyYAML silently keeps the last of duplicate keys, and aliases of aliases of lists turn ten
    lines into millions of values; both are refused in a settings file. By YAML 1.1 it reads 010 as
    8, 1:30 as 90 and off as false; here, as in YAML 1.2, they are what is written."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        is_alias, mark = self.check_event(yaml.AliasEvent), self.peek_event().start_mark
        node = super().compose_node(parent, index)
        if is_alias and not isinstance(node, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(
                None, None, "an alias must stand for a single value; write the list out", mark
            )
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            try:
                is_known = key in names
                names.add(key)
            except TypeError as error:
                raise yaml.constructor.ConstructorError(
                    None, None, "a name must be a word", key_node.start_mark
                ) from error
            if is_known:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{shortened(key)} is set twice", key_node.start_mark
                )
        return super().construct_mapping(node, deep)


SettingsLoader.yaml_implicit_resolvers = {
    letter: [(tag, form) for tag, form in forms if tag not in (_BOOL, _INT)]
    for letter, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
SettingsLoader.add_implicit_resolver(
    _BOOL, re.compile("(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
SettingsLoader.add_implicit_resolver(
    _INT, re.compile("[-+]?(0|[1-9][0-9]*)$"), list("-+0123456789")
)

_UNUSABLE = (
    yaml.YAMLError,
    # What PyYAML raises for !!int x, 2001-99-99, !!bool x and ten thousand brackets.
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


def read_config(path: Path, command: str) -> dict[str, Any]:
    """The section of a YAML file that belongs to a command.

    Raises:
        UserError: no such file, not YAML, or a section or setting that does not exist.
    """
    try:
        content = yaml.load(_text(path), SettingsLoader) or {}
    except _UNUSABLE as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{path}: not valid YAML ({reason}).") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: must have a section for each command ({', '.join(SETTINGS)}).")
    names = [field.name for field in dataclasses.fields(SETTINGS[command])]
    for section in content:
        if section in names:
            raise UserError(
                f"{path}: {section!r} is a setting of {command}: write {command}: above it, and "
                "indent it."
            )
        if (word := _word(section)) not in SETTINGS:
            raise UserError(f"{path}: section {word!r} is unknown; {hint(word, SETTINGS)}")
    section = content.get(command) or {}
    if not isinstance(section, dict):
        raise UserError(f"{path}: section {command!r} must be a list of settings, name: value.")
    for name in section:
        if (word := _word(name)) not in names:
            raise UserError(f"{path}: {command} setting {word!r} is unknown; {hint(word, names)}")
    return section


def _text(path: Path) -> str:
    data = read_bytes(path, MAX_BYTES)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8; save it as UTF-8.") from error


def check_given_values(path: Path, given: Mapping[str, Any], taken: Mapping[str, Any]) -> None:
    """Checks a section against the settings made from it.

    Raises:
        UserError: a boolean was taken for 1 or 0, or empty text for the current folder.
    """
    for name, value in given.items():
        for one, made in zip(as_list(value), as_list(taken[name]), strict=False):
            if isinstance(one, bool) and type(made) in (int, float):
                raise UserError(f"{path}: {name} = {shortened(value)}: must be a number.")
            if one == "" and isinstance(made, Path):
                raise UserError(
                    f"{path}: {name} is empty; name a folder or file (. is the current folder)."
                )


def _word(key: object) -> str:
    return (key if isinstance(key, str) else shortened(key))[:60]
