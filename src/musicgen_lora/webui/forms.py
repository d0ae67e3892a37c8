"""Forms built from the settings themselves: a new setting of a command appears on the page with its
help text, and none is described twice."""

from __future__ import annotations

import dataclasses
import re
import typing
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union

import yaml

from musicgen_lora.config import SETTINGS, GenerateSettings
from musicgen_lora.config_file import SettingsLoader
from musicgen_lora.errors import UserError
from musicgen_lora.generation.recordings.bar_grid import check_asked_bars
from musicgen_lora.generation.wanted import check_request
from musicgen_lora.given import check_given
from musicgen_lora.language.flags import default_of, described

OF_THE_PAGE = frozenset(
    {
        *("model_path", "base_model_path", "clap", "embeddings", "metadata_file", "from_tokens"),
        *("pack", "fsdp", "report_to", "ray", "allow_random_base", "resume", "prompts"),
        *("create_example", "num_samples", "compare", "from_captions", "variations", "change_at"),
        *("play", "stdout", "continue_at", "heard", "from_bar", "to_bar"),
    }
)
"""Settings that have fields of their own on the page, or that make no sense there."""
_BETWEEN = re.compile("[,，、]")
"""What people put between values, besides spaces."""


@dataclass(frozen=True)
class Setting:
    """A setting as a form shows it.

    Args:
        options: the words it accepts, if it accepts only certain words.
    """

    name: str
    help: str
    default: Any
    options: tuple[str, ...] = ()
    is_switch: bool = False

    @property
    def shown(self) -> Any:
        """The default as a form field holds it."""
        if self.is_switch or self.options:
            return self.default
        return "" if self.default in (None, []) else written(self.default)


def form_of(command: str, without: frozenset[str] = frozenset()) -> list[Setting]:
    """The settings of a command that a form may ask for: all but paths."""
    found = SETTINGS[command]
    hints = typing.get_type_hints(found, include_extras=False)
    helps = described(found)
    form = []
    for field in dataclasses.fields(found):
        if field.name in OF_THE_PAGE | without or Path in _parts(hints[field.name]):
            continue
        form.append(
            Setting(
                field.name,
                helps.get(field.name, ""),
                default_of(field),
                _options(hints[field.name]),
                hints[field.name] is bool,
            )
        )
    return form


def changed(form: list[Setting], values: typing.Sequence[Any]) -> dict[str, Any]:
    """The settings of a form that were changed, as in YAML.

    Raises:
        UserError: a field holds an invalid value.
    """
    found = {}
    for setting, value in zip(form, values, strict=True):
        if value == setting.shown:
            continue
        if not (setting.is_switch or setting.options):
            value = _value(setting, str(value))
        found[setting.name] = value
    return found


def check(command: str, values: dict[str, Any]) -> None:
    """Checks whether a command would accept these settings, with its own error messages.

    Raises:
        UserError: it would not.
    """
    settings = SETTINGS[command](**values)
    check_given(settings)
    if isinstance(settings, GenerateSettings):
        check_request(settings)
        check_asked_bars(settings)


def written(value: Any) -> str:
    """A value as one would write it in a settings file, on one line."""
    if isinstance(value, str):
        return value
    return (
        yaml.safe_dump(value, default_flow_style=True, allow_unicode=True).split("\n...")[0].strip()
    )


def _value(setting: Setting, text: str) -> Any:
    if isinstance(setting.default, str):
        return text
    if not text.strip():
        return [] if isinstance(setting.default, list) else None
    try:
        value = yaml.load(text[:1000], SettingsLoader)
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{setting.name} = {text[:80]!r}: is not a valid value.") from error
    # No such field is a switch: true would be taken for 1. YAML reads 1e-4 as text.
    if isinstance(value, bool):
        return text
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            if isinstance(setting.default, list):
                value = _BETWEEN.sub(" ", value).split()
    return [value] if isinstance(setting.default, list) and not isinstance(value, list) else value


def _options(hint: Any) -> tuple[str, ...]:
    """The words of a `Literal`; none if other values are allowed too."""
    parts = typing.get_args(hint) if typing.get_origin(hint) in (Union, UnionType) else (hint,)
    words: list[str] = []
    for part in parts:
        if typing.get_origin(part) is Literal:
            words += typing.get_args(part)
        elif part is not type(None):
            return ()
    return tuple(words)


def _parts(hint: Any) -> set[Any]:
    if typing.get_origin(hint) is Annotated:
        hint = typing.get_args(hint)[0]
    return {hint, *typing.get_args(hint)}
