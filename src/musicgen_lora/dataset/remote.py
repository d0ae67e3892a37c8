"""A dataset at a URL: its token shards are made there, or fetched to train from.

Workers make the shards: a task fetches the files of a shard's clips, hashes and encodes them, and
uploads the shard to the URL, its index last. The remote `tokens/hashes.arrow` records which files
were read, with their sizes and times, so a second run fetches only what is new.
Training reads shards in random order, which needs a local disk: they are copied here once.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock
from rich.console import Console

from musicgen_lora.atomic import sha256_file
from musicgen_lora.cluster.batches import BatchWork, Outcome, run_batches
from musicgen_lora.cluster.engine import Engine, open_engine
from musicgen_lora.cluster.marks import say_unfinished
from musicgen_lora.cluster.storage import Remote, cache_folder
from musicgen_lora.config import TokeniseSettings
from musicgen_lora.console import progress
from musicgen_lora.dataset import cache as kept_tables
from musicgen_lora.dataset.clip_ids import HASHES, HASHES_FILE, HASHES_VERSION
from musicgen_lora.dataset.encoding import (
    CLIPS_PER_SHARD,
    Encoded,
    UnencodedClips,
    encode_rows,
    encoders,
    shard_name,
)
from musicgen_lora.dataset.metadata import Clip, load_dataset, window_name
from musicgen_lora.dataset.shard_tasks import loaded_model
from musicgen_lora.errors import UserError
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.plural import count
from musicgen_lora.urls import url_of

TOKENS = "tokens"
SHARDS_PER_SAVE = 20
"""Shards after which the remote record of the files that were read is updated."""


@dataclass(frozen=True)
class RemoteShardTask:
    """A shard of a remote dataset to make.

    Args:
        fingerprint: of the codec.
    """

    url: str
    model_path: str
    fingerprint: str
    clips: list[Clip]


@dataclass(frozen=True)
class RemoteShard:
    """The result of a task: hashes of the files that were read, by path; and why clips could not be
    encoded, by name."""

    hashes: dict[str, str]
    reasons: dict[str, str]


RemotePart = tuple[RemoteShard, Encoded]
"""The result for some clips of a shard that are encoded but not yet uploaded."""


def fetched(data_dir: Path, metadata_file: str, console: Console) -> Path:
    """Fetches a remote dataset's metadata and token shards into a local folder; shards that are
    already there are kept.

    Args:
        data_dir: a URL.

    Raises:
        UserError: there is no such dataset, or none of it is tokenised.
    """
    url = str(url_of(data_dir))
    remote, folder = Remote(url), cache_folder(url)
    folder.mkdir(parents=True, exist_ok=True)
    # The processes of one machine share the copy.
    with FileLock(folder / ".fetching"):
        states = remote.states(TOKENS)
        names = [name for name in states if name.endswith((".npy", ".parquet"))]
        if not names or f"{TOKENS}/{HASHES_FILE}" not in states:
            raise UserError(
                f"{url}: is not tokenised; run musicgen-lora tokenise --data_dir {url} first."
            )
        remote.fetch(metadata_file, folder / metadata_file)
        remote.fetch(f"{TOKENS}/{HASHES_FILE}", folder / TOKENS / HASHES_FILE)
        # A shard's name is the hash of its contents; its index comes last here too.
        lacking = [n for n in sorted(names) if not _is_here(folder / n, states[n].size_bytes)]
        with progress(console, "files fetched", len(lacking)) as on_file:
            for number, name in enumerate(lacking, 1):
                remote.fetch(name, folder / name)
                on_file(number, len(lacking))
    n_shards = sum(name.endswith(".npy") for name in lacking)
    console.print(f"{url}: {n_shards} new token shards fetched into {folder}")
    return folder


def _is_here(path: Path, size_bytes: int) -> bool:
    return path.is_file() and path.stat().st_size == size_bytes


def tokenise_remote(settings: TokeniseSettings, console: Console) -> None:
    """Makes the missing shards of a remote dataset, see `tokenise_dataset`."""
    url = str(url_of(settings.data_dir))
    remote, folder = Remote(url), cache_folder(url)
    remote.fetch(settings.metadata_file, folder / settings.metadata_file)
    clips = load_dataset(folder, settings.metadata_file, look_at_files=False)
    model = BaseModel.load(settings.model_path)
    states = remote.states()
    say_unfinished(remote, states, console)
    _check_files_are_there(clips, states, url)
    known = _known_hashes(remote, folder, states)
    held = _held_ids(remote, folder, model.codec.fingerprint, states)
    lacking = [
        clip
        for clip in clips
        if known.get(clip.audio, "") + window_name(clip.start_s, clip.duration_s) not in held
    ]
    reasons: dict[str, str] = {}
    n_done = 0

    def note(made: RemoteShard) -> None:
        known.update(made.hashes)
        reasons.update(made.reasons)

    def save() -> None:
        _keep_hashes(remote, folder, {a: known[a] for a in known if a in states}, states)

    with (
        progress(console, "clips encoded", len(lacking)) as on_clip,
        open_engine(settings.ray, settings.num_workers) as engine,
    ):
        try:
            for number, made in enumerate(_made_by(engine, remote, model, lacking), 1):
                if made.found is not None:
                    note(made.found)
                for clip, why in made.faults:
                    reasons[clip.name] = f"{url}/{clip.audio}: {why.reason}"
                n_done += len(made.rows) + len(made.faults)
                on_clip(n_done, len(lacking))
                if number % SHARDS_PER_SAVE == 0:
                    save()
        finally:
            if lacking:
                save()
    if reasons:
        for name, reason in reasons.items():
            console.print(f"{name}: {reason}", style="yellow")
        raise UnencodedClips(reasons)
    console.print(
        f"{count(len(lacking), 'clip')} encoded, {len(clips) - len(lacking)} already there; "
        f"{count(len(clips), 'clip')}: {url}/{TOKENS}/{model.codec.fingerprint}"
    )


def _made_by(
    engine: Engine, remote: Remote, model: BaseModel, lacking: list[Clip]
) -> Iterator[Outcome[Clip]]:
    """Has an engine make the shards of clips; yields a `RemoteShard` as the result of each."""
    fingerprint = model.codec.fingerprint
    shards = [lacking[at : at + CLIPS_PER_SHARD] for at in range(0, len(lacking), CLIPS_PER_SHARD)]

    def task_of(some: list[Clip]) -> RemoteShardTask:
        return RemoteShardTask(remote.url, model.path, fingerprint, some)

    def join(parts: list[RemotePart]) -> RemoteShard:
        return _joined(remote, fingerprint, parts)

    jobs = BatchWork(make_remote_shard, task_of), BatchWork(encode_remote_part, task_of)
    return run_batches(engine, shards, *jobs, join)


def _check_files_are_there(clips: Sequence[Clip], states: Collection[str], url: str) -> None:
    lost = [clip.audio for clip in clips if clip.audio not in states]
    if lost:
        raise UserError(
            f"{url}: {lost[0]} does not exist there ({len(lost)} of {len(clips)} clips lack their "
            'file); upload it, or take the clip out ("skip": true in its entry).'
        )


def make_remote_shard(task: RemoteShardTask, alive: Callable[[], None]) -> RemoteShard:
    """Fetches a shard's files, encodes its clips and uploads the shard, unless it is already
    there."""
    with _fetched_rows(task, alive) as (rows, hashes):
        remote, there = Remote(task.url), f"{TOKENS}/{task.fingerprint}"
        name = shard_name(Path(task.fingerprint), list(rows))
        if f"{there}/{name}.parquet" in remote.states(there):
            return RemoteShard(hashes, {})
        shard, encoded = _encoded(task, rows, hashes, alive)
    _put(remote, task.fingerprint, encoded)
    return shard


def encode_remote_part(task: RemoteShardTask, alive: Callable[[], None]) -> RemotePart:
    """Fetches and encodes some clips of a shard; the caller uploads it once it has all of them."""
    with _fetched_rows(task, alive) as (rows, hashes):
        return _encoded(task, rows, hashes, alive)


@contextmanager
def _fetched_rows(
    task: RemoteShardTask, alive: Callable[[], None]
) -> Iterator[tuple[dict[str, Clip], dict[str, str]]]:
    """Yields the clips of a task by their ids, with their files in a temporary folder; and the
    files' hashes, by their remote paths."""
    remote = Remote(task.url)
    with tempfile.TemporaryDirectory(prefix="musicgen-lora-") as temporary:
        folder = Path(temporary)
        hashes: dict[str, str] = {}
        for clip in task.clips:
            if clip.audio not in hashes:
                remote.fetch(clip.audio, folder / clip.audio)
                hashes[clip.audio] = sha256_file(folder / clip.audio)
                alive()
        rows: dict[str, Clip] = {}
        for clip in task.clips:
            clip_id = hashes[clip.audio] + window_name(clip.start_s, clip.duration_s)
            rows.setdefault(clip_id, clip._replace(folder=folder))
        yield rows, hashes


