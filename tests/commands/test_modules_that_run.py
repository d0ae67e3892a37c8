"""If a makefile, a page or a message says `python -m a.b`, that module does something: one without
a main part would exit with 0 having done nothing."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"-m\s+((?:pretraining|musicgen_lora|benchmarks|tools)(?:\.\w+)+)")
READ = {".md", ".py", ".toml", ".sh", ".yaml", ".yml", ""}


def named_modules() -> dict[str, list[str]]:
    """Module, and the files that say how to run it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    found: dict[str, list[str]] = {}
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if path.suffix in READ and path.is_file():
            text = path.read_bytes().decode("utf-8", errors="ignore")
            for module in NAMED.findall(text):
                found.setdefault(module, []).append(name)
    return found


def runs(module: str) -> bool:
    """Whether `python -m module` has a main part."""
    place = ROOT / ("src" if module.startswith("musicgen_lora") else ".") / module.replace(".", "/")
    if (place / "__main__.py").is_file():
        return True
    file = place.with_suffix(".py")
    return file.is_file() and '__name__ == "__main__"' in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("module", sorted(named_modules()))
def test_a_module_that_is_said_to_run_does(module):
    assert runs(module), f"{named_modules()[module]} say python -m {module}"


def test_a_module_without_a_main_part_is_found_out():
    assert not runs("musicgen_lora.training.packed.train")
    assert not runs("musicgen_lora.nowhere")
