"""What report.json holds, as docs/evaluation.md lists it. Figures that are NaN or infinite are null
in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NotRequired

# Of pydantic, which reads no other before Python 3.12, and holds reports against their type.
from typing_extensions import TypedDict

from musicgen_lora.evaluation.decisions.statistics import Apart, MovedShare, PairedResult

JSON_FILE = "report.json"
FORMAT_VERSION = 2
"""To be raised where a name goes or comes to mean something else."""

Described = Mapping[str, float | None]
"""Descriptors of a clip by name, as `listening.descriptors.describe` gives them."""


class HeldOutFacts(TypedDict):
    """The clips that were measured on, see `held_out.HeldOut`."""

    origin: str
    is_unseen: bool
    chose_best: bool
    why_none: str
    n_clips: int
    n_sources: int
    missing: list[str]


class Reference(TypedDict):
    """Held-out audio, described: an entry a source."""

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
    """What base and adapter made of a prompt and a seed; `base` is None without --compare. Of
    several variants `adapter` is the best, and `others` has the rest, by name."""

    prompt: str
    origin: str
    read_as: str
    seed: int
    identical: bool
    base: PlayedClip | None
    adapter: PlayedClip
    others: dict[str, PlayedClip]


def sides(pair: PlayedPair) -> dict[str, PlayedClip]:
    """The clips of a pair that were made, by who played them."""
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
    """A descriptor over the clips that have it."""

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
    """What a value is read against."""

    name: str
    value: float


class Primary(TypedDict):
    """A measure that the evaluation was to decide by, see `protocol.judge_primaries`."""

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


class WorsePrompt(TypedDict):
    """A prompt whose clip went further from held-out audio than the base's: distances of
    descriptors, and the names of those that went furthest."""

    place: int
    prompt: str
    base: float
    adapter: float
    difference: float
    descriptors: list[str]


class WorseSource(TypedDict):
    """A held-out source whose loss rose, in nats a token."""

    source: str
    base: float
    adapter: float
    difference: float


class Regressions(TypedDict):
    """What got worse, the worst first, see `regressions.find_regressions`."""

    computed: Literal[True]
    why: str
    n_prompts: int
    prompts: list[WorsePrompt]
    n_sources: int
    sources: list[WorseSource]


class Excess(TypedDict):
    """How much more training clips gained than held-out ones, see `overfitting.excess_of`."""

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
    """Training clips beside held-out ones."""

    computed: Literal[True]
    why: str
    trained: Losses
    excess: Excess


Part = dict[str, Any]
"""`computed`, `why` not, and what docs/evaluation.md lists of the part."""


class Gain(TypedDict):
    """What a clip's own caption gains over those of others, in nats a token."""

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
    """What captions tell the models, see `captions.judge_captions`."""

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
    """How far a clip of another style went, see `unasked.measure_off_style`."""

    another_seed: float
    adapter: float
    base_to_style: float
    adapter_to_style: float
    changed: list[str]


class OffStyleClips(TypedDict):
    """What base and adapter made of a prompt of another style; `again` is the base's clip by
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
    """Prompts of other styles, see `unasked.measure_off_style`."""

    computed: Literal[True]
    why: str
    n: int
    change: PairedResult
    another_prompt: float | None
    towards_style: PairedResult
    clips: list[OffStyleClips]


class SeedDistances(TypedDict):
    """How far clips of a prompt by two seeds are apart, in decibels."""

    among_seeds: float
    values: list[float]
    among_prompts: float | None


class Seeds(TypedDict):
    """What another seed changes, see `seeds.measure_seeds`."""

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
    """What is measured of an adapter beside the base."""

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
    """One of several adapters or strengths, beside the base: each part as in the report itself."""

    overfitting: Part
    clips: list[PlayedClip]


class Missing(TypedDict):
    """What a full evaluation would have had, and why this one hasn't."""

    what: str
    why: str


class Report(Measured):
    """The whole document. `settings` are `EvaluateSettings`, paths as text; `findings` are
    sentences made of the rest, the worst first, `told` those of each section of the page,
    `remarks` those of clips that were not fit to be measured on, and `plots` files beside it."""

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
