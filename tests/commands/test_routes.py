"""What docs/architecture.md says about the code is true: folders, files, and routes of settings."""

from __future__ import annotations

import dataclasses
import importlib
import re
from pathlib import Path
from typing import Any

from musicgen_lora.config import SETTINGS

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "musicgen_lora"
ARCHITECTURE = ROOT / "docs" / "architecture.md"


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


def module_of(place: str) -> tuple[Path, str]:
    """The file of a place on a route, and the name there that the route goes through: the module's
    own if the place names no more."""
    parts = place.split(".")
    n = next(
        n
        for n in range(1, len(parts) + 1)
        if SOURCE.joinpath(*parts[:n]).with_suffix(".py").is_file()
    )
    return SOURCE.joinpath(*parts[:n]).with_suffix(".py"), parts[min(n, len(parts) - 1)]


def folders_and_files() -> tuple[set[str], set[str]]:
    """The packages, and the files beside them, that the overview lists."""
    text = ARCHITECTURE.read_text(encoding="utf-8")
    (overview,) = re.findall(r"^    src/musicgen_lora/\n((?:      .*\n)*)", text, re.MULTILINE)
    folders, files, room = set(), set(), ""
    for line in overview.splitlines():
        indent = len(line) - len(line.lstrip())
        for name in re.split(r"  +", line.strip())[0].split() if indent in (6, 8) else ():
            if name.endswith("/"):
                room = name if indent == 6 else room
                folders.add(name if indent == 6 else room + name)
            else:
                files.add(name)
    return folders, files


def resolve(place: str) -> Any:
    """A module of the package, or a name in it."""
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


def test_each_step_of_a_route_is_known_to_the_one_before_or_to_the_command() -> None:
    begins = {"train": "training/train.py", "generate": "generation/generate.py"}
    for command, settings, route in routes():
        known = (SOURCE / begins[command]).read_text(encoding="utf-8")
        for number, place in enumerate(re.findall(r"`([\w.]+)`", route)):
            path, name = module_of(place)
            assert number == 0 or re.search(rf"\b{name}\b", known), (settings, place)
            known += path.read_text(encoding="utf-8")


def test_the_overview_lists_all_folders_and_the_files_beside_them() -> None:
    folders, files = folders_and_files()
    packages = {
        f"{path.parent.relative_to(SOURCE).as_posix()}/"
        for path in SOURCE.rglob("*.py")
        if path.parent != SOURCE
    }
    assert folders == packages | {"assets/"}
    assert files == {path.name for path in SOURCE.glob("*.py")} - {"__init__.py"}
