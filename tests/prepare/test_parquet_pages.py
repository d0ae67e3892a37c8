"""Parquet files whose footer says other than their pages hold."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from musicgen_lora.errors import UserError
from musicgen_lora.prepare.reading.parquet_pages import group_sizes
from musicgen_lora.prepare.reading.remarks import Remarks
from musicgen_lora.prepare.reading.tables import extract_parquet_audio, read_rows

N_ROWS = 157
"""A number that a footer holds for its rows and values alone."""
TEXTS = [f"beat number {index}" for index in range(N_ROWS)]


def number(value: int) -> bytes:
    """As Thrift's compact protocol writes it."""
    value, written = (value << 1 ^ value >> 63) & (1 << 64) - 1, b""
    while value > 127:
        written, value = written + bytes([value & 127 | 128]), value >> 7
    return written + bytes([value])


def lie(path: Path, true: int, told: int, place: int | None = None) -> None:
    """Puts `told` in place of `true` in the footer: everywhere, or where it comes up `place`th."""
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


def count(path: Path, kind: str) -> int:
    rows = read_rows(path, Remarks(path.parent))
    if kind == "audio":
        rows = extract_parquet_audio(path, path.parent, path.parent / "out")
    return sum(1 for _ in rows)


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("is_repeated", [False, True])
def test_sizes_are_those_of_the_pages(
    tmp_path: Path, compression: str, version: str, is_repeated: bool
) -> None:
    path = tmp_path / "x.parquet"
    rows = [{"text": text, "texts": [text, text][: i % 3], "n": i} for i, text in enumerate(TEXTS)]
    pq.write_table(
        pa.Table.from_pylist(rows),
        path,
        compression=compression,
        data_page_version=version,
        data_page_size=1 << 8,
        use_dictionary=is_repeated,
        row_group_size=60,
    )
    metadata = pq.read_metadata(path)
    sizes = group_sizes(path, metadata, {"text", "texts", "n"})
    assert len(sizes) == 3
    for index, size in enumerate(sizes):
        # The footer counts the pages' headers as well.
        total = metadata.row_group(index).total_byte_size
        assert 0.5 * total < size.n_bytes < total
        assert (size.n_dictionary_bytes > 0) == is_repeated
    (text_alone, *_) = group_sizes(path, metadata, {"text"})
    assert text_alone.n_bytes < sizes[0].n_bytes


@pytest.mark.parametrize("kind", ["text", "audio"])
@pytest.mark.parametrize("told", [0, 3, 1300, 2**40, 2**62, -5])
@pytest.mark.parametrize("place", [0, 1, None])
def test_a_footer_with_other_numbers_of_rows(
    tmp_path: Path, kind: str, told: int, place: int | None
) -> None:
    path = written(tmp_path / "x.parquet", kind)
    # The file's own number is first, then that of the first column's values.
    lie(path, N_ROWS, told, place)
    with pytest.raises(UserError, match=r"x\.parquet: not readable as parquet") as error:
        count(path, kind)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["text", "audio"])
@pytest.mark.parametrize("told", [10, 2**40, -1])
def test_a_footer_with_another_size_of_a_column(tmp_path: Path, kind: str, told: int) -> None:
    path = written(tmp_path / "x.parquet", kind, compression="snappy")
    column = pq.read_metadata(path).row_group(0).column(0)
    lie(path, column.total_compressed_size, told)
    with pytest.raises(UserError, match=r"x\.parquet: not readable as parquet"):
        count(path, kind)


@pytest.mark.parametrize("kind", ["text", "audio"])
def test_a_column_that_is_cut_short(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path / "x.parquet", kind)
    data = path.read_bytes()
    path.write_bytes(data[:4] + data[104:])
    with pytest.raises(UserError, match=r"x\.parquet: not readable as parquet"):
        count(path, kind)


@pytest.mark.parametrize(("kind", "n_rows", "n_mib"), [("text", 8, 320), ("audio", 14, 560)])
def test_much_in_little_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, n_rows: int, n_mib: int
) -> None:
    path, text = tmp_path / "x.parquet", " " * (40 << 20)
    columns = {"file_name": ["x.wav"] * n_rows, "text": [text] * n_rows}
    if kind == "audio":
        columns = {"audio": [text.encode()] * n_rows}
    pq.write_table(
        pa.table(columns), path, compression="zstd", use_dictionary=False, write_statistics=False
    )
    group = pq.read_metadata(path).row_group(0)
    sizes = {group.total_byte_size}
    sizes |= {group.column(i).total_uncompressed_size for i in range(group.num_columns)}
    for size in sizes:
        lie(path, size, 1000)
    assert path.stat().st_size < 1 << 20
    assert pq.read_metadata(path).row_group(0).total_byte_size == 1000
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda *_, **__: pytest.fail("was read"))
    with pytest.raises(UserError, match=rf"x\.parquet: a row group of {n_mib} MiB is too large"):
        count(path, kind)


def test_honest_files_are_read_whole(tmp_path: Path) -> None:
    for kind in ("text", "audio"):
        assert count(written(tmp_path / f"{kind}.parquet", kind), kind) == N_ROWS


def test_damaged_files_never_crash(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    good = written(tmp_path / "good.parquet", "text", compression="snappy").read_bytes()
    path = tmp_path / "x.parquet"
    for _ in range(100):
        data = bytearray(good)
        for _ in range(int(rng.integers(1, 4))):
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
        path.write_bytes(data)
        try:
            n_rows = count(path, "text")
        except UserError:
            continue
        assert n_rows == N_ROWS
