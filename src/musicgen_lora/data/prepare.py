"""From a folder of audio to a dataset: found, checked, cut, resampled once, captioned, listed.

The input folder is never changed. A second run does what is new and keeps what a person edited.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from musicgen_lora import atomic
from musicgen_lora.audio.files import AudioError, find_audio, probe, read_audio, write_wav
from musicgen_lora.config import PrepareSettings
from musicgen_lora.console import plain_console
from musicgen_lora.data.examples import create_examples
from musicgen_lora.data.metadata import read_entries, write_entries
from musicgen_lora.errors import UserError

ADVISED_CLIPS = 50
ADVISED_WORDS = ("hip hop", "808", "beat", "trap")
MAX_NAME_BYTES = 150
ENTRIES_PER_WRITE = 50
"""The metadata is written this often, so an interrupted run loses little."""


def prepare_dataset(settings: PrepareSettings) -> Path:
    """Makes or extends a dataset.

    Returns:
        Path of its metadata.

    Raises:
        UserError: no such folder, no usable audio in it, or metadata that is not readable.
    """
    console = plain_console()
    if settings.create_example:
        path = create_examples(
            settings.output_dir,
            settings.num_samples,
            sample_rate=settings.sample_rate,
            seed=settings.seed,
            metadata_file=settings.metadata_file,
        )
        console.print(f"{settings.num_samples} example beats: {path}")
        return path
    if settings.input_dir is None:
        raise UserError("Give --input_dir, the folder with your audio, or --create_example.")
    if not settings.default_text.strip():
        raise UserError("--default_text is empty; give a caption such as 'hip hop 808 beat'.")
    return _prepare_folder(settings, settings.input_dir, console)


def _prepare_folder(settings: PrepareSettings, input_dir: Path, console: Console) -> Path:
    if not input_dir.is_dir():
        raise UserError(f"{input_dir}: no such folder; give the one with your audio.")
    files = find_audio(input_dir)
    output_dir = settings.output_dir.resolve()
    inside = output_dir.is_relative_to(input_dir.resolve())
    if inside and output_dir != input_dir.resolve():
        # The dataset lies inside the input folder: what was made from it is no input.
        files = [file for file in files if not file.resolve().is_relative_to(output_dir)]
    if not files:
        raise UserError(
            f"{input_dir}: no audio in it (WAV, MP3, FLAC, OGG, Opus or AIFF, in any subfolder)."
        )
    metadata = settings.output_dir / settings.metadata_file
    entries = read_entries(metadata) if metadata.exists() else []
    made_from = {str(entry["made_from"]) for entry in entries if "made_from" in entry}
    listed = {entry.get("audio") for entry in entries}
    captions = _captions(input_dir)
    dropped: list[tuple[Path, str]] = []
    n_before, n_known, seconds = len(entries), 0, 0.0
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("preparing", total=len(files))
        for count, file in enumerate(files, 1):
            digest = atomic.sha256_file(file)
            in_place = _path_inside(file, output_dir)
            if digest in made_from or in_place in listed:
                n_known += 1
            else:
                try:
                    text = _caption_of(file, input_dir, captions, settings.default_text)
                    for entry in list(_clips_of(file, digest, in_place, input_dir, settings)):
                        entries.append({"audio": entry.pop("audio"), "text": text, **entry})
                        seconds += entry["duration_s"]
                    made_from.add(digest)
                except AudioError as error:
                    dropped.append((file, str(error).removeprefix(f"{file}: ")))
            if count % ENTRIES_PER_WRITE == 0 and len(entries) > n_before:
                write_entries(metadata, entries)
            progress.update(task, completed=count)
    for file, reason in dropped:
        console.print(f"left out: {file}: {reason}", style="yellow")
    if not entries:
        raise UserError(f"{input_dir}: none of its {len(files)} files is usable (reasons above).")
    write_entries(metadata, entries)
    n_new = len(entries) - n_before
    console.print(
        f"{n_new} new clips ({seconds / 60:.1f} minutes) of {len(files)} files; {n_known} files "
        f"were listed before, {len(dropped)} left out. {len(entries)} clips in {metadata}"
    )
    for advice in dataset_advice(entries):
        console.print(f"Advice: {advice}")
    return metadata


def _path_inside(file: Path, output_dir: Path) -> str | None:
    """Path of a file relative to the dataset, if it lies in it."""
    resolved = file.resolve()
    if not resolved.is_relative_to(output_dir):
        return None
    return resolved.relative_to(output_dir).as_posix()


def _clips_of(
    file: Path, digest: str, in_place: str | None, input_dir: Path, settings: PrepareSettings
) -> Iterator[dict[str, Any]]:
    """Entries of a file's clips, each written unless it is there already. A file that lies in
    the dataset itself is listed where it is, never rewritten.

    The names of written clips hold a hash of the file they were made from, so different audio
    never meets under one name and an interrupted run finds what it has made.
    """
    duration_s = probe(file).duration_s
    source = file.relative_to(input_dir).as_posix()
    if duration_s < settings.min_clip:
        raise AudioError(
            f"{file}: {duration_s:.2f} s is shorter than {settings.min_clip:g} s (--min_clip)."
        )
    n_windows = math.ceil(duration_s / settings.max_clip - 1e-6)
    window_s = duration_s / n_windows
    for index in range(n_windows):
        start_s = index * window_s
        facts = {"source": source, "duration_s": round(window_s, 6), "made_from": digest}
        if in_place is not None:
            # Read once here, so that a broken file is found now and not in training.
            read_audio(file, settings.sample_rate, start_s=start_s, duration_s=window_s)
            window = {"start_s": round(start_s, 6)} if n_windows > 1 else {}
            yield {"audio": in_place, **facts, **window}
            continue
        part = f"_{index + 1}of{n_windows}" if n_windows > 1 else ""
        audio = f"train/{_safe_name(source)}_{digest[:8]}{part}.wav"
        if not (settings.output_dir / audio).exists():
            waveform = read_audio(file, settings.sample_rate, start_s=start_s, duration_s=window_s)
            write_wav(settings.output_dir / audio, waveform, settings.sample_rate)
        yield {"audio": audio, **facts}


def _safe_name(source: str) -> str:
    """A readable file name made of a path below the input folder."""
    name = re.sub(r"[^\w.#+-]+", "_", "__".join(Path(source).with_suffix("").parts)).strip("._-")
    return name.encode()[:MAX_NAME_BYTES].decode(errors="ignore") or "clip"


def _captions(input_dir: Path) -> dict[str, str]:
    """Captions that the input folder's own metadata.json gives, by path."""
    path = input_dir / "metadata.json"
    if not path.is_file():
        return {}
    return {
        str(entry["audio"]): entry["text"]
        for entry in read_entries(path)
        if isinstance(entry.get("text"), str) and entry["text"].strip() and "audio" in entry
    }


