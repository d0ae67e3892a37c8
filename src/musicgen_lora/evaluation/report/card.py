"""Puts what was measured into the model card that lies beside the adapter.

A card of before the evaluation tells of training's own figures alone, and is what people read. The
section stands between two marks and is replaced by the next evaluation; all else in the file may be
the user's own words and stays, to the byte.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from musicgen_lora import atomic
from musicgen_lora.atomic import CARD_FILE
from musicgen_lora.errors import RunError, UserError
from musicgen_lora.evaluation.variants import Variant
from musicgen_lora.model.lora.adapter import read_adapter
from musicgen_lora.model.lora.card import EXAMPLES
from musicgen_lora.model.lora.evaluated import evaluation_section
from musicgen_lora.model.lora.facts import FACTS_FILE

BEGIN = "<!-- musicgen-lora evaluate: begin (the next evaluation replaces this part) -->"
END = "<!-- musicgen-lora evaluate: end -->"
MAX_BYTES = 1 << 20


def tell_cards(variants: Sequence[Variant], report: Mapping[str, Any], console: Console) -> None:
    """Writes each adapter's figures into its own card, and says so, or why not."""
    for own, figures in _measured(variants, report):
        path = own.files.folder / CARD_FILE
        why = ""
        if own.strength != 1.0:
            why = f"its figures are at strength {own.strength:g}"
        try:
            why = why or _write(own, evaluation_section(figures))
        except OSError as error:
            why = f"it cannot be written ({error.strerror})"
        except RunError as error:
            why = str(error).removeprefix(f"{path}: ").rstrip(".")
        if why:
            console.print(f"{path}: left as it is: {why}.", style="yellow")
        else:
            console.print(f"{path}: its evaluation section is of this report now.")


def _measured(
    variants: Sequence[Variant], report: Mapping[str, Any]
) -> Iterator[tuple[Variant, Mapping[str, Any]]]:
    if not report["variants"]:
        yield variants[0], report
    for own, row in zip(variants, report["variants"], strict=False):
        yield own, {**report, **row, "adapter": row}


def _write(own: Variant, section: str) -> str:
    """Why it was not written; empty where it was."""
    folder = own.files.folder
    path = folder / CARD_FILE
    if not (folder / FACTS_FILE).is_file() or not path.is_file():
        return "summary.md has the section, and there is no card of a training here to put it into"
    if path.is_symlink() or path.stat().st_size > MAX_BYTES:
        return "it is a link or far too long; summary.md has the section"
    try:
        if read_adapter(folder).fingerprint != own.files.fingerprint:
            return "the adapter beside it is another one by now"
        card = path.read_bytes().decode("utf-8")
    except UserError as error:
        return str(error).rstrip(".")
    except UnicodeDecodeError:
        return "it is not UTF-8; summary.md has the section"
    told = put_in(card, section)
    if told is None:
        return (
            "of the marks of the section one is missing or there are several; delete what is left "
            "of them"
        )

    def write(temporary: Path) -> None:
        temporary.write_bytes(told.encode("utf-8"))
        shutil.copymode(path, temporary)

    atomic.write_file(path, write)
    return ""


def put_in(card: str, section: str) -> str | None:
    """The card with the section between its marks: where it stood, or else before the examples of a
    card of ours, or at the end; None where the marks are not a pair."""
    begins, ends = card.count(BEGIN), card.count(END)
    newline = "\r\n" if "\r\n" in card else "\n"
    block = newline.join([BEGIN, *section.rstrip("\n").split("\n"), END])
    if begins == ends == 0:
        at = card.find(f"{newline}{EXAMPLES}{newline}")
        if at >= 0:
            at += len(newline)
            return f"{card[:at]}{block}{newline}{newline}{card[at:]}"
        gap = "" if card.endswith(newline) else newline
        return f"{card}{gap}{newline}{block}{newline}"
    start, end = card.find(BEGIN), card.find(END)
    if begins != 1 or ends != 1 or end < start:
        return None
    return f"{card[:start]}{block}{card[end + len(END) :]}"
