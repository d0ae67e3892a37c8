"""What is wrong with a dataset, and what to do about it, the worst first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from musicgen_lora.audio.fold import BASS_BELOW_HZ, cancelled_bands
from musicgen_lora.audio.stream import CUT_SHORT, ends_early
from musicgen_lora.dataset.splits import find_split
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
"""The codec's audio reaches up to 16 kHz."""
TOLD_SILENT_SHARE = 0.2
QUIET_LUFS = -32.0
"""The usual target lies 16 dB above; noise comes up as far."""
REACHED_LU = 0.5
"""A clip this close to the wanted loudness has it."""
FOLD_ADVICE = (
    "prepare again with --mono_fold, which turns it round (audio inside the dataset: into another "
    "--output_dir)."
)


@dataclass(frozen=True)
class Check:
    """A fault that files can have: its name, what is told, what to do, how to see it."""

    name: str
    told: str
    to_do: str
    has_fault: Callable[[Analysis], bool]


def _silent_share(record: Analysis) -> float:
    silences = record.quality.silences_s
    return sum(stop_s - start_s for start_s, stop_s in silences) / max(record.duration_s, 1e-9)


def is_clipped(record: Analysis) -> bool:
    """Whether a file with this analysis is clipped, beyond a few samples."""
    quality = record.quality
    n_clipped = quality.clipped_samples
    if not record.is_float:
        # A decoder of MP3 rounds off what was clipped before, beyond full scale.
        n_clipped = max(n_clipped, quality.over_samples)
    return n_clipped > max(10.0, CLIPPED_PER_S * record.duration_s)


def _cancelled(record: Analysis) -> list[tuple[float, float]]:
    """Bands that the mono mix lacks, where it isn't all of them."""
    quality = record.quality
    if quality.channels == "inverted":
        return []
    return cancelled_bands(quality.unrelated_db, quality.mono_db)


CHECKS = (
    Check(
        "cut short",
        "end before their header says, or without their last part",
        "Copy or download them again.",
        lambda r: r.is_cut_off or ends_early(r.duration_s, r.claimed_s or 0.0),
    ),
    Check(
        "damaged",
        "are damaged inside: their decoder stumbles over parts of them",
        "Find the original, or listen to their clips and leave out those that crackle.",
        lambda r: r.n_decoder_faults > 0,
    ),
    Check(
        "clipped",
        "are clipped",
        "Export them again with 1 dB of room below full scale, or find the unclipped original.",
        is_clipped,
    ),
    Check(
        "inverted",
        "cancel in mono",
        "Invert one channel: MusicGen's mono models hear nothing of them as they are. Or "
        + FOLD_ADVICE,
        lambda r: r.quality.channels == "inverted",
    ),
    Check(
        "bass out of phase",
        "lose their bass in mono: it is out of phase between the channels",
        "Put it in phase: MusicGen's mono models don't hear it as it is. Or " + FOLD_ADVICE,
        lambda r: any(low < BASS_BELOW_HZ for low, _ in _cancelled(r)),
    ),
    Check(
        "out of phase",
        "lose a part of their sound in mono: it is out of phase between the channels",
        "Narrow their stereo: MusicGen's mono models don't hear it as it is. Or " + FOLD_ADVICE,
        lambda r: any(high > BASS_BELOW_HZ for _, high in _cancelled(r)),
    ),
    Check(
        "longer than said",
        "go on after the end that their header tells, as joined files do",
        "Nothing if they are one piece, for they are read to their end; else split them.",
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
        "end below 15 kHz as steeply as a low-bitrate MP3",
        "Find the original: an adapter learns dull treble from them.",
        lambda r: (
            bool(r.quality.has_lossy_edge) and (r.quality.bandwidth_hz or NEEDED_HZ) < NEEDED_HZ
        ),
    ),
    Check(
        "low rate",
        "have a sample rate below 32 kHz",
        "Find the original: nothing sounds above half of the rate.",
        lambda r: r.sample_rate < 32_000,
    ),
    Check(
        "silence",
        "are silent for more than a fifth",
        "Trim them: an adapter learns the silence too.",
        lambda r: _silent_share(r) > TOLD_SILENT_SHARE,
    ),
    Check(
        "quiet",
        "are very quiet (below -32 LUFS)",
        "Export them louder: raising them here raises their noise.",
        lambda r: (r.quality.loudness_lufs or 0.0) < QUIET_LUFS,
    ),
    Check(
        "offset",
        "have a DC offset",
        "Filter below 20 Hz: the offset takes headroom, and clicks at each cut.",
        lambda r: abs(r.quality.dc_offset) > DC_OFFSET,
    ),
    Check(
        "many channels",
        "have more than two channels",
        "Nothing if their mean sounds right, which is what is used; else export them in stereo.",
        lambda r: r.n_channels > 2,
    ),
    Check(
        "fake stereo",
        "are mono with two channels",
        "Nothing for a mono model; for a stereo one, find the stereo original.",
        lambda r: r.n_channels == 2 and r.quality.channels in ("identical", "near mono"),
    ),
    Check(
        "above full scale",
        "have samples above full scale, which is no clipping in a format of floats",
        "Nothing: their clips are turned down, by what gain_db in the metadata says.",
        lambda r: bool(r.is_float) and r.quality.over_samples > 0 and not is_clipped(r),
    ),
)


