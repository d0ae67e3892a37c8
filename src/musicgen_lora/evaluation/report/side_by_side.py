"""Several adapters or strengths side by side: the best one, the table, the players' sides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from musicgen_lora.console import MessageTable
from musicgen_lora.errors import printable
from musicgen_lora.evaluation.report.document import PlayedClip, Report, sides
from musicgen_lora.evaluation.report.verdicts import DASH, primary_rows
from musicgen_lora.language.translate import word
from musicgen_lora.plural import count

SHORT = {
    "held_out_loss": "held-out loss",
    "kernel_distance": "KAD",
    "descriptor_distance": "descriptors",
}
"""Short names of the primary outcomes."""
SideName = tuple[str, bool]
"""Name of a player's side, and whether it is one of our own words, which are translated."""
SIGNS = {"better": "+", "worse": "\N{MINUS SIGN}", "no clear change": "", "not computed": ""}


def choice_sentences(report: Report) -> list[str]:
    """Which variant the report describes, and how far the choice can be trusted."""
    choice = report["choice"]
    if not report["variants"]:
        return []
    labels = {own["name"]: own["label"] for own in report["variants"]}
    n = count(len(labels), "variant")
    best = labels[choice["best"]]
    if not choice["computed"]:
        return [
            f"None of {n} can be called best ({choice['why']}); the rest of the report describes "
            f"{best}."
        ]
    by = ", ".join(SHORT[name] for name in choice["by"])
    found = [
        f"Best of {n} by {by} (mean rank {choice['ranks'][choice['best']]:.1f}): {best}. The rest "
        "of the report describes it."
    ]
    if not choice["is_better"]:
        found.append(f"No primary outcome is clearly better with {best} than with the base.")
    near = [labels[own["name"]] for own in choice["others"] if not own["apart"]]
    if near:
        found.append(
            f"Its held-out loss can't be distinguished from that of {', '.join(near)} "
            f"(n = {count(choice['n_sources'], 'source')})."
        )
    found.append(_flattered(choice))
    return found


def _flattered(choice: Mapping[str, Any]) -> str:
    """How choosing on the same clips that are used for measuring biases the figures."""
    how = (
        "It was chosen on the same clips that it is measured on, so its figures are too "
        "optimistic, even after Holm's adjustment"
    )
    cure = "measure it on clips that had no part in the choice: --data_dir, or another --seed"
    if choice["loss_elsewhere"] is None:
        return f"{how}; {cure}."
    return (
        f"{how}: loss {choice['loss']:.3f}, but {choice['loss_elsewhere']:.3f} with each source "
        f"left out of the choice in turn (n = {count(choice['n_sources'], 'source')}); {cure}."
    )


def variant_rows(report: Report) -> list[dict[str, Any]]:
    """The variants as texts, the base first: `label`, `is_best`, `rank`, and for each primary
    outcome its value and verdict; empty if there is only one adapter."""
    if not report["variants"]:
        return []
    choice = report["choice"]
    tables = [primary_rows(own["primaries"]) for own in report["variants"]]
    base = [{"value": row["base"], "verdict": "none", "sign": "", "p": ""} for row in tables[0]]
    rows: list[dict[str, Any]] = [
        {"label": "base", "said": True, "is_best": False, "rank": DASH, "primaries": base}
    ]
    for own, table in zip(report["variants"], tables, strict=True):
        rows.append(
            {
                "label": own["label"],
                "said": False,
                "is_best": own["name"] == choice["best"],
                "rank": f"{choice['ranks'][own['name']]:.1f}",
                "primaries": [
                    {
                        "value": row["adapter"],
                        "verdict": row["verdict"],
                        "sign": SIGNS[row["verdict"]],
                        "p": row["p_holm"],
                    }
                    for row in table
                ],
            }
        )
    return rows


def variants_table(report: Report) -> MessageTable:
    """The same table for the console: `+` means clearly better than the base."""
    n_tests = max((p["n_tests"] for p in report["primaries"]), default=0)
    table = MessageTable(
        title=word(
            f"Side by side (+: clearly better than the base; Holm-adjusted for "
            f"{count(n_tests, 'test')})"
        )
    )
    table.add_column("")
    for primary in report["primaries"]:
        table.add_column(SHORT[primary["name"]], justify="right", no_wrap=True)
        table.add_column("p", justify="right", no_wrap=True)
    table.add_column("rank", justify="right", no_wrap=True)
    for row in variant_rows(report):
        cells = [
            cell
            for own in row["primaries"]
            for cell in (f"{own['sign']} {own['value']}".strip(), own["p"])
        ]
        label = word(row["label"]) if row["said"] else printable(row["label"])
        table.add_row(f"* {label}" if row["is_best"] else label, *cells, row["rank"])
    return table


def player_sides(report: Report, audio: Mapping[str, str]) -> list[list[dict[str, Any]]]:
    """The sides that each prompt's player switches between: the base, then the variants in the
    given order; none if the page has no room for them. Louder clips sound better, so all are turned
    down to the quietest."""
    names: dict[str, SideName] = {"base": ("base", True), "adapter": ("with adapter", True)}
    order = ["base", "adapter"]
    best = report["adapter"]["name"]
    if report["variants"]:
        names |= {own["name"]: (own["label"], False) for own in report["variants"]}
        names["adapter"] = names.pop(best)
        order = ["base", *(own["name"] for own in report["variants"])]
        order[order.index(best)] = "adapter"
    named = {key: names[key] for key in order}
    return [player_of(sides(clip), named, audio) for clip in report["generation"]["clips"]]


def player_of(
    played: Mapping[str, PlayedClip], names: Mapping[str, SideName], audio: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The sides of a player: `key`, `name` and whether it is `said` in the reader's language,
    `audio`, and `gain`, in decibels, which brings the louder ones down to the quietest.

    Args:
        played: the clips by side; sides without a clip are left out.
        names: names of the sides, in their order.
        audio: the clips that the page has room for.
    """
    keys = [key for key in names if key in played]
    levels = [played[key]["descriptors"]["loudness_lufs"] for key in keys]
    known = [level for level in levels if level is not None]
    lowest = min(known) if known and len(known) == len(levels) else None
    return [
        {
            "key": key,
            "name": names[key][0],
            "said": names[key][1],
            "audio": played[key]["audio"],
            "gain": 0.0 if lowest is None or level is None else lowest - level,
        }
        for key, level in zip(keys, levels, strict=True)
        if played[key]["audio"] in audio
    ]
