"""From a folder of audio to a dataset: found, measured, cleaned, cut, captioned, reported.

The input folder is never changed. A second run does what is new, brings captions up to date and
keeps what a person edited; an interrupted one goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import Progress

from musicgen_lora import atomic
from musicgen_lora.config import PrepareSettings
from musicgen_lora.console import plain_console
from musicgen_lora.data import parts, prepare_report, vocals
from musicgen_lora.data.analyse import AnalysisTask, analyse_file, read_fingerprint, read_record
from musicgen_lora.data.cleaning import near_duplicates, shared_sources, unusable_reason
from musicgen_lora.data.cut import ClipPlan, CutTask, clip_paths, cut_file, plan_clips
from musicgen_lora.data.entries import (
    clip_key,
    describe_clip,
    listed_sides,
    listed_sources,
    make_entry,
    refresh_entries,
)
from musicgen_lora.data.examples import create_examples
from musicgen_lora.data.facts import Facts
from musicgen_lora.data.inputs import (
    Dropped,
    Input,
    find_inputs,
    printable,
    with_split_of,
    without_copies,
)
from musicgen_lora.data.metadata import read_entries, write_entries
from musicgen_lora.data.remarks import Remarks
from musicgen_lora.data.sources import settle_sources
from musicgen_lora.data.tagging import (
    Heard,
    TagTask,
    check_clap,
    heard_facts,
    read_heard,
    tag_file,
)
from musicgen_lora.data.workers import LIMIT_S, Failure, run_tasks
from musicgen_lora.errors import UserError
from musicgen_lora.extras import require_extra

ANALYSIS_FOLDER = "analysis"
FILES_PER_WRITE = 50
"""The metadata is written this often, so an interrupted run loses little."""
MAX_SHOWN = 50
"""Files left out that the terminal names; the report names all."""


def prepare_dataset(settings: PrepareSettings) -> Path:
    """Makes or extends a dataset.

    Returns:
        Path of its metadata.

    Raises:
        UserError: no such folder, no usable audio in it, metadata that is not readable, or a
            dataset that another run is working on.
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
    if not settings.input_dir.is_dir():
        raise UserError(f"{settings.input_dir}: no such folder; give the one with your audio.")
    if settings.vocals != "keep":
        require_extra("vocals", f"--vocals {settings.vocals}")
    if settings.tagger == "clap":
        check_clap(settings.clap_path)
    metadata = settings.output_dir / settings.metadata_file
    entries = read_entries(metadata) if metadata.exists() else []
    remarks = Remarks(settings.input_dir)
    inputs, dropped = find_inputs(settings.input_dir, settings.output_dir, metadata, remarks)
    folder = settings.output_dir / ANALYSIS_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0.0):
            atomic.sweep(folder)
            atomic.sweep(settings.output_dir / "train")
            run = _Run(settings, settings.input_dir, console, entries, dropped, remarks)
            return run.prepare(inputs)
    except Timeout as error:
        raise UserError(f"{settings.output_dir}: in use by another run; wait for it.") from error


