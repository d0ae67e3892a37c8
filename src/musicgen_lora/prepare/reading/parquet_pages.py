"""How much a parquet file's pages really hold, whatever its footer says of them.

pyarrow decompresses a page whole, into as much memory as the page's own header asks for, and takes
the sizes in the footer for hints. So the headers are read here first: Thrift's compact protocol,
of which a page's header needs little: numbers, texts and structs (parquet.thrift, `PageHeader`).
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

MAX_DEPTH = 8
"""Of structs in structs; a page's header has three."""
MAX_PAGES = 100_000
"""Of a column in a row group; a page is a megabyte, mostly."""
TYPE, UNCOMPRESSED_SIZE, COMPRESSED_SIZE, DATA_PAGE, DATA_PAGE_V2 = 1, 2, 3, 5, 8
"""Fields of a page's header; the first one of a data page's own is its number of values."""
DICTIONARY_PAGE = 2
_STRUCT, _BINARY = 12, 8
_BOOLEANS, _NUMBERS = {1, 2}, {4, 5, 6}
_FIXED = {3: 1, 7: 8}


@dataclass(frozen=True)
class GroupSize:
    """Bytes of the wanted columns of a row group, decompressed.

    Args:
        n_bytes: of all pages.
        n_dictionary_bytes: of the largest dictionary, of which each row may repeat any part.
    """

    n_bytes: int
    n_dictionary_bytes: int


def group_sizes(path: Path, metadata: pq.FileMetaData, columns: set[str]) -> list[GroupSize]:
    """What the pages of each row group say of themselves.

    Args:
        path: the file.
        metadata: its footer.
        columns: names of the top-level columns that count.

    Raises:
        ValueError: a page's header that is none, a column that reaches beyond the file, or numbers
            of rows that contradict each other.
    """
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    n_rows = [group.num_rows for group in groups]
    if min(n_rows, default=0) < 0 or sum(n_rows) != metadata.num_rows:
        raise ValueError(f"its footer says {metadata.num_rows} rows, its row groups {n_rows[:4]}")
    sizes = []
    with (
        open(path, "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        for group in groups:
            n_bytes, n_dictionary_bytes = 0, 0
            for index in range(group.num_columns):
                column = group.column(index)
                if column.path_in_schema.split(".")[0] not in columns:
                    continue
                start = column.data_page_offset
                if column.has_dictionary_page and column.dictionary_page_offset > 0:
                    start = min(start, column.dictionary_page_offset)
                stop = start + column.total_compressed_size
                if not 0 < start <= stop <= len(data):
                    raise ValueError(f"column {column.path_in_schema!r} reaches beyond the file")
                n_values = 0
                for page in _pages(data, start, stop):
                    n_bytes += page.n_bytes
                    n_values += page.n_values
                    if page.kind == DICTIONARY_PAGE:
                        n_dictionary_bytes = max(n_dictionary_bytes, page.n_bytes)
                # A list has more values than rows, or as many where each is empty.
                if n_values != column.num_values or n_values < group.num_rows:
                    raise ValueError(
                        f"its footer says {group.num_rows} rows and {column.num_values} values, "
                        f"its pages hold {n_values}"
                    )
            sizes.append(GroupSize(n_bytes, n_dictionary_bytes))
    return sizes


@dataclass(frozen=True)
class _Page:
    """What a page's header says: its kind, its size decompressed, its values (0 in a dictionary),
    and from where to where it lies, without the header."""

    kind: int
    n_bytes: int
    n_values: int
    start: int
    stop: int


def _pages(data: mmap.mmap, at: int, stop: int) -> list[_Page]:
    """The pages from `at` to `stop`."""
    pages = []
    while at < stop:
        page = _read_page(data, at)
        if page.n_bytes < 0 or page.n_values < 0 or not at < page.start <= page.stop <= stop:
            raise ValueError("a page reaches beyond its column")
        at = page.stop
        pages.append(page)
        if len(pages) > MAX_PAGES:
            raise ValueError(f"a column has more than {MAX_PAGES} pages")
    return pages


def _read_page(data: mmap.mmap, at: int) -> _Page:
    found: dict[int, int] = {}
    n_values = 0
    try:
        field = 0
        while data[at]:
            field, kind, at = _read_field(data, at, field)
            if field in (TYPE, UNCOMPRESSED_SIZE, COMPRESSED_SIZE) and kind in _NUMBERS:
                found[field], at = _read_signed(data, at)
                continue
            if field in (DATA_PAGE, DATA_PAGE_V2) and kind == _STRUCT:
                _, _, inside = _read_field(data, at, 0)
                n_values = _read_signed(data, inside)[0]
            at = _skip(data, at, kind, MAX_DEPTH)
    except IndexError as error:
        raise ValueError("a page's header ends too early") from error
    if len(found) < 3:
        raise ValueError("a page has no header")
    start = at + 1
    return _Page(
        found[TYPE], found[UNCOMPRESSED_SIZE], n_values, start, start + found[COMPRESSED_SIZE]
    )


def _read_field(data: mmap.mmap, at: int, before: int) -> tuple[int, int, int]:
    """Number and type of a field, and where its value begins."""
    step, kind = data[at] >> 4, data[at] & 15
    if step:
        return before + step, kind, at + 1
    field, at = _read_signed(data, at + 1)
    return field, kind, at


def _read_signed(data: mmap.mmap, at: int) -> tuple[int, int]:
    value, at = _read_number(data, at)
    return (value >> 1) ^ -(value & 1), at


def _read_number(data: mmap.mmap, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while shift < 64:
        value |= (data[at] & 127) << shift
        if data[at] < 128:
            return value, at + 1
        at, shift = at + 1, shift + 7
    raise ValueError("a page's header has a number without end")


def _skip(data: mmap.mmap, at: int, kind: int, depth: int) -> int:
    """Where a value of a type ends."""
    if not depth:
        raise ValueError("a page's header is too deep")
    if kind in _BOOLEANS:
        return at
    if kind in _FIXED:
        return at + _FIXED[kind]
    if kind in _NUMBERS:
        return _read_number(data, at)[1]
    if kind == _BINARY:
        length, at = _read_number(data, at)
        return at + length
    if kind == _STRUCT:
        field = 0
        while data[at]:
            field, inner, at = _read_field(data, at, field)
            at = _skip(data, at, inner, depth - 1)
        return at + 1
    raise ValueError("a page's header has a field of no type")
