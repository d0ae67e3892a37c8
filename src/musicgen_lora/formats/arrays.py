"""Arrays written by `numpy.save`, read without trusting their headers."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from musicgen_lora.errors import UserError
from musicgen_lora.formats.documents import read_start

MAX_HEADER = 1024
_HEADER = re.compile(
    rb"\{'descr': '(<u\d)', 'fortran_order': False, "
    rb"'shape': \((\d{1,15}),(?: (\d{1,15}))?\), \} *\n"
)


def read_array(path: Path, dtype: type[np.generic], n_axes: int) -> np.ndarray | None:
    """Maps a file written by `numpy.save`; None if it isn't one, or has another type.

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
        if 0 in shape:
            return np.zeros(shape, found)
        return np.memmap(path, found, "r", offset, shape)
    except (UserError, OSError, ValueError, TypeError):
        return None
