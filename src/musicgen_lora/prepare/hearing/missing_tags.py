"""Runs the tagger on files that it hasn't listened to yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from musicgen_lora.cluster.engine import Engine, Processes, run_shown
from musicgen_lora.config import PrepareSettings
from musicgen_lora.prepare.hearing.records import Analysis
from musicgen_lora.prepare.hearing.tagging import HeardWords, TagTask, read_heard, tag_file
from musicgen_lora.prepare.reading.inputs import Input
from musicgen_lora.runtime.workers import Failure


def listen(
    files: Sequence[Input],
    records: Mapping[str, Analysis],
    settings: PrepareSettings,
    folder: Path,
    console: Console,
    engine: Engine,
) -> dict[str, list[HeardWords]]:
    """What is heard in each segment of the files, by digest, without files that can't be tagged."""
    tagger = settings.tagger
    if tagger is None:
        return {}
    found: dict[str, list[HeardWords]] = {}
    tasks, missing = [], []
    for file in files:
        heard = read_heard(folder, file.digest, tagger)
        if heard is not None:
            found[file.digest] = heard
            continue
        segments = records[file.digest].segments
        spans_s = tuple((segment.start_s, segment.duration_s) for segment in segments)
        missing.append(file)
        tasks.append(
            TagTask(
                file.path.absolute(),
                file.digest,
                folder,
                spans_s,
                tagger,
                settings.clap_path,
                n_threads=1 if settings.num_workers > 1 or settings.ray else None,
            )
        )
    if tagger == "clap" and settings.ray is None and settings.num_workers > 1:
        # A CLAP is large: only one process loads it.
        engine = Processes(1)
    for index, result in run_shown(console, "files listened to", engine, tag_file, tasks):
        if isinstance(result, Failure):
            told = f"not tagged: {missing[index].name}: {result.reason}"
            console.print(told, style="yellow")
        else:
            found[missing[index].digest] = result
    return found
