"""Seeds of independent draws, from what each of them is for.

torch's CPU generator takes the low 32 bits of a seed and drops the rest without a word, so a sum or
a shift of seed, step and rank collides, or never reaches it. A hash uses all of what it is given.
"""

from __future__ import annotations

import hashlib
import json


def seed_of(*parts: str | int) -> int:
    """A seed of 32 bits, which every generator takes whole.

    Args:
        parts: the purpose first, then the user's seed and the place, such as
            `"dropout", seed, step, rank`. Other parts, or the same in another order, give other
            seeds.
    """
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:4], "little")
