"""Loading with libraries: silent, and by one thread at a time."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

from musicgen_lora.runtime.seeds import ONE_THREAD

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
    """A context for loading models and for adding layers to them, in which libraries are silent: in
    a notebook, their messages would appear in red above the player. Their settings are restored
    afterwards.

    One thread at a time is inside. While transformers loads, it replaces torch's initialisation and
    its own tying of weights for the whole process: a layer made meanwhile would keep whatever was
    in memory, and of two loads that overlap, one would restore the other's replacements for good.
    """
    from transformers.utils import logging

    with ONE_THREAD:
        had_bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
        try:
            with warnings.catch_warnings():
                silence_libraries()
                yield
        finally:
            logging.set_verbosity(level)
            if had_bars:
                logging.enable_progress_bar()
