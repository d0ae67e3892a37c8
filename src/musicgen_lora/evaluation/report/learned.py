"""What the adapter learned of its training clips: their style, the clips themselves or their
captions; in sentences."""

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
"""Held-out sources from which captions that make no difference are a warning ..."""
SEEN = 0.05
"""... and nats a token that the interval of their gain must leave out: that a gain is not certain
does not tell that there is none."""


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
            f"a greedy continuation gives back {found['trained'] * 100:.1f} % of the codes of "
            f"training clips (base {found['base_trained'] * 100:.1f} %) and "
            f"{found['held_out'] * 100:.1f} % of held-out ones "
            f"(base {found['base_held_out'] * 100:.1f} %)"
        )
        if found["flagged"]:
            sentences.append(f"Warning: the adapter knows training clips by heart: {shares} ({n}).")
        elif found["p_value"] is None:
            sentences.append(f"Memory of training clips: {shares} ({n}: too few for a test).")
        else:
            sentences.append(
                f"No sign that it knows training clips by heart: {shares} "
                f"({p_words(found['p_value'])}, {n})."
            )
    nearest = memorisation["nearest"]
    if nearest["computed"]:
        if leaked := nearest["held_out_copies"]:
            first = leaked[0]
            sentences.append(
                f"Warning: {len(leaked)} of {count(nearest['n_held_out'], 'held-out clip')} repeat "
                f"a training clip, such as {first['held_out']} and {first['trained']} (likeness "
                f"{first['similarity']:.2f}): what is measured on them is of music that the "
                "adapter was trained on. Give both one source in the metadata and train anew."
            )
        copied = [clip for clip in nearest["clips"] if clip["copied"]]
        if copied:
            sentences.append(
                f"Warning: {len(copied)} of {count(nearest['n'], 'generated clip')} repeat a "
                f"training clip, such as {copied[0]['trained']} (likeness "
                f"{copied[0]['similarity']:.2f}; held-out clips reach "
                f"{nearest['held_out_highest']:.2f}, n = {count(nearest['n_held_out'], 'clip')})."
            )
    return sentences


def overfitting_sentences(overfitting: Mapping[str, Any]) -> list[str]:
    """Whether training clips gained more than held-out ones."""
    if not overfitting["computed"]:
        return []
    excess, trained = overfitting["excess"], overfitting["trained"]["mean"]
    n = (
        f"n = {count(excess['n_trained'], 'training source')} / "
        f"{count(excess['n_held_out'], 'held-out source')}"
    )
    change = f"the loss changed by {trained['difference']:+.3f} nats a token on training clips"
    more = f"{excess['difference']:+.3f} more than on held-out ones"
    if excess["ci_low"] is None:
        return [f"Overfitting: {change}, {more} ({n}; {excess['note']})."]
    beyond = f"{more}, 95 % interval {excess['ci_low']:+.3f} to {excess['ci_high']:+.3f}"
    if excess["flagged"]:
        return [
            "Warning: the adapter knows its training clips more than their style: "
            f"{excess['share'] * 100:.0f} % of what it gained on them it did not gain on held-out "
            f"ones: {change}, {beyond} ({n})."
        ]
    if excess["p_value"] < SURE and excess["difference"] < 0.0:
        return [
            "Part of what it learned is its training clips rather than their style: "
            f"{change}, {beyond} ({n})."
        ]
    return [f"No clear sign of overfitting: {change}, {beyond} ({n})."]


def caption_sentences(captions: Mapping[str, Any]) -> list[str]:
    """Whether the adapter reads captions, and whether those of its training clips go with them."""
    if not captions["computed"]:
        return []
    held, base = captions["held_out"]["adapter"], captions["held_out"]["base"]
    n = f"n = {count(held['n'], 'held-out source')}"
    lower = f"lower the loss of held-out clips by {held['gain']:.3f} nats a token"
    if held["ci_low"] is None:
        return [f"Captions: those of their own {lower}, beside those of other clips ({n})."]
    interval = f"95 % interval {held['ci_low']:+.3f} to {held['ci_high']:+.3f}"
    sides = f"{lower} with the adapter ({interval}) and by {base['gain']:.3f} with the base"
    if captions["flagged"]:
        trained, excess = captions["trained"], captions["excess"]
        # Of what rounds to nothing no "-0.000".
        gain = round(trained["gain"], 3) + 0.0
        return [
            "Warning: the captions of the training clips don't go with them, as if they were in a "
            f"wrong order: beside those of other clips, right captions {lower}, and those that it "
            f"was trained on by {gain:.3f} on training clips (difference "
            f"{excess['difference']:+.3f}, {p_words(excess['p_value'])}, "
            f"n = {count(trained['n'], 'training source')} / "
            f"{count(held['n'], 'held-out source')}). Look for captions beside the wrong files."
        ]
    if captions["reads"]:
        return [f"Captions are read: beside those of other clips, their own {sides} ({n})."]
    seen = ""
    if held["detectable"] is not None:
        seen = f"; a gain of {held['detectable']:.3f} would be found in 80 % of evaluations"
    if captions["unlearned"]:
        return [
            "Warning: the adapter no longer reads captions as its base does: beside those of "
            f"other clips, their own {sides} ({n}{seen})."
        ]
    is_little = held["n"] >= FEWEST_FOR_NOTHING and held["ci_high"] < SEEN
    if is_little and not captions["base_reads"]:
        return [
            "Warning: captions make no difference that can be measured: beside those of other "
            f"clips, their own {sides} ({n}{seen}). Either the base does not understand them, or "
            "they are beside the wrong files."
        ]
    return [
        "No clear sign that captions are read: beside those of other clips, their own "
        f"{sides} ({n}{seen})."
    ]


def learned_cards(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """The verdicts on training clips and captions for the head of the page: `label`, `words`,
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
        return card | {"words": "known by heart", "verdict": "worse"}
    tested = [memory["continuations"].get("p_value")]
    if overfitting["computed"]:
        tested.append(overfitting["excess"]["p_value"])
    if all(p_value is None for p_value in tested):
        return card | {"words": "too few to tell"}
    return card | {"words": "not known by heart"}


def _caption_card(captions: Mapping[str, Any]) -> dict[str, str]:
    card = {"label": "What captions tell", "verdict": "none", "why": ""}
    if not captions["computed"]:
        return card | {"words": "not computed", "n": "", "why": captions["why"]}
    card["n"] = count(captions["held_out"]["adapter"]["n"], "source")
    if captions["flagged"]:
        return card | {"words": "beside the wrong clips", "verdict": "worse"}
    return card | {"words": "are read" if captions["reads"] else "no clear use"}


def caption_rows(captions: Mapping[str, Any]) -> list[dict[str, str]]:
    """What right captions gain, as texts, a row a side."""
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
