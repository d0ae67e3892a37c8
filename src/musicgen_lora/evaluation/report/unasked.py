"""Prompts of other styles in the report: sentences, a table, and the sides of their players."""

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
    """What the adapter changes of other styles, beside what chance changes; and whether its own
    style comes through."""
    if not off_style["computed"]:
        return []
    change, towards = off_style["change"], off_style["towards_style"]
    far = off_style["another_prompt"]
    another = "" if far is None else f", another prompt {far:.1f} dB"
    same = sum(clip["identical"] for clip in off_style["clips"])
    found = [
        f"On prompts of other styles its clips are {change['mean_adapter']:.1f} dB away from the "
        f"base's; another seed alone makes {change['mean_base']:.1f} dB{another} "
        f"({_pairs(change)}).",
        f"They are {towards['mean_adapter']:.1f} dB away from its clips of its own style, the "
        f"base's are {towards['mean_base']:.1f} dB: where its own are nearer than the base's, its "
        f"style comes through unasked ({_pairs(towards)}).",
    ]
    if same:
        found.append(
            f"As with the base, token by token: {same} of these clips "
            f"(n = {count(off_style['n'], 'prompt')})."
        )
    return found


def _pairs(paired: Mapping[str, Any]) -> str:
    n = f"n = {count(paired['n'], 'prompt')}"
    if paired["ci_low"] is None:
        return f"{n}: too few for an interval"
    return (
        f"{n}, difference {paired['difference']:+.1f} dB, 95 % interval {paired['ci_low']:+.1f} to "
        f"{paired['ci_high']:+.1f} dB"
    )


def off_style_rows(off_style: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a prompt, as texts."""
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
    """A descriptor before and after."""
    shown = BY_NAME[name]
    values = {
        side: minus(shown_value(shown, clip[side]["descriptors"][name]))
        for side in ("base", "adapter")
    }
    return {"label": shown.label, "unit": shown.unit, **values}


def off_style_players(
    off_style: Mapping[str, Any], audio: Mapping[str, str]
) -> list[list[dict[str, Any]]]:
    """What each prompt's player switches between."""
    if not off_style["computed"]:
        return []
    return [
        player_of({key: clip[key] for key in SIDES}, SIDES, audio) for clip in off_style["clips"]
    ]
