"""Files made to break a reader: each is taken or listed with its reason, nothing else happens."""

from __future__ import annotations

import functools
import json
import os
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from made_datasets import RATE, beat, sine

from musicgen_lora import atomic
from musicgen_lora.audio.files import probe
from musicgen_lora.cluster.engine import run_shown
from musicgen_lora.config import PrepareSettings
from musicgen_lora.dataset.metadata import load_dataset
from musicgen_lora.prepare import prepare
from musicgen_lora.prepare.hearing.analyse import AnalysisTask, analyse_file
from musicgen_lora.prepare.prepare import prepare_dataset
from musicgen_lora.runtime import workers
from musicgen_lora.runtime.workers import Failure, run_tasks

KINDS = {
    ".wav": {"format": "WAV", "subtype": "PCM_16"},
    ".flac": {"format": "FLAC"},
    ".mp3": {"format": "MP3"},
    ".ogg": {"format": "OGG", "subtype": "VORBIS"},
    ".opus": {"format": "OGG", "subtype": "OPUS"},
    ".aiff": {"format": "AIFF"},
}


def originals(folder: Path) -> dict[str, bytes]:
    """A second of a beat in each format, by extension."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {}
    for suffix, how in KINDS.items():
        path = folder / f"original{suffix}"
        rate = 48_000 if suffix == ".opus" else 44_100
        soundfile.write(path, beat(len(contents), 1.2).T, rate, **how)
        contents[suffix] = path.read_bytes()
        path.unlink()
    return contents


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """Content with one kind of damage."""
    data = bytearray(content)
    kind = int(rng.integers(6))
    if kind == 0:
        for _ in range(int(rng.integers(1, 40))):
            data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del data[int(rng.integers(len(data))) :]
    elif kind == 2:
        # Headers lie: any field of the first bytes becomes an extreme.
        at = int(rng.integers(4, 64))
        data[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"])
    elif kind == 3:
        at, length = int(rng.integers(len(data))), int(rng.integers(1, 3000))
        data[at : at + length] = rng.bytes(length)
    elif kind == 4:
        at = int(rng.integers(len(data)))
        del data[at : at + int(rng.integers(1, 3000))]
    else:
        data = bytearray(rng.bytes(int(rng.integers(0, 4000))))
    return bytes(data)


def wav_header(rate: int, channels: int, n_bytes: int) -> bytes:
    """A header of 16-bit PCM that says what it is told to."""
    fmt = struct.pack("<HHIIHH", 1, channels, rate, rate * channels * 2, channels * 2, 16)
    return (
        b"RIFF" + struct.pack("<I", (36 + n_bytes) & 0xFFFFFFFF) + b"WAVEfmt "
        + struct.pack("<I", 16) + fmt + b"data" + struct.pack("<I", n_bytes)
    )  # fmt: skip


def extreme(rng: np.random.Generator) -> bytes:
    """A WAV that is well formed and of no use."""
    kind = int(rng.integers(6))
    samples = rng.bytes(int(rng.integers(0, 20_000)) * 4)
    if kind == 0:
        return wav_header(44_100, 2, 0)
    if kind == 1:
        return wav_header(1, 1, len(samples)) + samples
    if kind == 2:
        return wav_header(768_000, 2, len(samples)) + samples
    if kind == 3:
        return wav_header(44_100, 32, len(samples)) + samples
    if kind == 4:
        return wav_header(44_100, 2, int(rng.integers(1 << 31, 1 << 32))) + samples
    nan = np.full(60_000, np.nan, dtype="<f4").tobytes()
    fmt = struct.pack("<HHIIHH", 3, 1, 44_100, 4 * 44_100, 4, 32)
    return (
        b"RIFF" + struct.pack("<I", 36 + len(nan)) + b"WAVEfmt " + struct.pack("<I", 16) + fmt
        + b"data" + struct.pack("<I", len(nan)) + nan
    )  # fmt: skip


def put_mutants(folder: Path, count: int, seed: int) -> None:
    contents = originals(folder)
    rng = np.random.default_rng(seed)
    suffixes = list(contents)
    names = ("mutant", "-rf ", "🔥💧", "line\nbreak", "--help=", "$(id) ")
    for index in range(count):
        is_extreme = index % 5 == 4
        content = extreme(rng) if is_extreme else mutate(contents[suffixes[index % 6]], rng)
        # Every seventh has the extension of another format.
        suffix = suffixes[(index + index // 7 % 2) % len(suffixes)]
        name = f"{names[index % len(names)]}{index:04d}"
        if index % 40 == 39:
            name = name.ljust(255 - len(suffix), "x")
        (folder / f"{name}{suffix}").write_bytes(content)


def prepared(source: Path, out: Path) -> dict[str, str]:
    """Runs a preparation that must end well. Returns the reasons by file."""
    prepare_dataset(PrepareSettings(input_dir=source, output_dir=out))
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    dropped = {drop["file"]: drop["reason"] for drop in report["dropped"]}
    taken = {clip.fields["source"] for clip in load_dataset(out)}
    assert all(dropped.values())
    assert not [reason for reason in dropped.values() if "took more than" in reason]
    assert len(dropped.keys() | taken) >= report["summary"]["files"] - 1
    assert not list(out.rglob(".staging-*"))
    return dropped


def check_mutants(tmp_path: Path, count: int, seed: int) -> None:
    """Each is in the dataset or in the report, and none goes 15 s without a sign of life."""
    source, out = tmp_path / "in", tmp_path / "out"
    put_mutants(source, count, seed)
    soundfile.write(source / "good.wav", beat(7, 1.5).T, RATE)
    began = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "run_shown", functools.partial(run_shown, limit_s=15.0))
        patch.setattr(prepare, "LIMIT_S", 15.0)
        dropped = prepared(source, out)
    assert time.monotonic() - began < 30.0 + 1.0 * count
    assert "good.wav" not in dropped
    sources = {clip.fields["source"] for clip in load_dataset(out)}
    assert dropped.keys() | sources == {path.name for path in source.iterdir()}
    assert not [name for name, reason in dropped.items() if "could not be processed" in reason]
    assert len(dropped) > count // 4
    for clip in load_dataset(out):
        assert probe(clip.path).duration_s <= 30.1


def test_mutants_are_taken_or_listed(tmp_path: Path) -> None:
    check_mutants(tmp_path, 60, seed=1)


@pytest.mark.slow
def test_500_mutants_are_taken_or_listed(tmp_path: Path) -> None:
    check_mutants(tmp_path, 500, seed=2)


def test_extremes_are_listed_with_their_reason(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    soundfile.write(source / "good.wav", beat(7, 1.5).T, RATE)
    silence = b"\0" * 64_000
    (source / "one hertz.wav").write_bytes(wav_header(1, 1, 64_000) + silence)
    (source / "768 kHz.wav").write_bytes(wav_header(768_000, 1, 64_000) + silence)
    (source / "32 channels.wav").write_bytes(wav_header(44_100, 32, 64_000) + silence)
    (source / "lies.wav").write_bytes(wav_header(44_100, 2, 0xFFFFFFF0) + silence[:4000])
    (source / "nothing.wav").write_bytes(b"")
    (source / "no samples.wav").write_bytes(wav_header(44_100, 2, 0))
    (source / "playlist.wav").write_text(f"#EXTM3U\nfile://{source / 'good.wav'}\n")
    (source / "concat.mp3").write_text("ffconcat version 1.0\nfile /etc/passwd\n")
    (source / "text.flac").write_text("fLaC but not really")
    nan = beat(0, 1.5)
    nan[0, 99] = np.inf
    soundfile.write(source / "inf.wav", nan.T, RATE, subtype="FLOAT")
    soundfile.write(source / "silent.flac", np.zeros((3 * RATE, 2)), RATE)
    soundfile.write(source / "16 channels.wav", np.tile(beat(3, 1.3).T[:, :1], 16), RATE)
    dropped = prepared(source, tmp_path / "out")
    for name, reason in {
        "one hertz.wav": "1 Hz",
        "768 kHz.wav": "768000 Hz",
        "32 channels.wav": "32 channels",
        "lies.wav": "shorter than 1 s",
        "nothing.wav": "is empty",
        "no samples.wav": "no audio in it",
        "playlist.wav": "not readable as audio",
        "concat.mp3": "not readable as audio",
        "text.flac": "not readable as audio",
        "inf.wav": "NaN or infinite",
        "silent.flac": "is silent",
    }.items():
        assert reason in dropped.pop(name), name
    assert not dropped


def test_names_are_only_names(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    names = [
        "-rf",
        "🔥💧",
        "line\nbreak",
        "tab\tand\x1b[31mred",
        "$(touch hacked)",
        "`id`;&|<>",
        "<script>alert(1)</script>".replace("/", "\N{FRACTION SLASH}"),
        "é" * 125,
        "a" * 251,
        "CON",
        "  spaces  ",
    ]
    for index, name in enumerate(names):
        soundfile.write(source / f"{name}.wav", sine(200.0 + 31.0 * index, 1.1, RATE).T, RATE)
    os.link(source / "-rf.wav", os.fsencode(source) + b"/bad \xff bytes.wav")
    dropped = prepared(source, tmp_path / "out")
    assert list(dropped.values()) == ["its name is not valid text; rename it."]
    clips = load_dataset(tmp_path / "out")
    assert {clip.fields["source"] for clip in clips} == {f"{name}.wav" for name in names}
    for clip in clips:
        assert clip.path.parent == tmp_path / "out" / "train"
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert sorted(os.listdir(tmp_path)) == ["in", "out"]


def test_links_do_not_leave_the_folder(tmp_path: Path) -> None:
    source, outside = tmp_path / "in", tmp_path / "outside"
    source.mkdir()
    outside.mkdir()
    soundfile.write(outside / "secret.wav", beat(1, 1.5).T, RATE)
    (outside / "secret.txt").write_text("a secret caption")
    soundfile.write(source / "good.wav", beat(7, 1.5).T, RATE)
    os.symlink(outside / "secret.wav", source / "link.wav")
    os.symlink(outside, source / "folder")
    os.symlink(outside / "secret.txt", source / "good.txt")
    os.symlink(source, source / "loop")
    os.symlink(source / "self.wav", source / "self.wav")
    prepared(source, tmp_path / "out")
    (clip,) = load_dataset(tmp_path / "out")
    assert clip.fields["source"] == "good.wav"
    assert "secret" not in json.dumps(clip.fields)


def test_a_bomb_of_silence_is_not_written(tmp_path: Path) -> None:
    """Ten minutes of nothing in 120 KB."""
    source = tmp_path / "in"
    source.mkdir()
    soundfile.write(source / "good.wav", beat(7, 1.5).T, RATE)
    with soundfile.SoundFile(source / "bomb.flac", "w", 48_000, 2) as file:
        for _ in range(10):
            file.write(np.zeros((60 * 48_000, 2), dtype=np.int16))
    dropped = prepared(source, tmp_path / "out")
    assert dropped == {"bomb.flac": "is silent."}
    written = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert written < 3_000_000


def memory_growth(task: tuple[Path, Path], alive) -> tuple[float, str]:
    """What the analysis of a file takes on top of the libraries, in megabytes, and the type of its
    result. In a process that has done nothing else, so nothing that was freed before is used."""

    def megabytes(name: str) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024

    path, analysis = task
    before = megabytes("VmRSS")
    result = analyse_file(AnalysisTask(path, atomic.sha256_file(path), analysis), alive)
    return megabytes("VmHWM") - before, type(result).__name__


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("kind", ["silence", "a tone", "a lying header"])
def test_no_file_takes_more_than_256_mb(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb.flac"
    second = np.full((48_000, 2), 7_000 if kind == "a tone" else 0, dtype=np.int16)
    second[::96] *= -1
    with soundfile.SoundFile(path, "w", 48_000, 2) as file:
        for _ in range(310):
            file.write(second)
    assert path.stat().st_size < 20_000_000
    if kind == "a lying header":
        path = tmp_path / "liar.wav"
        path.write_bytes(wav_header(48_000, 2, 0xFFFFFFF0) + b"\1\2" * 100_000)
    ((_, found),) = run_tasks(memory_growth, [(path, tmp_path / "analysis")], 1)
    growth_mb, result = found
    assert result == "Analysis"
    assert growth_mb < 256.0


def _work(task: str, alive) -> str:
    if task == "crash":
        os._exit(7)
    if task == "hang":
        time.sleep(60.0)
    if task == "raise":
        raise ZeroDivisionError("a\nbug")
    if task == "slow":
        for _ in range(8):
            time.sleep(0.5)
            alive()
    return task.upper()


def test_a_crash_or_a_hang_costs_one_task(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = ["a", "crash", "b", "hang", "raise", "slow", "c"]
    results = dict(run_tasks(_work, tasks, 2, limit_s=3.5))
    assert [results[index] for index in (0, 2, 5, 6)] == ["A", "B", "SLOW", "C"]
    assert results[1] == Failure("crashed its reader (exit code 7).")
    assert results[3] == Failure("took more than 3.5 s; given up.")
    assert results[4] == Failure("could not be processed (ZeroDivisionError: a bug).")
    assert workers.LIMIT_S == 60.0
