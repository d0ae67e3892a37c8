"""Rows of metadata files, with the line that each stands in, and audio out of parquet.

Formats: JSON, JSON lines (also gzipped), CSV and parquet. Sizes are bounded, also after
decompression, and every fault names its file and line.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from musicgen_lora import atomic
from musicgen_lora.audio.files import AUDIO_EXTENSIONS, FFMPEG_EXTENSIONS, is_inside
from musicgen_lora.errors import UserError
from musicgen_lora.formats import documents
from musicgen_lora.prepare.reading.encodings import decode_text
from musicgen_lora.prepare.reading.fields import field_name
from musicgen_lora.prepare.reading.parquet_pages import group_sizes
from musicgen_lora.prepare.reading.remarks import ENCODING, Remarks

MAX_FILE_BYTES = 256 << 20
MAX_LINE_BYTES = 1 << 20
MAX_TEXT_BYTES = 64 << 10
MAX_AUDIO_BYTES = 256 << 20
MAX_ROW_GROUP_BYTES = 512 << 20
"""Of parquet with audio in it, which may be held in memory whole; Hugging Face writes 100 to
1,000 clips, up to 500 MB, in one."""
ROWS_PER_BATCH = 64
Row = tuple[str, dict[str, Any]]
"""Where it stands ("metadata.csv, line 3") and its fields."""


def read_rows(path: Path, remarks: Remarks) -> Iterator[Row]:
    """Rows of a metadata file; its name says the format.

    Args:
        path: the file.
        remarks: where a guessed encoding is said.

    Raises:
        UserError: not readable, too large, or a row that is no object.
    """
    suffix = path.suffix.lower()
    if suffix == ".json":
        return _json_rows(path, remarks)
    if suffix == ".csv":
        return _csv_rows(path, remarks)
    if suffix == ".parquet":
        return _parquet_rows(path)
    return _jsonl_rows(path, remarks)


def read_text(path: Path, remarks: Remarks, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """A text file in one of the encodings of `decode_text`.

    Raises:
        UserError: too large, or no text; the message names the line.
    """
    return _decoded(_read_bytes(path, max_bytes), path, remarks)


def _decoded(data: bytes, path: Path, remarks: Remarks, line: int | None = None) -> str:
    """Text of a file, or of one line of it."""
    try:
        text, guessed = decode_text(data)
    except UnicodeDecodeError as error:
        line = line or data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8; save it as UTF-8.") from error
    if guessed is not None:
        remarks.add(ENCODING, f"{path}: read as {guessed}")
    return text


def _read_bytes(path: Path, max_bytes: int) -> bytes:
    return documents.read_bytes(path, max_bytes)


def read_json(path: Path, remarks: Remarks) -> Any:
    """The value in a JSON file.

    Raises:
        UserError: too large, not JSON, or a key twice; the message names the line.
    """
    return _parse_json(read_text(path, remarks, MAX_FILE_BYTES), path, 1)


def _parse_json(text: str, path: Path, first_line: int) -> Any:
    return documents.parse_json(text, path, first_line=first_line, is_table=True, unique_keys=True)


def _json_rows(path: Path, remarks: Remarks) -> Iterator[Row]:
    """A list of objects, or an object by path of captions, lists of captions or objects; or
    ACE-Step's dataset, an object with the list under "samples"."""
    content = read_json(path, remarks)
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
    """Whether a value is a dataset as ACE-Step's dataset builder saves it."""
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


def _csv_rows(path: Path, remarks: Remarks) -> Iterator[Row]:
    """Separated by commas, or by the semicolons or tabs that spreadsheets write."""
    text = read_text(path, remarks, MAX_FILE_BYTES)
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
                _check_header([str(name) for name in reader.fieldnames], where)
            # A quoted caption may span lines; a row is known by its first.
            line = reader.line_num + 1
            where = f"{path}, line {line}"
            record = next(reader, None)
        except csv.Error as error:
            raise UserError(f"{where}: not valid CSV ({error}).") from error
        if record is None:
            return
        if None in record:
            raise UserError(
                f"{where}: more columns than the header; quote texts with {delimiter!r}."
            )
        yield where, record


def _check_header(names: list[str], where: str) -> None:
    """Of two columns of one name the first would be lost.

    Raises:
        UserError: there are such.
    """
    known = [field_name(name) for name in names]
    twice = [name for name, folded in zip(names, known, strict=True) if known.count(folded) > 1]
    if any(name.strip() for name in twice):
        raise UserError(f"{where}: the column {twice[0].strip()!r} stands twice; rename one.")


def _parquet_rows(path: Path) -> Iterator[Row]:
    number = 0
    for batch in _parquet_batches(path, audio=False):
        for record in _records(path, batch):
            number += 1
            yield f"{path}, row {number}", record


