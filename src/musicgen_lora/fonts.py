"""Fonts for the pictures that matplotlib draws; it ships none with Chinese characters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

from musicgen_lora.language.choice import chosen_language
from musicgen_lora.language.translate import word

# matplotlib takes half a second to load, which no run should wait for at its start.

CHINESE_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Microsoft YaHei", "PingFang SC"),
    *("Hiragino Sans GB", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "SimHei", "SimSun"),
    *("Noto Sans CJK JP", "Droid Sans Fallback", "Arial Unicode MS"),
)


@cache
def chinese_font() -> str | None:
    """A font of this machine that has Chinese characters; None if there is none."""
    from matplotlib import font_manager

    manager = font_manager.fontManager
    if not {font.name for font in manager.ttflist} & {*CHINESE_FONTS}:
        # matplotlib keeps the list of fonts that it found when it was first used.
        files = {font.fname for font in manager.ttflist}
        for path in set(font_manager.findSystemFonts()) - files:
            # Skips formats that it can't draw with.
            with suppress(OSError, RuntimeError, ValueError):
                manager.addfont(path)
    names = {font.name for font in manager.ttflist}
    return next((name for name in CHINESE_FONTS if name in names), None)


@contextmanager
def readable() -> Iterator[None]:
    """Figures made and drawn inside use a font that has the characters they need."""
    import matplotlib

    fonts = [*matplotlib.rcParams["font.family"]]
    if chosen_language() == "zh" and (font := chinese_font()) is not None:
        fonts = [font, *fonts]
    with matplotlib.rc_context({"font.family": fonts}):
        yield


def said(text: str) -> str:
    """A label in the user's language, if there is a font for it."""
    return text if chosen_language() == "zh" and chinese_font() is None else word(text)


def missing_font() -> str:
    """The note on pictures that are in English for want of a font; "" if they aren't."""
    if chosen_language() == "en" or chinese_font() is not None:
        return ""
    return (
        "The labels in the pictures are in English, since this machine has no font with Chinese "
        "characters. Install one (apt install fonts-wqy-microhei) and run the same command again."
    )
