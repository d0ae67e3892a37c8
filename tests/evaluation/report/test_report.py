"""The report's page and files."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from html_page import Page
from reports import NO_AUDIO, NO_MUSIC, RATE

from musicgen_lora.evaluation.report import page_audio
from musicgen_lora.evaluation.report.between import fault_rows
from musicgen_lora.evaluation.report.report import (
    write_report,
)
from musicgen_lora.evaluation.sound.comparison import SHOWN, shown_value
from musicgen_lora.formats.documents import plain


def test_all_files_are_there(evaluated: tuple[dict[str, Any], Path]) -> None:
    report, folder = evaluated
    assert json.loads((folder / "report.json").read_text()) == report
    assert len(report["plots"]) == 6
    for name in report["plots"]:
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    assert not list(folder.rglob(".staging*"))


def test_the_page_is_whole_and_loads_nothing(evaluated: tuple[dict[str, Any], Path]) -> None:
    report, folder = evaluated
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert page.loads
    assert all(load.startswith(("data:", "#pair-")) for load in page.loads)
    assert not re.search(r"https?://|url\(|@import", text)
    # Both sides of five prompts, three of two of other styles, and a training clip beside its
    # likeness.
    assert page.tags.count("audio") == 18
    assert page.tags.count("img") == len(report["plots"]) + 18
    assert "default-src 'none'" in text


def test_the_page_runs_its_own_script_alone(evaluated: tuple[dict[str, Any], Path]) -> None:
    text = (evaluated[1] / "report.html").read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    # Every text of the page stands in its template, where it can be translated.
    assert text.count("<script") == 1
    # The page of `ui` shares the player and fetches; the report's policy lets nothing be fetched.
    assert "default-src 'none'" in text
    assert "connect-src" not in text
    assert not re.search(r"XMLHttpRequest|WebSocket|innerHTML|eval\(", script)


def test_a_page_that_would_be_too_large_names_the_files(
    evaluated: tuple[dict[str, Any], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    report, folder = evaluated
    shutil.copytree(folder / "audio", tmp_path / "audio")
    monkeypatch.setattr(page_audio, "PAGE_BYTES", 500_000)
    write_report(copy.deepcopy(report), tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 0 < Page(text).tags.count("audio") < 18
    assert (
        "Not embedded, to keep the page small; the files are <code>audio/base/4.wav</code>" in text
    )
    assert len(text) < (folder / "report.html").stat().st_size


def test_sounds_in_the_page_are_those_of_the_files(
    evaluated: tuple[dict[str, Any], Path],
) -> None:
    _, folder = evaluated
    text = (folder / "report.html").read_text(encoding="utf-8")
    uris = re.findall(r'data:audio/mpeg;base64,([^"]+)"', text)
    played, rate = soundfile.read(BytesIO(base64.b64decode(uris[1])))
    original, _ = soundfile.read(folder / "audio/adapter/0.wav")
    assert rate == RATE
    n = min(len(played), len(original))
    assert np.corrcoef(played[:n], original[:n])[0, 1] > 0.98


def test_every_text_is_escaped(evaluated: tuple[dict[str, Any], Path]) -> None:
    text = (evaluated[1] / "report.html").read_text(encoding="utf-8")
    assert text.count("<script") == 1
    assert "bass &lt;script&gt;" in text
    assert "base &amp; co" in text
    assert "pack 0 &lt;b&gt;" in text


def test_the_page_has_the_figures_and_their_n(evaluated: tuple[dict[str, Any], Path]) -> None:
    report, folder = evaluated
    text = (folder / "report.html").read_text(encoding="utf-8")
    for sentence in report["findings"]:
        assert "n = " in sentence
    assert report["findings"][0] in text
    assert f"{report['loss']['mean']['mean_base']:.4f}" in text
    assert "n = 12 sources" in text
    assert "n = 5 prompts" in text
    assert all(shown.label in text for shown in SHOWN)
    # Values stand beside others of known kinds.
    assert f"{report['forgetting']['codebooks'][0]['mean_base']:.4f}</td>" in text
    assert f"{report['overfitting']['trained']['mean']['mean_adapter']:.4f}</td>" in text
    primary = report["primaries"][2]
    for end in ("near", "far"):
        assert f'<td class="words">{primary[end]["value"]:.3f}<small>' in text


def test_faults_and_memory_stand_between_anchors(evaluated: tuple[dict[str, Any], Path]) -> None:
    report, folder = evaluated
    text = (folder / "report.html").read_text(encoding="utf-8")
    clicks = report["damage"]["clicks"]
    for anchor in ("other_music", "noise"):
        found = clicks["anchors"][anchor]
        assert f"<td>{found['mean']:.2f}<small>{found['n_with']} / {found['n']}</small>" in text
    # What there is none of has its reason.
    assert f"held-out clips as recorded: not computed: {NO_AUDIO}." in text
    assert f"other music: not computed: {NO_MUSIC}." in text
    # Chance, and the place between it and the clip itself.
    assert "<td>0.05 %</td><td>\N{EN DASH}</td><td>2.00 %</td>" in text
    assert "<small><b>29 %</b></small>" in text
    exchange = report["captions"]["held_out"]["adapter"]["exchange"]
    assert f"{abs(exchange['gain']):.3f}<small>" in text
    assert [row["label"] for row in fault_rows(report)][3:] == ["Clipped", "Silence", "DC offset"]


def test_what_is_rounded_to_nothing_has_no_sign() -> None:
    offset = next(shown for shown in SHOWN if shown.name == "dc_offset")
    assert shown_value(offset, -1e-6) == "0.0000"
    assert shown_value(offset, -0.0013) == "-0.0013"


def test_plain_values_are_json() -> None:
    values = {"a": float("nan"), "b": (1.0, float("inf")), "c": Path("x/y"), 3: None}
    assert plain(values) == {"a": None, "b": [1.0, None], "c": "x/y", "3": None}
