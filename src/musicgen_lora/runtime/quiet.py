"""Keeps what libraries say to each other from people, who can't act on it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

LIBRARIES = ("torch", "transformers", "peft")


def ignore_future_warnings() -> None:
    """Libraries announce their own future changes to each other."""
    for library in LIBRARIES:
        warnings.filterwarnings("ignore", category=FutureWarning, module=library)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Progress bars, doubts about a config and warnings of transformers are not shown meanwhile; in
    a notebook they would stand in red above what plays. Its settings are as before afterwards."""
    from transformers.utils import logging

    had_bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            ignore_future_warnings()
            yield
    finally:
        logging.set_verbosity(level)
        if had_bars:
            logging.enable_progress_bar()
