"""Writes the results: report.json, plots/, summary.md for a model card, and report.html.

The page is self-contained: plots, clips and a player are embedded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.text import Text

from musicgen_lora import atomic
from musicgen_lora.console import MessageTable
from musicgen_lora.errors import UserError
from musicgen_lora.evaluation.decisions.statistics import PairedResult
from musicgen_lora.evaluation.report import plots
from musicgen_lora.evaluation.report.asked import obedience_rows
from musicgen_lora.evaluation.report.between import (
    anchors_table,
    continuation_rows,
    fault_rows,
    likeness_rows,
)
from musicgen_lora.evaluation.report.document import (
    JSON_FILE,
    Described,
    Losses,
    NoLosses,
    PositionLoss,
    Report,
    sides,
)
from musicgen_lora.evaluation.report.forest import forest_plot
from musicgen_lora.evaluation.report.learned import caption_rows, learned_cards
from musicgen_lora.evaluation.report.page_audio import embed_sounds, sound_groups
from musicgen_lora.evaluation.report.seeds import seed_rows
from musicgen_lora.evaluation.report.side_by_side import (
    player_sides,
    variant_rows,
    variants_table,
)
from musicgen_lora.evaluation.report.summary import by_reason
from musicgen_lora.evaluation.report.unasked import off_style_players, off_style_rows
from musicgen_lora.evaluation.report.verdicts import (
    DASH,
    agreement_rows,
    distance_rows,
    minus,
    missing_anchors,
    p_text,
    primary_rows,
)
from musicgen_lora.evaluation.sound.comparison import BY_NAME, SHOWN, shown_value
from musicgen_lora.evaluation.sound.references import ANCHORS
from musicgen_lora.fonts import readable
from musicgen_lora.formats.documents import LARGE, read_json
from musicgen_lora.language.translate import word
from musicgen_lora.model.lora.evaluated import evaluation_section
from musicgen_lora.page import data_uri, render_page
from musicgen_lora.plural import count

HTML_FILE = "report.html"
MARKDOWN_FILE = "summary.md"
PLOTS_FOLDER = "plots"


def write_report(report: Report, output_dir: Path) -> Path:
    """Draw the plots and write the report next to the audio that it names.

    Args:
        report: plain values, as `evaluate_adapter` collects them; the names of the plots are
            added to it.
        output_dir: holds the clips; the `audio` path of a clip is relative to it.

    Returns:
        Path of the page.
    """
    with readable():
        pictures = _draw(report, output_dir)
    report["plots"] = [f"{PLOTS_FOLDER}/{name}.png" for name in pictures]
    for name, image in pictures.items():
        atomic.write_bytes(output_dir / PLOTS_FOLDER / f"{name}.png", image)
    atomic.write_json(output_dir / JSON_FILE, report)
    section = evaluation_section(report)
    atomic.write_bytes(output_dir / MARKDOWN_FILE, section.encode())
    page = make_page(report, pictures, *embed_sounds(sound_groups(report), output_dir))
    atomic.write_bytes(output_dir / HTML_FILE, page.encode())
    return output_dir / HTML_FILE


def _draw(report: Report, output_dir: Path) -> dict[str, bytes]:
    figures: dict[str, Figure] = {}
    forest = forest_plot(report)
    if forest is not None:
        figures["forest"] = forest
    if report["loss"]["computed"]:
        figures["held_out_loss"] = plots.loss_plot(report["loss"])
        positions: Sequence[PositionLoss] = report["loss"].get("positions", [])
        if len(positions) > 1:
            figures["loss_along_the_clip"] = plots.positions_plot(positions)
    clips = report["generation"]["clips"]
    facts: dict[str, list[Described]] = {
        side: [played["descriptors"] for clip in clips if (played := sides(clip).get(side))]
        for side in ("base", "adapter")
    }
    facts["reference"] = report["reference"]["descriptors"]
    figures["band_energies"] = plots.bands_plot(facts)
    figures["descriptors"] = plots.violins_plot(facts)
    moves = plots.moves_plot(report["descriptors"])
    if moves is not None:
        figures["moved_towards_held_out"] = moves
    return {name: plots.png_bytes(figure) for name, figure in figures.items()}


def files_of_report(output_dir: Path) -> Iterator[str]:
    """Yield the files that the folder's last report lists, so that no old clip passes for a new
    one. Nothing else in the folder is touched."""
    try:
        report = read_json(output_dir / JSON_FILE, max_bytes=LARGE)
        names = list(report["plots"])
        for clip in report["generation"]["clips"]:
            played = [clip["base"], clip["adapter"], *clip.get("others", {}).values()]
            names += [own["audio"] for own in played if own]
        for own in (report, *report.get("variants", [])):
            nearest = own.get("memorisation", {}).get("nearest", {}).get("clips", [])
            names += [clip["audio"] for clip in nearest if clip["audio"]]
            for clip in own.get("off_style", {}).get("clips", []):
                names += [clip[side]["audio"] for side in ("base", "again", "adapter")]
    except (UserError, LookupError, TypeError, AttributeError):
        return
    root = output_dir.resolve()
    for name in map(str, names):
        path = (root / name.replace("\0", "")).resolve()
        if path.is_relative_to(root) and path.suffix in (".wav", ".png"):
            yield name


def make_page(
    report: Report,
    pictures: Mapping[str, bytes],
    audio: Mapping[str, str],
    spectrograms: Mapping[str, bytes],
) -> str:
    """Render the page of a report.

    Args:
        pictures: PNG images by name.
        audio: data URIs by file name; for clips without one the page names the file.
        spectrograms: PNG images by file name of the clip.
    """
    return render_page(
        "report.html.jinja",
        report=report,
        not_computed=by_reason(report["not_computed"]),
        rows=descriptor_rows(report["descriptors"]),
        loss_rows=loss_rows(report["loss"]),
        loss_anchors=loss_anchors(report),
        position_rows=position_rows(report["loss"]),
        overfitting_rows=overfitting_rows(report),
        regression_rows=regression_rows(report["regressions"]),
        held_out_distance=held_out_distance(report),
        forgetting_rows=loss_rows(report["forgetting"]),
        primaries=primary_rows(report["primaries"]),
        distance_rows=distance_rows(report["distances"]),
        seed_rows=seed_rows(report["seeds"]),
        obedience_rows=obedience_rows(report["obedience"]),
        caption_rows=caption_rows(report["captions"]),
        cards=learned_cards(report),
        continuation_rows=continuation_rows(report["memorisation"]["continuations"]),
        continuations_missing=missing_anchors(
            report["memorisation"]["continuations"].get("anchors", {})
        ),
        likeness_rows=likeness_rows(report["memorisation"]["nearest"]),
        fault_rows=fault_rows(report),
        agreement_rows=agreement_rows(report["text_agreement"]),
        variant_rows=variant_rows(report),
        images={name: data_uri("image/png", image) for name, image in pictures.items()},
        audio=audio,
        spectrograms={n: data_uri("image/png", image) for n, image in spectrograms.items()},
        pairs=player_sides(report, audio),
        off_style_rows=off_style_rows(report["off_style"]),
        off_style_players=off_style_players(report["off_style"], audio),
        script="report_player.js",
        percent=percent,
        interval=interval,
    )


def percent(value: float | None) -> str:
    """A signed share as text: `-18.3 %`."""
    return DASH if value is None else minus(f"{value * 100:+z.1f} %")


def interval(low: float | None, high: float | None) -> str:
    """Two signed shares as text, with the unit after the second only."""
    if low is None or high is None:
        return DASH
    return minus(f"{low * 100:+z.1f} to {high * 100:+z.1f} %")


def loss_rows(loss: Losses | NoLosses) -> list[dict[str, str]]:
    """The held-out loss as text, one row for the mean and one per codebook."""
    if loss["computed"] is False:
        return []
    named = [("all codebooks", loss["mean"])]
    named += [(f"codebook {k + 1}", result) for k, result in enumerate(loss["codebooks"])]
    return [_loss_row(name, result) for name, result in named]


def loss_anchors(report: Report) -> list[dict[str, str]]:
    """Reference points of the losses, one row for each of `loss_rows`: other styles with the base,
    which was made for them, and training clips with the adapter."""
    other: Any = report["forgetting"]
    trained: Any = report["overfitting"].get("trained", report["overfitting"])
    rows = len(loss_rows(report["loss"]))
    sides = {"other": (other, "mean_base"), "trained": (trained, "mean_adapter")}
    return [
        {
            name: DASH
            if not found["computed"]
            else f"{[found['mean'], *found['codebooks']][row][key]:.4f}"
            for name, (found, key) in sides.items()
        }
        for row in range(rows)
    ]


def position_rows(loss: Losses | NoLosses) -> list[dict[str, str]]:
    """The loss along the clip as text, one row per stretch."""
    if loss["computed"] is False:
        return []
    return [
        _loss_row(f"seconds {own['from_s']:g} to {own['to_s']:g}", own["loss"])
        for own in loss.get("positions", ())
    ]


def overfitting_rows(report: Report) -> list[dict[str, str]]:
    """The loss on held-out and on training clips, as text."""
    loss, overfitting = report["loss"], report["overfitting"]
    if loss["computed"] is False or overfitting["computed"] is False:
        return []
    trained = overfitting["trained"]["mean"]
    return [_loss_row("held-out clips", loss["mean"]), _loss_row("training clips", trained)]


def held_out_distance(report: Report) -> str:
    """Descriptor distance between held-out sources; empty if not computed."""
    distance = report["descriptor_distance"]
    return f"{np.mean(distance['reference']):.3f}" if distance["computed"] else ""


def regression_rows(regressions: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Prompts and sources that got worse, as text."""
    if not regressions["computed"]:
        return {"prompts": [], "sources": []}
    return {
        kind: [
            {
                "place": own.get("place"),
                "name": own.get("prompt", own.get("source")),
                **{key: f"{own[key]:.3f}" for key in ("base", "adapter")},
                "difference": _signed(f"{own['difference']:.3f}"),
                "descriptors": [BY_NAME[name].label for name in own.get("descriptors", ())],
            }
            for own in regressions[kind]
        ]
        for kind in ("prompts", "sources")
    }


