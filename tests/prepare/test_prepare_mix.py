"""A mix of beats with pauses between them: each is cut on its own bars, and what is left out is
listed; a beat that is shorter than a window is kept."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from made_datasets import RATE, read_metadata

from musicgen_lora import atomic
from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.config import PrepareSettings
from musicgen_lora.prepare.clips.cut import ClipPlan, CutTask, cut_file
from musicgen_lora.prepare.hearing import analyse
from musicgen_lora.prepare.hearing.records import Analysis
from musicgen_lora.prepare.prepare import prepare_dataset

PAUSE = np.zeros((1, RATE), dtype=np.float32)
BARS = {0: 4, 1: 4, 3: 12, 7: 4}
"""Beats of the mix by index, and how many bars each has."""


@pytest.fixture(scope="module")
def mix(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[float, float]]]:
    """A folder with a mix, and where its beats begin and end, with noise after them."""
    pieces, spans, at_s = [], [], 0.0
    for index, n_bars in BARS.items():
        played = make_beat((0, index), duration_s=40.0)
        duration_s = n_bars * 240.0 / played.bpm
        wave = render_beat(played, RATE, seed=index)[:, : round(duration_s * RATE)]
        pieces += [wave, PAUSE]
        spans.append((at_s, at_s + duration_s))
        at_s += duration_s + 1.0
    noise = np.random.default_rng(0).normal(0.0, 0.1, (1, 6 * RATE)).astype(np.float32)
    folder = tmp_path_factory.mktemp("mix")
    soundfile.write(folder / "mix.wav", np.concatenate([*pieces, noise], axis=1).T, RATE)
    return folder, [*spans, (at_s, at_s + 6.0)]


def prepared(folder: Path, out: Path, **changes: Any) -> tuple[list[dict[str, Any]], list[Any]]:
    settings = PrepareSettings(input_dir=folder, output_dir=out, num_workers=0, **changes)
    prepare_dataset(settings)
    return result_of(out)


def result_of(out: Path) -> tuple[list[dict[str, Any]], list[Any]]:
    """The entries, and the remarks on audio that became no clip."""
    remarks = json.loads((out / "report.json").read_text(encoding="utf-8"))["remarks"]
    return read_metadata(out), [r for r in remarks if "--min_window" in r["told"]]


@pytest.fixture(scope="module")
def first_run(
    mix: tuple[Path, list[tuple[float, float]]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """Where the mix was prepared, and what was printed."""
    out = tmp_path_factory.mktemp("prepared")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        prepared(mix[0], out)
    return out, printed.getvalue()


def test_each_beat_is_cut_on_its_own_bars_and_the_rest_is_told(
    mix: tuple[Path, list[tuple[float, float]]],
    first_run: tuple[Path, str],
) -> None:
    (folder, spans), (out, printed) = mix, first_run
    entries, remarks = result_of(out)
    beats, noise = spans[:-1], spans[-1]
    kept_s = 0.0
    for entry in entries:
        start_s, stop_s = entry["at_s"], entry["at_s"] + entry["duration_s"]
        (beat,) = [b for b in beats if b[0] - 0.1 <= start_s and stop_s <= b[1] + 0.1]
        bar_s = (beat[1] - beat[0]) / BARS[list(BARS)[beats.index(beat)]]
        n_bars = entry["duration_s"] / bar_s
        assert entry["cut"] in ("bars", "beats")
        assert n_bars == pytest.approx(round(n_bars), abs=0.05)
        kept_s += entry["duration_s"]
    assert kept_s >= 0.9 * sum(stop_s - start_s for start_s, stop_s in beats)
    assert any(entry["duration_s"] < 15.0 for entry in entries)
    (remark,) = remarks
    (item,) = remark["items"]
    assert item.startswith("mix.wav: ")
    assert f"{noise[0]:.1f}-{noise[1]:.1f} s" in item
    assert "--min_window" in remark["to_do"]
    assert item in " ".join(printed.split())
    # A second run changes no clip and reports it again.
    assert prepared(folder, out) == (entries, remarks)


def test_the_flag_that_is_named_keeps_it(
    mix: tuple[Path, list[tuple[float, float]]], first_run: tuple[Path, str], tmp_path: Path
) -> None:
    folder, spans = mix
    shutil.copytree(first_run[0] / "analysis", tmp_path / "out" / "analysis")
    entries, remarks = prepared(folder, tmp_path / "out", min_window=4.0)
    assert any(abs(entry["at_s"] - spans[-1][0]) < 0.1 for entry in entries)
    assert not any(f"-{spans[-1][1]:.1f}" in item for r in remarks for item in r["items"])


def test_analysing_and_cutting_say_how_far_they_are(
    mix: tuple[Path, list[tuple[float, float]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analyse, "SEGMENT_S", 20.0)
    monkeypatch.setattr(analyse, "BLOCK", 2 * 10 * RATE)
    shares: list[float] = []

    def alive(share: float | None = None, /) -> None:
        shares.extend([] if share is None else [share])

    file, (start_s, stop_s) = mix[0] / "mix.wav", mix[1][-1]
    digest = atomic.sha256_file(file)
    record = analyse.analyse_file(analyse.AnalysisTask(file, digest, tmp_path), alive)
    assert isinstance(record, Analysis)
    assert len(shares) > 2 * len(record.segments)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    shares.clear()
    plans = (ClipPlan(0.0, 4.0), ClipPlan(4.0, 4.0), ClipPlan(start_s, stop_s - start_s))
    cut_file(CutTask(file, digest, plans, None, RATE, None), alive)
    assert shares == pytest.approx([1 / 3, 2 / 3, 1.0])
