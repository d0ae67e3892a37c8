"""Sentences on what the adapter learned from its training clips: their style, the clips themselves
or their captions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from musicgen_lora.evaluation.losses.overfitting import SURE
from musicgen_lora.evaluation.report.verdicts import (
    interval_text,
    number,
    p_text,
    p_words,
    signed,
)
from musicgen_lora.plural import count

FEWEST_FOR_NOTHING = 8
"""With fewer held-out sources, captions that make no difference are no reason for a warning ..."""
SEEN = 0.05
"""... nor if the interval of their gain reaches this many nats per token: a gain that is not
significant may still exist."""


def memorisation_sentences(memorisation: Mapping[str, Any]) -> list[str]:
    """Whether the adapter repeats its training clips."""
    sentences = []
    found = memorisation["continuations"]
    if found["computed"]:
        n = (
            f"n = {count(found['n_trained'], 'training source')} / "
            f"{count(found['n_held_out'], 'held-out source')}"
        )
        shares = (
            f"greedy continuations reproduce {found['trained'] * 100:.1f} % of the codes of "
            f"training clips (base {found['base_trained'] * 100:.1f} %) and "
            f"{found['held_out'] * 100:.1f} % of held-out ones "
            f"(base {found['base_held_out'] * 100:.1f} %)"
        )
        if found["flagged"]:
            sentences.append(f"Warning: the adapter has memorised training clips: {shares} ({n}).")
        elif found["p_value"] is None:
            sentences.append(f"Memorisation of training clips: {shares} ({n}: too few for a test).")
        else:
            sentences.append(
                f"No sign of memorised training clips: {shares} ({p_words(found['p_value'])}, {n})."
            )
    nearest = memorisation["nearest"]
    if nearest["computed"]:
        if leaked := nearest["held_out_copies"]:
            first = leaked[0]
            sentences.append(
                f"Warning: {len(leaked)} of {count(nearest['n_held_out'], 'held-out clip')} "
                f"{'repeat' if len(leaked) != 1 else 'repeats'} a training clip, such as "
                f"{first['held_out']} and {first['trained']} (similarity "
                f"{first['similarity']:.2f}): figures measured on them are for music that the "
                "adapter was trained on. Give both the same source in the metadata and train again."
            )
        copied = [clip for clip in nearest["clips"] if clip["copied"]]
        if copied:
            sentences.append(
                f"Warning: {len(copied)} of {count(nearest['n'], 'generated clip')} "
                f"{'repeat' if len(copied) != 1 else 'repeats'} a training clip, such as "
                f"{copied[0]['trained']} (similarity "
                f"{copied[0]['similarity']:.2f}; held-out clips reach "
                f"{nearest['held_out_highest']:.2f}, n = {count(nearest['n_held_out'], 'clip')})."
            )
    return sentences


def overfitting_sentences(overfitting: Mapping[str, Any]) -> list[str]:
    """Whether the loss fell more on training clips than on held-out ones."""
    if not overfitting["computed"]:
        return []
    excess, trained = overfitting["excess"], overfitting["trained"]["mean"]
    n = (
        f"n = {count(excess['n_trained'], 'training source')} / "
        f"{count(excess['n_held_out'], 'held-out source')}"
    )
    change = f"the loss changed by {trained['difference']:+z.3f} nats per token on training clips"
    more = f"{excess['difference']:+z.3f} relative to held-out ones"
    if excess["ci_low"] is None:
        return [f"Overfitting: {change}, {more} ({n}; {excess['note']})."]
    beyond = f"{more}, 95 % CI {excess['ci_low']:+z.3f} to {excess['ci_high']:+z.3f}"
    if excess["flagged"]:
        return [
            "Warning: the adapter learned its training clips more than their style: "
            f"{excess['share'] * 100:.0f} % of its gain on them does not carry over to held-out "
            f"clips: {change}, {beyond} ({n})."
        ]
    if excess["p_value"] < SURE and excess["difference"] < 0.0:
        return [
            "Part of what it learned is specific to its training clips, not their style: "
            f"{change}, {beyond} ({n})."
        ]
    return [f"No clear sign of overfitting: {change}, {beyond} ({n})."]


def caption_sentences(captions: Mapping[str, Any]) -> list[str]:
    """Whether the adapter uses captions, and whether its training captions match their clips."""
    if not captions["computed"]:
        return []
    held, base = captions["held_out"]["adapter"], captions["held_out"]["base"]
    n = f"n = {count(held['n'], 'held-out source')}"
    lower = f"lower the loss of held-out clips by {held['gain']:.3f} nats per token"
    if held["ci_low"] is None:
        return [f"Captions: compared with those of other clips, their own {lower} ({n})."]
    interval = f"95 % CI {held['ci_low']:+z.3f} to {held['ci_high']:+z.3f}"
    sides = f"{lower} with the adapter ({interval}) and by {base['gain']:.3f} with the base"
    if captions["flagged"]:
        trained, excess = captions["trained"], captions["excess"]
        # Avoids "-0.000".
        gain = round(trained["gain"], 3) + 0.0
        return [
            "Warning: the training captions don't match their clips, as if they were shuffled: "
            f"compared with those of other clips, right captions {lower}, and those that it "
            f"was trained on by {gain:.3f} on training clips (difference "
            f"{excess['difference']:+z.3f}, {p_words(excess['p_value'])}, "
            f"n = {count(trained['n'], 'training source')} / "
            f"{count(held['n'], 'held-out source')}). Look for captions attached to wrong files."
        ]
    if captions["reads"]:
        return [f"Captions are used: compared with those of other clips, their own {sides} ({n})."]
    seen = ""
    if held["detectable"] is not None:
        seen = f"; a gain of {held['detectable']:.3f} would be detected with 80 % power"
    if captions["unlearned"]:
        return [
            "Warning: the adapter no longer uses captions as its base does: compared with those of "
            f"other clips, their own {sides} ({n}{seen})."
        ]
    is_little = held["n"] >= FEWEST_FOR_NOTHING and held["ci_high"] < SEEN
    if is_little and not captions["base_reads"]:
        return [
            "Warning: captions make no measurable difference: compared with those of other "
            f"clips, their own {sides} ({n}{seen}). Either the base does not understand them, or "
            "they are attached to the wrong files."
        ]
    return [
        "No clear sign that captions are used: compared with those of other clips, their own "
        f"{sides} ({n}{seen})."
    ]


def learned_cards(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """The verdicts on training clips and captions for the top of the page: `label`, `words`,
    `verdict` ("better", "worse" or "none"), and `n`, or `why` there is none."""
    return [_memory_card(report), _caption_card(report["captions"])]


def _memory_card(report: Mapping[str, Any]) -> dict[str, str]:
    overfitting, memory = report["overfitting"], report["memorisation"]
    card = {"label": "Training clips", "verdict": "none", "why": ""}
    found = [memory["continuations"], memory["nearest"]]
    if overfitting["computed"]:
        found.append({"computed": True, **overfitting["excess"]})
    computed = [part for part in found if part["computed"]]
    if not computed:
        return card | {"words": "not computed", "n": "", "why": memory["continuations"]["why"]}
    card["n"] = count(max(part["n_trained"] for part in computed), "training clip")
    if any(part["flagged"] for part in computed):
        return card | {"words": "memorised", "verdict": "worse"}
    tested = [memory["continuations"].get("p_value")]
    if overfitting["computed"]:
        tested.append(overfitting["excess"]["p_value"])
    if all(p_value is None for p_value in tested):
        return card | {"words": "too few to tell"}
    return card | {"words": "not memorised"}


def _caption_card(captions: Mapping[str, Any]) -> dict[str, str]:
    card = {"label": "Effect of captions", "verdict": "none", "why": ""}
    if not captions["computed"]:
        return card | {"words": "not computed", "n": "", "why": captions["why"]}
    card["n"] = count(captions["held_out"]["adapter"]["n"], "source")
    if captions["flagged"]:
        return card | {"words": "on the wrong clips", "verdict": "worse"}
    return card | {"words": "captions are used" if captions["reads"] else "no clear effect"}


def caption_rows(captions: Mapping[str, Any]) -> list[dict[str, str]]:
    """The gain from right captions as texts, one row per side."""
    if not captions["computed"]:
        return []
    held = captions["held_out"]
    rows = [("base, held-out clips", held["base"]), ("adapter, held-out clips", held["adapter"])]
    if captions["trained"] is not None:
        rows.append(("adapter, training clips", captions["trained"]))
    return [
        {
            "name": name,
            "own": number(own["own"]),
            "exchanged": number(own["exchanged"]),
            "gain": signed(own["gain"]),
            "exchange": signed(own["exchange"]["gain"]),
            "exchange_interval": interval_text(own["exchange"], none=""),
            "interval": interval_text(own),
            "p": p_text(own["p_value"]),
            "n": str(own["n"]),
        }
        for name, own in rows
    ]
