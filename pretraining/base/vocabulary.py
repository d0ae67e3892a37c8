"""A smaller vocabulary for the package: T5's 32,100 pieces are a fifth of it, and captions of beats
use a few hundred.

T5's tokenizer chooses the likeliest way to split a text (unigram model; Kudo, 2018), so a text
whose pieces are all kept is split as before, whatever else is removed. Letters are kept, so that
every word can be spelt.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import torch
from tokenizers import Tokenizer

N_MOST_FREQUENT = 16_000
"""Pieces that are kept whether captions use them or not."""
N_SPECIAL = 3
"""Padding, end and unknown tokens, which come first."""


def kept_pieces(tokenizer: dict[str, Any], texts: Iterable[str]) -> list[int]:
    """The ids of the pieces to keep, in order: the most frequent, those of `texts`, and letters.

    Args:
        tokenizer: content of a tokenizer.json, with its pieces in the order of their frequency.
        texts: captions that must be split as before.
    """
    whole = Tokenizer.from_str(json.dumps(tokenizer))
    splits = whole.encode_batch(list(texts))
    used = {number for split in splits for number in split.ids}
    pieces = [piece for piece, _ in tokenizer["model"]["vocab"]]
    letters = {n for n, piece in enumerate(pieces) if len(piece.removeprefix("\u2581")) == 1}
    return sorted(set(range(N_MOST_FREQUENT)) | used | letters)


def same_pieces(tokenizer: dict[str, Any], smaller: dict[str, Any]) -> list[int]:
    """The ids in `tokenizer` of the pieces that a smaller one has, which is made of it."""
    own = {piece for piece, _ in smaller["model"]["vocab"]}
    return [n for n, (piece, _) in enumerate(tokenizer["model"]["vocab"]) if piece in own]


def with_pieces(tokenizer: dict[str, Any], kept: list[int]) -> dict[str, Any]:
    """The content of a tokenizer.json with only these pieces, renumbered."""
    vocabulary = tokenizer["model"]["vocab"]
    return tokenizer | {
        "model": tokenizer["model"] | {"vocab": [vocabulary[number] for number in kept]},
        "added_tokens": [t for t in tokenizer["added_tokens"] if t["id"] < N_SPECIAL],
    }


def keep_rows(model: Any, kept: list[int]) -> None:
    """Keeps only these rows of the embedding of a MusicGen's text encoder."""
    table = model.text_encoder.shared
    smaller = torch.nn.Embedding.from_pretrained(table.weight[kept].clone(), freeze=False)
    model.text_encoder.set_input_embeddings(smaller)
    model.text_encoder.config.vocab_size = len(kept)
    model.config.text_encoder.vocab_size = len(kept)
