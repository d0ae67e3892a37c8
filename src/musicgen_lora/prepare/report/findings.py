"""What is wrong with a dataset and what to do about it, the worst problems first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from musicgen_lora.audio.fold import BASS_BELOW_HZ, cancelled_bands
from musicgen_lora.audio.stream import CUT_SHORT, ends_early
from musicgen_lora.dataset.splits import find_split, source_of
from musicgen_lora.extras import install_command
from musicgen_lora.model.text.reading import describe_readings, t5_reader
from musicgen_lora.model.text.wording import english_of
from musicgen_lora.plural import count, count_that
from musicgen_lora.prepare.clips.cut import MOST_GAIN_DB, MOST_LIMITED_DB, PEAK_CEILING_DB
from musicgen_lora.prepare.hearing.records import Analysis
from musicgen_lora.prepare.words.captions import names_genre

ADVISED_CLIPS = 50
ADVISED_WORDS = ("hip hop", "808", "beat", "trap")
CLIPPED_PER_S = 1.0
DC_OFFSET = 0.01
NEEDED_HZ = 15_000.0
"""The codec's audio reaches 16 kHz."""
TOLD_SILENT_SHARE = 0.2
QUIET_LUFS = -32.0
"""The usual target is 16 dB higher, and raising a clip that far raises its noise as much."""
REACHED_LU = 0.5
"""A clip this close to the target loudness counts as having reached it."""
FOLD_ADVICE = (
    "prepare again with --mono_fold, which fixes the phase (for audio inside the dataset, into "
    "another --output_dir)."
)


@dataclass(frozen=True)
class Check:
    """A fault that files can have: its name, the report's wording, the remedy and the test."""

    name: str
    told: str
    to_do: str
    has_fault: Callable[[Analysis], bool]


def _silent_share(record: Analysis) -> float:
    silences = record.quality.silences_s
    return sum(stop_s - start_s for start_s, stop_s in silences) / max(record.duration_s, 1e-9)


def is_clipped(record: Analysis) -> bool:
    """Whether a file with this analysis is clipped in more than a few samples."""
    quality = record.quality
    n_clipped = quality.clipped_samples
    if not record.is_float:
        # An MP3 decoder turns clipped peaks into rounded ones beyond full scale.
        n_clipped = max(n_clipped, quality.over_samples)
    return n_clipped > max(10.0, CLIPPED_PER_S * record.duration_s)


def _cancelled(record: Analysis) -> list[tuple[float, float]]:
    """Bands that are lost in the mono mix; none if everything is, which is another fault."""
    quality = record.quality
    if quality.channels == "inverted":
        return []
    return cancelled_bands(quality.unrelated_db, quality.mono_db)


