"""Some rows of a batch: those that attend to a text, those that guidance leads to or away from.

If they are equally spaced, as they mostly are, a slice reads and updates them in place; only others
are gathered and scattered, which takes a kernel each way.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


class Places:
    """Rows of a tensor.

    Args:
        rows: their indices, ascending.
        n_rows: rows of the whole tensor.
    """

    def __init__(self, rows: Sequence[int], n_rows: int, device: torch.device) -> None:
        self.count = len(rows)
        self._are_all = self.count == n_rows
        self._slice: slice | None = None
        distance = rows[1] - rows[0] if self.count > 1 else 1
        if self.count and list(rows) == list(range(rows[0], rows[-1] + 1, distance)):
            self._slice = slice(rows[0], rows[-1] + 1, distance)
        self._rows = torch.tensor(rows, dtype=torch.long, device=device)

    def of(self, x: torch.Tensor) -> torch.Tensor:
        """Those rows of `[R, ...]`; may be a view."""
        if self._are_all:
            return x
        return x.index_select(0, self._rows) if self._slice is None else x[self._slice]

    def add(self, x: torch.Tensor, more: torch.Tensor) -> None:
        """Adds to those rows of x, in place."""
        if self._are_all:
            x.add_(more)
        elif self._slice is None:
            x.index_add_(0, self._rows, more)
        else:
            x[self._slice].add_(more)
