"""Seeds for independent draws, derived from the purpose of each.

torch's CPU generator uses the low 32 bits of a seed and silently drops the rest, so sums or shifts
of seed, step and rank would collide or be lost. A hash uses all of its input.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator

ONE_THREAD = threading.RLock()
"""Held by a thread that uses what a process has once: torch's global generator, which initial
weights and dropout draw from, and the initialisation that transformers replaces while it loads."""


def seed_of(*parts: str | int) -> int:
    """A seed of 32 bits, all of which every generator uses.

    Args:
        parts: the purpose first, then the user's seed and the position, such as
            `"dropout", seed, step, rank`. Other parts, or another order, give another seed.
    """
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:4], "little")


@contextlib.contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """A context in which torch's global generator begins at a seed, and no other thread trains or
    loads a model: draws in between would make a training another one."""
    import torch

    with ONE_THREAD:
        torch.manual_seed(seed)
        yield
