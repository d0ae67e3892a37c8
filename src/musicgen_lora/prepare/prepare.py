"""From a folder of audio to a dataset: find, measure, clean, cut, caption, report.

The input folder is never changed. A second run adds what is new, brings all clips up to date with
its settings and keeps the user's edits; an interrupted run resumes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from musicgen_lora import atomic
from musicgen_lora.cluster.engine import Engine, open_engine, run_shown
from musicgen_lora.cluster.places import at_any_place
from musicgen_lora.config import PrepareSettings
from musicgen_lora.console import plain_console, working
from musicgen_lora.errors import UserError
from musicgen_lora.extras import require_extra
from musicgen_lora.given import check_input_folder
from musicgen_lora.listening.rhythm.bars import Span
from musicgen_lora.plural import count
from musicgen_lora.prepare.clips import parts
from musicgen_lora.prepare.clips.cut import ClipPlan, CutTask, cut_file
from musicgen_lora.prepare.clips.entries import (
    clip_key,
    describe_clip,
    make_entry,
    own_plan,
    refresh_entries,
)
from musicgen_lora.prepare.clips.jobs import CutJob, plan_jobs, with_jobs
from musicgen_lora.prepare.clips.selection import Selection
from musicgen_lora.prepare.clips.windows import StretchKey, measure_windows, stretch_key
from musicgen_lora.prepare.examples import create_examples
from musicgen_lora.prepare.hearing import vocals
from musicgen_lora.prepare.hearing.analyse import AnalysisTask, analyse_file, read_record
from musicgen_lora.prepare.hearing.missing_tags import listen
from musicgen_lora.prepare.hearing.records import Analysis, Segment
from musicgen_lora.prepare.hearing.tagging import HeardWords, check_clap, heard_facts
from musicgen_lora.prepare.reading.inputs import Dropped, Input, find_inputs, without_copies
from musicgen_lora.prepare.reading.remarks import Remarks
from musicgen_lora.prepare.report.conflicts import say_conflicts
from musicgen_lora.prepare.report.left_out import tell_left_out
from musicgen_lora.prepare.report.report import Prepared, report
from musicgen_lora.prepare.rerun.ledger import Ledger, spans_by_file
from musicgen_lora.prepare.rerun.revision import Change, Revision
from musicgen_lora.prepare.rerun.shared_metadata import SharedMetadata
from musicgen_lora.prepare.rerun.succession import CUT_ANEW, Entry, is_marked, succeed
from musicgen_lora.prepare.words.captions import Wording
from musicgen_lora.prepare.words.facts import Facts
from musicgen_lora.runtime.locks import locked, staying
from musicgen_lora.runtime.workers import LIMIT_S, Failure

ANALYSIS_FOLDER = "analysis"
FILES_PER_WRITE = 50
"""Files after which the metadata is written, so that an interrupted run loses little."""


@at_any_place("prepare")
def prepare_dataset(settings: PrepareSettings) -> Path:
    """Makes or extends a dataset.

    Returns:
        Path of its metadata.

    Raises:
        UserError: no such folder, no usable audio in it, unreadable metadata, or a dataset that
            another run is working on.
    """
    console = plain_console()
    if settings.create_example:
        with locked(settings.output_dir):
            path = create_examples(
                settings.output_dir,
                settings.num_samples,
                sample_rate=settings.sample_rate,
                seed=settings.seed,
                metadata_file=settings.metadata_file,
            )
        console.print(f"{count(settings.num_samples, 'example beat')}: {path}")
        return path
    check_input_folder(settings.input_dir)
    assert settings.input_dir is not None
    if not settings.default_text.strip():
        raise UserError("--default_text is empty; give a caption such as 'hip hop 808 beat'.")
    if settings.vocals != "keep":
        require_extra("vocals", f"--vocals {settings.vocals}")
    if settings.tagger == "clap":
        check_clap(settings.clap_path)
    output = settings.output_dir
    parts = (output, output / ANALYSIS_FOLDER, output / "train")
    with locked(output) as here, staying(settings.input_dir) as there, atomic.swept(*parts):
        # Read under the lock: another run may have just written it. And not written if a folder is
        # gone: what was found in the input until then would pass for all of it.
        metadata = SharedMetadata(output / settings.metadata_file, (here, there))
        remarks = Remarks(settings.input_dir)
        with working(console, "looking for files"):
            inputs, dropped = find_inputs(settings.input_dir, output, metadata.path, remarks)
        (output / ANALYSIS_FOLDER).mkdir(parents=True, exist_ok=True)
        with open_engine(settings.ray, settings.num_workers) as engine:
            run = _Run(settings, settings.input_dir, console, metadata, dropped, remarks, engine)
            return run.prepare(inputs)


@dataclass
class _Run:
    """One preparation: its inputs and outputs, and what it has gathered so far."""

    settings: PrepareSettings
    input_dir: Path
    console: Console
    metadata: SharedMetadata
    dropped: list[Dropped]
    remarks: Remarks
    engine: Engine
    records: dict[str, Analysis] = field(default_factory=dict)
    """Analyses by digest, of the input and of the dataset's files."""
    heard: dict[str, list[HeardWords]] = field(default_factory=dict)
    """What the tagger hears in each segment, by digest."""
    windows: dict[StretchKey, Segment] = field(default_factory=dict)
    """Measurements of the clips that are parts of files."""
    files: dict[str, Input] = field(default_factory=dict)
    """Files by digest: those that become clips or already are clips."""
    analysed: set[str] = field(default_factory=set)
    """Digests of the files that this run analysed."""
    _earlier: dict[str, list[Entry]] = field(default_factory=dict)
    """The dataset's entries by the digest of their file, before anything is cut."""
    _aside: list[Entry] = field(default_factory=list)
    """Entries that, as of this run, stay only for a user's edits."""

    def __post_init__(self) -> None:
        self.entries = self.metadata.entries
        path = self.metadata.path
        self.ledger_path = path.with_name(f"{path.stem}.ledger.json")
        self.ledger = Ledger.read(self.ledger_path)
        if not self.metadata.exists:
            # Whoever deletes the metadata wants everything made from scratch.
            self.ledger.files.clear()
        self.ledger.note_removals(self.entries)
        written = dict.fromkeys(self.ledger.written)
        self.ledger.written = [n for n in written if (self.settings.output_dir / n).is_file()]
        self.revision = Revision(self.settings, self.input_dir, path, self.ledger)

    @property
    def analysis_dir(self) -> Path:
        # Absolute, because a cluster's workers run in another folder.
        return (self.settings.output_dir / ANALYSIS_FOLDER).absolute()

    def prepare(self, inputs: list[Input]) -> Path:
        written = set(self.ledger.written) - {entry.get("audio") for entry in self.entries}
        # Clips that earlier runs wrote into the dataset are not input.
        inputs = [file for file in inputs if file.in_place not in written]
        n_files = len(inputs) + len(self.dropped)
        inputs, copies = without_copies(inputs, self.entries, self.remarks)
        self.dropped += copies
        self.entries = self.revision.compare(self.entries, inputs, self.dropped)
        self._analyse(inputs, self.revision.known)
        analysed = [file for file in inputs if file.digest in self.records]
        known = [file for file in analysed if file.digest in self.revision.known]
        new = [file for file in analysed if file.digest not in self.revision.known]
        with working(self.console, "comparing files"):
            known, new, sources = self._choose(known, new)
        self.files = {file.digest: file for file in (*known, *new)}
        chosen, folder = [*known, *new], self.analysis_dir
        self.heard = listen(chosen, self.records, self.settings, folder, self.console, self.engine)
        for file in chosen:
            say_conflicts(file, self.records[file.digest], self.remarks)
        again = self.revision.must_cut(known, self.records, self.entries)
        to_cut = [*again, *new]
        cut = {file.digest for file in to_cut}
        stay = {digest: file for digest, file in self.files.items() if digest not in cut}
        listed = self._listed_plans(stay)
        self._measure(listed, to_cut)
        n_refreshed = self._refresh(stay, listed)
        jobs = self._cut(to_cut, sources)
        self._end_replaced(inputs, {job.file.digest for job in jobs})
        tell_left_out(self.console, self.dropped)
        entries = self._write(jobs)
        if not entries:
            raise UserError(f"{self.input_dir}: none of its files is usable (reasons above).")
        self.revision.tell_rest(entries, self.metadata.was_edited)
        names = {f.name: self.records[f.digest] for f in inputs if f.digest in self.records}
        old = {*self.revision.known, *self.revision.replaced}
        prepared = Prepared(
            entries=entries,
            new=[e for job in jobs if job.file.digest not in old for e in job.entries or []],
            n_files=n_files,
            n_known=sum(file.digest in self.revision.known for file in inputs),
            n_analysed=len(self.analysed),
            n_refreshed=n_refreshed,
            n_unfolded=sum(f.in_place is not None for f in inputs) * self.settings.mono_fold,
            dropped=self.dropped,
            remarks=self.remarks.as_json(),
            records=names,
            changes=self.revision.changes,
        )
        report(self.settings, self.console, prepared)
        return self.metadata.path

    def _analyse(self, inputs: Sequence[Input], known: set[str]) -> None:
        """Gathers the records of the input, analysing the files that have none."""
        missing = []
        for file in inputs:
            record = read_record(self.analysis_dir, file.digest)
            if record is None:
                missing.append(file)
            else:
                self.records[file.digest] = record
        tasks = [AnalysisTask(f.path.absolute(), f.digest, self.analysis_dir) for f in missing]
        failed = {}
        for index, result in run_shown(
            self.console, "files analysed", self.engine, analyse_file, tasks
        ):
            if isinstance(result, Failure):
                failed[missing[index].digest] = result.reason
            else:
                self.records[missing[index].digest] = result
                self.analysed.add(missing[index].digest)
        reasons = {f.name: failed[f.digest] for f in missing if f.digest in failed}
        # A copy of a broken file is broken too.
        self.dropped = [
            Dropped(drop.name, reasons[drop.equals]) if drop.equals in reasons else drop
            for drop in self.dropped
        ]
        self.dropped += [
            Dropped(file.name, failed[file.digest])
            for file in missing
            if file.digest in failed and file.digest not in known
        ]

    def _choose(
        self, known: list[Input], new: list[Input]
    ) -> tuple[list[Input], list[Input], dict[str, str]]:
        """The known files and the new ones that become clips, and the source of each."""
        selection = Selection(
            self.revision, self.entries, self.records, self.analysis_dir, self.remarks
        )
        new = selection.without_unusable(new)
        known, new = selection.without_copies(known, new)
        sources, self.entries = selection.sources(new, self.analysed)
        self.dropped += selection.dropped
        return known, new, sources

    def _listed_plans(self, files: Mapping[str, Input]) -> dict[tuple[str, float], ClipPlan]:
        """The stretch that each listed clip of these files covers."""
        plans = {}
        for digest, file in files.items():
            record = self.records[digest]
            planned = self.revision.plans(file, record)
            parts.say_short_stretches(file, record, planned, self.remarks)
            for plan in planned:
                plans[clip_key(digest, plan.start_s if plan.cut else 0.0)] = plan
        found = {}
        for entry in self.entries:
            digest = str(entry.get("made_from"))
            if digest in files:
                key = clip_key(digest, entry.get("at_s") or 0.0)
                own = own_plan(entry, files[digest], self.records[digest])
                found[key] = plans.get(key) or own
        return found

    def _measure(
        self, listed: Mapping[tuple[str, float], ClipPlan], to_cut: Sequence[Input]
    ) -> None:
        """Measures each clip that is part of a file on its own."""
        plans: dict[str, list[ClipPlan]] = {
            file.digest: self.revision.plans(file, self.records[file.digest]) for file in to_cut
        }
        for (digest, _), plan in listed.items():
            plans.setdefault(digest, []).append(plan)
        self.windows = measure_windows(
            plans, self.files, self.analysis_dir, self.console, self.engine
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
            window=self.windows.get(stretch_key(file.digest, plan)) if plan.cut else None,
            heard=heard,
            wording=Wording(
                self.settings.caption_variants,
                self.settings.default_text,
                self.settings.seed,
                self.settings.trigger_word,
            ),
        )

    def _refresh(
        self, files: Mapping[str, Input], listed: Mapping[tuple[str, float], ClipPlan]
    ) -> int:
        """Brings the words of listed clips up to date, whatever settings they were cut with."""
        described = {key: self._describe(files[key[0]], plan) for key, plan in listed.items()}
        changed = refresh_entries(self.entries, described)
        spans = spans_by_file(self.entries)
        for digest, file in files.items():
            self._note(file, spans.get(digest, []))
        return changed

    def _cut(self, files: Sequence[Input], sources: dict[str, str]) -> list[CutJob]:
        """Writes the clips of files and lists them. Returns the jobs that were done."""
        for entry in self.entries:
            self._earlier.setdefault(str(entry.get("made_from")), []).append(entry)
        jobs, dropped = plan_jobs(files, self.records, self.revision, self.ledger, self.remarks)
        self.dropped += dropped
        for job in jobs:
            if not job.plans:
                self._settle(job, [], sources)
        to_cut = [job for job in jobs if job.plans]
        tasks = [
            CutTask(
                job.file.path.absolute(),
                job.file.digest,
                tuple(job.plans),
                tuple(self.settings.output_dir.absolute() / path for path in job.paths)
                if job.file.in_place is None
                else None,
                self.settings.sample_rate,
                self.settings.loudness,
                self.settings.vocals,
                self.settings.mono_fold,
                self.settings.limit,
            )
            for job in to_cut
        ]
        limit_s = LIMIT_S if self.settings.vocals == "keep" else vocals.LIMIT_S
        cut = run_shown(self.console, "files cut", self.engine, cut_file, tasks, limit_s=limit_s)
        for n_cut, (index, result) in enumerate(cut, 1):
            self._settle(to_cut[index], result, sources)
            if n_cut % FILES_PER_WRITE == 0:
                self._write(jobs)
        return [job for job in jobs if job.entries is not None]

    def _settle(self, job: CutJob, result: Any, sources: dict[str, str]) -> None:
        """Makes the entries of a job's clips."""
        file = job.file
        if isinstance(result, Failure):
            if file.digest in self.revision.known:
                told = f"could not be recut ({result.reason}): its clips stay as they were"
                self.revision.changes.append(Change(told, (file.name,)))
            else:
                self.dropped.append(Dropped(file.name, result.reason))
            return
        new = [
            make_entry(file, path, sources[file.digest], plan, clip, self._describe(file, plan))
            for plan, path, clip in zip(job.plans, job.paths, result, strict=True)
            if clip is not None
        ]
        parts.say_silent(file, job.plans, result, self.remarks)
        if job.plans and not new:
            self.dropped.append(Dropped(file.name, "all of its clips are silent."))
            if file.digest not in self.revision.known:
                return
        earlier = [e for digest in job.replaces for e in self._earlier.get(digest, ())]
        job.entries = succeed(earlier, new)
        self._aside += [e for e in job.entries if is_marked(e, CUT_ANEW) and e not in earlier]
        self._note(file, spans_by_file(job.entries).get(file.digest, []))
        if file.in_place is None:
            self.ledger.written += [str(entry["audio"]) for entry in new]
        for digest in job.replaces - {file.digest}:
            self.ledger.files.pop(digest, None)

    def _end_replaced(self, inputs: Sequence[Input], done: set[str]) -> None:
        """Reports which files were exported again, and marks the clips of earlier versions whose
        new file gave no clips."""
        names = {file.digest: file.name for file in inputs}
        reasons = {drop.name: drop.reason for drop in self.dropped}
        again = [names[digest] for digest in self.revision.replaced if digest in done]
        self.revision.tell_replaced(again, self._aside)
        for digest, earlier in self.revision.replaced.items():
            if digest not in done:
                reason = reasons.get(names[digest], "it gave no clips")
                self.entries = self.revision.give_up(self.entries, set(earlier), reason)

    def _note(self, file: Input, spans: Sequence[Span]) -> None:
        self.ledger.note(file, self.revision.folder, self.revision.made_with, spans)

    def _write(self, jobs: Sequence[CutJob]) -> list[Entry]:
        """Writes the metadata so far. Returns its entries."""
        entries = with_jobs(self.entries, jobs)
        if entries:
            entries = self.metadata.write(entries)
            # Afterwards: a file missing from the ledger is only cut again, while a clip that only
            # the ledger has would count as removed.
            self.ledger.write(self.ledger_path)
        return entries
