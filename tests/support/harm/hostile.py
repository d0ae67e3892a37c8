"""Documents that were torn, edited or made to do harm: generated from sound ones."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from musicgen_lora.errors import UserError

N_EXAMPLES = int(os.environ.get("HOSTILE_EXAMPLES", "0"))


HOLE = "<hole>"


VALUES = [
    *("null", "true", "0", "-1", "0.5", "1e-300", "1e39", "1e300", "1e999", "-1e999", "NaN"),
    *("Infinity", "1000000", "1000000000", "2147483648", "9223372036854775808", "1" + 400 * "0"),
    *('""', '"x"', '"\\ud800"', '"\\u0000"', '"a\\nb\\u001b[31m"', '"../x"', '"/dev/zero"', '"鼓"'),
    *('"([a-z_.0-9]+)+!"', '"(?=(.*)*!)"', '"(a"', '"someone/kernel"', f'"{"x" * 5000}"'),
    *("[]", "{}", "[[]]", '[""]', "[null]", '[{"a": 1}]', '{"a": 1}', '{"": []}'),
    *("[" * 150 + "]" * 150, "[" * 100_000, '{"a":' * 3000 + "1" + "}" * 3000),
    *("[" + "0," * 3000 + "0]", "{" + ",".join(f'"{n}": {n}' for n in range(3000)) + "}"),
]


def examples(n_quick: int) -> settings:
    """How many documents are tried; the quick ones are the same each time."""
    return settings(
        max_examples=N_EXAMPLES or n_quick,
        derandomize=not N_EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something could stand otherwise; of long lists the first few places."""
    items = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        items = enumerate(value[:3])
    return [path, *(place for key, part in items for place in _places(part, (*path, key)))]


def _with(value: Any, path: tuple[Any, ...], change: Any) -> Any:
    """A copy in which `change` has been called with the container of a place and its key."""
    if not path:
        return HOLE
    whole = json.loads(json.dumps(value))
    container = whole
    for key in path[:-1]:
        container = container[key]
    change(container, path[-1])
    return whole


def _put(container: Any, key: Any) -> None:
    container[key] = HOLE


def _remove(container: Any, key: Any) -> None:
    del container[key]


def _add(container: Any, key: Any) -> None:
    if isinstance(container, dict):
        container["unheard_of"] = HOLE
    else:
        container.append(HOLE)


@st.composite
def broken(draw: st.DrawFn, document: Any) -> bytes:
    """A JSON document with a value, a key or some bytes that are wrong."""
    ways = ["put"] * 6 + ["remove", "add", "twice", "cut", "flip", "byte order mark"]
    way = draw(st.sampled_from(ways))
    text = json.dumps(document, ensure_ascii=False)
    if way in ("put", "remove", "add"):
        change = {"put": _put, "remove": _remove, "add": _add}[way]
        text = json.dumps(_with(document, draw(st.sampled_from(_places(document))), change))
    elif way == "twice":
        text = text.replace("{", '{"twice": 1, "twice": 2, ', 1)
    text = text.replace(json.dumps(HOLE), draw(st.sampled_from(VALUES)))
    data = text.encode("utf-8", "surrogatepass")
    if way == "byte order mark":
        return b"\xef\xbb\xbf" + data
    return draw(torn(data)) if way in ("cut", "flip") else data


@st.composite
def torn(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes cut short, or with one of them changed."""
    at = draw(st.integers(0, len(data) - 1))
    if draw(st.booleans()):
        return data[:at]
    return data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]


def change(path: Path, **changes: Any) -> None:
    """Sets values in a JSON file; names with `__` lead into its parts."""
    content = json.loads(path.read_text())
    for name, value in changes.items():
        *parts, last = name.split("__")
        place = content
        for part in parts:
            place = place[part]
        place[last] = value
    path.write_text(json.dumps(content))


def taken_or_refused(use: Callable[[], object]) -> None:
    """Whatever is wrong is said in one line; that it is said at all, and not hung on, is what this
    asks for."""
    try:
        use()
    except UserError as error:
        said = str(error)
        assert said, "it says nothing"
        assert len(said) < 3000, said
