"""A process that is killed between two changes of names on the disk, without a process."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


class Killed(BaseException):
    """Nothing that runs may catch it, as nothing may catch SIGKILL."""


def kill_at(call: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The process ends before its n-th change of a name; from then on nothing changes any more."""
    made: list[str] = []

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def change(*arguments: Any, **named: Any) -> Any:
            made.append(original.__name__)
            if len(made) > call:
                raise Killed
            return original(*arguments, **named)

        return change

    for module, name in [
        *((os, name) for name in ("rename", "replace", "symlink")),
        (Path, "unlink"),
        (shutil, "rmtree"),
    ]:
        monkeypatch.setattr(module, name, counted(getattr(module, name)))
    return made


def contents(folder: Path) -> dict[str, str]:
    """The texts of all files below a folder, by path."""
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }
