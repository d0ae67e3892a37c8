"""Numbers with their nouns, as English has them."""

from __future__ import annotations

OF_ONE = {
    "are": "is",
    "have": "has",
    "go": "goes",
    "lose": "loses",
    "cancel": "cancels",
    "end": "ends",
}
"""Verbs with which sentences about files begin."""


def count(number: int, noun: str) -> str:
    """`1 source`, `2 sources`, `1,200 sources`."""
    return f"{number} {noun}" if number == 1 else f"{number:,} {noun}s"


def count_that(number: int, noun: str, told: str) -> str:
    """`2 files have their bass on one side`, `1 file has its bass on one side`.

    Args:
        told: the plural form; its first word is the verb.
    """
    if number == 1:
        verb, _, rest = told.partition(" ")
        told = f"{OF_ONE[verb]} {rest}".replace(" their ", " its ").strip()
    return f"{count(number, noun)} {told}"
