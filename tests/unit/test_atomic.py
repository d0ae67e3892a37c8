"""Files as a person finds them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from musicgen_lora import atomic


def some_value(rng: random.Random, depth: int) -> Any:
    leaves = [None, True, 0, -2.5, 1e300, "", "schön \U0001f525", 'a "b"\n\\ \u2028', [], {}]
    if depth == 0 or rng.random() < 0.2:
        return rng.choice(leaves)
    values = [some_value(rng, depth - 1) for _ in range(rng.randrange(4))]
    if rng.random() < 0.5:
        return values
    return {f"name\n{index}": value for index, value in enumerate(values)}


@pytest.mark.parametrize("seed", range(30))
def test_json_is_indented(seed: int, tmp_path: Path) -> None:
    value, path = some_value(random.Random(seed), 5), tmp_path / "a.json"
    atomic.write_json(path, value)
    expected = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    assert path.read_text(encoding="utf-8") == expected


def test_an_item_of_a_long_list_takes_one_line(tmp_path: Path) -> None:
    items = [{"name": f"line\n{index}", "inner": [1, {"a": 2}]} for index in range(1_000)]
    value, path = {"n": 1, "data": {"items": items, "few": [[1], {}]}}, tmp_path / "a.json"
    atomic.write_json(path, value)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert json.loads("".join(lines)) == value
    assert json.loads(lines[4].rstrip(",")) == items[0]
    assert lines[4].startswith(6 * " " + "{")
    assert lines[3:4] + lines[1004:1006] == ['    "items": [', "    ],", '    "few": [']


@pytest.mark.parametrize("place", ["few", "many"])
def test_what_is_not_json_is_refused(place: str, tmp_path: Path) -> None:
    value = [float("nan")] * (1 if place == "few" else 1_000)
    with pytest.raises(ValueError, match="not JSON compliant"):
        atomic.write_json(tmp_path / "a.json", {"a": value})
    assert not list(tmp_path.iterdir())
