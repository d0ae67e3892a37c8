"""Base and adapter side by side: whatever is measured for one is measured for the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Made = TypeVar("Made", covariant=True)
Other = TypeVar("Other")


@dataclass(frozen=True)
class Compared(Generic[Made]):
    """Clips generated from the same prompts, or results measured on them."""

    base: Made | None
    """None without a comparison."""
    adapter: Made

    def each(self, find: Callable[[Made], Other]) -> Compared[Other]:
        """Apply `find` to both sides."""
        return Compared(None if self.base is None else find(self.base), find(self.adapter))
