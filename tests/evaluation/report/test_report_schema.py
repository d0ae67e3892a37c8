"""The schema in docs/ matches the types."""

from __future__ import annotations

import json

from report_schema import FILE, schema


def test_it_is_current() -> None:
    """If it doesn't: python tools/report_schema.py."""
    assert FILE.read_text(encoding="utf-8") == schema()


def test_it_names_all_parts_and_says_what_they_are() -> None:
    found = json.loads(schema())
    assert {"loss", "primaries", "regressions", "memorisation"} <= set(found["required"])
    loss = found["$defs"]["Losses"]
    assert loss["description"].startswith("Base vs. adapter on the same windows")
    assert loss["properties"]["positions"]["items"] == {"$ref": "#/$defs/PositionLoss"}
    assert {"type": "null"} in found["$defs"]["Primary"]["properties"]["p_holm"]["anyOf"]
