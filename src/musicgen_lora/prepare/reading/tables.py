"""Reads the rows of metadata files, with the line of each.

Formats: JSON, JSON lines (also gzipped), CSV and parquet. Sizes are bounded, even after
decompression, and every error names its file and line.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from musicgen_lora.errors import UserError
from musicgen_lora.formats import documents
from musicgen_lora.formats.csv_tables import csv_rows
from musicgen_lora.formats.encodings import decode_text
from musicgen_lora.prepare.reading.fields import field_name
from musicgen_lora.prepare.reading.parquet import parquet_rows
from musicgen_lora.prepare.reading.remarks import ENCODING, Remarks

MAX_FILE_BYTES = 256 << 20
MAX_LINE_BYTES = 1 << 20
MAX_TEXT_BYTES = 64 << 10
Row = tuple[str, dict[str, Any]]
"""A row's location ("metadata.csv, line 3") and its fields."""


def read_rows(path: Path, remarks: Remarks) -> Iterator[Row]:
    """The rows of a metadata file; its extension gives the format.

    Raises:
        UserError: not readable, too large, or a row that is not an object.
    """
    suffix = path.suffix.lower()
    if suffix == ".json":
        return _json_rows(path, remarks)
    if suffix == ".csv":
        return csv_rows(read_text(path, remarks, MAX_FILE_BYTES), path, field_name)
    if suffix == ".parquet":
        return parquet_rows(path)
    return _jsonl_rows(path, remarks)


def read_text(path: Path, remarks: Remarks, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """A text file in one of the encodings of `decode_text`.

    Raises:
        UserError: too large, or not text; the message names the line.
    """
    return _decoded(documents.read_bytes(path, max_bytes), path, remarks)


def _decoded(data: bytes, path: Path, remarks: Remarks, line: int | None = None) -> str:
    """The text of a file, or of one line of it."""
    try:
        text, guessed = decode_text(data)
    except UnicodeDecodeError as error:
        line = line or data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8; save it as UTF-8.") from error
    if guessed is not None:
        remarks.add(ENCODING, f"{path}: read as {guessed}")
    return text


def read_json_table(path: Path, remarks: Remarks) -> Any:
    """The value in a JSON file.

    Raises:
        UserError: too large, not JSON, or a duplicate key; the message names the line.
    """
    return _parse_json(read_text(path, remarks, MAX_FILE_BYTES), path, 1)


def _parse_json(text: str, path: Path, first_line: int) -> Any:
    return documents.parse_json(text, path, first_line=first_line, is_table=True, unique_keys=True)


def _json_rows(path: Path, remarks: Remarks) -> Iterator[Row]:
    """Rows from a list of objects; from an object that maps paths to captions, lists of captions or
    objects; or from ACE-Step's dataset, an object with the list under "samples"."""
    content = read_json_table(path, remarks)
    if is_acestep(content):
        content = content["samples"]
    if isinstance(content, list):
        for number, record in enumerate(content, 1):
            where = f"{path}, entry {number}"
            if not isinstance(record, dict):
                raise UserError(
                    f'{where}: must be an object such as {{"audio": ..., "text": ...}}.'
                )
            yield where, record
        return
    if not isinstance(content, dict):
        raise UserError(f'{path}: must be a list of objects like {{"audio": ..., "text": ...}}.')
    for name, value in content.items():
        where = f"{path}, entry {name!r}"
        if isinstance(value, (str, list)):
            value = {"text": value}
        if not isinstance(value, dict):
            raise UserError(f'{where}: must be a caption or an object such as {{"text": ...}}.')
        yield where, {"file_name": name} | value


def is_acestep(content: object) -> bool:
    """Whether a value is a dataset saved by ACE-Step's dataset builder."""
    return (
        isinstance(content, dict)
        and isinstance(content.get("samples"), list)
        and isinstance(content.get("metadata", {}), dict)
        and all(isinstance(sample, dict) for sample in content["samples"])
    )


def _jsonl_rows(path: Path, remarks: Remarks) -> Iterator[Row]:
    read_bytes = 0
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else open(path, "rb") as opened:
            file = cast(BinaryIO, opened)
            number = 0
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                where = f"{path}, line {number}"
                read_bytes += len(line)
                if len(line) > MAX_LINE_BYTES or read_bytes > MAX_FILE_BYTES:
                    raise UserError(f"{where}: too long for a line of metadata.")
                text = _decoded(line, path, remarks, number)
                if not text.strip():
                    continue
                record = _parse_json(text, path, number)
                if not isinstance(record, dict):
                    raise UserError(f"{where}: must be an object.")
                yield where, record
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({error}).") from error
