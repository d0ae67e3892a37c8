"""Arrays written by `numpy.save`, read without trusting their headers."""

from __future__ import annotations

import math
import os
import re
import weakref
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import numpy as np

from musicgen_lora.errors import UserError
from musicgen_lora.formats.documents import read_start

MAX_HEADER = 1024
_HEADER = re.compile(
    rb"\{'descr': '(<u\d)', 'fortran_order': False, "
    rb"'shape': \((\d{1,15}),(?: (\d{1,15}))?\), \} *\n"
)


class ArrayFile:
    """An array in a file that stays open, so that it can be read on when it has been deleted.

    Not mapped into memory: if the file gets shorter or its drive goes away, a process that touches
    what was mapped is killed, or reads zeros.
    """

    def __init__(
        self, file: BinaryIO, offset: int, shape: tuple[int, ...], dtype: np.dtype
    ) -> None:
        self._file, self._offset = file, offset
        self.shape, self._dtype = shape, dtype
        self._lock = Lock()
        weakref.finalize(self, file.close)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows along the first axis.

        Raises:
            OSError: the drive fails or is gone.
            ValueError: the file has got shorter.
        """
        start, stop = max(0, start), min(stop, self.shape[0])
        inner = self.shape[1:]
        row_bytes = math.prod(inner) * self._dtype.itemsize
        n_bytes = max(0, stop - start) * row_bytes
        found = self._read(n_bytes, self._offset + start * row_bytes)
        if len(found) != n_bytes:
            raise ValueError("it got shorter while it was used")
        return np.frombuffer(bytearray(found), self._dtype).reshape(-1, *inner)

    def _read(self, n_bytes: int, at: int) -> bytes:
        # Forked processes share an open file's position.
        if hasattr(os, "pread"):
            return os.pread(self._file.fileno(), n_bytes, at)
        with self._lock:
            self._file.seek(at)
            return self._file.read(n_bytes)


def open_array(path: Path, dtype: type[np.generic], n_axes: int) -> ArrayFile | None:
    """Opens a file written by `numpy.save`; None if it isn't one, or has another type.

    NumPy would pass the header to Python's parser, and allocate whatever it claims.
    """
    try:
        head = read_start(path, MAX_HEADER)
        header = _HEADER.fullmatch(head[10 : 10 + int.from_bytes(head[8:10], "little")])
        if head[:8] != b"\x93NUMPY\x01\0" or header is None:
            return None
        shape = tuple(int(size) for size in header.groups()[1:] if size is not None)
        offset, found = 10 + header.end(), np.dtype(header[1].decode())
        is_whole = path.stat().st_size == offset + math.prod(shape) * found.itemsize
        if not is_whole or found != dtype or len(shape) != n_axes:
            return None
        return ArrayFile(open(path, "rb"), offset, shape, found)
    except (UserError, OSError, ValueError, TypeError):
        return None
