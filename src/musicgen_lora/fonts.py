"""Letters of the pictures that matplotlib draws, which has no Chinese ones of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

from musicgen_lora.language.choice import chosen_language
from musicgen_lora.language.translate import word

# matplotlib takes half a second to load, which no start of a run should wait for.

CHINESE_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Microsoft YaHei", "PingFang SC"),
    *("Hiragino Sans GB", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "SimHei", "SimSun"),
    *("Noto Sans CJK JP", "Droid Sans Fallback", "Arial Unicode MS"),
)


@cache
def chinese_font() -> str | None:
    """A font of this machine that has Chinese letters."""
    from matplotlib import font_manager

    manager = font_manager.fontManager
    if not {font.name for font in manager.ttflist} & {*CHINESE_FONTS}:
        # matplotlib keeps a list of the fonts that there were when it was first used.
        files = {font.fname for font in manager.ttflist}
        for path in set(font_manager.findSystemFonts()) - files:
            # Of a kind that it can't draw with.
            with suppress(OSError, RuntimeError, ValueError):
                manager.addfont(path)
    names = {font.name for font in manager.ttflist}
    return next((name for name in CHINESE_FONTS if name in names), None)


@contextmanager
def readable() -> Iterator[None]:
    """Letters of figures that are made and drawn meanwhile are of a font that has them."""
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
    """What to tell of pictures that are in English for want of a font; "" where they aren't."""
    if chosen_language() == "en" or chinese_font() is not None:
        return ""
    return (
        "The labels of the pictures are in English, since this machine has no font with Chinese "
        "letters. Install one (apt install fonts-wqy-microhei) and run the same command again."
    )
