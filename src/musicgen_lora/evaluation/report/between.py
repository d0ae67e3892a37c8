"""Figures between their reference points, as texts: faults, memorisation, and one table of all
measures for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from musicgen_lora.console import MessageTable
from musicgen_lora.evaluation.report.asked import obedience_rows
from musicgen_lora.evaluation.report.seeds import seed_rows
from musicgen_lora.evaluation.report.verdicts import (
    DASH,
    agreement_rows,
    minus,
    missing_anchors,
    number,
    primary_rows,
    share_text,
    signed,
)
from musicgen_lora.evaluation.sound.comparison import SHOWN, shown_value
from musicgen_lora.evaluation.sound.damage import MEASURES
from musicgen_lora.evaluation.sound.references import ANCHORS
from musicgen_lora.language.translate import word

FAULTS = {
    "clicks": "clicks per clip",
    "stuck_share": "share of frames stuck",
    "bad_samples": "NaN or infinite samples",
}
FAULTY = ("clipped_share", "silence_share", "dc_offset")
"""Descriptors that are faults too."""
SIDES = ("base", "adapter", "reference")
LIKENESS = {
    "held_out": "held-out clips",
    "base": "base",
    "adapter": "adapter",
    "other_music": "other music",
    "noise": "white noise",
    "recorded": "a recording and its codec reconstruction",
}
Texts = dict[str, str]
Cells = tuple[str, str, str, str, str]
"""Label, near end, base, adapter, far end."""


def fault_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Faults of the clips and of the anchors: means, with the number of clips that have any."""
    rows = []
    for name in MEASURES:
        found = report["damage"][name]
        cells: dict[str, Any] = {side: _counted(found[side]) for side in SIDES}
        cells |= {anchor: _counted(found["anchors"][anchor]) for anchor in ANCHORS}
        halves = found["anchors"]["halves"]
        cells["halves"] = {"mean": number(halves["difference"], 2), "n": ""}
        missing = missing_anchors(found["anchors"])
        rows.append({"label": FAULTS[name], "unit": "", **cells, "missing": missing})
    by_name = {row["name"]: row for row in report["descriptors"]}
    for shown in (own for own in SHOWN if own.name in FAULTY):
        row = by_name[shown.name]
        found = {side: row[side] for side in SIDES} | {a: row["anchors"].get(a) for a in ANCHORS}
        cells = {
            name: {
                "mean": minus(shown_value(shown, (own or {}).get("mean"))),
                "n": "",
            }
            for name, own in found.items()
        }
        cells["halves"] = {"mean": DASH, "n": ""}
        rows.append({"label": shown.label, "unit": shown.unit, **cells, "missing": []})
    return rows


def _counted(found: Mapping[str, Any] | None) -> Texts:
    if found is None or found["mean"] is None:
        return {"mean": DASH, "n": ""}
    return {"mean": f"{found['mean']:.2f}", "n": f"{found['n_with']} / {found['n']}"}


def continuation_rows(continuations: Mapping[str, Any]) -> list[Texts]:
    """How much of the clips continuations reproduce, between chance and the clip itself."""
    if not continuations["computed"]:
        return []
    anchors, position = continuations["anchors"], continuations["position"]
    chance = {name: share_text(own["value"], 2) for name, own in anchors.items()}
    rows = []
    for name, label in (("trained", "training clips"), ("held_out", "held-out clips")):
        texts = {"label": label, "n": str(continuations[f"n_{name}"]), **chance}
        for side, key in (("base", f"base_{name}"), ("adapter", name)):
            texts[side] = share_text(continuations[key], 1)
            texts[f"{side}_place"] = share_text(position[key], 0, none="")
        rows.append(texts)
    return rows