CHECKS = (
    Check(
        "cut short",
        "end earlier than their header says, or without their last part",
        "Copy or download them again.",
        lambda r: r.is_cut_off or ends_early(r.duration_s, r.claimed_s or 0.0),
    ),
    Check(
        "damaged",
        "are damaged: the decoder finds errors in their audio",
        "Find the originals, or listen to their clips and leave out those that crackle.",
        lambda r: r.n_decoder_faults > 0,
    ),
    Check(
        "clipped",
        "are clipped",
        "Export them again with 1 dB of headroom, or find the unclipped originals.",
        is_clipped,
    ),
    Check(
        "inverted",
        "cancel out in mono",
        "Invert one channel: as they are, MusicGen's mono models hear nothing of them. Or "
        + FOLD_ADVICE,
        lambda r: r.quality.channels == "inverted",
    ),
    Check(
        "bass out of phase",
        "lose their bass in mono: it is out of phase between the channels",
        "Fix its phase: as it is, MusicGen's mono models don't hear it. Or " + FOLD_ADVICE,
        lambda r: any(low < BASS_BELOW_HZ for low, _ in _cancelled(r)),
    ),
    Check(
        "out of phase",
        "lose part of their sound in mono: it is out of phase between the channels",
        "Narrow their stereo image: as it is, mono models don't hear that part. Or " + FOLD_ADVICE,
        lambda r: any(high > BASS_BELOW_HZ for _, high in _cancelled(r)),
    ),
    Check(
        "longer than said",
        "go on past the end given in their header, as joined files do",
        "Nothing to do if they are one piece, as they are read to the end; otherwise split them.",
        lambda r: r.duration_s > (r.claimed_s or r.duration_s) / CUT_SHORT + 0.1,
    ),
    Check(
        "one-sided",
        "have one silent channel",
        "Export them in mono.",
        lambda r: r.quality.channels == "one-sided",
    ),
    Check(
        "lossy edge",
        "have a cutoff below 15 kHz that is as steep as a low-bitrate MP3's",
        "Find the originals: an adapter learns dull treble from these.",
        lambda r: (
            bool(r.quality.has_lossy_edge) and (r.quality.bandwidth_hz or NEEDED_HZ) < NEEDED_HZ
        ),
    ),
    Check(
        "low rate",
        "have a sample rate below 32 kHz",
        "Find the originals: these have nothing above half their sample rate.",
        lambda r: r.sample_rate < 32_000,
    ),
    Check(
        "silence",
        "are silent for more than a fifth of their length",
        "Trim them: an adapter learns the silence too.",
        lambda r: _silent_share(r) > TOLD_SILENT_SHARE,
    ),
    Check(
        "quiet",
        "are very quiet (below -32 LUFS)",
        "Export them louder: raising them here raises their noise too.",
        lambda r: (r.quality.loudness_lufs or 0.0) < QUIET_LUFS,
    ),
    Check(
        "offset",
        "have a DC offset",
        "High-pass them at 20 Hz: the offset costs headroom and clicks at each cut.",
        lambda r: abs(r.quality.dc_offset) > DC_OFFSET,
    ),
    Check(
        "many channels",
        "have more than two channels",
        "Nothing to do if the mean of the channels, which is what is used, sounds right; otherwise "
        "export them in stereo.",
        lambda r: r.n_channels > 2,
    ),
    Check(
        "fake stereo",
        "are mono audio in two channels",
        "Nothing to do for a mono model; for a stereo model, find the stereo originals.",
        lambda r: r.n_channels == 2 and r.quality.channels in ("identical", "near mono"),
    ),
    Check(
        "above full scale",
        "have samples above full scale, which is not clipping in a float format",
        "Nothing to do: their clips are turned down, as gain_db in the metadata says.",
        lambda r: bool(r.is_float) and r.quality.over_samples > 0 and not is_clipped(r),
    ),
)


