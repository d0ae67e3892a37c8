"""Every kind of document that is read, mutated by a generator: taken, or refused in one line.

`HOSTILE_EXAMPLES=2000 pytest tests/faults/test_hostile_documents.py --timeout 0` tries more.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from harm.hostile import broken, examples, taken_or_refused, torn
from hypothesis import given
from hypothesis import strategies as st
from made_datasets import RATE, beat, make_dataset, read_metadata, write_metadata

from musicgen_lora import atomic
from musicgen_lora.commands.flags import parse_settings
from musicgen_lora.dataset.encoding import write_shard
from musicgen_lora.dataset.metadata import load_dataset, read_entries, split_clips, write_entries
from musicgen_lora.dataset.tokens import find_codes
from musicgen_lora.errors import UserError
from musicgen_lora.evaluation.held_out import find_held_out
from musicgen_lora.evaluation.report.report import files_of_report
from musicgen_lora.model.lora.facts import FACTS_FILE, AdapterFacts
from musicgen_lora.prepare.clips.cleaning import unusable_reason
from musicgen_lora.prepare.clips.cut import plan_clips
from musicgen_lora.prepare.clips.entries import listed_sources, refresh_entries
from musicgen_lora.prepare.hearing.analyse import (
    AnalysisTask,
    analyse_file,
    measured_facts,
    read_fingerprint,
    read_record,
)
from musicgen_lora.prepare.hearing.records import Analysis
from musicgen_lora.prepare.hearing.tagging import heard_facts, read_heard
from musicgen_lora.prepare.reading.inputs import find_inputs, without_copies
from musicgen_lora.prepare.reading.remarks import Remarks
from musicgen_lora.prepare.report.findings import dataset_advice, find_faults
from musicgen_lora.training.checkpoints import read_state
from musicgen_lora.training.record import run_folder
from musicgen_lora.training.record.run import Run

CONFIG = Path(__file__).resolve().parents[2] / "finetune" / "lora" / "config.yaml"


ENTRY = {
    "audio": "train/beat0.wav",
    "text": "hip hop",
    "texts": ["hip hop", "808"],
    "split": "train",
    "source": "a",
    "start_s": 0.0,
    "duration_s": 0.2,
    "bpm": 120,
    "key": "C minor",
    "tags": ["dark"],
    "loudness_lufs": -16.0,
    "at_s": 0.0,
    "cut": "bars",
    "made_from": "0" * 64,
    "made": {"text": "0123"},
}


FACTS = {
    "format_version": 1,
    "base": {"path": "tiny", "fingerprint": "0"},
    "data": {
        "data_dir": "nowhere",
        "metadata_file": "metadata.json",
        "validation": [
            {"id": "0", "name": "train/beat0.wav", "audio": "train/beat0.wav", "source": "a"}
        ],
    },
    "settings": {"max_duration": 30.0, "max_validation_windows": 200},
}


RUN = {
    "status": "interrupted",
    "identity": "0",
    "started": "now",
    "settings": {"seed": 0},
    "precision": "fp32",
    "base": {"path": "tiny"},
    "base_loss": {"loss": 4.0, "codebooks": [4.0], "held_out": True},
}


STATE = {
    "format_version": 2,
    "step": 3,
    "best": {"step": 2, "loss": 3.0},
    "optimizer": {"0.group.0.lr": 0.1},
    "validations_since_best": 0,
}


REPORT = {
    "plots": ["plots/a.png"],
    "generation": {"clips": [{"base": None, "adapter": {"audio": "audio/adapter/a.wav"}}]},
}


@pytest.fixture(scope="module")
def data(folder: Path) -> Path:
    return make_dataset(folder / "data", [0.2])


@given(content=broken([ENTRY]))
@examples(100)
def test_metadata_of_a_dataset(content: bytes, data: Path) -> None:
    path = data / "metadata.json"
    path.write_bytes(content)

    def train() -> None:
        clips = load_dataset(data)
        split_clips(clips, 0.1, 0)
        assert clips[0].fields

    def prepare() -> None:
        entries = read_entries(path)
        without_copies([], entries, Remarks(data))
        refresh_entries(entries, {})
        listed_sources(entries)
        dataset_advice(entries)
        write_entries(path, entries)
        assert read_metadata(data) == entries

    taken_or_refused(train)
    taken_or_refused(prepare)


@pytest.mark.parametrize("name", ["metadata.json", "metadata.jsonl", "a.json"])
def test_metadata_of_an_input_folder(name: str, folder: Path) -> None:
    source = folder / name.replace(".", "_")
    source.mkdir()
    soundfile.write(source / "a.wav", beat(0, 0.2).T, RATE)
    row = {"file_name": "a.wav", "text": "hip hop", "bpm": 120, "key": "C minor", "tags": ["a"]}

    @given(content=broken([row] if name == "metadata.json" else row))
    @examples(50)
    def read(content: bytes) -> None:
        (source / name).write_bytes(content)
        out = source / "out"
        taken_or_refused(lambda: find_inputs(source, out, out / "metadata.json", Remarks(source)))

    read()


@pytest.fixture(scope="module")
def record(folder: Path) -> Analysis:
    """An analysis of a file."""
    audio = folder / "analysed.wav"
    soundfile.write(audio, beat(0, 2.0).T, RATE)
    digest = atomic.sha256_file(audio)
    made = analyse_file(AnalysisTask(audio, digest, folder), lambda *_: None)
    assert isinstance(made, Analysis)
    return made


def test_a_record_of_an_analysis(folder: Path, record: Analysis) -> None:
    digest = record.sha256
    written = json.loads((folder / f"{digest[:16]}.json").read_text())
    assert read_record(folder, digest) == record

    @given(content=broken(written))
    @examples(150)
    def read(content: bytes) -> None:
        (folder / f"{digest[:16]}.json").write_bytes(content)
        found = read_record(folder, digest)
        if found is None:
            return
        for to_mono in (True, False):
            unusable_reason(found, 1.0, to_mono=to_mono)
        for max_s in (30.0, 1.0):
            plan_clips(found, max_s=max_s, min_window_s=15.0, min_clip_s=0.1, repeat_to_s=8.0)
        for segment in found.segments:
            measured_facts(segment)
        find_faults({"a.wav": found}, [{"audio": "a.wav", "source": "a.wav"}])

    read()


def test_a_fingerprint(folder: Path, record: Analysis) -> None:
    path = folder / f"{record.sha256[:16]}.npy"
    sound = path.read_bytes()

    @given(content=torn(sound) | st.sampled_from(_lying_arrays(sound)))
    @examples(100)
    def read(content: bytes) -> None:
        path.write_bytes(content)
        found = read_fingerprint(folder, record.sha256)
        assert found is None or found.nbytes <= len(content)

    read()


def _lying_arrays(sound: bytes) -> list[bytes]:
    """NumPy files whose header claims another shape, at equal length."""
    at = sound.index(b"'shape': (")
    end = sound.index(b")", at) + 1
    shapes = [b"(%d,)" % n for n in (2**40, 2**61, 2**63, 2**70, -1, 10**300)]
    shapes += [b"(2,2)", b"()", b"(1e3,)", b"('a',)", b"(" * 99, b"(2**99,)", b"(0,%d)" % 2**62]
    lying = []
    for shape in shapes:
        head = sound[10:at] + b"'shape': " + shape + b", }\n"
        lying.append(sound[:8] + len(head).to_bytes(2, "little") + head + sound[end:])
    return lying


def test_what_a_tagger_heard(folder: Path) -> None:
    kept = {"sha256": "1" * 64, "segments": [{"genre": {"rock": 0.9}, "mood": {}}]}

    @given(content=broken(kept))
    @examples(60)
    def read(content: bytes) -> None:
        (folder / f"{'1' * 16}.musicnn.json").write_bytes(content)
        for heard in read_heard(folder, "1" * 64, "musicnn") or []:
            heard_facts(heard, "musicnn", "hip hop")

    read()


@given(content=broken(RUN))
@examples(60)
def test_a_run(content: bytes, folder: Path) -> None:
    (folder / run_folder.RUN_FILE).write_bytes(content)
    run = Run.read(folder)
    if run is not None and run.base_loss is not None:
        assert float(run.base_loss["loss"]) == run.base_loss["loss"]


@given(content=broken({"event": "train", "step": 2, "loss": 3.0}))
@examples(60)
def test_metrics(content: bytes, folder: Path) -> None:
    path = folder / run_folder.METRICS_FILE
    sound = b'{"event": "base", "step": 0}\n'
    path.write_bytes(sound + content + b"\n" + sound)
    assert len(run_folder.read_metrics(folder)) >= 2
    run_folder.cut_metrics(folder, 1)
    assert path.read_bytes().count(sound) == 2


@given(content=broken(STATE))
@examples(60)
def test_the_state_of_a_checkpoint(content: bytes, folder: Path) -> None:
    (folder / "state.json").write_bytes(content)
    taken_or_refused(lambda: read_state(folder))


@given(content=broken({"a.wav": "0" * 64, "b/c.json": "1" * 64}))
@examples(60)
def test_a_manifest(content: bytes, folder: Path) -> None:
    (folder / atomic.MANIFEST).write_bytes(content)
    assert atomic.manifest_faults(folder)


@given(content=broken(REPORT))
@examples(60)
def test_the_report_of_an_earlier_evaluation(content: bytes, folder: Path) -> None:
    out = folder / "evaluation"
    out.mkdir(exist_ok=True)
    (out / "report.json").write_bytes(content)
    taken_or_refused(lambda: list(files_of_report(out)))


@given(content=broken(FACTS))
@examples(80)
def test_the_facts_of_an_adapter(content: bytes, folder: Path, data: Path) -> None:
    write_metadata(data, [{"audio": "train/beat0.wav", "text": "hip hop"}])

    def read() -> None:
        facts = AdapterFacts.parse(content, folder / FACTS_FILE)
        find_held_out(facts, None, "metadata.json", own_run=True)
        find_held_out(facts, data, "metadata.json")

    taken_or_refused(read)


@given(content=torn(CONFIG.read_bytes()))
@examples(60)
def test_torn_settings(content: bytes, folder: Path) -> None:
    path = folder / "config.yaml"
    path.write_bytes(content)
    for command in ("train", "generate"):
        taken_or_refused(lambda command=command: parse_settings(command, [], path))


SETTING_VALUES = [
    *(".inf", "-.inf", ".nan", "1e39", "1e999", "-1", "0", "1" * 20, "1" * 5000),
    *("[]", "{}", "null", '""', '"\\ud800"', '"\\0"', "!!int x", "!!float x", "!!bool x"),
    *("2001-99-99", "!!timestamp x", "1:1:1", "*a", "&a [*a]", "!!python/name:os.system", "? [a]"),
    *("[" * 9000, "{a: " * 5000, "'" + "x" * 20_000 + "'", "<<", "!!set {a}", "!!omap [a: 1]"),
    *(f"0x{'f' * 5000}", "!!binary x"),
]


LAUGHS = [f"  - &{name} [{', '.join([f'*{chr(ord(name) - 1)}'] * 9)}]" for name in "bcdefgh"]


@given(
    command=st.sampled_from(["prepare", "train", "generate", "evaluate"]),
    value=st.sampled_from(SETTING_VALUES),
    draw=st.data(),
)
@examples(40)
def test_settings(command: str, value: str, draw: st.DataObject, folder: Path) -> None:
    from musicgen_lora.config import SETTINGS

    field = draw.draw(st.sampled_from([f.name for f in dataclasses.fields(SETTINGS[command])]))
    path = folder / "config.yaml"
    path.write_text(f"{command}:\n  {field}: {value}\n", encoding="utf-8")
    taken_or_refused(lambda: parse_settings(command, [], path))


def test_a_list_of_lists_of_lists_in_settings(folder: Path) -> None:
    """Ten lines that stand for five million words, and would be printed."""
    path = folder / "laughs.yaml"
    for item in ("a", "[ha]"):
        lines = ["train:", "  lora_targets:", f"  - &a {item}", *LAUGHS]
        path.write_text("\n".join(lines))
        with pytest.raises(UserError) as raised:
            parse_settings("train", [], path)
        assert len(str(raised.value)) < 500


def test_token_shards(folder: Path) -> None:
    shards = folder / "shards"
    codes = [np.arange(40, dtype=np.uint16).reshape(10, 4) for _ in range(2)]
    write_shard(shards, ["a", "b"], codes)
    (index,), (array,) = shards.glob("*.parquet"), shards.glob("*.npy")
    sound = {path: path.read_bytes() for path in (index, array)}
    numbers = st.sampled_from([-1, 0, 1, 5, 11, 2**31, 2**40, 2**62, 2**63 - 1, -(2**63)])

    def use() -> None:
        store, _ = find_codes(shards, ["a", "b"], 64)
        for row in range(len(store)):
            assert store[row].shape == (store.n_frames[row], 4)
            assert store[row].max() < 64

    def restore() -> None:
        for path, content in sound.items():
            path.write_bytes(content)
        (shards / "index.arrow").unlink(missing_ok=True)

    @given(path=st.sampled_from(list(sound)), draw=st.data())
    @examples(60)
    def read_torn(path: Path, draw: st.DataObject) -> None:
        restore()
        path.write_bytes(draw.draw(torn(sound[path])))
        taken_or_refused(use)

    @given(offsets=st.tuples(numbers, numbers), n_frames=st.tuples(numbers, numbers))
    @examples(60)
    def read_lies(offsets: tuple[int, int], n_frames: tuple[int, int]) -> None:
        restore()
        table = pa.table({"id": ["a", "b"], "offset": offsets, "n_frames": n_frames})
        pq.write_table(table, index)
        taken_or_refused(use)

    read_torn()
    read_lies()
