"""What the documents name exists: files, headings that links lead to, flags."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from musicgen_lora.config import SETTINGS

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "musicgen_lora"
DOCUMENTS = [
    "README.md",
    "README.zh-CN.md",
    "CONTRIBUTING.md",
    "finetune/lora/README.md",
    "finetune/lora/README.zh-CN.md",
    *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").glob("*.md"))),
]
OF_ANY_COMMAND = {"config", "debug", "help", "language"}
OF_OTHER_PROGRAMS = {
    *("exclude", "local_dir", "model", "index_url", "no_deps"),  # hf, modelscope, pip
    *("nproc_per_node", "num_processes"),  # torchrun, accelerate
    "out_dir",  # benchmarks/gpu.py
}


def headings(path: Path) -> set[str]:
    """The anchor of each heading, after the `#` of a link, as GitHub forms it."""
    titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_file_that_is_named_is_there(name: str) -> None:
    path = ROOT / name
    text = path.read_text(encoding="utf-8")
    named = re.findall(r"`((?:[\w-]+/)*[\w-]+\.(?:py|js|toml|po))`", text)
    for file in named:
        assert any((folder / file).is_file() for folder in (ROOT, SOURCE, path.parent)), file
    assert named or name.startswith("docs/")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_somewhere(name: str) -> None:
    path = ROOT / name
    for place, heading in re.findall(
        r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", path.read_text(encoding="utf-8")
    ):
        target = path.parent / place if place else path
        assert target.exists(), place
        assert not heading or heading in headings(target), (place, heading)


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if "README" in name])
def test_every_flag_that_is_named_is_one(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    fields = {
        command: {field.name for field in dataclasses.fields(settings)}
        for command, settings in SETTINGS.items()
    }
    known = set().union(OF_ANY_COMMAND, OF_OTHER_PROGRAMS, *fields.values())
    flags = re.findall(r"(?<![\w-])--([a-z][\w-]*)", text)
    assert {flag.replace("-", "_") for flag in flags} - known == set()
    for command, line in re.findall(
        r"^musicgen-lora (\w+)(.*)$", text.replace("\\\n", " "), re.MULTILINE
    ):
        given = {flag.replace("-", "_") for flag in re.findall(r"(?<!\S)--([a-z][\w-]*)", line)}
        assert given - OF_ANY_COMMAND - fields.get(command, set()) == set(), (command, line)
