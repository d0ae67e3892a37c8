"""The schema of report.json, from its types, for reading it with other tools.

python tools/report_schema.py            # writes docs/report.schema.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pydantic import TypeAdapter

from musicgen_lora.evaluation.report.document import FORMAT_VERSION, Report

FILE = Path(__file__).resolve().parent.parent / "docs" / "report.schema.json"


def schema() -> str:
    """JSON Schema 2020-12 of the document as it is written."""
    found = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"report.json of musicgen-lora evaluate, format {FORMAT_VERSION}",
        **{k: v for k, v in TypeAdapter(Report).json_schema().items() if k != "title"},
    }
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    FILE.write_text(schema(), encoding="utf-8")
    print(f"Written: {FILE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
