"""The document's routes from a setting to where it acts name what is there."""

from __future__ import annotations

import dataclasses
import importlib
import re
from pathlib import Path
from typing import Any

from musicgen_lora.config import SETTINGS

ARCHITECTURE = Path(__file__).resolve().parents[2] / "docs" / "architecture.md"


def routes() -> list[tuple[str, list[str], str]]:
    """Command, settings and route of each row."""
    text = ARCHITECTURE.read_text(encoding="utf-8")
    rows = []
    for command, table in re.findall(
        r"^\| setting of `(\w+)` \| route \|\n\|[ -|]*\n((?:\|.*\n)*)", text, re.MULTILINE
    ):
        for settings, route in re.findall(r"^\| (.*?) \| (.*) \|$", table, re.MULTILINE):
            rows.append((command, re.findall(r"`(\w+)`", settings), route))
    return rows


def resolve(place: str) -> Any:
    """A module of the package, or what it holds."""
    parts = place.split(".")
    for n in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(["musicgen_lora", *parts[:n]]))
        except ModuleNotFoundError:
            continue
        for name in parts[n:]:
            found = getattr(found, name)
        return found
    raise AssertionError(f"{place}: no such module")


def test_every_setting_has_a_route_that_is_there_and_short() -> None:
    rows = routes()
    for command in ("train", "generate"):
        told = [name for at, settings, _ in rows if at == command for name in settings]
        known = [field.name for field in dataclasses.fields(SETTINGS[command])]
        assert sorted(told) == sorted(known)
    for _, _, route in rows:
        assert route.count("→") <= 2
        for place in re.findall(r"`([\w.]+)`", route):
            assert resolve(place) is not None