def _encoded(
    task: RemoteShardTask,
    rows: dict[str, Clip],
    hashes: dict[str, str],
    alive: Callable[[], None],
) -> RemotePart:
    model = loaded_model(task.model_path, task.fingerprint)
    alive()
    with encoders(model) as pool:
        encoded = encode_rows(list(rows.items()), model, pool, lambda _: alive())
    reasons = {
        rows[clip_id].name: reason.replace(f"{rows[clip_id].folder}/", f"{task.url}/")
        for clip_id, reason in encoded.reasons.items()
    }
    # Failed files are read again next time.
    unread = {clip.audio for clip in rows.values() if clip.name in reasons}
    kept = {audio: digest for audio, digest in hashes.items() if audio not in unread}
    return RemoteShard(kept, reasons), encoded


def _joined(remote: Remote, fingerprint: str, parts: Sequence[RemotePart]) -> RemoteShard:
    """Uploads a shard whose parts were encoded one by one."""
    whole = Encoded.joined([encoded for _, encoded in parts])
    hashes: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for shard, _ in parts:
        hashes |= shard.hashes
        reasons |= shard.reasons
    # Copies of a clip may have been encoded in different parts.
    codes = dict(zip(whole.ids, whole.codes, strict=True))
    _put(remote, fingerprint, Encoded(list(codes), list(codes.values())))
    return RemoteShard(hashes, reasons)


