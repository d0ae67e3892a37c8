"""The losses in report.json."""

from __future__ import annotations

from typing import Literal, NotRequired

# Of pydantic, which reads no other before Python 3.12, and holds reports against their type.
from typing_extensions import TypedDict

from musicgen_lora.evaluation.decisions.statistics import PairedResult


class SourceLoss(TypedDict):
    """The loss on one source, of each codebook."""

    source: str
    n_windows: int
    n_frames: int
    base: list[float]
    adapter: list[float]


class PositionLoss(TypedDict):
    """The loss on one stretch of the clips, the mean of the codebooks."""

    from_s: float
    to_s: float
    loss: PairedResult


class Losses(TypedDict):
    """Base against adapter on the same windows, see `losses.compare_losses`."""

    computed: Literal[True]
    n_sources: int
    n_windows: int
    n_frames: int
    mean: PairedResult
    codebooks: list[PairedResult]
    perplexity: dict[Literal["base", "adapter"], list[float]]
    positions: NotRequired[list[PositionLoss]]
    sources: list[SourceLoss]


class NoLosses(TypedDict):
    """Why there are none."""

    computed: Literal[False]
    why: str
