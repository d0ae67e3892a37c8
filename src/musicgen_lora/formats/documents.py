"""JSON from elsewhere: read whole, bounded and checked, or refused in one line.

Every document is read through here, our own too: files get truncated, edited by hand, or crafted to
do harm. Anything but a regular file is refused without waiting (a FIFO would block for ever), sizes
and depths are bounded, and numbers are finite.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from musicgen_lora.errors import DISK_FAULTS, RunError, UserError, no_file
from musicgen_lora.formats.kinds import Kind, check_kind, fields, shortened

SMALL = 16 << 20
"""Most bytes of a document that a program writes about itself."""
LARGE = 64 << 20
"""Most bytes of a document that lists clips or words."""
MAX_VALUES = 24_000_000
"""An empty list takes three bytes in a file and 64 in memory."""
MAX_DEPTH = 100
MAX_NUMBER = 10**300
"""An integer beyond what a float holds would crash any computation with it."""
_NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_MARK = b"\xef\xbb\xbf"
"""A byte order mark, which some editors write at the start of a file."""
_HALF_PAIR = re.compile(r"[\ud800-\udfff]")
_MAY_BE_HALF = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")
AN_OBJECT = fields()


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """The bytes of a regular file.

    Raises:
        UserError: missing, not a regular file, too large, or not readable.
        RunError: the disk is broken.
    """
    data = read_start(path, max_bytes + 1)
    if len(data) > max_bytes:
        raise UserError(f"{path}: is too large for such a file, over {max_bytes >> 10} KiB.")
    return data


def read_start(path: Path, n_bytes: int) -> bytes:
    """Up to `n_bytes` of a regular file from its start; raises what `read_bytes` does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | _NO_WAIT)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise UserError(f"{path}: is not a regular file.")
            # Python allocates as much as it is asked to read.
            return file.read(min(n_bytes, max(status.st_size, 1 << 16) + 1))
    except OSError as error:
        said = f"{path}: cannot be read ({error.strerror})."
        raise (RunError(said) if error.errno in DISK_FAULTS else no_file(path, said)) from error
    except ValueError as error:
        raise UserError(f"{path}: is not a usable path ({error}).") from error


def read_json(path: Path, kind: Kind = AN_OBJECT, *, max_bytes: int = SMALL) -> Any:
    """The value in a JSON file.

    Raises:
        UserError: missing, not JSON, or of another kind; the message names file and position.
    """
    value = parse_json(read_bytes(path, max_bytes), path)
    check_kind(value, kind, path)
    return value


def parse_json(
    text: str | bytes,
    where: str | Path,
    *,
    first_line: int = 1,
    is_table: bool = False,
    unique_keys: bool = False,
) -> Any:
    """The value of a JSON text: at most 100 levels deep, every number within a float's range, no
    half surrogate pairs.

    Args:
        text: bytes are taken as UTF-8.
        is_table: allows NaN for missing values, as in tables written by Python.
        unique_keys: refuses an object with the same key twice, one of which would be lost.

    Raises:
        UserError: it is not such a text.
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    data = data.removeprefix(_MARK)
    if data.count(b",") + data.count(b"[") + data.count(b"{") > MAX_VALUES:
        raise UserError(f"{where}: not usable JSON (more than {MAX_VALUES:,} values).")
    line = first_line
    try:
        value = json.loads(
            data.decode("utf-8", "surrogatepass" if isinstance(text, str) else "strict"),
            object_pairs_hook=_unique if unique_keys else None,
            parse_constant=_nan if is_table else _refuse_constant,
        )
        _check_values(value, may_be_half=bool(_MAY_BE_HALF.search(data)))
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        reason = f"{error.msg}, column {error.colno}"
        raise UserError(f"{where}, line {line}: not valid JSON ({reason}).") from error
    except UnicodeDecodeError as error:
        line = first_line + data.count(b"\n", 0, error.start)
        raise UserError(f"{where}, line {line}: not valid JSON (not UTF-8).") from error
    except RecursionError as error:
        raise UserError(f"{where}, line {line}: not usable JSON (nested too deeply).") from error
    except _Unusable as error:
        place = where if b"\n" in data.strip() else f"{where}, line {line}"
        raise UserError(f"{place}: {error}.") from error
    except ValueError as error:
        # An integer of more than 4,300 digits.
        raise UserError(f"{where}, line {line}: not valid JSON (a number is too large).") from error
    return value


def plain(value: Any, n_digits: int | None = None) -> Any:
    """Converts a value for JSON: NaN and infinities become null, tuples lists, paths text.

    Args:
        n_digits: decimals that floats are rounded to; None keeps them as they are.
    """
    if isinstance(value, Mapping):
        return {str(name): plain(item, n_digits) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, n_digits) for item in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return value if n_digits is None else round(value, n_digits)
    return str(value) if isinstance(value, Path) else value


class _Unusable(ValueError):
    pass


def _nan(name: str) -> float:
    return float("nan") if name == "NaN" else _refuse_constant(name)


def _refuse_constant(name: str) -> float:
    raise _Unusable(f"not valid JSON ({name} is not a number)")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        key = next(key for key, _ in pairs if key in seen or seen.add(key))
        first = f"{shortened(pairs[0][0])}: {shortened(pairs[0][1])}"
        raise _Unusable(
            f"the key {shortened(key)} occurs twice in the object that begins with {first}; "
            "remove one"
        )
    return found


def _check_values(value: Any, *, may_be_half: bool) -> None:
    """Raises if a value is nested too deeply, too large, or has half of a surrogate pair.

    Args:
        may_be_half: whether the text may have half of a surrogate pair.
    """
    level: list[tuple[Any, Any]] = [((), value)]
    for _ in range(MAX_DEPTH):
        below: list[tuple[Any, Any]] = []
        for place, item in level:
            kind = type(item)
            if kind is dict:
                if may_be_half and any(map(_HALF_PAIR.search, item)):
                    raise _Unusable(_named(place, "a key has half of a surrogate pair"))
                below += [
                    ((place, key), part)
                    for key, part in item.items()
                    if may_be_half or type(part) is not str
                ]
            elif kind is list:
                below += [((place, index), part) for index, part in enumerate(item)]
            elif kind is str:
                if may_be_half and _HALF_PAIR.search(item):
                    raise _Unusable(
                        _named(place, "has half of a surrogate pair, which is not a character")
                    )
            elif (kind is int or kind is float) and abs(item) > MAX_NUMBER:
                raise _Unusable(_named(place, "the number is too large"))
        if not below:
            return
        level = below
    raise RecursionError


def _named(place: Any, fault: str) -> str:
    """A fault with the keys that lead to it, list items counted from 1."""
    parts = []
    while place:
        place, key = place
        parts.append(f"item {key + 1}" if isinstance(key, int) else shortened(key))
    return f"{', '.join(reversed(parts))}: {fault}" if parts else fault
