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

from musicgen_lora.audio.files import AudioError, find_audio, probe, read_audio, write_wav
from musicgen_lora.config import PrepareSettings
from musicgen_lora.data.examples import create_examples
from musicgen_lora.data.metadata import read_entries, write_entries
from musicgen_lora.errors import UserError

ADVISED_CLIPS = 50
ADVISED_WORDS = ("hip hop", "808", "beat", "trap")
ENTRIES_PER_WRITE = 50
"""The metadata is written this often, so an interrupted run loses little."""


def prepare_dataset(settings: PrepareSettings) -> Path:
    """Makes or extends a dataset.

    Returns:
        Path of its metadata.

    Raises:
        UserError: no such folder, no usable audio in it, or metadata that is not readable.
    """
    console = Console(soft_wrap=True, highlight=False)
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
    known = {entry.get("audio") for entry in entries}
    captions = _captions(input_dir)
    dropped: list[tuple[Path, str]] = []
    n_before, seconds = len(entries), 0.0
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("preparing", total=len(files))
        for count, file in enumerate(files, 1):
            try:
                text = _caption_of(file, input_dir, captions, settings.default_text)
                for entry in _clips_of(file, input_dir, settings):
                    if entry["audio"] not in known:
                        entries.append({"audio": entry.pop("audio"), "text": text, **entry})
                        seconds += entry["duration_s"]
            except AudioError as error:
                dropped.append((file, str(error).removeprefix(f"{file}: ")))
            if count % ENTRIES_PER_WRITE == 0 and len(entries) > n_before:
                write_entries(metadata, entries)
            progress.update(task, completed=count)
    for file, reason in dropped:
        console.print(f"[yellow]left out:[/] {file}: {reason}", markup=True)
    if not entries:
        raise UserError(f"{input_dir}: none of its {len(files)} files is usable (reasons above).")
    write_entries(metadata, entries)
    n_new = len(entries) - n_before
    console.print(
        f"{n_new} new clips ({seconds / 60:.1f} minutes) from {len(files) - len(dropped)} files, "
        f"{n_before} listed before, {len(dropped)} files left out: {metadata}"
    )
    for advice in dataset_advice(entries):
        console.print(f"Advice: {advice}")
    return metadata


def _clips_of(file: Path, input_dir: Path, settings: PrepareSettings) -> Iterator[dict[str, Any]]:
    """Entries of a file's clips, each written unless it is there already. A file that lies in
    the dataset itself is listed where it is, never rewritten."""
    duration_s = probe(file).duration_s
    source = file.relative_to(input_dir).as_posix()
    root = settings.output_dir.resolve()
    in_place = file.resolve().is_relative_to(root)
    if duration_s < settings.min_clip:
        raise AudioError(
            f"{file}: {duration_s:.2f} s is shorter than {settings.min_clip:g} s (--min_clip)."
        )
    n_windows = math.ceil(duration_s / settings.max_clip - 1e-6)
    for index in range(n_windows):
        start_s = index * duration_s / n_windows
        window_s = duration_s / n_windows
        if in_place:
            audio = file.resolve().relative_to(root).as_posix()
            # Read once here, so that a broken file is found now and not in training.
            read_audio(file, settings.sample_rate, start_s=start_s, duration_s=window_s)
            entry = {"audio": audio, "source": source, "duration_s": round(window_s, 6)}
            yield entry if n_windows == 1 else entry | {"start_s": round(start_s, 6)}
            continue
        name = _safe_name(source) + (f"_{index:03d}" if n_windows > 1 else "") + ".wav"
        target = settings.output_dir / "train" / name
        if not target.exists():
            waveform = read_audio(file, settings.sample_rate, start_s=start_s, duration_s=window_s)
            write_wav(target, waveform, settings.sample_rate)
        yield {"audio": f"train/{name}", "source": source, "duration_s": round(window_s, 6)}


def _safe_name(source: str) -> str:
    """A file name made of a path below the input folder: distinct files keep distinct names."""
    path = Path(source)
    name = re.sub(r"[^\w.#+-]+", "_", "__".join(path.with_suffix("").parts)).strip("._-")
    return f"{name[:120] or 'clip'}_{path.suffix[1:].lower()}"


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
            text = beside.read_text(encoding="utf-8", errors="replace").strip()
            if text:
                return " ".join(text.split())
    beside = file.with_suffix(".json")
    if beside.is_file() and beside.resolve().is_relative_to(input_dir.resolve()):
        try:
            content = json.loads(beside.read_text(encoding="utf-8"))
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
    short = sum(not is_long(entry.get("duration_s") or 15.0) for entry in entries)
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
