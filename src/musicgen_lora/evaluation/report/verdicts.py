"""Verdicts of the protocol and of the other measures, as sentences and table rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from musicgen_lora.evaluation.decisions.statistics import FEWEST_FOR_SURE
from musicgen_lora.evaluation.measures.diversity import COLLAPSED_BELOW
from musicgen_lora.evaluation.measures.power import found_shift
from musicgen_lora.plural import count

DASH = "\N{EN DASH}"
ANCHOR_NAMES = {
    "halves": "halves of the held-out clips",
    "recorded": "held-out clips as recorded",
    "other_music": "other music",
    "noise": "white noise",
    "sources": "held-out sources",
    "other_styles": "other styles, base",
}
SIDES = {"base": "the base", "adapter": "the adapter"}
VERDICTS = {
    "better": "clearly better",
    "worse": "clearly worse",
    "no clear change": "no clear change",
    "not computed": "not tested",
}
"""Display text of each verdict."""


def primary_sentences(primaries: Sequence[Mapping[str, Any]]) -> list[str]:
    """The verdict of each primary outcome, and the smallest change that this n could detect."""
    told = [(primary_sentence(primary), power_sentence(primary)) for primary in primaries]
    return [sentence for pair in told for sentence in pair if sentence]


def primary_sentence(primary: Mapping[str, Any]) -> str:
    """The verdict of a primary outcome with its n, Holm-adjusted p and effect size."""
    n = f"n = {count(primary['n'], primary['unit'])}"
    if primary["verdict"] == "not computed":
        return f"{primary['label']}: not tested: {primary['why']} ({n})."
    effect = "" if primary["effect"] is None else f", Cohen's d = {primary['effect']:+z.2f}"
    few = f"; indicative only: fewer than {FEWEST_FOR_SURE}" if primary["indicative"] else ""
    sides = f"{primary['base']:.3f} with the base and {primary['adapter']:.3f} with the adapter"
    found = (
        f"{sides} ({p_words(primary['p_holm'])}, Holm-adjusted for "
        f"{count(primary['n_tests'], 'test')}{effect}, {n}{few})"
    )
    if primary["verdict"] == "worse":
        return f"Warning: {primary['label']}: clearly worse, {found}."
    return f"{primary['label']}: {VERDICTS[primary['verdict']]}, {found}."


def p_words(p_value: float) -> str:
    """A p-value as text, with the letter p."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def power_sentence(primary: Mapping[str, Any]) -> str:
    """The smallest change in a primary outcome that this n can detect; empty if not known."""
    if primary["verdict"] == "not computed":
        return ""
    n = f"n = {count(primary['n'], primary['unit'])}"
    if found_shift(primary["n"], primary["n_tests"]) is None:
        return (
            f"{primary['label']}: with {n} no change, however large, could be significant as one "
            f"of {count(primary['n_tests'], 'test')}."
        )
    if primary["detectable"] is None:
        return ""
    return (
        f"{primary['label']}: with {n} a change of {primary['detectable']:.3f} would be detected "
        "with 80 % power."
    )


def distance_sentences(distances: Mapping[str, Any]) -> list[str]:
    """Where base and adapter lie between the anchors, and whether the clips all sound alike."""
    sentences = []
    for row in distances["embeddings"]:
        if not row["computed"]:
            continue
        if row["name"] == distances["primary"] and row["position"]["adapter"] is not None:
            sentences.append(_position_sentence(row))
        for side in SIDES:
            diversity = row["diversity"][side]
            if diversity["computed"] and diversity["collapsed"]:
                sentences.append(
                    f"Warning: the clips of {SIDES[side]} all sound alike by {row['label']}: "
                    f"their spread is {diversity['spread']:.2f} of the held-out audio's; below "
                    f"{COLLAPSED_BELOW} counts as collapsed (n = {count(diversity['n'], 'clip')})."
                )
    return sentences


def _position_sentence(row: Mapping[str, Any]) -> str:
    position, kernel = row["position"], row["kernel"]
    far = "other music" if position["adapter"]["far"] == "other_music" else "noise"
    places = [f"{position['adapter']['share'] * 100:z.0f} % with the adapter"]
    if position["base"] is not None:
        places.append(f"{position['base']['share'] * 100:z.0f} % with the base")
    firm = "" if kernel["firm"] else "; indicative only: KAD is reliable from 100 clips on"
    return (
        f"By the {row['label']}, where 0 % is as near as held-out clips are to each other and "
        f"100 % as far as {far}, the clips are at {', '.join(places)} "
        f"(n = {count(kernel['n'], 'clip')} / {count(kernel['n_reference'], 'held-out clip')}"
        f"{firm})."
    )


def agreement_sentences(agreement: Mapping[str, Any]) -> list[str]:
    """Whether clips match their prompts, by a CLAP."""
    if not agreement["computed"]:
        return []
    told = [f"{np.mean(agreement['adapter']):.3f} with the adapter"]
    if agreement["base"] is not None:
        told.append(f"{np.mean(agreement['base']):.3f} with the base")
    if agreement["reference"] is not None:
        told.append(f"{np.mean(agreement['reference']):.3f} in the held-out audio")
    if agreement["others"] is not None:
        told.append(f"{agreement['others']:.3f} with other clips' prompts")
    n = count(len(agreement["adapter"]), "prompt")
    return [f"Agreement with the prompts by CLAP (cosine): {', '.join(told)} (n = {n})."]


