"""CSV from elsewhere: any separator that spreadsheets write, every row with its line number."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path

from musicgen_lora.errors import UserError


def csv_rows(
    text: str, path: Path, folded: Callable[[str], str]
) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of a table with a header, separated by commas, semicolons or tabs.

    Args:
        path: the file's path, for messages.
        folded: normalises a column name, to find duplicates.

    Yields:
        The position of a row ("prompts.csv, line 3"), and its cells by column; None for cells that
        the row lacks.

    Raises:
        UserError: not valid CSV, a duplicate column, or more cells than columns.
    """
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    while True:
        where = f"{path}, line {line}"
        try:
            if reader.fieldnames is None:
                return
            if line == 1:
                _check_header([str(name) for name in reader.fieldnames], where, folded)
            # A quoted caption may span lines; a row is named by its first.
            line = reader.line_num + 1
            where = f"{path}, line {line}"
            record = next(reader, None)
        except csv.Error as error:
            raise UserError(f"{where}: not valid CSV ({error}).") from error
        if record is None:
            return
        if None in record:
            raise UserError(
                f"{where}: more columns than the header; put texts with {delimiter!r} in quotes."
            )
        yield where, record


def _check_header(names: list[str], where: str, folded: Callable[[str], str]) -> None:
    """Refuses two columns with the same name, of which the first would be lost.

    Raises:
        UserError: there are two.
    """
    known = [folded(name) for name in names]
    twice = [name for name, fold in zip(names, known, strict=True) if known.count(fold) > 1]
    if any(name.strip() for name in twice):
        raise UserError(f"{where}: the column {twice[0].strip()!r} occurs twice; rename one.")
