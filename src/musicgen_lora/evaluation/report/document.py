"""The contents of report.json, as listed in docs/evaluation.md. NaN and infinite figures are null
there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NotRequired

# pydantic, which checks reports against their type, needs this one before Python 3.12.
from typing_extensions import TypedDict

from musicgen_lora.evaluation.decisions.statistics import Apart, MovedShare, PairedResult

JSON_FILE = "report.json"
FORMAT_VERSION = 2
"""Raise it when a name is removed or changes its meaning."""

Described = Mapping[str, float | None]
"""Descriptors of a clip by name, as `listening.descriptors.describe` returns them."""


class HeldOutFacts(TypedDict):
    """The clips that were used for measuring, see `held_out.HeldOut`."""

    origin: str
    is_unseen: bool
    chose_best: bool
    why_none: str
    n_clips: int
    n_sources: int
    n_heard: int | None
    missing: list[str]


class Reference(TypedDict):
    """Descriptors of the held-out audio, one entry per source."""

    computed: bool
    why: str
    descriptors: list[Described]
    n_sources: NotRequired[int]
    n_clips: NotRequired[int]


class PlayedClip(TypedDict):
    """A generated clip; `audio` is relative to the report."""

    audio: str
    descriptors: Described
    damage: dict[str, float | None]
    heard_bpm: float | None
    heard_key: str | None


class PlayedPair(TypedDict):
    """The clips of base and adapter for a prompt and a seed; `base` is None without --compare. With
    several variants, `adapter` is the best one and `others` has the rest, by name."""

    prompt: str
    origin: str
    read_as: str
    seed: int
    identical: bool
    base: PlayedClip | None
    adapter: PlayedClip
    others: dict[str, PlayedClip]


def sides(pair: PlayedPair) -> dict[str, PlayedClip]:
    """The clips of a pair that were generated, by side."""
    both = {"base": pair["base"], "adapter": pair["adapter"], **pair["others"]}
    return {side: clip for side, clip in both.items() if clip is not None}


class Generation(TypedDict):
    """The generated clips."""

    compared: bool
    duration_s: float
    precision: str
    windows: str
    clips: list[PlayedPair]


class Summary(TypedDict):
    """Summary of a descriptor over the clips that have it."""

    mean: float | None
    sd: float | None
    n: int


class DescriptorRow(TypedDict):
    """A descriptor on all sides, see `comparison.compare_descriptors`."""

    name: str
    base: Summary | None
    adapter: Summary | None
    reference: Summary | None
    anchors: dict[str, Summary]
    paired: PairedResult | None
    moved: MovedShare | None
    apart: Apart | None


class Anchor(TypedDict):
    """A reference point for a value."""

    name: str
    value: float


class Primary(TypedDict):
    """A primary outcome, see `protocol.judge_primaries`."""

    name: str
    label: str
    unit: str
    n: int
    near: Anchor | None
    far: Anchor | None
    base: float | None
    adapter: float | None
    difference: float | None
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    p_holm: float | None
    n_tests: int
    effect: float | None
    detectable: float | None
    indicative: bool
    verdict: Literal["better", "worse", "no clear change", "not computed"]
    why: str


class SourceLoss(TypedDict):
    """The loss on one source, by codebook."""

    source: str
    n_windows: int
    n_frames: int
    base: list[float]
    adapter: list[float]


class PositionLoss(TypedDict):
    """The loss on one stretch of the clips, averaged over the codebooks."""

    from_s: float
    to_s: float
    loss: PairedResult


class Losses(TypedDict):
    """Base vs. adapter on the same windows, see `held_out_loss.compare_losses`."""

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
    """The reason why there are none."""

    computed: Literal[False]
    why: str


class WorsePrompt(TypedDict):
    """A prompt whose clip is further from the held-out audio than the base's: descriptor distances,
    and the names of the descriptors that moved furthest away."""

    place: int
    prompt: str
    base: float
    adapter: float
    difference: float
    descriptors: list[str]


class WorseSource(TypedDict):
    """A held-out source whose loss rose, in nats per token."""

    source: str
    base: float
    adapter: float
    difference: float


class Regressions(TypedDict):
    """What got worse, worst first, see `regressions.find_regressions`."""

    computed: Literal[True]
    why: str
    n_prompts: int
    prompts: list[WorsePrompt]
    n_sources: int
    sources: list[WorseSource]


class Excess(TypedDict):
    """How much more training clips improved than held-out ones, see `overfitting.excess_of`."""

    difference: float
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    share: float | None
    n_trained: int
    n_held_out: int
    note: str
    flagged: bool


class Overfitting(TypedDict):
    """The loss on training clips compared with held-out ones."""

    computed: Literal[True]
    why: str
    trained: Losses
    excess: Excess


Part = dict[str, Any]
"""`computed`, `why` if it was not, and what docs/evaluation.md lists for the part."""


class Gain(TypedDict):
    """Loss reduction by a clip's own caption relative to other captions, in nats per token."""

    own: float | None
    exchanged: float | None
    gain: float | None
    detectable: float | None
    n: int
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    note: str
    exchange: dict[str, float | None]


