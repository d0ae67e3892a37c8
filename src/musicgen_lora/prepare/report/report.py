"""What a preparation reports: in the terminal, in report.json, and in report.html.

The page is self-contained: its pictures and players are embedded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from musicgen_lora import __version__, atomic
from musicgen_lora.audio import pictures
from musicgen_lora.audio.files import AudioError, read_audio
from musicgen_lora.beats.sequencer import NOTE_NAMES
from musicgen_lora.config import PrepareSettings
from musicgen_lora.console import working
from musicgen_lora.dataset.splits import source_of
from musicgen_lora.language.translate import filled, joined, word
from musicgen_lora.listening.pitch.key_names import usual_key
from musicgen_lora.page import data_uri, render_page
from musicgen_lora.plural import count
from musicgen_lora.prepare.hearing.records import Analysis
from musicgen_lora.prepare.reading.inputs import Dropped
from musicgen_lora.prepare.reading.remarks import in_one_line
from musicgen_lora.prepare.report.findings import (
    caption_advice,
    dataset_advice,
    find_faults,
    fold_advice,
    loudness_advice,
    vocals_advice,
)
from musicgen_lora.prepare.report.left_out import by_reason
from musicgen_lora.prepare.rerun.revision import Change
from musicgen_lora.prepare.rerun.succession import Entry

FORMAT_VERSION = 1
JSON_FILE, HTML_FILE = "report.json", "report.html"
MAX_PLAYERS = 24
PLAYER_S = 12.0
MAX_PLAYER_BYTES = 6_000_000
"""Size of all players and pictures inside the page."""
MAX_TOLD = 8
"""Names that the terminal lists for each change."""
MAX_NAMED = 12
"""Files that the page lists for each fault; the JSON lists all."""
TEMPO_STEP = 10
WHOLE = "whole files"
HOW_CUT = {
    WHOLE: "kept whole",
    "bars": "cut on bar lines",
    "beats": "cut on beats",
    "time": "cut at fixed times",
    "part": "cut where your metadata says",
}


@dataclass(frozen=True)
class Prepared:
    """The result of a preparation.

    Args:
        entries: of the whole dataset, as in its metadata.
        new: entries of the clips that this run added.
        n_known: files that were already listed.
        n_refreshed: clips of earlier runs whose captions or facts changed.
        n_unfolded: files that were not folded to mono because they lie in the dataset.
        remarks: what was not used or was guessed, from `Remarks.as_json`.
        records: analyses by the file's path.
        changes: what happened to clips that were already listed.
    """

    entries: Sequence[Entry]
    new: Sequence[Entry]
    n_files: int
    n_known: int
    n_analysed: int
    n_refreshed: int
    n_unfolded: int
    dropped: Sequence[Dropped]
    remarks: Sequence[Mapping[str, Any]]
    records: Mapping[str, Analysis]
    changes: Sequence[Change]


def report(settings: PrepareSettings, console: Console, prepared: Prepared) -> None:
    """Prints what was done and writes report.json and report.html into the dataset."""
    entries = [entry for entry in prepared.entries if not entry.get("skip")]
    content = _content(settings, prepared, entries)
    # First, so that it is written even if printing fails (`prepare | head`).
    atomic.write_json(settings.output_dir / JSON_FILE, content)
    _print(console, content, settings.output_dir / settings.metadata_file)
    with working(console, "writing the report"):
        page = make_page(content, _shown_clips(entries, settings.output_dir))
    target = settings.output_dir / HTML_FILE
    atomic.write_bytes(target, page.encode())
    console.print(f"Report: {target}")


def _content(
    settings: PrepareSettings, prepared: Prepared, entries: Sequence[Entry]
) -> dict[str, Any]:
    """The content of report.json; `entries` are those of the dataset that are trained on."""
    skipped = [entry for entry in prepared.entries if entry.get("skip")]
    dropped = prepared.dropped
    return {
        "format_version": FORMAT_VERSION,
        "version": __version__,
        "summary": {
            "files": prepared.n_files,
            "known_files": prepared.n_known,
            "analysed_files": prepared.n_analysed,
            "dropped_files": len(dropped),
            "new_clips": len(prepared.new),
            "refreshed_clips": prepared.n_refreshed,
            "clips": len(entries),
            "skipped_clips": len(skipped),
            "sources": len(set(map(source_of, entries))),
            "new_minutes": round(_seconds(prepared.new) / 60.0, 1),
            "minutes": round(_seconds(entries) / 60.0, 1),
        },
        "cut_on": dict(Counter(str(entry.get("cut", WHOLE)) for entry in entries)),
        "advice": [
            *fold_advice(entries, in_place=prepared.n_unfolded),
            *loudness_advice(entries, settings.loudness, limits=settings.limit),
            *vocals_advice(entries, searched=settings.vocals != "keep"),
            *dataset_advice(entries),
            *caption_advice(entries),
        ],
        "changes": [
            {"told": change.told, "names": list(change.names)} for change in prepared.changes
        ],
        # Files that aren't trained on need no fixing.
        "faults": find_faults(_trained(prepared.records, entries), entries),
        "left_out": [{"told": kind.told, "files": list(kind.names)} for kind in by_reason(dropped)],
        "dropped": [
            {"file": drop.name, "reason": drop.reason}
            | ({"equals": drop.equals} if drop.equals else {})
            for drop in dropped
        ],
        "remarks": list(prepared.remarks),
        "skipped": [{"audio": entry.get("audio"), "reason": entry["skip"]} for entry in skipped],
        "tempi": _tempo_counts(entries),
        "keys": _key_counts(entries),
        "clips": [
            {name: value for name, value in entry.items() if name not in ("made", "texts")}
            for entry in entries
        ],
    }


def _trained(
    records: Mapping[str, Analysis], entries: Sequence[Mapping[str, Any]]
) -> dict[str, Analysis]:
    """The records of the files that the dataset has clips of."""
    listed = {str(entry.get("made_from")) for entry in entries}
    return {name: record for name, record in records.items() if record.sha256 in listed}


def _seconds(entries: Sequence[Mapping[str, Any]]) -> float:
    lengths = [entry.get("duration_s") for entry in entries]
    return float(sum(value for value in lengths if isinstance(value, (int, float))))


def _tempo_counts(entries: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Clips by tempo, in steps of 10 BPM from the slowest to the fastest."""
    tempi = [entry.get("bpm") for entry in entries]
    steps = [int(bpm // TEMPO_STEP) for bpm in tempi if isinstance(bpm, (int, float))]
    steps = [step for step in steps if 0 <= step < 40]
    counts = Counter(steps)
    first, last = (min(steps), max(steps)) if steps else (0, -1)
    return {str(step * TEMPO_STEP): counts[step] for step in range(first, last + 1)}


def _key_counts(entries: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Clips by key, in the order of the notes, minor as in "Cm"."""
    counts = Counter(usual_key(str(entry["key"])) for entry in entries if entry.get("key"))
    known = [usual_key(f"{note} {mode}") for note in NOTE_NAMES for mode in ("major", "minor")]
    return {
        name.removesuffix(" major").replace(" minor", "m"): counts[name]
        for name in known
        if counts[name]
    }


def _print(console: Console, content: Mapping[str, Any], metadata: Path) -> None:
    summary = content["summary"]
    if summary["known_files"]:
        console.print(
            f"{count(summary['new_clips'], 'new clip')} ({summary['new_minutes']:.1f} minutes) "
            f"from {count(summary['files'], 'file')}; {summary['known_files']} already listed, "
            f"{summary['dropped_files']} left out. {count(summary['clips'], 'clip')} in {metadata}"
        )
    else:
        console.print(
            f"{count(summary['clips'], 'clip')} ({summary['new_minutes']:.1f} minutes) from "
            f"{count(summary['files'], 'file')}, {summary['dropped_files']} left out: {metadata}"
        )
    for change in content["changes"]:
        names = change["names"][:MAX_TOLD]
        listed = joined(names)
        if more := len(change["names"]) - len(names):
            listed = filled("{0}, and {1} more (in the report)", listed, more)
        told = word(change["told"])
        console.print(filled("{0}: {1}", told, listed) if names else filled("{0}.", told))
    for fault in content["faults"]:
        # Not a table: it breaks lines inside Chinese words, and a file or the page has no width.
        sentence, to_do = word(fault["sentence"]), word(fault["to_do"])
        console.print(filled("Please check: {0} {1}", sentence, to_do))
    for remark in content["remarks"]:
        console.print(f"Note: {in_one_line(remark)}", style="yellow", soft_wrap=True)
    for advice in content["advice"]:
        console.print(f"Advice: {advice}")


def _shown_clips(entries: Sequence[Mapping[str, Any]], output_dir: Path) -> list[dict[str, Any]]:
    """Clips to listen to, evenly spaced over the dataset."""
    root = output_dir.resolve()
    step = max(1, -(-len(entries) // MAX_PLAYERS))
    shown, n_bytes = [], 0
    for entry in entries[::step]:
        try:
            path = (output_dir / str(entry.get("audio"))).resolve()
            # The metadata may have been edited by hand: the page shows nothing from outside.
            if not path.is_relative_to(root):
                continue
            start_s = entry.get("start_s")
            waveform = read_audio(
                path,
                pictures.PICTURE_RATE,
                start_s=float(start_s) if isinstance(start_s, (int, float)) else 0.0,
                duration_s=PLAYER_S,
            )
        except (AudioError, OSError, ValueError):
            continue
        picture = pictures.mel_spectrogram_png(waveform, pictures.PICTURE_RATE)
        clip = {
            "entry": entry,
            "audio": pictures.mp3_uri(waveform, pictures.PICTURE_RATE),
            "wave": pictures.waveform_svg(waveform),
            "mel": data_uri("image/png", picture),
        }
        n_bytes += sum(len(clip[name]) for name in ("audio", "wave", "mel"))
        if n_bytes > MAX_PLAYER_BYTES:
            break
        shown.append(clip)
    return shown


def make_page(content: Mapping[str, Any], shown: Sequence[Mapping[str, Any]]) -> str:
    """The HTML page.

    Args:
        shown: clips with their players and pictures.
    """
    return render_page(
        "prepare_report.html.jinja",
        report=content,
        shown=shown,
        tempo_chart=pictures.bar_chart(content["tempi"], word("clips by tempo")),
        key_chart=pictures.bar_chart(content["keys"], word("clips by key")),
        max_named=MAX_NAMED,
        how_cut=how_cut,
        cut_on=cut_sentence(content["cut_on"]),
        player_s=PLAYER_S,
    )


def cut_sentence(cut_on: Mapping[str, int]) -> str:
    """How the clips were cut from their files, as in "28 files kept whole, 11 clips cut at fixed
    times"."""
    return ", ".join(
        f"{count(number, 'file' if name == WHOLE else 'clip')} {how_cut(name)}"
        for name, number in cut_on.items()
    )


def how_cut(name: str) -> str:
    """What a clip's `cut` says, in words."""
    return HOW_CUT.get(name, f'cut on "{name}"')