def _caption_of(file: Path, input_dir: Path, captions: dict[str, str], default: str) -> str:
    """Of the folder's metadata, else of a .txt or .json beside the file, else the default."""
    listed = captions.get(file.relative_to(input_dir).as_posix()) or captions.get(file.name)
    if listed:
        return listed.strip()
    for beside in (file.with_suffix(".txt"), file.with_name(file.name + ".txt")):
        if beside.is_file() and beside.resolve().is_relative_to(input_dir.resolve()):
            text = beside.read_text(encoding="utf-8-sig", errors="replace").strip()
            if text:
                return " ".join(text.split())
    beside = file.with_suffix(".json")
    if beside.is_file() and beside.resolve().is_relative_to(input_dir.resolve()):
        try:
            content = json.loads(beside.read_text(encoding="utf-8-sig"))
        except ValueError as error:
            raise AudioError(f"{file}: {beside.name} beside it is not JSON ({error}).") from error
        for name in ("text", "caption", "description"):
            if isinstance(content, dict) and str(content.get(name) or "").strip():
                return str(content[name]).strip()
    return default


def dataset_advice(
    entries: list[dict[str, Any]], is_long: Callable[[float], bool] = lambda s: s >= 15.0
) -> list[str]:
    """What the guide would change about a dataset first; empty where it has nothing to say."""
    advice = []
    if len(entries) < ADVISED_CLIPS:
        advice.append(
            f"{len(entries)} clips are few; {ADVISED_CLIPS}-100 are the least, 200-500 better."
        )
    lengths = [entry.get("duration_s") for entry in entries]
    short = sum(isinstance(s, (int, float)) and not is_long(s) for s in lengths)
    if short * 2 > len(entries):
        advice.append(f"{short} of {len(entries)} clips are shorter than 15 s; 15-30 s work best.")
    texts = [str(entry.get("text", "")).lower() for entry in entries]
    if len(set(texts)) == 1 and len(texts) > 1:
        advice.append("All captions are alike; edit the metadata so that each says what it plays.")
    unsaid = sum(not any(word in text for word in ADVISED_WORDS) for text in texts)
    if unsaid * 2 > len(texts):
        advice.append(
            f"{unsaid} of {len(texts)} captions name none of: {', '.join(ADVISED_WORDS)}."
        )
    return advice
