"""Settings of the commands that work on things that know nothing of each other."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from musicgen_lora.config.kinds import STRICT

_HOST_AND_PORT = r"[\w.-]+:\d{1,5}|\[[\da-fA-F:]+\]:\d{1,5}"
RayAddress = Annotated[str, Field(pattern=rf"^(local|auto|{_HOST_AND_PORT})$")]


@dataclass(config=STRICT)
class ClusterSettings:
    """Who works."""

    ray: RayAddress | None = None
    """Ray cluster that works: local starts one on this machine, auto joins the one that it is a
    node of, HOST:PORT is for several (extra scale); None works here."""