def _parquet_batches(path: Path, *, audio: bool) -> Iterator[pa.RecordBatch]:
    """Batches of a parquet file, without its binary columns unless `audio` is wanted."""
    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            binary = [column.name for column in file.schema_arrow if _holds_bytes(column.type)]
            # A table with audio in it lists no files.
            if (audio and not binary) or (not audio and "audio" in binary):
                return
            columns = [n for n in file.schema_arrow.names if audio or n not in binary]
            sizes = group_sizes(path, file.metadata, set(columns))
            largest = max((size.n_bytes for size in sizes), default=0)
            # A page is decompressed whole, whatever the batch.
            if largest > (MAX_ROW_GROUP_BYTES if audio else MAX_FILE_BYTES):
                raise UserError(
                    f"{path}: a row group of {largest >> 20} MiB is too large; write the file "
                    "again with fewer rows in each."
                )
            # Each row may repeat the dictionary's longest value.
            repeated = max((size.n_dictionary_bytes for size in sizes), default=0)
            one_by_one = audio or repeated * ROWS_PER_BATCH > MAX_FILE_BYTES
            n_rows = 0
            for batch in file.iter_batches(1 if one_by_one else ROWS_PER_BATCH, columns=columns):
                n_rows += batch.num_rows
                yield batch
            if n_rows != file.metadata.num_rows:
                raise UserError(
                    f"{path}: has {n_rows} rows where its footer says {file.metadata.num_rows}; "
                    "copy or write it again."
                )
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as parquet ({_one_line(error)}).") from error


def _records(path: Path, batch: pa.RecordBatch) -> list[dict[str, Any]]:
    try:
        return batch.to_pylist()
    except (pa.ArrowException, ValueError) as error:
        # Text that isn't UTF-8, dates that no calendar has.
        raise UserError(f"{path}: not readable as parquet ({_one_line(error)}).") from error


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(_holds_bytes(kind.field(i).type) for i in range(kind.num_fields))
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def find_parquet(folder: Path, without: Path) -> list[Path]:
    """Parquet files below a folder, sorted; links that lead out of it, and what lies below
    `without`, are left out."""
    root, passed_over = folder.resolve(), without.resolve()
    found = []
    for path in sorted(folder.rglob("*.parquet")):
        resolved = path.resolve()
        made_here = root != passed_over and resolved.is_relative_to(passed_over)
        if path.is_file() and is_inside(path, root) and not made_here:
            found.append(path)
    return found


def extract_parquet_audio(
    path: Path, folder: Path, output_dir: Path
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Writes the audio that a Hugging Face dataset's parquet file holds to files of its own, a
    row at a time.

    Such a dataset has a column, mostly `audio`, of `{"bytes": ..., "path": ...}`. The names of
    the files are made here, from the parquet file's path and the row; of the cell's `path` only a
    known extension is taken.

    Args:
        path: the parquet file; one without such a column has no audio.
        folder: that it lies in.
        output_dir: where the audio goes, in a folder like the parquet file's path below
            `folder`. What is there already is not written again.

    Yields:
        The file, whose stem is the row's number, and the row's other fields.

    Raises:
        UserError: a broken file, or a clip beyond 256 MiB.
    """
    target_folder = output_dir / path.relative_to(folder).with_suffix("")
    for row, batch in enumerate(_parquet_batches(path, audio=True), 1):
        column = _audio_column(batch.schema)
        if column is None:
            break
        record = _records(path, batch)[0]
        cell = record.pop(column)
        is_struct = isinstance(cell, Mapping)
        data = cell.get("bytes") if is_struct else cell
        if not data:
            continue
        if len(data) > MAX_AUDIO_BYTES:
            raise UserError(f"{path}, row {row}: {len(data) >> 20} MiB are too much for a clip.")
        named = PurePosixPath(str(cell.get("path") or "")) if is_struct else PurePosixPath()
        suffix = named.suffix.lower()
        # The decoder goes by the content, the extension only has to be one that is read.
        suffix = suffix if suffix in AUDIO_EXTENSIONS | FFMPEG_EXTENSIONS else ".wav"
        target = target_folder / f"{row:06d}{suffix}"
        if not target.is_file() or target.read_bytes() != data:
            atomic.write_file(target, lambda temporary, data=data: temporary.write_bytes(data))
        yield target, record


def _audio_column(schema: pa.Schema) -> str | None:
    """The column with files in it: the one called `audio`, else the first of bytes."""
    columns = [column.name for column in schema if _holds_bytes(column.type)]
    return "audio" if "audio" in columns else next(iter(columns), None)
