"""Base and adapter beside each other: whatever is measured of one is measured of the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Made = TypeVar("Made", covariant=True)
Other = TypeVar("Other")


@dataclass(frozen=True)
class Compared(Generic[Made]):
    """What was made with the same prompts, or found of it."""

    base: Made | None
    """None without a comparison."""
    adapter: Made

    def each(self, find: Callable[[Made], Other]) -> Compared[Other]:
        """What is found of both."""
        return Compared(None if self.base is None else find(self.base), find(self.adapter))
