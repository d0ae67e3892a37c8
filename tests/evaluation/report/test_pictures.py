"""Pictures of the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chinese import in_chinese  # noqa: F401
from reports import RATE

from musicgen_lora import fonts
from musicgen_lora.evaluation.report import plots
from musicgen_lora.evaluation.report.page_audio import spectrogram_png
from musicgen_lora.evaluation.sound.comparison import band_label
from musicgen_lora.formats.documents import plain
from musicgen_lora.listening.descriptors import describe


def test_band_labels() -> None:
    assert band_label(20, 60) == "20 to 60 Hz"
    assert band_label(250, 2000) == "250 Hz to 2 kHz"
    assert band_label(6000, 14000) == "6 to 14 kHz"


@pytest.mark.parametrize("n_samples", [100, 3_000, 64_000])
def test_spectrograms_show_a_tone_where_it_is(n_samples: int) -> None:
    time = np.arange(n_samples) / RATE
    tone = np.sin(2 * np.pi * 1000.0 * time).astype(np.float32)[None]
    picture = plots.log_spectrogram(tone, RATE)
    assert np.isfinite(picture).all()
    row = int(picture.mean(axis=1).argmax())
    octaves = np.log2(RATE / 2 / 25.0)
    hz = 25.0 * 2 ** (octaves * (row + 0.5) / len(picture))
    assert hz == pytest.approx(1000.0, rel=0.1 if n_samples > 1000 else 0.4)


def test_a_silent_clip_has_pictures(evaluated: tuple[dict[str, Any], Path]) -> None:
    silence = np.zeros((1, RATE), dtype=np.float32)
    assert spectrogram_png(plots.log_spectrogram(silence, RATE), 0.0).startswith(b"\x89PNG")
    facts = plain([describe(silence, RATE)])
    assert plots.png_bytes(plots.bands_plot({"adapter": facts}))
    assert plots.moves_plot([{"name": "rms_db", "moved": None}]) is None


@pytest.mark.usefixtures("in_chinese")
@pytest.mark.parametrize("font", [None, "DejaVu Sans"])
def test_pictures_are_chinese_where_a_font_has_the_letters(
    font: str | None, evaluated: tuple[dict[str, Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fonts, "chinese_font", lambda: font)
    with fonts.readable():
        figure = plots.loss_plot(evaluated[0]["loss"])
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert texts == (["base", "with adapter"] if font is None else ["基础模型", "加适配器"])
