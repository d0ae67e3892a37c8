"""Pictures have Chinese labels if a font has the characters; otherwise we say what to do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chinese import in_chinese  # noqa: F401
from matplotlib import font_manager

from musicgen_lora import fonts

OURS = "DejaVu Sans"
"""Comes with matplotlib."""
DEJAVU = font_manager.findfont(OURS)


@pytest.fixture
def no_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """matplotlib knows none, and the system has none."""
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [])
    monkeypatch.setattr(font_manager, "findSystemFonts", list)
    fonts.chinese_font.cache_clear()
    yield
    fonts.chinese_font.cache_clear()


@pytest.mark.usefixtures("no_fonts", "in_chinese")
def test_a_machine_without_the_letters_says_which_package_has_them() -> None:
    assert fonts.said("base") == "base"
    assert "apt install fonts-wqy-microhei" in fonts.missing_font()


@pytest.mark.usefixtures("no_fonts", "in_chinese")
def test_a_font_that_was_installed_since_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    broken = tmp_path_factory.mktemp("fonts") / "broken.ttf"
    broken.write_bytes(b"no font")
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [str(broken), DEJAVU])
    monkeypatch.setattr(fonts, "CHINESE_FONTS", (OURS,))
    assert fonts.chinese_font() == OURS
    assert fonts.said("base") == "基础模型"
    assert fonts.missing_font() == ""


@pytest.mark.usefixtures("no_fonts")
def test_an_english_reader_needs_none() -> None:
    assert fonts.missing_font() == ""
