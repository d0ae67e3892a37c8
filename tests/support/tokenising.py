"""Clips to token shards and back, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from musicgen_lora.dataset.clip_ids import clip_ids
from musicgen_lora.dataset.metadata import load_dataset
from musicgen_lora.dataset.tokens import (
    TokenStore,
    find_codes,
    tokenise_clips,
)


def tokenise(data_dir: Path, model) -> tuple[list[str], TokenStore]:
    clips = load_dataset(data_dir)
    ids = clip_ids(clips, data_dir)
    return ids, tokenise_clips(clips, ids, model, data_dir)


def reopen(folder: Path, ids: list[str]) -> TokenStore:
    """The codes of clips that all are in a folder's shards."""
    codes, lacking = find_codes(folder, ids)
    assert not len(lacking)
    return codes


def equal(some: TokenStore, others: TokenStore) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(some, others, strict=True))


def shard_folder(data_dir: Path, model) -> Path:
    return data_dir / "tokens" / model.codec.fingerprint


def shards(folder: Path) -> Iterator[Path]:
    yield from sorted(folder.glob("*.npy"))
