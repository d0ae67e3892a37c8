"""What docs/scale.md says to run."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "scale.md"


def blocks(language: str) -> list[str]:
    """What stands in the page's blocks of a language, with broken lines joined."""
    found = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return [block.replace("\\\n", " ") for block in found]


def slurm_script() -> str:
    """The one for SLURM."""
    (script,) = (block for block in blocks("sh") if "#SBATCH" in block)
    return script


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    """A text in which each of some words, which it must have, is another."""
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text