class Captions(TypedDict):
    """How much the models use captions, see `captions.judge_captions`."""

    computed: Literal[True]
    why: str
    n_exchanged: int
    held_out: dict[Literal["base", "adapter"], Gain]
    trained: Gain | None
    excess: dict[str, float] | None
    reads: bool
    base_reads: bool
    unlearned: bool
    flagged: bool


class Memorisation(TypedDict):
    """Continuations of training clips, and the training clips nearest to generated ones."""

    continuations: Part
    nearest: Part


class OffStyleFigures(TypedDict):
    """How far a clip in another style moved, see `unasked.measure_off_style`."""

    another_seed: float
    adapter: float
    base_to_style: float
    adapter_to_style: float
    changed: list[str]


class OffStyleClips(TypedDict):
    """The clips of base and adapter for a prompt in another style; `again` is the base's clip with
    `other_seed`."""

    prompt: str
    origin: str
    read_as: str
    seed: int
    other_seed: int
    identical: bool
    base: PlayedClip
    again: PlayedClip
    adapter: PlayedClip
    measured: OffStyleFigures


class OffStyle(TypedDict):
    """Prompts in other styles, see `unasked.measure_off_style`."""

    computed: Literal[True]
    why: str
    n: int
    change: PairedResult
    another_prompt: float | None
    towards_style: PairedResult
    clips: list[OffStyleClips]


class SeedDistances(TypedDict):
    """Distance between clips of the same prompt with two seeds, in decibels."""

    among_seeds: float
    values: list[float]
    among_prompts: float | None


class Seeds(TypedDict):
    """Variation across seeds, see `seeds.measure_seeds`."""

    computed: Literal[True]
    why: str
    n: int
    base: SeedDistances | None
    adapter: SeedDistances
    reference: float | None
    paired: PairedResult | None
    collapsed: bool


class AdapterTold(TypedDict):
    """An adapter at a strength."""

    name: str
    label: str
    path: str
    strength: float
    sha256: str
    fingerprint: str


class Measured(TypedDict):
    """What is measured for an adapter in comparison with the base."""

    loss: Losses | NoLosses
    forgetting: Losses | NoLosses
    descriptors: list[DescriptorRow]
    descriptor_distance: Part
    distances: Part
    damage: dict[str, dict[str, Any]]
    obedience: Part
    text_agreement: Part
    memorisation: Memorisation
    captions: Captions | NoLosses
    off_style: OffStyle | NoLosses
    seeds: Seeds
    primaries: list[Primary]


class VariantTold(AdapterTold, Measured):
    """One of several adapters or strengths, with each part as in the report itself."""

    overfitting: Part
    clips: list[PlayedClip]


class Missing(TypedDict):
    """A part that a full evaluation would have, and why this one doesn't."""

    what: str
    why: str


class Report(Measured):
    """The whole document. `settings` are `EvaluateSettings` with paths as text; `findings` are
    sentences derived from the rest, worst first; `told` has the sentences of each section of the
    page, `remarks` those on unsuitable clips, and `plots` lists files next to it."""

    format_version: int
    created: str
    settings: dict[str, Any]
    versions: dict[str, str]
    device: str
    base: dict[str, str]
    adapter: AdapterTold
    held_out: HeldOutFacts
    remarks: list[str]
    reference: Reference
    generation: Generation
    overfitting: Overfitting | NoLosses
    regressions: Regressions | NoLosses
    variants: list[VariantTold]
    choice: Part
    cache: Part
    not_computed: list[Missing]
    findings: list[str]
    told: dict[str, list[str]]
    plots: list[str]
