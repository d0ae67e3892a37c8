"""An evaluation's results as a section of an adapter's card: figures with n and interval, and only
from an evaluation of these same weights.

All names are ours and all numbers are checked: nothing else from a report, which may be untrusted
and names its owner's folders, goes into a card.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from musicgen_lora.errors import UserError
from musicgen_lora.formats.documents import LARGE, read_json
from musicgen_lora.formats.kinds import (
    Kind,
    fields,
    integer,
    many,
    named,
    one_of,
    or_null,
    real,
    text,
    truth,
)
from musicgen_lora.plural import count

REPORT_FILE = "report.json"
DASH = "\N{EN DASH}"
PRIMARY_NAMES = {
    "held_out_loss": "Held-out loss (nats per token)",
    "kernel_distance": "Distance of generated clips to held-out ones (KAD)",
    "descriptor_distance": "Descriptor distance (standard deviations)",
}
VERDICTS = ("better", "worse", "no clear change", "not computed")
_NUMBER = or_null(real(-1e12, 1e12))
_COUNT = integer(0, 10**9)
_PAIRED = fields(
    {"n": _COUNT, "mean_base": _NUMBER, "mean_adapter": _NUMBER, "relative": _NUMBER},
    {"relative_ci_low": _NUMBER, "relative_ci_high": _NUMBER},
)


def _computed(kind: Kind) -> Kind:
    """A part of a report that is of a kind, unless it was not computed."""

    def check(value: Any) -> None:
        fields({"computed": truth})(value)
        if value["computed"]:
            kind(value)

    return check


_PRIMARY = fields(
    {
        "name": text(100),
        "verdict": one_of(*VERDICTS),
        "unit": one_of("source", "prompt"),
        "n": _COUNT,
        "indicative": truth,
        **dict.fromkeys(("base", "adapter", "difference", "ci_low", "ci_high", "p_holm"), _NUMBER),
    }
)
_HELD_OUT = fields(
    {"n_clips": _COUNT, "n_sources": _COUNT, "is_unseen": truth, "chose_best": truth},
    {"n_heard": or_null(_COUNT)},
)
_LOSS = _computed(fields({"mean": _PAIRED, "codebooks": many(_PAIRED, at_most=64)}))
_OVERFITTING = _computed(
    fields(
        {"trained": fields({"mean": _PAIRED})},
        {"excess": fields({}, {"share": _NUMBER, "flagged": truth})},
    )
)
_CONTINUATIONS = _computed(
    fields(
        {"n_trained": _COUNT, "n_held_out": _COUNT, "flagged": truth},
        {"p_value": _NUMBER},
    )
)
_CAPTIONS = _computed(
    fields(
        {
            "held_out": named(fields({"n": _COUNT, "gain": _NUMBER})),
            "reads": truth,
            "flagged": truth,
        }
    )
)
_REPORT = fields(
    {
        "created": text(40),
        "adapter": fields({"fingerprint": text(200)}, {"strength": real(0.0, 2.0)}),
        "held_out": _HELD_OUT,
        "primaries": many(_PRIMARY, at_most=100),
        "loss": _LOSS,
        "forgetting": _LOSS,
        "overfitting": _OVERFITTING,
        "memorisation": fields({"continuations": _CONTINUATIONS}),
    },
    {"captions": _CAPTIONS},
)


def read_evaluation(path: Path, fingerprint: str) -> str:
    """Reads an adapter's evaluation as a section of its card.

    Args:
        path: report.json, or the folder that `evaluate` wrote.
        fingerprint: of the adapter.

    Raises:
        UserError: there is no such report, or it is of another adapter.
    """
    file = path / REPORT_FILE if path.is_dir() else path
    report = read_json(file, _REPORT, max_bytes=LARGE)
    found = report["adapter"]["fingerprint"]
    if found != fingerprint:
        raise UserError(
            f"{file}: is for another adapter (fingerprint {found[:16]}, not {fingerprint[:16]}); "
            "evaluate this one, or leave its figures out."
        )
    return evaluation_section(report)


def evaluation_section(report: Mapping[str, Any]) -> str:
    """The Markdown of a report: primary outcomes, losses, and memorised clips."""
    held_out = report["held_out"]
    unseen = "not seen in training" if held_out["is_unseen"] else "not all unseen"
    if n_heard := held_out.get("n_heard", 0):
        unseen = f"{n_heard} of them used in training, so a lower loss on them proves nothing"
    chose = "; they were also used to choose these weights" if held_out["chose_best"] else ""
    strength = report["adapter"].get("strength", 1.0)
    at = "" if strength == 1.0 else f" at strength {strength:g}"
    lines = [
        "## Evaluation",
        "",
        f"Base against adapter{at}, {report['created'][:10]}. Held-out clips: "
        f"{held_out['n_clips']} from {count(held_out['n_sources'], 'source')}, {unseen}{chose}. "
        "The three measures were chosen beforehand; intervals are 95 %, p is adjusted for the "
        "number of tests (Holm), and fewer than 20 are only indicative.",
        "",
        "| | verdict | base | with adapter | difference | interval | p | n |",
        "| --- | --- | ---: | ---: | ---: | --- | ---: | --- |",
        *(_primary_row(own) for own in report["primaries"] if own["name"] in PRIMARY_NAMES),
    ]
    if losses := _loss_rows(report):
        lines += [
            "",
            "| loss (nats per token) | base | with adapter | change | interval | n |",
            "| --- | ---: | ---: | ---: | --- | --- |",
            *losses,
        ]
    found = report["memorisation"]["continuations"]
    if found["computed"]:
        said = "no sign of repeated training clips"
        if found["flagged"]:
            said = "repeats training clips"
        elif found.get("p_value") is None:
            said = "too few to tell whether it repeats training clips"
        n = f"n = {found['n_trained']} training and {found['n_held_out']} held-out sources"
        lines += ["", f"Greedy continuations: {said} ({n})."]
    lines += [line for own in (_excess_line(report), _caption_line(report)) for line in own]
    return "\n".join([*lines, ""])


def _excess_line(report: Mapping[str, Any]) -> list[str]:
    """A line that says that it knows its clips more than their style, if it does."""
    overfitting = report["overfitting"]
    excess = overfitting.get("excess", {}) if overfitting["computed"] else {}
    if not excess.get("flagged") or excess.get("share") is None:
        return []
    return [
        "",
        f"It learned its training clips more than their style: {100 * excess['share']:.0f} % of "
        "its gain on them is missing on held-out clips.",
    ]


def _caption_line(report: Mapping[str, Any]) -> list[str]:
    captions = report.get("captions", {"computed": False})
    if not captions["computed"]:
        return []
    held = captions["held_out"]["adapter"]
    said = "have an effect" if captions["reads"] else "make no clear difference"
    if captions["flagged"]:
        said = "of its training belong to other clips"
    return [
        "",
        f"Captions {said}: compared with other clips' captions, their own lower the loss on "
        f"held-out clips by {_number(held['gain'])} nats per token (n = {held['n']} sources).",
    ]


def _primary_row(own: Mapping[str, Any]) -> str:
    few = ", indicative" if own["indicative"] else ""
    cells: Sequence[str] = (
        PRIMARY_NAMES[own["name"]],
        "not tested" if own["verdict"] == "not computed" else own["verdict"],
        _number(own["base"]),
        _number(own["adapter"]),
        _number(own["difference"], "+"),
        _interval(own["ci_low"], own["ci_high"], ""),
        DASH
        if own["p_holm"] is None
        else "< 0.001"
        if own["p_holm"] < 0.001
        else f"{own['p_holm']:.3f}",
        f"{count(own['n'], own['unit'])}{few}",
    )
    return f"| {' | '.join(cells)} |"


def _loss_rows(report: Mapping[str, Any]) -> list[str]:
    shown: list[tuple[str, Mapping[str, Any]]] = []
    if report["loss"]["computed"]:
        shown.append(("held-out clips", report["loss"]["mean"]))
        shown += [(f"codebook {k}", own) for k, own in enumerate(report["loss"]["codebooks"], 1)]
    if report["overfitting"]["computed"]:
        shown.append(("training clips", report["overfitting"]["trained"]["mean"]))
    if report["forgetting"]["computed"]:
        shown.append(("other styles", report["forgetting"]["mean"]))
    rows = []
    for name, own in shown:
        relative = own["relative"]
        change = DASH if relative is None else f"{100.0 * relative:+.1f} %"
        low, high = own.get("relative_ci_low"), own.get("relative_ci_high")
        low, high = (None if end is None else 100.0 * end for end in (low, high))
        cells = (
            name,
            _number(own["mean_base"]),
            _number(own["mean_adapter"]),
            change,
            _interval(low, high, " %"),
            count(own["n"], "source"),
        )
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def _number(value: float | None, sign: str = "") -> str:
    return DASH if value is None else f"{value:{sign}.3f}"


def _interval(low: float | None, high: float | None, unit: str) -> str:
    if low is None or high is None:
        return DASH
    digits = 1 if unit else 3
    return f"{low:+.{digits}f} to {high:+.{digits}f}{unit}"
