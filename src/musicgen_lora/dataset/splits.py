"""The names of splits, and the sources that are split, for both the input of `prepare` and the
dataset.

If a name means "held out" to its author and "train" to the reader, the adapter is trained on its
own test set; so unknown names are rejected, never guessed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any, Literal

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
    """The split that a name means, ignoring case, spaces and hyphens; None if it means none."""
    return _SPLITS.get(_folded(name))


def _folded(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", unicodedata.normalize("NFKC", name).casefold().strip())


def normalise_split(value: object, where: str) -> Split | None:
    """The split that metadata states; None if it states none (null, NaN or empty).

    Args:
        where: file and line, for the message.

    Raises:
        UserError: not the name of a split.
    """
    # NaN, which tables use for empty values, differs from itself.
    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        return None
    split = find_split(value) if isinstance(value, str) else None
    if split is None:
        raise UserError(
            f'{where}: "split" is {str(value)[:40]!r}, which is not a known split; use one of: '
            f"{', '.join(TRAIN_NAMES)} (to train on), {', '.join(HELD_OUT_NAMES)} (to hold out)."
        )
    return split


def split_of_folders(folders: Iterable[str]) -> str | None:
    """The split that a file's folders name, the outermost first; None if none does.

    Hugging Face's parquet files, `test-00000-of-00002.parquet`, count as folders too.
    """
    for folder in folders:
        name = re.sub(r"-\d{3,}(-of-\d{3,})?$", "", folder)
        if find_split(name) is not None:
            return _folded(name)
    return None


def source_of(entry: Mapping[str, Any]) -> str:
    """The track that an entry's clip comes from: its own file, unless another is stated."""
    return str(entry.get("source") or entry.get("audio"))
