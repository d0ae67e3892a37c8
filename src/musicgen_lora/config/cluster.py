"""Settings of the commands whose work splits into independent items."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator
from pydantic.dataclasses import dataclass

from musicgen_lora.config.kinds import STRICT

_HOST_AND_PORT = r"[\w.-]+:\d{1,5}|\[[\da-fA-F:]+\]:\d{1,5}"


def _known_address(address: str) -> str:
    if not re.fullmatch(rf"local|auto|{_HOST_AND_PORT}", address):
        raise ValueError("no such cluster; give local, auto or HOST:PORT, such as head:6379")
    return address


RayAddress = Annotated[str, AfterValidator(_known_address)]


@dataclass(config=STRICT)
class ClusterSettings:
    """Where the work is done."""

    ray: RayAddress | None = None
    """Ray cluster to run on: local starts one on this machine, auto joins the one running here,
    HOST:PORT another that this machine is a node of (extra scale); None runs without Ray."""