@dataclass
class _Run:
    """One preparation: what it reads and writes, and what it has gathered so far."""

    settings: PrepareSettings
    input_dir: Path
    console: Console
    entries: list[dict[str, Any]]
    dropped: list[Dropped]
    remarks: Remarks
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Analyses by digest, of the input and of what the dataset lists."""
    heard: dict[str, list[Heard]] = field(default_factory=dict)
    """What the tagger says of each segment, by digest."""
    n_analysed: int = 0

    @property
    def analysis_dir(self) -> Path:
        return self.settings.output_dir / ANALYSIS_FOLDER

    @property
    def metadata(self) -> Path:
        return self.settings.output_dir / self.settings.metadata_file

    def prepare(self, inputs: list[Input]) -> Path:
        n_files, n_before = len(inputs) + len(self.dropped), len(self.entries)
        inputs, copies = without_copies(inputs, self.entries, self.remarks)
        self.dropped += copies
        listed = listed_sources(self.entries)
        in_dataset = {entry.get("audio") for entry in self.entries}
        known = [f for f in inputs if f.digest in listed or f.in_place in in_dataset - {None}]
        known_digests = {file.digest for file in known}
        self._analyse(inputs, known_digests)
        new = [f for f in inputs if f.digest in self.records and f.digest not in known_digests]
        new, sources = self._clean(new, listed)
        self._listen([*(f for f in known if f.digest in self.records), *new])
        n_refreshed = self._refresh(known)
        self._cut(new, sources)
        for drop in self.dropped[:MAX_SHOWN]:
            path = printable(str(self.input_dir / drop.name))
            self.console.print(f"left out: {path}: {printable(drop.reason)}", style="yellow")
        if len(self.dropped) > MAX_SHOWN:
            self.console.print(f"... and {len(self.dropped) - MAX_SHOWN} more, in the report.")
        if not self.entries:
            raise UserError(
                f"{self.input_dir}: none of its {n_files} files is usable (reasons above)."
            )
        write_entries(self.metadata, self.entries)
        names = {f.name: self.records[f.digest] for f in inputs if f.digest in self.records}
        prepare_report.report(
            self.settings,
            self.console,
            self.entries,
            n_new=len(self.entries) - n_before,
            n_files=n_files,
            n_known=len(known),
            n_analysed=self.n_analysed,
            n_refreshed=n_refreshed,
            dropped=self.dropped,
            remarks=self.remarks.as_json(),
            records=names,
        )
        return self.metadata

    def _analyse(self, inputs: Sequence[Input], known: set[str]) -> None:
        """Gathers the records of the input, made now where there are none."""
        missing = []
        for file in inputs:
            record = read_record(self.analysis_dir, file.digest)
            if record is None:
                missing.append(file)
            else:
                self.records[file.digest] = record
        tasks = [AnalysisTask(f.path.absolute(), f.digest, self.analysis_dir) for f in missing]
        failed = {}
        with self._progress("analysing", len(tasks)) as (progress, task):
            for index, result in run_tasks(analyse_file, tasks, self.settings.num_workers):
                if isinstance(result, Failure):
                    failed[missing[index].digest] = result.reason
                else:
                    self.records[missing[index].digest] = result
                    self.n_analysed += 1
                progress.advance(task)
        reasons = {f.name: failed[f.digest] for f in missing if f.digest in failed}
        # A copy of a broken file is as broken.
        self.dropped = [
            Dropped(drop.name, reasons[drop.equals]) if drop.equals in reasons else drop
            for drop in self.dropped
        ]
        self.dropped += [
            Dropped(file.name, failed[file.digest])
            for file in missing
            if file.digest in failed and file.digest not in known
        ]

    def _listen(self, files: Sequence[Input]) -> None:
        """Gathers what the tagger hears, where there is one; a file that it can't take stays."""
        tagger = self.settings.tagger
        if tagger is None:
            return
        tasks, missing = [], []
        for file in files:
            heard = read_heard(self.analysis_dir, file.digest, tagger)
            if heard is not None:
                self.heard[file.digest] = heard
                continue
            segments = self.records[file.digest]["segments"]
            spans_s = tuple((segment["start_s"], segment["duration_s"]) for segment in segments)
            missing.append(file)
            tasks.append(
                TagTask(
                    file.path.absolute(),
                    file.digest,
                    self.analysis_dir,
                    spans_s,
                    tagger,
                    self.settings.clap_path,
                    n_threads=1 if self.settings.num_workers > 1 else None,
                )
            )
        # A CLAP is large: one process holds it.
        n_workers = min(self.settings.num_workers, 1 if tagger == "clap" else 256)
        with self._progress("listening", len(tasks)) as (progress, task):
            for index, result in run_tasks(tag_file, tasks, n_workers):
                if isinstance(result, Failure):
                    name = printable(missing[index].name)
                    self.console.print(
                        f"not tagged: {name}: {printable(result.reason)}", style="yellow"
                    )
                else:
                    self.heard[missing[index].digest] = result
                progress.advance(task)

    def _clean(
        self, new: Sequence[Input], listed: dict[str, str]
    ) -> tuple[list[Input], dict[str, str]]:
        """New files without the unusable and the copies, and the source of each."""
        usable = []
        for file in new:
            reason = unusable_reason(self.records[file.digest], self.settings.min_clip)
            if reason is None:
                usable.append(file)
            else:
                self.dropped.append(Dropped(file.name, reason))
        pool = {}
        for digest in [*listed, *(file.digest for file in usable)]:
            record = self.records.get(digest) or read_record(self.analysis_dir, digest)
            if record is not None:
                pool[digest] = record
        prints = {digest: read_fingerprint(self.analysis_dir, digest) for digest in pool}
        found = {digest: row for digest, row in prints.items() if row is not None}
        own = {file.digest: file.name for file in usable}
        if not usable:
            return [], {}
        copies = near_duplicates(pool, found, set(listed))
        for file in usable:
            if file.digest in copies:
                equal = own.get(copies[file.digest]) or listed[copies[file.digest]]
                self.dropped.append(Dropped(file.name, f"sounds like {equal}.", equal))
        kept = {file.digest: file for file in usable if file.digest not in copies}
        for file in usable:
            original = kept.get(copies.get(file.digest, ""))
            if original is not None:
                kept[original.digest] = with_split_of(original, file, self.remarks)
        stays = {digest: record for digest, record in pool.items() if digest not in copies}
        heard = shared_sources(stays, found, own, listed)
        sides = listed_sides(self.entries, self.metadata)
        files = list(kept.values())
        return files, settle_sources(files, heard, sides, self.remarks)

    def _plans(self, file: Input) -> list[ClipPlan]:
        return plan_clips(
            self.records[file.digest],
            max_s=self.settings.max_clip,
            min_window_s=self.settings.min_window,
            min_clip_s=self.settings.min_clip,
            # A file in its place is never rewritten, so it can't be repeated.
            repeat_to_s=self.settings.repeat_to if file.in_place is None else None,
            parts=file.parts,
        )

    def _describe(self, file: Input, plan: ClipPlan) -> dict[str, Any]:
        heard = Facts()
        if self.settings.tagger is not None and file.digest in self.heard:
            heard = heard_facts(
                self.heard[file.digest][plan.segment],
                self.settings.tagger,
                self.settings.default_text,
            )
        return describe_clip(
            file,
            self.records[file.digest],
            plan,
            heard=heard,
            default_text=self.settings.default_text,
            n_variants=self.settings.caption_variants,
            trigger=self.settings.trigger_word,
            seed=self.settings.seed,
        )

    def _refresh(self, known: Sequence[Input]) -> int:
        described = {
            clip_key(file.digest, plan.start_s if plan.cut else 0.0): self._describe(file, plan)
            for file in known
            if file.digest in self.records
            for plan in parts.as_listed(file, self._plans(file), self.entries, self.remarks)
        }
        return refresh_entries(self.entries, described)

    def _cut(self, files: Sequence[Input], sources: dict[str, str]) -> None:
        """Writes the clips of new files and lists them, in the order of the files."""
        before = list(self.entries)
        jobs: list[tuple[Input, list[ClipPlan], list[str]]] = []
        for file in files:
            plans = self._plans(file)
            parts.say_left_out(file, self.records[file.digest], plans, self.remarks)
            if not plans:
                self.dropped.append(Dropped(file.name, parts.no_clip_reason(file)))
                continue
            paths = clip_paths(
                file.name,
                file.digest,
                plans,
                loudness_lufs=self.settings.loudness,
                without_vocals=self.settings.vocals == "remove",
            )
            if file.in_place is not None:
                paths = [file.in_place] * len(plans)
            jobs.append((file, plans, paths))
        tasks = [
            CutTask(
                file.path.absolute(),
                tuple(plans),
                tuple(self.settings.output_dir / path for path in paths)
                if file.in_place is None
                else None,
                self.settings.sample_rate,
                self.settings.loudness,
                self.settings.vocals,
            )
            for file, plans, paths in jobs
        ]
        made: dict[int, list[dict[str, Any]]] = {}
        limit_s = LIMIT_S if self.settings.vocals == "keep" else vocals.LIMIT_S
        with self._progress("cutting", len(tasks)) as (progress, task):
            for count, (index, result) in enumerate(
                run_tasks(cut_file, tasks, self.settings.num_workers, limit_s=limit_s), 1
            ):
                file, plans, paths = jobs[index]
                if isinstance(result, Failure):
                    self.dropped.append(Dropped(file.name, result.reason))
                    made[index] = []
                else:
                    made[index] = [
                        make_entry(
                            file, path, sources[file.digest], plan, clip, self._describe(file, plan)
                        )
                        for plan, path, clip in zip(plans, paths, result, strict=True)
                        if clip is not None
                    ]
                    parts.say_silent(file, plans, result, self.remarks)
                    if not made[index]:
                        self.dropped.append(Dropped(file.name, "all of its clips are silent."))
                self.entries = before + [e for place in sorted(made) for e in made[place]]
                if count % FILES_PER_WRITE == 0 and self.entries:
                    write_entries(self.metadata, self.entries)
                progress.advance(task)

    def _progress(self, what: str, total: int) -> Any:
        return _ProgressTask(self.console, what, total)


class _ProgressTask:
    """A progress bar with one task; nothing where the output is no terminal."""

    def __init__(self, console: Console, what: str, total: int) -> None:
        self._progress = Progress(console=console, disable=not console.is_terminal or not total)
        self._task = self._progress.add_task(what, total=total)

    def __enter__(self) -> tuple[Progress, Any]:
        self._progress.start()
        return self._progress, self._task

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