def find_faults(
    records: Mapping[str, Analysis], entries: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The faults found in any file, the worst first: `name`, `told`, `to_do`, `files` and
    `sentence`, which says how many files have it.

    Args:
        entries: of the dataset; a clip whose entry has a tempo counts as having one.
    """
    clips: dict[str, list[bool]] = {}
    for entry in entries:
        clips.setdefault(str(entry.get("made_from")), []).append(entry.get("bpm") is not None)
    tempo_unsure = Check(
        "tempo unsure",
        "have clips without a tempo: none was clear enough",
        "Put it in their names, as in beat_140bpm.wav, or in the metadata.",
        lambda r: not all(clips.get(r.sha256, [True])),
    )
    faults = []
    for check in (*CHECKS, tempo_unsure):
        files = [name for name, record in records.items() if check.has_fault(record)]
        if files:
            fault = {"name": check.name, "told": check.told, "to_do": check.to_do, "files": files}
            faults.append({**fault, "sentence": f"{count_that(len(files), 'file', check.told)}."})
    return faults


def dataset_advice(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """What to improve about a dataset first, by the guide's advice; empty if nothing."""
    advice = []
    if len(entries) < ADVISED_CLIPS:
        advice.append(
            f"{count(len(entries), 'clip')}: too few; use at least {ADVISED_CLIPS}-100, better "
            "200-500."
        )
    lengths = [entry.get("duration_s") for entry in entries]
    short = sum(isinstance(s, (int, float)) and s < 15.0 for s in lengths)
    if short * 2 > len(entries):
        advice.append(f"{short} of {len(entries)} clips are shorter than 15 s; 15-30 s works best.")
    texts = [english_of(str(entry.get("text", ""))).lower() for entry in entries]
    if len(set(texts)) == 1 and len(texts) > 1:
        advice.append("All captions are the same; edit the metadata so each describes its clip.")
    unsaid = sum(
        not names_genre(text) and not any(word in text for word in ADVISED_WORDS) for text in texts
    )
    if unsaid * 2 > len(texts):
        advice.append(
            f"{unsaid} of {len(texts)} captions mention none of: {', '.join(ADVISED_WORDS)}."
        )
    sources = set(map(source_of, entries))
    if len(sources) < 5 <= len(entries):
        advice.append(
            f"All clips come from {count(len(sources), 'source')}, so the validation loss says "
            "little."
        )
    splits = {str(entry.get("split") or "") for entry in entries}
    if all(find_split(split) == "train" for split in splits):
        advice.append(
            "Every clip's split is train, so nothing is held out and nothing can be validated; "
            "set some clips' split to validation, or remove the field to have them split for you."
        )
    return advice


def caption_advice(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which parts of the captions the text encoder can't read as written, and what to do."""
    places: dict[str, str] = {}
    for entry in entries:
        variants = entry.get("texts")
        for text in (entry.get("text"), *(variants if isinstance(variants, list) else ())):
            if isinstance(text, str):
                places.setdefault(text, str(entry.get("audio")))
    return describe_readings(places, t5_reader, "caption", places.__getitem__)


def fold_advice(entries: Sequence[Mapping[str, Any]], *, in_place: int) -> list[str]:
    """What was folded to mono, and what wasn't.

    Args:
        in_place: number of files that should have been folded but lie in the dataset itself.
    """
    advice = []
    folded = [str(entry["folded"]) for entry in entries if entry.get("folded")]
    turned = sum(how != "mean" for how in folded)
    if folded:
        advice.append(
            f"{count(len(folded), 'clip')} folded to mono; {turned} of them had parts that would "
            "cancel, which were inverted first ('folded' in the metadata says which)."
        )
    if in_place:
        advice.append(
            f"Not folded: {count(in_place, 'file')} in the dataset itself, which is never "
            "rewritten. Prepare into another --output_dir."
        )
    return advice


def loudness_advice(
    entries: Sequence[Mapping[str, Any]], target_lufs: float | None, *, limits: bool
) -> list[str]:
    """How many clips reach the target loudness, what keeps the others below it, and what was
    limited.

    Args:
        target_lufs: None where levels are left alone.
        limits: whether this run limits peaks.
    """
    if target_lufs is None:
        return []
    advice = []
    measured = [e for e in entries if isinstance(e.get("loudness_lufs"), (int, float))]
    there = [abs(e["loudness_lufs"] - target_lufs) <= REACHED_LU for e in measured]
    held = [
        float(e["held_db"])
        for e, is_there in zip(measured, there, strict=True)
        if isinstance(e.get("held_db"), (int, float)) and not is_there
    ]
    if held:
        n_there = sum(there)
        reached = f"{target_lufs:g} LUFS is reached by {n_there} of {len(measured)} clips"
        sentence = (
            f"{reached}; {len(held)} are quieter, by up to {max(held):.1f} dB "
            f"(median {float(np.median(held)):.1f}), because their true peak may not exceed "
            f"{PEAK_CEILING_DB:g} dBTP."
            if len(held) > 1
            else f"{reached}; one is quieter by {max(held):.1f} dB, because its true peak may not "
            f"exceed {PEAK_CEILING_DB:g} dBTP."
        )
        remedy = (
            f"Add --limit, which turns peaks down by up to {MOST_LIMITED_DB:g} dB, or lower "
            "--loudness."
        )
        advice.append(f"{sentence} {'Lower --loudness.' if limits else remedy}")
    n_faint = sum(
        e["loudness_lufs"] < target_lufs - REACHED_LU
        and (e.get("gain_db") or 0.0) > MOST_GAIN_DB - 0.1
        for e in measured
    )
    if n_faint:
        advice.append(
            f"Quieter than {target_lufs:g} LUFS, because no clip is raised by more than "
            f"{MOST_GAIN_DB:g} dB, which would raise its noise too: {count(n_faint, 'clip')}."
        )
    limited = [float(e["limited_db"]) for e in entries if e.get("limited_db")]
    if limited:
        advice.append(
            f"Peaks were limited in {len(limited)} {'clip' if len(limited) == 1 else 'clips'}, "
            f"by up to {max(limited):.1f} dB ('limited_db' in the metadata)."
        )
    return advice


def vocals_advice(entries: Sequence[Mapping[str, Any]], *, searched: bool) -> list[str]:
    """What to do about vocals."""
    advice = []
    n_vocals = sum(entry.get("vocals") == "some" for entry in entries)
    if n_vocals:
        command = install_command("vocals")
        first = "" if command is None else f" (after {command})"
        advice.append(
            f"Vocals in {count(n_vocals, 'clip')}; remove them with prepare --vocals remove{first}."
        )
    n_unsearched = sum("vocals" not in entry for entry in entries)
    if searched and n_unsearched:
        advice.append(
            f"Not searched for vocals: {count(n_unsearched, 'clip')} of files outside the input "
            "folder; prepare their folder with the same --vocals."
        )
    return advice