def find_faults(
    records: Mapping[str, Analysis], entries: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Faults that any file has, the worst first: `name`, `told`, `to_do`, `files` and `sentence`,
    which says how many there are.

    Args:
        entries: of the dataset: a tempo that they state, from wherever, is one.
    """
    clips: dict[str, list[bool]] = {}
    for entry in entries:
        clips.setdefault(str(entry.get("made_from")), []).append(entry.get("bpm") is not None)
    tempo_unsure = Check(
        "tempo unsure",
        "have clips without a tempo: it isn't clear enough",
        "Write it into their names, as in beat_140bpm.wav, or into the metadata.",
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
    """What the guide would change about a dataset first; empty where it has nothing to say."""
    advice = []
    if len(entries) < ADVISED_CLIPS:
        advice.append(
            f"{count(len(entries), 'clip')}: too few; {ADVISED_CLIPS}-100 are the least, 200-500 "
            "better."
        )
    lengths = [entry.get("duration_s") for entry in entries]
    short = sum(isinstance(s, (int, float)) and s < 15.0 for s in lengths)
    if short * 2 > len(entries):
        advice.append(f"{short} of {len(entries)} clips are shorter than 15 s; 15-30 s work best.")
    texts = [english_of(str(entry.get("text", ""))).lower() for entry in entries]
    if len(set(texts)) == 1 and len(texts) > 1:
        advice.append("All captions are alike; edit the metadata so that each says what it plays.")
    unsaid = sum(
        not names_genre(text) and not any(word in text for word in ADVISED_WORDS) for text in texts
    )
    if unsaid * 2 > len(texts):
        advice.append(
            f"{unsaid} of {len(texts)} captions name none of: {', '.join(ADVISED_WORDS)}."
        )
    sources = {entry.get("source") or entry.get("audio") for entry in entries}
    if len(sources) < 5 <= len(entries):
        advice.append(
            f"All clips come from {count(len(sources), 'source')}; the validation loss says little "
            "then."
        )
    splits = {str(entry.get("split") or "") for entry in entries}
    if all(find_split(split) == "train" for split in splits):
        advice.append(
            "Every clip's split is train, so nothing is held out and nothing can be validated; "
            "give some clips the split validation, or remove the field to have them split."
        )
    return advice


def caption_advice(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the text encoder doesn't read of the captions as they are written, and what to do."""
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
        in_place: files that this run was to fold and that lie in the dataset.
    """
    advice = []
    folded = [str(entry["folded"]) for entry in entries if entry.get("folded")]
    turned = sum(how != "mean" for how in folded)
    if folded:
        advice.append(
            f"{count(len(folded), 'clip')} folded to mono, {turned} of them with parts turned "
            "round that had cancelled ('folded' in the metadata says which)."
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
    """How many clips have the wanted loudness, what keeps the others from it, and what was limited.

    Args:
        target_lufs: wanted; None where levels are left alone.
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
            f"({float(np.median(held)):.1f} in the middle), since their true peak may not pass "
            f"{PEAK_CEILING_DB:g} dBTP."
            if len(held) > 1
            else f"{reached}; one is quieter by {max(held):.1f} dB, since its true peak may not "
            f"pass {PEAK_CEILING_DB:g} dBTP."
        )
        remedy = (
            f"--limit turns such peaks down by up to {MOST_LIMITED_DB:g} dB; or lower --loudness."
        )
        advice.append(f"{sentence} {'Lower --loudness.' if limits else remedy}")
    n_faint = sum(
        e["loudness_lufs"] < target_lufs - REACHED_LU
        and (e.get("gain_db") or 0.0) > MOST_GAIN_DB - 0.1
        for e in measured
    )
    if n_faint:
        advice.append(
            f"Quieter than {target_lufs:g} LUFS, since nothing is raised by more than "
            f"{MOST_GAIN_DB:g} dB, which would raise its noise: {count(n_faint, 'clip')}."
        )
    limited = [float(e["limited_db"]) for e in entries if e.get("limited_db")]
    if limited:
        advice.append(
            f"Peaks were limited in {len(limited)} {'clip' if len(limited) == 1 else 'clips'}, "
            f"by {max(limited):.1f} dB at most ('limited_db' in the metadata)."
        )
    return advice


def vocals_advice(entries: Sequence[Mapping[str, Any]], *, searched: bool) -> list[str]:
    """What to do about vocals."""
    advice = []
    n_vocals = sum(entry.get("vocals") == "some" for entry in entries)
    if n_vocals:
        command = install_command("vocals")
        first = "" if command is None else f" after {command}"
        advice.append(
            f"Vocals in {count(n_vocals, 'clip')}; prepare --vocals remove{first} takes them out."
        )
    n_unsearched = sum("vocals" not in entry for entry in entries)
    if searched and n_unsearched:
        advice.append(
            f"Not searched for vocals: {count(n_unsearched, 'clip')} of files outside the input "
            "folder; prepare that folder with the same --vocals."
        )
    return advice
