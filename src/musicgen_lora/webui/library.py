"""Loads the page's library without what only its editors need."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Iterator
from typing import Any

WRITER = "gradio.component_meta"


@contextlib.contextmanager
def no_stubs() -> Iterator[None]:
    """A context for loading Gradio. Each time it parses the source of its 81 components and writes
    stub files for editors into its own installation: a third of its loading time. It leaves out
    components that have no file."""
    find = inspect.getfile

    def getfile(object: Any) -> str:
        if sys._getframe(1).f_globals.get("__name__") == WRITER:
            raise OSError("no stub file is wanted")
        return find(object)

    inspect.getfile = getfile
    try:
        yield
    finally:
        inspect.getfile = find