def _put(remote: Remote, fingerprint: str, encoded: Encoded) -> None:
    """Uploads a shard, its index last: a shard without an index doesn't count."""
    with tempfile.TemporaryDirectory(prefix="musicgen-lora-") as temporary:
        shards = Path(temporary) / fingerprint
        encoded.write(shards)
        for path in sorted(shards.glob("*.npy")) + sorted(shards.glob("*.parquet")):
            remote.put(path, f"{TOKENS}/{fingerprint}/{path.name}")


def _known_hashes(remote: Remote, folder: Path, states: dict[str, Any]) -> dict[str, str]:
    """Hashes of the remote files that are unchanged since they were read."""
    if f"{TOKENS}/{HASHES_FILE}" not in states:
        return {}
    path = folder / TOKENS / HASHES_FILE
    remote.fetch(f"{TOKENS}/{HASHES_FILE}", path)
    table = kept_tables.read_table(path, HASHES_VERSION, HASHES)
    if table is None:
        return {}
    known = {}
    columns = (table[name].to_pylist() for name in ("audio", "size_bytes", "mtime_ns", "sha256"))
    for audio, size_bytes, mtime_ns, digest in zip(*columns, strict=True):
        state = states.get(audio)
        if state is not None and (state.size_bytes, state.mtime_ns) == (size_bytes, mtime_ns):
            known[audio] = digest
    return known


def _keep_hashes(
    remote: Remote, folder: Path, known: dict[str, str], states: dict[str, Any]
) -> None:
    rows = [
        (audio, states[audio].size_bytes, states[audio].mtime_ns, 0, 0, digest)
        for audio, digest in sorted(known.items())
    ]
    columns = [list(column) for column in zip(*rows, strict=True)] or [[]] * len(HASHES)
    table = pa.table(columns, schema=HASHES)
    path = folder / TOKENS / HASHES_FILE
    kept_tables.keep_table(path, HASHES_VERSION, table)
    remote.put(path, f"{TOKENS}/{HASHES_FILE}")


def _held_ids(remote: Remote, folder: Path, fingerprint: str, states: dict[str, Any]) -> set[str]:
    """Ids of the clips in the remote shards."""
    held: set[str] = set()
    for name in _indexes(fingerprint, states):
        if not _is_here(folder / name, states[name].size_bytes):
            remote.fetch(name, folder / name)
        held.update(pq.read_table(folder / name, columns=["id"])["id"].to_pylist())
    return held


def _indexes(fingerprint: str, states: dict[str, Any]) -> list[str]:
    """The indexes of shards, without those that lack their codes."""
    suffix = ".parquet"
    names = [name for name in sorted(states) if name.startswith(f"{TOKENS}/{fingerprint}/")]
    return [n for n in names if n.endswith(suffix) and n.removesuffix(suffix) + ".npy" in states]


def with_local_data(settings: Any, console: Console) -> Any:
    """The settings of a command that reads tokens, with a local dataset: one at a URL is fetched,
    without its audio."""
    if settings.data_dir is None or url_of(settings.data_dir) is None:
        return settings
    folder = fetched(settings.data_dir, settings.metadata_file, console)
    return dataclasses.replace(settings, data_dir=folder, from_tokens=True)