def likeness_rows(nearest: Mapping[str, Any]) -> list[Texts]:
    """How similar each kind of sound is to its nearest training clip."""
    if not nearest["computed"]:
        return []
    made = [clip["similarity"] for clip in nearest["clips"]]
    found = {
        "held_out": {
            "median": nearest["held_out_median"],
            "highest": nearest["held_out_highest"],
            "n": nearest["n_held_out"],
            "why": "",
        },
        "adapter": {
            "median": float(np.median(made)),
            "highest": max(made),
            "n": len(made),
            "why": "",
        },
        **nearest["anchors"],
    }
    return [
        {
            "label": label,
            "median": number(found[name]["median"], 2),
            "highest": number(found[name]["highest"], 2),
            "n": str(found[name]["n"]),
            "why": found[name]["why"],
        }
        for name, label in LIKENESS.items()
    ]


def anchors_table(report: Mapping[str, Any]) -> MessageTable:
    """Every figure that has reference points, for the terminal."""
    table = MessageTable(title=word("Reference points"))
    for name in ("", "near / chance", "base", "adapter", "far / ceiling"):
        table.add_column(name, justify="right" if name else "left")
    for row in (*_asked(report), *_learned(report), *_faults(report)):
        table.add_row(*row)
    return table


def _asked(report: Mapping[str, Any]) -> Iterator[Cells]:
    """Primary outcomes, prompt adherence, CLAP agreement and seeds."""
    for row in primary_rows(report["primaries"]):
        near, far = (_end(row[end]["value"], row[end]["name"]) for end in ("near", "far"))
        yield word(row["label"]), near, row["base"], row["adapter"], far
    for row in obedience_rows(report["obedience"]):
        if not row["why"]:
            low, high = _end(row["others"], "other prompts"), _end(row["reference"], "held out")
            yield word(row["label"]), low, row["base"], row["adapter"], high
    for row in agreement_rows(report["text_agreement"]):
        low = _end(row["others"], "other clips' prompts")
        high = _end(row["reference"], "held out")
        yield word("Agreement with the prompts"), low, row["base"], row["adapter"], high
    for row in seed_rows(report["seeds"]):
        if row["base"] != DASH or row["adapter"] != DASH:
            label, high = (
                f"{word(row['label'])} ({row['unit']})",
                _end(row["reference"], "held out"),
            )
            yield label, DASH, row["base"], row["adapter"], high


def _learned(report: Mapping[str, Any]) -> Iterator[Cells]:
    """Captions, continuations and nearest training clips."""
    captions, memory = report["captions"], report["memorisation"]
    if captions["computed"]:
        held = captions["held_out"]
        low = _end(signed(held["adapter"]["exchange"]["gain"]), "other clips' captions")
        base, adapter = (signed(held[side]["gain"]) for side in ("base", "adapter"))
        yield word("gain from own captions"), low, base, adapter, DASH
    for row in continuation_rows(memory["continuations"])[:1]:
        low, high = _end(row["halves"], "other clips"), _end("100 %", "the clip itself")
        yield word("continuations of training clips"), low, row["base"], row["adapter"], high
    likeness = {row["label"]: row for row in likeness_rows(memory["nearest"])}
    if likeness:
        low = _end(likeness[LIKENESS["held_out"]]["highest"], "held-out clips")
        base, adapter = (likeness[LIKENESS[side]]["highest"] for side in ("base", "adapter"))
        high = _end(likeness[LIKENESS["recorded"]]["median"], "a copy")
        yield word("nearest training clip, highest similarity"), low, base, adapter, high


def _faults(report: Mapping[str, Any]) -> Iterator[Cells]:
    """Faults have no real far end: other music is music, too."""
    for row in fault_rows(report):
        label = word(row["label"]) + (f" ({word(row['unit'])})" if row["unit"] else "")
        low, high = _end(row["reference"]["mean"], "held out"), row["other_music"]["mean"]
        yield label, low, row["base"]["mean"], row["adapter"]["mean"], _end(high, "other music")


def _end(value: str, name: str) -> str:
    return value if value == DASH else f"{value}\n{word(name)}"
