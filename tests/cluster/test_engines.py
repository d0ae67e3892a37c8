"""Engines: the same results in this process, in a pool and on Ray, whatever dies in between."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.parquet as pq
import pytest
from cluster_tasks import (
    Odd,
    encode_part_or_die,
    garbage_of,
    make_shard_on_full_disk,
    make_shard_or_die,
    work_oddly,
)
from made_datasets import RATE, beat, files_below, make_dataset, read_metadata, write_metadata
from scale import add_node

from musicgen_lora.audio.files import write_wav
from musicgen_lora.cluster.engine import TRIES, Engine, Processes, TaskOptions
from musicgen_lora.config import PrepareSettings, TokeniseSettings
from musicgen_lora.dataset import encoding, remote, shard_tasks
from musicgen_lora.dataset.clip_ids import clip_ids
from musicgen_lora.dataset.encoding import UnencodedClips
from musicgen_lora.dataset.metadata import load_dataset
from musicgen_lora.dataset.shard_tasks import encode_by
from musicgen_lora.dataset.tokenise import tokenise_dataset
from musicgen_lora.dataset.tokens import tokenise_clips
from musicgen_lora.errors import RunError
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.prepare.prepare import prepare_dataset
from musicgen_lora.runtime.workers import Failure, Work

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra scale")


@pytest.fixture(params=["this process", "a pool", "ray"])
def engine(request: pytest.FixtureRequest) -> Engine:
    if request.param == "ray":
        return request.getfixturevalue("ray_engine")
    return Processes(1 if request.param == "a pool" else 0)


def tokenise(data_dir: Path, model: BaseModel, encode: Any = None) -> dict[str, bytes]:
    """The files of the shards."""
    clips = load_dataset(data_dir)
    tokenise_clips(clips, clip_ids(clips, data_dir), model, data_dir, encode=encode)
    return shards(data_dir, model)


def shards(data_dir: Path, model: BaseModel) -> dict[str, bytes]:
    folder = data_dir / "tokens" / model.codec.fingerprint
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix in (".npy", ".parquet")}


def held_ids(data_dir: Path, model: BaseModel) -> list[str]:
    folder = data_dir / "tokens" / model.codec.fingerprint
    return [i for p in folder.glob("*.parquet") for i in pq.read_table(p)["id"].to_pylist()]


@pytest.fixture(scope="module")
def model(tiny_model_dir: Path) -> BaseModel:
    return BaseModel.load(tiny_model_dir)


def test_shards_are_the_same_whoever_makes_them(
    engine: Engine, tmp_path: Path, model: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two shards: each is made by a process that loads the libraries.
    monkeypatch.setattr(encoding, "CLIPS_PER_SHARD", 3)
    for name in ("plain", "data"):
        make_dataset(tmp_path / name, [0.5, 0.4, 0.3, 0.6, 0.2])
    expected = tokenise(tmp_path / "plain", model)
    assert len(expected) == 4
    assert tokenise(tmp_path / "data", model, encode_by(engine)) == expected
    # What is there is not made again, and what is missing is.
    (gone,) = (tmp_path / "data" / "tokens" / model.codec.fingerprint).glob(
        f"{sorted(expected)[0].split('.')[0]}.parquet"
    )
    gone.unlink()
    assert tokenise(tmp_path / "data", model, encode_by(engine)) == expected


@pytest.mark.usefixtures("ray_engine")
def test_a_dataset_is_the_same_whoever_prepares_it(cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number, seconds in enumerate([1.5, 2.5]):
        write_wav(tmp_path / "in" / f"beat{number}.wav", beat(number, seconds), RATE)
    (tmp_path / "in" / "bad.wav").write_bytes(b"no audio")
    for address in (None, cluster.address):
        prepare_dataset(
            PrepareSettings(
                input_dir=tmp_path / "in",
                output_dir=tmp_path / str(address),
                max_clip=2.0,
                num_workers=0,
                ray=address,
            )
        )
    one, other = (tmp_path / str(address) for address in (None, cluster.address))
    assert read_metadata(other) == read_metadata(one)
    for name in ("train", "analysis"):
        assert files_below(other / name) == files_below(one / name)


def test_a_clip_that_kills_its_workers_costs_itself_alone(
    tmp_path: Path, model: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "CLIPS_PER_SHARD", 4)
    monkeypatch.setattr(shard_tasks, "make_shard", make_shard_or_die)
    monkeypatch.setattr(shard_tasks, "encode_part", encode_part_or_die)
    for name in ("plain", "data"):
        folder = make_dataset(tmp_path / name, [0.5, 0.4, 0.3, 0.6, 0.2])
        entries = read_metadata(folder)
        (folder / "train" / "beat1.wav").rename(folder / "train" / "poison.wav")
        entries[1]["audio"] = "train/poison.wav"
        (folder / "train" / "beat3.wav").write_bytes(b"no audio")
        write_metadata(folder, entries)
    # One that can be told to be bad costs the same, and so the shards are the same.
    (tmp_path / "plain" / "train" / "poison.wav").write_bytes(b"none either")
    for name, encode in (("plain", None), ("data", encode_by(Processes(1)))):
        with pytest.raises(UnencodedClips) as caught:
            tokenise(tmp_path / name, model, encode)
        assert sorted(caught.value.reasons) == ["train/beat3.wav", "train/poison.wav"]
    assert shards(tmp_path / "data", model) == shards(tmp_path / "plain", model)
    clips = load_dataset(tmp_path / "data")
    ids = clip_ids(clips, tmp_path / "data")
    assert sorted(held_ids(tmp_path / "data", model)) == sorted(ids[row] for row in (0, 2, 4))


class Unlucky(Processes):
    """Fails every batch of several items, however often it gets it, and counts how often."""

    lost: ClassVar[list[int]] = []

    def run(self, work: Work, tasks: Any, *given: Any, **more: Any) -> Iterator[tuple[int, Any]]:
        for index, task in enumerate(tasks):
            n_rows = len(task.rows if hasattr(task, "rows") else task.clips)
            if n_rows > 2:
                self.lost.append(n_rows)
                yield index, Failure("killed 6 workers (6 for lack of memory).")
            else:
                yield index, work(task, lambda *_: None)


def test_shards_are_the_same_whatever_their_workers_died_of(
    tmp_path: Path, model: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "CLIPS_PER_SHARD", 5)
    for name in ("plain", "data"):
        make_dataset(tmp_path / name, [0.5, 0.4, 0.3, 0.6, 0.2, 0.5, 0.4, 0.3])
    expected = tokenise(tmp_path / "plain", model)
    monkeypatch.setattr(Unlucky, "lost", lost := [])
    assert tokenise(tmp_path / "data", model, encode_by(Unlucky(0))) == expected
    assert lost == [5, 3]


def test_shards_in_a_store_are_the_same_whatever_their_workers_died_of(
    tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "CLIPS_PER_SHARD", 5)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    expected = None
    for name in ("plain", "data"):
        folder = make_dataset(tmp_path / name, [0.5, 0.4, 0.3, 0.6, 0.2])
        # A copy, which is worked on apart.
        (folder / "train" / "beat4.wav").write_bytes((folder / "train/beat0.wav").read_bytes())
        settings = TokeniseSettings(
            data_dir=Path(f"file://{folder}"), model_path=str(tiny_model_dir)
        )
        tokenise_dataset(settings)
        made = {n: c for n, c in files_below(folder / "tokens").items() if ".arrow" not in n}
        assert len(made) == 2
        assert made == (expected or made)
        expected = made
        monkeypatch.setattr(remote, "open_engine", lambda *_: nullcontext(Unlucky(0)))


def test_a_full_disk_ends_the_run_and_the_next_one_goes_on(
    tmp_path: Path, model: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("resource", reason="needs Unix's file-size limit")
    monkeypatch.setattr(encoding, "CLIPS_PER_SHARD", 2)
    for name in ("plain", "data"):
        folder = make_dataset(tmp_path / name, [0.5, 0.4, 0.3, 0.6, 0.2])
        (folder / "train" / "beat3.wav").rename(folder / "train" / "full.wav")
        entries = read_metadata(folder)
        entries[3]["audio"] = "train/full.wav"
        write_metadata(folder, entries)
    expected = tokenise(tmp_path / "plain", model)
    with monkeypatch.context() as patch:
        patch.setattr(shard_tasks, "make_shard", make_shard_on_full_disk)
        with pytest.raises(RunError, match=r"cannot be written \(File too large\)"):
            tokenise(tmp_path / "data", model, encode_by(Processes(1)))
    left = files_below(tmp_path / "data" / "tokens" / model.codec.fingerprint)
    assert {name: left[name] for name in expected if name in left} == {
        name: content for name, content in expected.items() if name in left
    }
    assert not any(".staging" in name for name in left)
    assert tokenise(tmp_path / "data", model, encode_by(Processes(1))) == expected


KILLED = """
import os, signal, sys
from pathlib import Path
from musicgen_lora.cluster.engine import open_engine
from musicgen_lora.dataset import encoding
from musicgen_lora.dataset.clip_ids import clip_ids
from musicgen_lora.dataset.metadata import load_dataset
from musicgen_lora.dataset.shard_tasks import encode_by
from musicgen_lora.dataset.tokens import tokenise_clips
from musicgen_lora.model.base_model import BaseModel

