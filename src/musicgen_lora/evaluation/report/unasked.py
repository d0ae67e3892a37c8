"""Prompts in other styles in the report: sentences, a table, and the sides of their players."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from musicgen_lora.evaluation.report.side_by_side import SideName, player_of
from musicgen_lora.evaluation.report.verdicts import minus, number
from musicgen_lora.evaluation.sound.comparison import BY_NAME, shown_value
from musicgen_lora.plural import count

SIDES: Mapping[str, SideName] = {
    "base": ("base", True),
    "adapter": ("with adapter", True),
    "again": ("base, another seed", True),
}


def off_style_sentences(off_style: Mapping[str, Any]) -> list[str]:
    """How much the adapter changes other styles, compared with chance, and whether its own style
    comes through."""
    if not off_style["computed"]:
        return []
    change, towards = off_style["change"], off_style["towards_style"]
    far = off_style["another_prompt"]
    another = "" if far is None else f", another prompt {far:.1f} dB"
    same = sum(clip["identical"] for clip in off_style["clips"])
    found = [
        f"On prompts in other styles, the adapter's clips are {change['mean_adapter']:.1f} dB from "
        f"the base's; another seed alone makes a difference of {change['mean_base']:.1f} dB"
        f"{another} ({_pairs(change)}).",
        f"They are {towards['mean_adapter']:.1f} dB from its clips in its own style, the base's "
        f"{towards['mean_base']:.1f} dB; if its own are nearer than the base's, the adapter's "
        f"style comes through unprompted ({_pairs(towards)}).",
    ]
    if same:
        found.append(
            f"Identical to the base's, token by token: {same} of these clips "
            f"(n = {count(off_style['n'], 'prompt')})."
        )
    return found


def _pairs(paired: Mapping[str, Any]) -> str:
    n = f"n = {count(paired['n'], 'prompt')}"
    if paired["ci_low"] is None:
        return f"{n}: too few for an interval"
    return (
        f"{n}, difference {paired['difference']:+z.1f} dB, 95 % CI {paired['ci_low']:+z.1f} to "
        f"{paired['ci_high']:+z.1f} dB"
    )


def off_style_rows(off_style: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row of texts per prompt."""
    if not off_style["computed"]:
        return []
    return [
        {
            "prompt": clip["prompt"],
            "another_prompt": number(off_style["another_prompt"], 1),
            **{
                name: number(clip["measured"][name], 1)
                for name in ("another_seed", "adapter", "base_to_style", "adapter_to_style")
            },
            "changed": [_changed(name, clip) for name in clip["measured"]["changed"]],
        }
        for clip in off_style["clips"]
    ]


def _changed(name: str, clip: Mapping[str, Any]) -> dict[str, str]:
    """A descriptor with the base and with the adapter."""
    shown = BY_NAME[name]
    values = {
        side: minus(shown_value(shown, clip[side]["descriptors"][name]))
        for side in ("base", "adapter")
    }
    return {"label": shown.label, "unit": shown.unit, **values}


def off_style_players(
    off_style: Mapping[str, Any], audio: Mapping[str, str]
) -> list[list[dict[str, Any]]]:
    """The sides that each prompt's player switches between."""
    if not off_style["computed"]:
        return []
    return [
        player_of({key: clip[key] for key in SIDES}, SIDES, audio) for clip in off_style["clips"]
    ]
