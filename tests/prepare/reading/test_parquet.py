"""Parquet files whose footer contradicts their pages, and what reading them costs."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from musicgen_lora.errors import UserError
from musicgen_lora.prepare.reading.parquet import (
    MAX_TABLE_BYTES,
    Contents,
    ParquetTask,
    extract_parquet_audio,
    parquet_rows,
    read_parquet,
)
from musicgen_lora.runtime.workers import Failure, run_tasks

N_ROWS = 157
"""A number that occurs in a footer only as its counts of rows and values."""
TEXTS = [f"beat number {index}" for index in range(N_ROWS)]


def number(value: int) -> bytes:
    """The number in Thrift's compact protocol."""
    value, written = (value << 1 ^ value >> 63) & (1 << 64) - 1, b""
    while value > 127:
        written, value = written + bytes([value & 127 | 128]), value >> 7
    return written + bytes([value])


def lie(path: Path, true: int, told: int, place: int | None = None) -> None:
    """Replaces `true` by `told` in the footer: everywhere, or only its `place`th occurrence."""
    data = path.read_bytes()
    start = len(data) - 8 - struct.unpack("<I", data[-8:-4])[0]
    parts = data[start:-8].split(number(true))
    assert len(parts) > 1
    footer = parts[0]
    for index, part in enumerate(parts[1:]):
        footer += number(told if place in (None, index) else true) + part
    path.write_bytes(data[:start] + footer + struct.pack("<I", len(footer)) + b"PAR1")


def written(path: Path, kind: str, **how: object) -> Path:
    """A file of captions, or one with audio in it."""
    columns = {"file_name": [f"{i}.wav" for i in range(N_ROWS)], "text": TEXTS}
    if kind == "audio":
        columns = {"audio": [text.encode() for text in TEXTS]}
    pq.write_table(pa.table(columns), path, use_dictionary=False, write_statistics=False, **how)
    return path


def read(
    paths: Sequence[Path], kind: str, max_memory_bytes: int = 1 << 28
) -> list[Contents | Failure]:
    """One worker's results for files, one after another."""
    folders = [path.parent / "out" if kind == "audio" else None for path in paths]
    tasks = [
        ParquetTask(path, folder, max_memory_bytes)
        for path, folder in zip(paths, folders, strict=True)
    ]
    return [found for _, found in sorted(run_tasks(read_parquet, tasks, 1), key=lambda f: f[0])]


def n_rows(contents: Contents | Failure) -> int:
    assert isinstance(contents, Contents)
    return len(contents.clips or ()) if contents.table is None else contents.table.num_rows


@pytest.mark.parametrize("kind", ["text", "audio"])
def test_a_footer_with_other_numbers_of_rows(tmp_path: Path, kind: str) -> None:
    lies = [(told, place) for told in (0, 3, 1300, 2**40, 2**62, -5) for place in (0, 1, None)]
    paths = [written(tmp_path / f"{told} {place}.parquet", kind) for told, place in lies]
    for path, (told, place) in zip(paths, lies, strict=True):
        # The file's own number is first, then that of the first column's values.
        lie(path, N_ROWS, told, place)
    for (told, place), contents in zip(lies, read(paths, kind), strict=True):
        assert isinstance(contents, Contents)
        if contents.fault is None:
            # A consistent footer is believed: nothing shows that there is more.
            assert n_rows(contents) == (told if place is None else N_ROWS), (told, place)
        else:
            assert contents.fault.startswith(": not readable as parquet"), contents.fault
            assert "\n" not in contents.fault


@pytest.mark.parametrize("kind", ["text", "audio"])
@pytest.mark.parametrize("told", [10, 2**40, -1])
def test_a_footer_with_another_size_of_a_column(tmp_path: Path, kind: str, told: int) -> None:
    path = written(tmp_path / "x.parquet", kind, compression="snappy")
    column = pq.read_metadata(path).row_group(0).column(0)
    lie(path, column.total_compressed_size, told)
    with pytest.raises(UserError, match=r"x\.parquet: not readable as parquet"):
        list(parquet_rows(path) if kind == "text" else extract_parquet_audio(path, tmp_path, path))


def test_a_column_that_is_cut_short(tmp_path: Path) -> None:
    path = written(tmp_path / "x.parquet", "text")
    data = path.read_bytes()
    path.write_bytes(data[:4] + data[104:])
    with pytest.raises(UserError, match=r"x\.parquet: not readable as parquet"):
        list(parquet_rows(path))


@pytest.mark.parametrize("kind", ["text", "audio"])
@pytest.mark.parametrize("is_repeated", [False, True])
def test_much_in_little_ends_at_the_bound(tmp_path: Path, kind: str, is_repeated: bool) -> None:
    path, text = tmp_path / "x.parquet", " " * (40 << 20)
    columns = {"file_name": ["x.wav"] * 8, "text": [text] * 8}
    if kind == "audio":
        columns = {"audio": [text.encode()] * 8}
    pq.write_table(
        pa.table(columns),
        path,
        compression="zstd",
        use_dictionary=is_repeated,
        write_statistics=False,
    )
    group = pq.read_metadata(path).row_group(0)
    sizes = {group.total_byte_size}
    sizes |= {group.column(i).total_uncompressed_size for i in range(group.num_columns)}
    # A dictionary holds the text once: nothing needs to be hidden.
    for size in () if is_repeated else sizes:
        lie(path, size, 1000)
    assert path.stat().st_size < 1 << 20
    after = written(tmp_path / "after.parquet", kind)
    first, second = read([path, after], kind, 64 << 20)
    assert isinstance(first, Contents)
    assert first.fault is not None
    assert first.fault.startswith(": takes more than 64 MiB to read; write it again")
    assert n_rows(second) == N_ROWS


def test_a_table_of_too_much_text_is_refused(tmp_path: Path) -> None:
    path, text = tmp_path / "x.parquet", " " * (MAX_TABLE_BYTES // 8)
    pq.write_table(pa.table({"text": [text] * 9}), path, compression="zstd")
    with pytest.raises(UserError, match=r"x\.parquet: holds more than 256 MiB of text"):
        list(parquet_rows(path))


def test_honest_files_are_read_whole(tmp_path: Path) -> None:
    rows = list(parquet_rows(written(tmp_path / "text.parquet", "text")))
    assert [record["text"] for _, record in rows] == TEXTS
    assert rows[-1][0] == f"{tmp_path / 'text.parquet'}, row {N_ROWS}"
    assert not list(parquet_rows(written(tmp_path / "audio.parquet", "audio")))
    found = list(extract_parquet_audio(tmp_path / "audio.parquet", tmp_path, tmp_path / "out"))
    assert [file.read_text() for file, _ in found] == TEXTS


@pytest.mark.parametrize("kind", ["text", "audio"])
def test_damaged_files_cost_themselves(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    good = written(tmp_path / "good.parquet", kind, compression="snappy").read_bytes()
    paths = [tmp_path / f"{index}.parquet" for index in range(100)]
    for path in paths:
        data = bytearray(good)
        for _ in range(int(rng.integers(1, 4))):
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
        path.write_bytes(data)
    for contents in read(paths, kind):
        if isinstance(contents, Contents) and contents.fault is None:
            assert n_rows(contents) == N_ROWS
        else:
            told = contents.fault if isinstance(contents, Contents) else contents.reason
            assert told
            assert "\n" not in told