def on_clip(done, total):
    if done >= 3:
        os.kill(os.getpid(), signal.SIGKILL)

encoding.CLIPS_PER_SHARD = 1
folder, clips = Path(sys.argv[1]), load_dataset(Path(sys.argv[1]))
with open_engine(sys.argv[3] or None, 1) as engine:
    tokenise_clips(
        clips, clip_ids(clips, folder), BaseModel.load(sys.argv[2]), folder, on_clip,
        encode_by(engine),
    )
"""


@pytest.mark.slow
@pytest.mark.parametrize("who", ["a pool", "ray"])
def test_a_command_that_is_killed_leaves_what_the_next_one_needs_not_make(
    who: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    tiny_model_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(encoding, "CLIPS_PER_SHARD", 1)
    model, address = BaseModel.load(tiny_model_dir), ""
    engine: Engine = Processes(1)
    if who == "ray":
        address = request.getfixturevalue("cluster").address
        engine = request.getfixturevalue("ray_engine")
    lengths = [0.2 + 0.05 * number for number in range(16)]
    for name in ("plain", "data"):
        make_dataset(tmp_path / name, lengths)
    expected = tokenise(tmp_path / "plain", model)
    words = [sys.executable, "-c", KILLED, str(tmp_path / "data"), str(tiny_model_dir), address]
    assert (
        subprocess.run(
            words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
        ).returncode
        == -9
    )
    made = {p: p.stat().st_mtime_ns for p in (tmp_path / "data").rglob("*.parquet")}
    assert 3 <= len(made) < len(lengths)
    assert tokenise(tmp_path / "data", model, encode_by(engine)) == expected
    assert all(path.stat().st_mtime_ns == mtime_ns for path, mtime_ns in made.items())


def test_machines_that_go_are_not_the_fault_of_a_task(
    ray_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray import exceptions

    from musicgen_lora.cluster import ray_engine as module

    original, lost = module._result, []

    def result(reference: Any) -> Any:
        original(reference)
        lost.append(reference)
        return module._died(exceptions.NodeDiedError("The node has gone."))

    with monkeypatch.context() as patch:
        patch.setattr(module, "_result", result)
        ((_, found),) = ray_engine.run(work_oddly, [Odd("plain", tmp_path)])
    assert found == Failure(f"was on {module.MACHINES} machines that disappeared.")
    assert len(lost) == module.MACHINES > TRIES


@pytest.mark.parametrize("reason", ["chance", "memory"])
def test_a_task_that_workers_died_of_is_tried_alone_before_it_is_given_up(
    reason: str, ray_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray import exceptions

    from musicgen_lora.cluster import ray_engine as module

    kinds = {"chance": exceptions.WorkerCrashedError(), "memory": exceptions.OutOfMemoryError("x")}
    original, n_alone = module._result, 3

    def result(reference: Any) -> Any:
        number = original(reference)
        # One dies as often as it is tried, another until it is alone.
        n_begun = len(list(tmp_path.glob(f"{number}-*")))
        if number == 0 or (number == 1 and n_begun <= n_alone):
            return module._died(kinds[reason])
        return number

    with monkeypatch.context() as patch:
        patch.setattr(module, "_result", result)
        tasks = [Odd("plain", tmp_path, number) for number in range(8)]
        found = dict(ray_engine.run(work_oddly, tasks))
    failure = found.pop(0)
    assert found == {number: number for number in range(1, 8)}
    assert list(found)[-1] == 1
    assert isinstance(failure, Failure)
    assert f"killed {TRIES} workers" in failure.reason
    assert ("for lack of memory); give the machines more" in failure.reason) == (reason == "memory")
    begun = [p.stat().st_mtime_ns for p in tmp_path.glob("[2-7]-*")]
    assert len(begun) == 6
    alone = [tmp_path / f"{number}-{n}" for number in (0, 1) for n in range(n_alone, TRIES)]
    assert all(p.stat().st_mtime_ns > max(begun) for p in alone if p.exists())


@pytest.mark.slow
def test_workers_and_a_node_that_die_cost_nothing(
    cluster: Any, ray_engine: Engine, tmp_path: Path
) -> None:
    kinds = [*["slow", "dies once"] * 6, "dies"]
    node = add_node(cluster)
    tasks = [Odd(kind, tmp_path, number) for number, kind in enumerate(kinds)]
    found = []
    for index, result in ray_engine.run(work_oddly, tasks):
        found.append((index, result))
        if len(found) == 6:
            cluster.remove_node(node, allow_graceful=False)
    results = dict(found)
    assert len(results) == len(found)
    assert isinstance(results.pop(kinds.index("dies")), Failure)
    assert sorted(results.items()) == [(n, n) for n, kind in enumerate(kinds) if kind != "dies"]


def test_no_garbage_is_looked_for_while_a_node_loads_the_libraries(ray_engine: Engine) -> None:
    assert list(ray_engine.run(garbage_of, ["a"])) == [(0, (True, True))]


def test_what_no_task_would_escape_ends_the_run(ray_engine: Engine, tmp_path: Path) -> None:
    tasks = [Odd("slow", tmp_path, 0), Odd("full", tmp_path, 1), Odd("slow", tmp_path, 2)]
    with pytest.raises(OSError, match=r"No space left on device: 'data/x\.npy'"):
        list(ray_engine.run(work_oddly, tasks))


def test_a_task_that_hangs_is_ended(ray_engine: Engine, tmp_path: Path) -> None:
    ((_, found),) = ray_engine.run(work_oddly, [Odd("hangs", tmp_path)], TaskOptions(1.0, tries=1))
    assert found == Failure("killed 1 worker, or took more than 1 s.")


def test_a_run_that_is_left_leaves_no_task_behind(ray_engine: Engine, tmp_path: Path) -> None:
    from musicgen_lora.cluster.ray_engine import QUEUED

    # One ends, and each place to work at is then held by a task that would hold it for minutes.
    tasks = [Odd("hangs" if number else "plain", tmp_path, number) for number in range(40)]
    with closing(ray_engine.run(work_oddly, tasks)) as results:  # type: ignore[type-var]
        assert next(results) == (0, 0)
    in_flight = QUEUED * 3
    assert [r for _, r in ray_engine.run(work_oddly, [Odd("slow", tmp_path, 99)] * 3)] == [99] * 3
    # What was waiting has not been worked on.
    assert len([p for p in tmp_path.iterdir() if not p.name.startswith("99-")]) < in_flight


def test_tasks_are_made_when_they_are_handed_out(ray_engine: Engine, tmp_path: Path) -> None:
    made = []

    class Planned(list[Any]):
        def __iter__(self) -> Iterator[Any]:
            for number in range(200):
                made.append(number)
                yield Odd("plain", tmp_path, number)

    for count, _ in enumerate(ray_engine.run(work_oddly, Planned()), 1):
        assert len(made) <= count + 2 * 4
