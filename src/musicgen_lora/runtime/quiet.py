"""Hides messages of libraries that users can't act on."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

LIBRARIES = ("torch", "transformers", "peft")


def silence_libraries() -> None:
    """Hides transformers' progress bars, doubts about configs and warnings, and the libraries'
    announcements of future changes."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    for library in LIBRARIES:
        warnings.filterwarnings("ignore", category=FutureWarning, module=library)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """A context in which libraries are silent: in a notebook, their messages would appear in red
    above the player. Their settings are restored afterwards."""
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
