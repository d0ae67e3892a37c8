"""What a split is called: one place decides, for the input of `prepare` and for the dataset.

A name that means "held out" to its author and "train" to the reader has the adapter trained on
its own test; so unknown names are refused, never guessed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Literal

from musicgen_lora.errors import UserError

Split = Literal["train", "validation"]

TRAIN_NAMES = ("train", "training", "训练", "训练集")
HELD_OUT_NAMES = (
    *("validation", "valid", "val", "dev", "eval", "evaluation", "test", "testing"),
    *("held_out", "heldout", "holdout", "hold_out"),
    *("验证", "验证集", "测试", "测试集"),
)
_SPLITS: dict[str, Split] = {
    **dict.fromkeys(TRAIN_NAMES, "train"),
    **dict.fromkeys(HELD_OUT_NAMES, "validation"),
}


def find_split(name: str) -> Split | None:
    """The split that a name means, whatever its case, spaces and hyphens; None for no split's."""
    return _SPLITS.get(_folded(name))


def _folded(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", unicodedata.normalize("NFKC", name).casefold().strip())


def normalise_split(value: object, where: str) -> Split | None:
    """The split that metadata states; None where it states none (null, NaN or empty).

    Args:
        where: file and line, for the message.

    Raises:
        UserError: no name of a split.
    """
    # NaN, which tables have for nothing, differs from itself.
    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        return None
    split = find_split(value) if isinstance(value, str) else None
    if split is None:
        raise UserError(
            f'{where}: "split" is {str(value)[:40]!r}, which is no split; there are: '
            f"{', '.join(TRAIN_NAMES)} (to train on), {', '.join(HELD_OUT_NAMES)} (to hold out)."
        )
    return split


def split_of_folders(folders: Iterable[str]) -> str | None:
    """The split that a file's folders name, the outermost first; None where none does.

    Hugging Face's parquet files, `test-00000-of-00002.parquet`, count as folders too.
    """
    for folder in folders:
        name = re.sub(r"-\d{3,}(-of-\d{3,})?$", "", folder)
        if find_split(name) is not None:
            return _folded(name)
    return None
