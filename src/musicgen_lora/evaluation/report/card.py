"""Writes the evaluation's figures into the model card next to the adapter.

The card is what people read, and before an evaluation it has training's own figures only. The
section is enclosed in two markers and replaced by the next evaluation; the rest of the file may be
the user's own words and stays the same, byte for byte.
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
    """Write each adapter's figures into its own card, and print that, or the reason why not."""
    for own, figures in _measured(variants, report):
        path = own.files.folder / CARD_FILE
        why = ""
        if own.strength != 1.0:
            why = f"the adapter was measured at strength {own.strength:g}"
        try:
            why = why or _write(own, evaluation_section(figures))
        except OSError as error:
            why = f"it cannot be written ({error.strerror})"
        except RunError as error:
            why = str(error).removeprefix(f"{path}: ").rstrip(".")
        if why:
            console.print(f"{path}: not changed: {why}.", style="yellow")
        else:
            console.print(f"{path}: its evaluation section now has this report's figures.")


def _measured(
    variants: Sequence[Variant], report: Mapping[str, Any]
) -> Iterator[tuple[Variant, Mapping[str, Any]]]:
    if not report["variants"]:
        yield variants[0], report
    for own, row in zip(variants, report["variants"], strict=False):
        yield own, {**report, **row, "adapter": row}


def _write(own: Variant, section: str) -> str:
    """Return why it was not written; empty if it was."""
    folder = own.files.folder
    path = folder / CARD_FILE
    if not (folder / FACTS_FILE).is_file() or not path.is_file():
        return "there is no model card from training to put the section into; it is in summary.md"
    if path.is_symlink() or path.stat().st_size > MAX_BYTES:
        return "it is a symbolic link or far too large; the section is in summary.md"
    try:
        if read_adapter(folder).fingerprint != own.files.fingerprint:
            return "the adapter next to it has changed since"
        card = path.read_bytes().decode("utf-8")
    except UserError as error:
        return str(error).rstrip(".")
    except UnicodeDecodeError:
        return "it is not UTF-8; the section is in summary.md"
    told = put_in(card, section)
    if told is None:
        return (
            "one of the section's two markers is missing or there are several; delete the markers "
            "that are left"
        )

    def write(temporary: Path) -> None:
        temporary.write_bytes(told.encode("utf-8"))
        shutil.copymode(path, temporary)

    atomic.write_file(path, write)
    return ""


def put_in(card: str, section: str) -> str | None:
    """The card with the section between its markers: in its old place, else before the examples of
    a card written by training, else at the end; None if the markers are not a pair."""
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
