"""CSV from elsewhere: any separator that spreadsheets write, every row with its line number."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from musicgen_lora.errors import UserError

_BEFORE = re.compile(r"[\r\n]*(?:sep=(?P<separator>[,;\t|])[\r\n]+)?")
"""What may stand before the header: empty lines, and the line that tells Excel the separator."""


def csv_rows(
    text: str, path: Path, folded: Callable[[str], str]
) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of a table with a header, separated by commas, semicolons or tabs. Spreadsheets leave
    rows without a cell, and empty cells beyond the last column; both are passed over.

    Args:
        path: the file's path, for messages.
        folded: normalises a column name, to find duplicates.

    Yields:
        The position of a row ("prompts.csv, line 3"), and its cells by column; None for cells that
        the row lacks.

    Raises:
        UserError: not valid CSV, a duplicate column, or more cells than columns.
    """
    begin = _BEFORE.match(text)
    assert begin is not None
    n_before = text.count("\n", 0, begin.end())
    text = text[begin.end() :]
    header = text.split("\n", 1)[0]
    delimiter = begin["separator"] or max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns: list[str] = []
    while True:
        # A quoted caption may span lines; a row is named by its first.
        where = f"{path}, line {n_before + reader.line_num + 1}"
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise UserError(f"{where}: not valid CSV ({error}).") from error
        if cells is None:
            return
        if not any(cell.strip() for cell in cells):
            continue
        if not columns:
            _check_header(cells, where, folded)
            columns = cells
            continue
        while len(cells) > len(columns) and not cells[-1].strip():
            cells.pop()
        if len(cells) > len(columns):
            raise UserError(
                f"{where}: more columns than the header; put texts with {delimiter!r} in quotes."
            )
        yield where, dict(itertools.zip_longest(columns, cells))


def _check_header(names: list[str], where: str, folded: Callable[[str], str]) -> None:
    """Refuses two columns with the same name, of which the first would be lost.

    Raises:
        UserError: there are two.
    """
    known = [folded(name) for name in names]
    twice = [name for name, fold in zip(names, known, strict=True) if known.count(fold) > 1]
    if any(name.strip() for name in twice):
        raise UserError(f"{where}: the column {twice[0].strip()!r} occurs twice; rename one.")
