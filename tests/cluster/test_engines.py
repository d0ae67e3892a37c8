"""Engines: the same results in this process, in a pool and on Ray, whatever dies meanwhile."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cluster_tasks
import pyarrow.parquet as pq
import pytest
from cluster_tasks import Odd, make_shard_or_die, work_oddly
from datasets import RATE, beat, make_dataset, read_metadata, write_metadata

from musicgen_lora.audio.files import write_wav
from musicgen_lora.cluster.engine import Engine, Processes
from musicgen_lora.config import PrepareSettings, TokeniseSettings
from musicgen_lora.dataset import encoding, shard_tasks
from musicgen_lora.dataset.clip_ids import clip_ids
from musicgen_lora.dataset.encoding import UnencodedClips
from musicgen_lora.dataset.metadata import load_dataset
from musicgen_lora.dataset.shard_tasks import encode_by
from musicgen_lora.dataset.tokens import tokenise_clips
from musicgen_lora.errors import UserError
from musicgen_lora.model.musicgen import MusicGen
from musicgen_lora.prepare.prepare import prepare_dataset
from musicgen_lora.runtime.workers import Failure

# Not imported here: Ray reads its environment when it is.
pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra scale")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Three nodes of one CPU."""
    environment = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}
    os.environ.update(environment | {"RAY_AUTH_TOKEN": secrets.token_hex(16)})
    support = str(Path(cluster_tasks.__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([support, os.environ.get("PYTHONPATH", "")])
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 100 << 20}
    cluster = Cluster()
    for number in range(3):
        # Ray gives up after half a minute, which a busy machine may need.
        for is_last in (False, False, True):
            try:
                cluster.add_node(**node | ({} if number else {"include_dashboard": False}))
                break
            except Exception:
                if is_last:
                    raise
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def ray_engine(cluster: Any) -> Iterator[Engine]:
    from musicgen_lora.cluster.ray_engine import joined

    with joined(cluster.address) as engine:
        yield engine


@pytest.fixture(params=["this process", "a pool", "ray"])
def engine(request: pytest.FixtureRequest) -> Engine:
    if request.param == "ray":
        return request.getfixturevalue("ray_engine")
    return Processes(1 if request.param == "a pool" else 0)


def tokenise(data_dir: Path, model: MusicGen, encode: Any = None) -> dict[str, bytes]:
    """The files of the shards."""
    clips = load_dataset(data_dir)
    tokenise_clips(clips, clip_ids(clips, data_dir), model, data_dir, encode=encode)
    return shards(data_dir, model)


def shards(data_dir: Path, model: MusicGen) -> dict[str, bytes]:
    folder = data_dir / "tokens" / model.codec.fingerprint
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix in (".npy", ".parquet")}


def held_ids(data_dir: Path, model: MusicGen) -> list[str]:
    folder = data_dir / "tokens" / model.codec.fingerprint
    return [i for p in folder.glob("*.parquet") for i in pq.read_table(p)["id"].to_pylist()]


@pytest.fixture(scope="module")
def model(tiny_model_dir: Path) -> MusicGen:
    return MusicGen.load(tiny_model_dir)


def test_shards_are_the_same_whoever_makes_them(
    engine: Engine, tmp_path: Path, model: MusicGen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "CLIPS_PER_SHARD", 2)
    for name in ("plain", "data"):
        make_dataset(tmp_path / name, [0.5, 0.4, 0.3, 0.6, 0.2])
    expected = tokenise(tmp_path / "plain", model)
    assert len(expected) == 6
    assert tokenise(tmp_path / "data", model, encode_by(engine)) == expected
    # What is there is not made again, and what is missing is.
    (gone,) = (tmp_path / "data" / "tokens" / model.codec.fingerprint).glob(
        f"{sorted(expected)[0].split('.')[0]}.parquet"
    )
    gone.unlink()
    assert tokenise(tmp_path / "data", model, encode_by(engine)) == expected


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != ".lock"
    }


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
    tmp_path: Path, model: MusicGen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "CLIPS_PER_SHARD", 4)
    monkeypatch.setattr(shard_tasks, "make_shard", make_shard_or_die)
    make_dataset(tmp_path, [0.5, 0.4, 0.3, 0.6, 0.2])
    entries = read_metadata(tmp_path)
    (tmp_path / "train" / "beat1.wav").rename(tmp_path / "train" / "poison.wav")
    entries[1]["audio"] = "train/poison.wav"
    (tmp_path / "train" / "beat3.wav").write_bytes(b"no audio")
    write_metadata(tmp_path, entries)
    with pytest.raises(UnencodedClips) as caught:
        tokenise(tmp_path, model, encode_by(Processes(1)))
    assert sorted(caught.value.reasons) == ["train/beat3.wav", "train/poison.wav"]
    clips = load_dataset(tmp_path)
    ids = clip_ids(clips, tmp_path)
    assert sorted(held_ids(tmp_path, model)) == sorted(ids[row] for row in (0, 2, 4))


@pytest.mark.slow
def test_workers_and_a_node_that_die_cost_nothing(
    cluster: Any, ray_engine: Engine, tmp_path: Path
) -> None:
    kinds = [*["slow", "dies once"] * 6, "dies"]
    node = cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
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


def test_what_no_task_would_escape_ends_the_run(ray_engine: Engine, tmp_path: Path) -> None:
    tasks = [Odd("slow", tmp_path, 0), Odd("full", tmp_path, 1), Odd("slow", tmp_path, 2)]
    with pytest.raises(OSError, match=r"No space left on device: 'data/x\.npy'"):
        list(ray_engine.run(work_oddly, tasks))


def test_a_task_that_hangs_is_ended(
    ray_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from musicgen_lora.cluster import ray_engine as module

    monkeypatch.setattr(module, "TRIES", 1)
    ((_, found),) = ray_engine.run(work_oddly, [Odd("hangs", tmp_path)], 1.0)
    assert found == Failure("ended 1 workers, or took more than 1 s.")


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


def test_pairs_of_settings_that_say_two_engines_are_refused() -> None:
    with pytest.raises(UserError, match="give one of the two"):
        TokeniseSettings(ray="local", num_workers=2)
    for wrong in ("http://x", "ray://head:10001", "head", ""):
        with pytest.raises(ValueError, match="ray"):
            TokeniseSettings(ray=wrong)