def _loss_row(name: str, result: PairedResult) -> dict[str, str]:
    base, adapter = result["mean_base"] or 0.0, result["mean_adapter"] or 0.0
    return {
        "name": name,
        "base": f"{base:.4f}",
        "adapter": f"{adapter:.4f}",
        "base_perplexity": f"{math.exp(base):.3g}",
        "adapter_perplexity": f"{math.exp(adapter):.3g}",
        "change": percent(result["relative"]),
        "interval": interval(result["relative_ci_low"], result["relative_ci_high"]),
        "p": p_text(result["p_value"]),
        "n": str(result["n"]),
    }


def descriptor_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The descriptors as text, in display units."""
    by_name = {row["name"]: row for row in rows}
    texts = []
    for shown in SHOWN:
        row = by_name[shown.name]
        text = {"label": shown.label, "unit": shown.unit, "meaning": shown.meaning}
        for side in ("base", "adapter", "reference"):
            summary = row[side] or {"mean": None, "sd": None, "n": 0}
            text[side] = minus(shown_value(shown, summary["mean"]))
            spread = summary["sd"]
            text[f"{side}_sd"] = "" if spread is None else f"± {shown_value(shown, spread)}"
        for name in ANCHORS:
            summary = row["anchors"].get(name, {"mean": None})
            text[name] = minus(shown_value(shown, summary["mean"]))
        paired, moved = row["paired"], row["moved"]
        text |= dict.fromkeys(("difference", "p", "moved"), DASH)
        text |= dict.fromkeys(("interval", "moved_interval"), "")
        if paired is not None and paired["difference"] is not None:
            text["difference"] = _signed(shown_value(shown, paired["difference"]))
            if paired["ci_low"] is not None:
                low, high = (shown_value(shown, paired[end]) for end in ("ci_low", "ci_high"))
                text["interval"] = f"{_signed(low)} to {_signed(high)}"
            text["p"] = p_text(paired["p_value"])
        if moved is not None:
            text["moved"] = moved["note"]
            if moved["share"] is not None:
                low, high = (f"{moved[end] * 100:z.0f}" for end in ("ci_low", "ci_high"))
                text["moved"] = minus(f"{moved['share'] * 100:z.0f} %")
                text["moved_interval"] = minus(f"{low} to {high} %")
        present = (row[side] for side in ("base", "adapter", "reference"))
        text["n"] = " / ".join(str(summary["n"]) for summary in present if summary is not None)
        texts.append(text)
    return texts


def _signed(text: str) -> str:
    return minus(text) if text.startswith("-") else f"+{text}"


def print_report(report: Report, console: Console) -> None:
    """Print the findings and the tables."""
    for sentence in report["findings"]:
        console.print(Text(f"- {word(sentence)}"))
    loss = report["loss"]
    if loss["computed"] is True:
        table = MessageTable(
            title=word(f"Held-out loss, nats per token, n = {count(loss['n_sources'], 'source')}")
        )
        for name in ("", "base", "adapter", "change", "95 % CI", "p"):
            table.add_column(name, justify="left" if not name else "right")
        for row in loss_rows(loss):
            table.add_row(
                *(row[key] for key in ("name", "base", "adapter", "change", "interval", "p"))
            )
        console.print(table)
    if report["variants"]:
        console.print(variants_table(report))
    table = MessageTable(title=word("Primary outcomes (Holm-adjusted p)"))
    for name in ("", "verdict", "base", "adapter", "p", "n"):
        side = "left" if name in ("", "verdict") else "right"
        table.add_column(name, justify=side, no_wrap=name in ("base", "adapter", "p"))
    for row in primary_rows(report["primaries"]):
        table.add_row(*(row[k] for k in ("label", "words", "base", "adapter", "p_holm", "n")))
    console.print(table)
    console.print(anchors_table(report))
    table = MessageTable(title=word("Descriptor means"))
    sides = {"adapter": "adapter"}
    if report["generation"]["compared"]:
        sides = {"base": "base", **sides}
    if report["reference"]["computed"]:
        sides["reference"] = "held out"
    table.add_column("")
    for name in (*sides.values(), "n"):
        table.add_column(name, justify="right")
    for row in descriptor_rows(report["descriptors"]):
        unit = f" ({word(row['unit'])})" if row["unit"] else ""
        label = f"{word(row['label'])}{unit}"
        table.add_row(label, *(row[side] for side in sides), row["n"])
    console.print(table)
    for item in by_reason(report["not_computed"]):
        console.print(Text(f"{item['whats']}: not computed: {item['why']}."))
