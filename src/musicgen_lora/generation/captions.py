"""Prompts from what an adapter was trained on: words that it has heard."""

from __future__ import annotations

import random
from collections.abc import Sequence

from musicgen_lora.errors import UserError
from musicgen_lora.model.lora.adapter import AdapterFiles
from musicgen_lora.plural import count
from musicgen_lora.runtime.seeds import seed_of


def draw_captions(adapters: Sequence[AdapterFiles], n: int, seed: int) -> tuple[list[str], str]:
    """Captions that adapters keep of their training, drawn by a seed, and what to tell the user of
    them; empty where nothing is to be said. Where more are asked for than there are, all come
    before one comes again.

    Raises:
        UserError: there is no adapter, or one that keeps none.
    """
    check_captions(adapters)
    known = [text for files in adapters if files.facts for text in files.facts.captions]
    known = list(dict.fromkeys(known))
    draws = random.Random(seed_of("from_captions", seed))
    found: list[str] = []
    while len(found) < n:
        found += draws.sample(known, min(len(known), n - len(found)))
    said = ""
    if n > len(known):
        said = (
            f"The adapter keeps {count(len(known), 'caption')}, fewer than {n}: some are played "
            "again."
        )
    return found, said


def check_captions(adapters: Sequence[AdapterFiles]) -> None:
    """Raises a UserError where there is no adapter, or one that keeps no captions."""
    if not adapters:
        raise UserError("--from_captions: these are an adapter's captions; give --lora_model_path.")
    for files in adapters:
        if files.facts is None or not files.facts.captions:
            raise UserError(
                f"{files.folder}: keeps none of the captions that it was trained on, since an "
                "earlier release or another tool made it, or it was exported for other people; "
                "train it again, or write --prompts."
            )
