"""Keeps what libraries say to each other from people, who can't act on it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

LIBRARIES = ("torch", "transformers", "peft")


def silence_libraries() -> None:
    """Progress bars, doubts about a config and warnings of transformers are not shown, nor what
    libraries announce to each other of their own future changes."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    for library in LIBRARIES:
        warnings.filterwarnings("ignore", category=FutureWarning, module=library)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silences them meanwhile: in a notebook it would stand in red above what plays. Their settings
    are as before afterwards."""
    from transformers.utils import logging

    had_bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    try:
        with warnings.catch_warnings():
            silence_libraries()
            yield
    finally:
        logging.set_verbosity(level)
        if had_bars:
            logging.enable_progress_bar()
