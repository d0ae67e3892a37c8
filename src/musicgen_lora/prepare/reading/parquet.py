"""Reads rows and audio from parquet files, in a separate process with bounded memory.

pyarrow decompresses a whole page into as much memory as the page asks for, and trusts the footer: a
megabyte can expand to gigabytes. Here such a file only loses its own rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from musicgen_lora import atomic
from musicgen_lora.audio.files import READ_EXTENSIONS, hidden_part, is_inside
from musicgen_lora.errors import UserError
from musicgen_lora.runtime.memory import memory_bounded
from musicgen_lora.runtime.workers import Failure, run_tasks

MAX_MEMORY_BYTES = 2 << 30
"""Hugging Face writes row groups of up to 500 MB, which take three times as much to decompress."""
MAX_TABLE_BYTES = 256 << 20
MAX_AUDIO_BYTES = 256 << 20
ROWS_PER_BATCH = 64

Record = dict[str, Any]


@dataclass(frozen=True)
class ParquetTask:
    """A file to read, and the folder to write its audio to; None skips audio."""

    path: Path
    audio_dir: Path | None = None
    max_memory_bytes: int = MAX_MEMORY_BYTES


@dataclass
class Contents:
    """What could be read from a file: its table, or its clips' names and other fields; and the
    error that ended the reading, if any, to be put after the file's name."""

    table: pa.Table | None = None
    clips: list[tuple[str, Record]] | None = None
    fault: str | None = None


def read_parquet(task: ParquetTask, alive: Callable[[], None]) -> Contents:
    """Reads a file, for `run_tasks`."""
    contents = Contents()
    try:
        with memory_bounded(task.max_memory_bytes):
            if task.audio_dir is None:
                contents.table = _read_table(task.path, alive)
            else:
                contents.clips = []
                for clip in _write_audio(task.path, task.audio_dir, alive):
                    contents.clips.append(clip)
    except MemoryError:
        contents.fault = (
            f": takes more than {task.max_memory_bytes >> 20} MiB to read; write it "
            "again with fewer rows per row group."
        )
    except (pa.ArrowException, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        contents.fault = f": not readable as parquet ({reason})."
    except UserError as error:
        contents.fault = str(error)
    return contents


def _read_table(path: Path, alive: Callable[[], None]) -> pa.Table | None:
    """The columns without bytes, validated; None for a file with audio, which isn't metadata."""
    with pq.ParquetFile(path, memory_map=True) as file:
        schema = file.schema_arrow
        binary = [field.name for field in schema if _holds_bytes(field.type)]
        if "audio" in binary:
            return None
        names = [name for name in schema.names if name not in binary]
        batches, n_bytes = [], 0
        for batch in _batches(file, names, ROWS_PER_BATCH):
            batch.validate(full=True)
            batches.append(batch)
            n_bytes += batch.nbytes
            if n_bytes > MAX_TABLE_BYTES:
                raise UserError(
                    f": holds more than {MAX_TABLE_BYTES >> 20} MiB of text, too much for metadata."
                )
            alive()
        return pa.Table.from_batches(batches) if batches else None


def _write_audio(
    path: Path, audio_dir: Path, alive: Callable[[], None]
) -> Iterator[tuple[str, Record]]:
    """Writes each row's audio to a file whose stem is the row's number, and yields the file's name
    and the row's other fields; yields nothing for a file without audio."""
    with pq.ParquetFile(path, memory_map=True) as file:
        schema = file.schema_arrow
        binary = [field.name for field in schema if _holds_bytes(field.type)]
        if not binary:
            return
        column = "audio" if "audio" in binary else binary[0]
        for row, batch in enumerate(_batches(file, schema.names, 1), 1):
            alive()
            record = batch.to_pylist()[0]
            cell = record.pop(column)
            is_struct = isinstance(cell, Mapping)
            data = cell.get("bytes") if is_struct else cell
            if not data:
                continue
            if len(data) > MAX_AUDIO_BYTES:
                raise UserError(f", row {row}: {len(data) >> 20} MiB is too much for a clip.")
            named = PurePosixPath(str(cell.get("path") or "")) if is_struct else PurePosixPath()
            suffix = named.suffix.lower()
            # The decoder goes by the content; the extension only has to be a supported one.
            suffix = suffix if suffix in READ_EXTENSIONS else ".wav"
            target = audio_dir / f"{row:06d}{suffix}"
            if not target.is_file() or target.read_bytes() != data:
                atomic.write_bytes(target, data)
            yield target.name, record


def _batches(file: pq.ParquetFile, names: list[str], n_rows: int) -> Iterator[pa.RecordBatch]:
    """Batches of `n_rows` rows; raises a ValueError if their total isn't the footer's."""
    told, found = file.metadata.num_rows, 0
    for batch in file.iter_batches(n_rows, columns=names, use_threads=False):
        found += batch.num_rows
        yield batch
    if found != told:
        raise ValueError(f"its footer says {told} rows, it has {found}")


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(_holds_bytes(kind.field(i).type) for i in range(kind.num_fields))
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _read(path: Path, audio_dir: Path | None = None) -> Contents:
    task = ParquetTask(path.absolute(), None if audio_dir is None else audio_dir.absolute())
    ((_, contents),) = run_tasks(read_parquet, [task], n_workers=1)
    return Contents(fault=f": {contents.reason}") if isinstance(contents, Failure) else contents


def parquet_rows(path: Path) -> Iterator[tuple[str, Record]]:
    """Yields each row's location and its fields except bytes. A file with audio has no rows here.

    Raises:
        UserError: not readable, or too large.
    """
    contents = _read(path)
    if contents.fault is not None:
        raise UserError(f"{path}{contents.fault}")
    number = 0
    for batch in contents.table.to_batches(ROWS_PER_BATCH) if contents.table is not None else ():
        try:
            records = batch.to_pylist()
        except (pa.ArrowException, ValueError) as error:
            # Impossible dates.
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{path}: not readable as parquet ({reason}).") from error
        for record in records:
            number += 1
            yield f"{path}, row {number}", record


def find_parquet(folder: Path, without: Path) -> list[Path]:
    """Parquet files below a folder, sorted, without hidden ones, links that lead out of it, and
    files below `without`."""
    root, passed_over = folder.resolve(), without.resolve()
    found = []
    for path in sorted(folder.rglob("*.parquet")):
        resolved = path.resolve()
        if hidden_part(path, folder) is not None:
            continue
        made_here = root != passed_over and resolved.is_relative_to(passed_over)
        if path.is_file() and is_inside(path, root) and not made_here:
            found.append(path)
    return found


def extract_parquet_audio(
    path: Path, folder: Path, output_dir: Path
) -> Iterator[tuple[Path, Record]]:
    """Extracts the audio in a Hugging Face dataset's parquet file to separate files.

    Such a dataset has a column, usually `audio`, of `{"bytes": ..., "path": ...}`. The files are
    named after the parquet file's path and the row; only a known extension is taken from the
    cell's `path`.

    Args:
        path: the parquet file; one without such a column has no audio.
        output_dir: where the audio goes, in a folder named after the parquet file's path below
            `folder`. Existing files are not written again.

    Yields:
        The file, whose stem is the row's number, and the row's other fields.

    Raises:
        UserError: a broken file, or a clip above 256 MiB; raised after the rows before it.
    """
    target = output_dir / path.relative_to(folder).with_suffix("")
    contents = _read(path, target)
    for name, record in contents.clips or ():
        yield target / name, record
    if contents.fault is not None:
        raise UserError(f"{path}{contents.fault}")