def agreement_rows(agreement: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The CLAP agreement with the prompts as texts: means, and their paired difference."""
    if not agreement["computed"]:
        return []
    paired = agreement["paired"]
    sides = {
        side: DASH if agreement[side] is None else number(float(np.mean(agreement[side])))
        for side in ("base", "adapter", "reference")
    }
    return [
        {
            "label": agreement["model"],
            **sides,
            "others": number(agreement["others"]),
            **{f"{n}_place": share_text(p, none="") for n, p in agreement["position"].items()},
            **{name: number(own["value"]) for name, own in agreement["anchors"].items()},
            "difference": signed(None if paired is None else paired["difference"]),
            "interval": interval_text(paired or {}),
            "p": number(None if paired is None else paired["p_value"]),
            "n": str(len(agreement["adapter"])),
            "missing": missing_anchors(agreement["anchors"]),
        }
    ]


def missing_anchors(anchors: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Why anchors are missing, one sentence each."""
    return [
        f"{ANCHOR_NAMES[name]}: not computed: {own['why']}."
        for name, own in anchors.items()
        if own["why"]
    ]


def damage_sentences(damage: Mapping[str, Any]) -> list[str]:
    """Faults in the adapter's clips."""
    sentences = []
    bad, stuck = damage["bad_samples"]["adapter"], damage["stuck_share"]["adapter"]
    if bad is not None and bad["n_with"]:
        sentences.append(
            f"Warning: NaN or infinite samples in {count(bad['n_with'], 'clip')} of the "
            f"adapter (n = {count(bad['n'], 'clip')})."
        )
    if stuck is not None and stuck["n_with"]:
        sentences.append(
            "Warning: stuck on one sound for half a second or more in "
            f"{count(stuck['n_with'], 'clip')} of the adapter (n = {count(stuck['n'], 'clip')})."
        )
    return sentences


def primary_rows(primaries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "label": p["label"],
            "verdict": p["verdict"],
            "words": VERDICTS[p["verdict"]],
            "base": number(p["base"]),
            "adapter": number(p["adapter"]),
            **{
                end: {
                    "value": number(p[end]["value"]) if p[end] else DASH,
                    "name": ANCHOR_NAMES[p[end]["name"]] if p[end] else "",
                }
                for end in ("near", "far")
            },
            "difference": signed(p["difference"]),
            "interval": interval_text(p),
            "p_words": "" if p["p_holm"] is None else p_words(p["p_holm"]),
            "p_holm": p_text(p["p_holm"]),
            "effect": signed(p["effect"], 2),
            "detectable": number(p["detectable"]),
            "n": count(p["n"], p["unit"]),
            "indicative": f"indicative only: n < {FEWEST_FOR_SURE}" if p["indicative"] else "",
            "why": p["why"],
        }
        for p in primaries
    ]


def distance_rows(distances: Mapping[str, Any]) -> list[dict[str, Any]]:
    """KAD by each embedding between its anchors, FAD, and diversity, as texts."""
    rows: list[dict[str, Any]] = []
    for row in distances["embeddings"]:
        if not row["computed"]:
            rows.append({"label": row["label"], "why": row["why"]})
            continue
        kernel, frechet = row["kernel"], row["frechet"]
        texts = {"label": row["label"], "why": ""}
        texts |= {name: number(anchor["value"], 2) for name, anchor in row["anchors"].items()}
        for side in SIDES:
            place = row["position"][side]
            texts[side] = number(kernel[side], 2)
            texts[f"{side}_place"] = "" if place is None else f"{place['share'] * 100:z.0f} %"
            texts[f"{side}_fad"] = number(frechet[side], 1)
            texts[f"{side}_spread"], texts[f"{side}_covered"] = _diversity(row, side)
        texts["difference"] = signed(kernel["difference"], 2)
        texts["interval"] = interval_text(kernel, 2)
        texts["p"] = number(kernel["p_value"])
        texts |= _far_texts(row)
        texts["bias"] = number(frechet["bias"], 1)
        texts["n"] = f"{kernel['n']} / {kernel['n_reference']}"
        rows.append({**texts, "missing": missing_anchors(row["anchors"])})
    return rows


def _far_texts(row: Mapping[str, Any]) -> dict[str, list[str]]:
    """Spread, coverage and FAD of other music and of noise, in this order."""
    names = ("other_music", "noise")
    spread, covered = zip(*(_diversity(row, name) for name in names), strict=True)
    fad = [number(row["frechet"][name], 1) for name in names]
    return {"far_spread": [*spread], "far_covered": [*covered], "far_fad": fad}


def _diversity(row: Mapping[str, Any], side: str) -> tuple[str, str]:
    """Spread and coverage of a side's clips."""
    own = row["diversity"][side]
    if not own["computed"]:
        return DASH, DASH
    return number(own["spread"], 2), f"{own['precision'] * 100:.0f} / {own['recall'] * 100:.0f} %"


def number(value: float | None, digits: int = 3) -> str:
    """A number as text, or a dash."""
    return DASH if value is None else minus(f"{value:z.{digits}f}")


def share_text(value: float | None, digits: int = 0, none: str = DASH) -> str:
    """A share in percent, or the text for none."""
    return none if value is None else f"{number(value * 100, digits)} %"


def signed(value: float | None, digits: int = 3) -> str:
    """A difference as text, or a dash."""
    return DASH if value is None else minus(f"{value:+z.{digits}f}")


def interval_text(found: Mapping[str, Any], digits: int = 3, none: str = DASH) -> str:
    """The interval of a difference, or the text for none."""
    if found.get("ci_low") is None:
        return none
    return f"{signed(found['ci_low'], digits)} to {signed(found['ci_high'], digits)}"


def p_text(p_value: float | None) -> str:
    """A p-value as text without the letter p, or a dash."""
    return DASH if p_value is None else p_words(p_value)[2:].strip("= ")


def minus(text: str) -> str:
    """Replace the hyphen of a negative number with a minus sign."""
    return text.replace("-", "\N{MINUS SIGN}")
