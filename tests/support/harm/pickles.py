"""Pickles that do something when they are read, for tests of what reads none."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch


class Bomb:
    """Unpickled, it makes a folder."""

    def __init__(self, mark: Path) -> None:
        self._mark = str(mark)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (self._mark,)


def put_pickle(path: Path, how: str, mark: Path) -> None:
    with open(path, "wb") as file:
        if how == "pickle":
            pickle.dump(Bomb(mark), file)
        elif how == "torch":
            torch.save({"weight": Bomb(mark)}, file)
        else:
            np.save(file, np.array([Bomb(mark)], dtype=object), allow_pickle=True)
