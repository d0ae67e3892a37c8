"""Audio files: every format, any rate, hostile content."""

from __future__ import annotations

import errno
import os
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from made_datasets import KIT, RATE, beat, sine

from musicgen_lora.audio.files import (
    MAX_READ_S,
    AudioError,
    find_audio,
    find_unread,
    probe,
    read_audio,
    write_wav,
)
from musicgen_lora.audio.stream import AudioStream
from musicgen_lora.errors import RunError, UserError

FORMATS = [
    ("wav", "WAV", "PCM_16"),
    ("wav", "WAV", "FLOAT"),
    ("wav", "WAV", "PCM_24"),
    ("flac", "FLAC", "PCM_16"),
    ("mp3", "MP3", "MPEG_LAYER_III"),
    ("ogg", "OGG", "VORBIS"),
    ("opus", "OGG", "OPUS"),
    ("aiff", "AIFF", "PCM_16"),
]


def loudest_hz(samples: np.ndarray, rate: int = RATE) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 1 << 18))
    return float(spectrum.argmax() * rate / (1 << 18))


@pytest.mark.parametrize("n_channels", [1, 2])
@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
@pytest.mark.parametrize(("extension", "kind", "subtype"), FORMATS)
def test_formats_keep_length_level_and_pitch(
    extension: str, kind: str, subtype: str, rate: int, n_channels: int, tmp_path: Path
) -> None:
    if subtype == "OPUS" and rate == 44_100:
        rate = 24_000  # Opus has no 44.1 kHz.
    channels = [sine(440.0, 1.5, rate), sine(1000.0, 1.5, rate, level=0.25)][:n_channels]
    path = tmp_path / f"a.{extension}"
    soundfile.write(path, np.concatenate(channels).T, rate, format=kind, subtype=subtype)
    info = probe(path)
    assert (info.sample_rate, info.n_channels) == (rate, n_channels)
    waveform = read_audio(path, RATE)
    assert waveform.dtype == np.float32
    assert len(waveform) == n_channels
    # MP3 includes the encoder's delay and padding.
    slack = 0.06 if kind == "MP3" else 0.001
    assert waveform.shape[1] / RATE == pytest.approx(1.5, abs=slack)
    middle = waveform[:, RATE // 4 : RATE]
    for channel, (hz, level) in zip(middle, [(440.0, 0.5), (1000.0, 0.25)], strict=False):
        assert loudest_hz(channel) == pytest.approx(hz, abs=0.5)
        assert channel.std() * np.sqrt(2.0) == pytest.approx(level, rel=0.05)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 32_000, 96_000, 192_000])
def test_resampling_keeps_a_sine_and_adds_nothing(rate: int, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, sine(997.0, 2.0, rate).T, rate, subtype="FLOAT")
    waveform = read_audio(path, RATE)[0]
    assert len(waveform) == 2 * RATE
    time_s = np.arange(len(waveform)) / RATE
    error = waveform - 0.5 * np.sin(2 * np.pi * 997.0 * time_s)
    assert np.abs(error[RATE // 2 : -RATE // 2]).max() < 1e-3


def test_what_the_new_rate_cannot_hold_is_filtered_not_folded(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, sine(20_000.0, 1.0, 48_000).T, 48_000, subtype="FLOAT")
    assert np.abs(read_audio(path, RATE)[0, 4000:-4000]).max() < 1e-3


def test_a_stretch_is_the_same_as_a_cut(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", beat(0, 3.0), RATE)
    whole = read_audio(tmp_path / "a.wav", RATE)
    part = read_audio(tmp_path / "a.wav", RATE, start_s=1.0, duration_s=0.5)
    assert np.array_equal(part, whole[:, RATE : RATE + RATE // 2])
    with pytest.raises(AudioError, match=r"a\.wav: has no audio at 9 s; correct the start"):
        read_audio(tmp_path / "a.wav", RATE, start_s=9.0)


def test_more_channels_fold_to_their_mean(tmp_path: Path) -> None:
    six = np.linspace(0.1, 0.6, 6, dtype=np.float32) * np.ones((1000, 1), dtype=np.float32)
    soundfile.write(tmp_path / "a.wav", six, RATE, subtype="FLOAT")
    waveform = read_audio(tmp_path / "a.wav", RATE)
    assert waveform.shape == (1, 1000)
    assert np.allclose(waveform, 0.35, atol=1e-6)


@pytest.mark.parametrize("name", ["808_Kick_1.wav", "808_Ride.wav"])
def test_the_recorded_kit_is_read(name: str) -> None:
    frames, rate = soundfile.read(KIT / name)
    waveform = read_audio(KIT / name, RATE)
    assert waveform.shape[1] == pytest.approx(len(frames) * RATE / rate, abs=1)
    assert np.abs(waveform).max() > 0.1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"#!/bin/sh\necho no audio\n", "not readable as audio"),
        (b"#EXTM3U\n/etc/passwd\n", "not readable as audio"),
        (b"RIFF", "not readable as audio"),
    ],
)
def test_not_audio(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "song.wav"
    path.write_bytes(content)
    for use in (probe, lambda p: read_audio(p, RATE)):
        with pytest.raises(AudioError, match=rf"song\.wav: {said}") as raised:
            use(path)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("extension", ["wav", "aiff", "mp3"])
def test_the_content_decides_not_the_name(extension: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{extension}"
    soundfile.write(path, sine(440.0, 0.5, RATE).T, RATE, format="FLAC")
    assert read_audio(path, RATE).shape == (1, RATE // 2)


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"gone\.wav: no such audio file"):
        read_audio(tmp_path / "gone.wav", RATE)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused(value: float, tmp_path: Path) -> None:
    samples = sine(440.0, 3.0, RATE)[0]
    samples[-5] = value
    soundfile.write(tmp_path / "bad.wav", samples, RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"bad\.wav: has NaN or infinite samples"):
        read_audio(tmp_path / "bad.wav", RATE)


def test_no_samples_at_all(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "empty.wav", np.zeros((0, 1)), RATE)
    with pytest.raises(AudioError, match=r"empty\.wav: has no audio"):
        read_audio(tmp_path / "empty.wav", RATE)


def read_or_reason(path: Path) -> np.ndarray | str:
    """The samples, or why there are none."""
    try:
        return read_audio(path, RATE)
    except AudioError as error:
        return str(error)


CUT = ["wav", "w64", "rf64", "aiff", "au", "mp3", "ogg"]


@pytest.mark.parametrize("extension", CUT)
def test_a_file_that_was_cut_in_half_is_seen_to_be(extension: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{extension}"
    soundfile.write(path, beat(0, 3.0).T, RATE)
    for share in (1.0, 0.5):
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        with AudioStream(path) as stream:
            seconds = len(stream.read(1 << 30)) / RATE
            is_cut = stream.is_cut_off or seconds < 0.98 * (stream.claimed_s or 0.0)
        assert is_cut == (share < 1.0)


@pytest.mark.parametrize("extension", ["wav", "flac", "mp3", "ogg", "aiff"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_a_truncated_file_is_shorter_or_refused(
    extension: str, share: float, tmp_path: Path
) -> None:
    path = tmp_path / f"a.{extension}"
    soundfile.write(path, beat(0, 3.0).T, RATE)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    got = read_or_reason(path)
    if isinstance(got, str):
        assert f"a.{extension}: " in got
    else:
        assert np.isfinite(got).all()
        assert got.shape[1] <= 3.1 * RATE


def claim_hours_wav(path: Path) -> None:
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[4:8] = content[at : at + 4] = struct.pack("<I", 0xFFFFFFF0)
    path.write_bytes(content)


def claim_hours_flac(path: Path) -> None:
    content = bytearray(path.read_bytes())
    # STREAMINFO: 36 bits of the sample count end at byte 26 of the file.
    content[21] |= 0x0F
    content[22:26] = b"\xff\xff\xff\xf0"
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("extension", "lie"), [("wav", claim_hours_wav), ("flac", claim_hours_flac)]
)
def test_a_header_that_lies_costs_nothing(extension: str, lie, tmp_path: Path) -> None:
    path = tmp_path / f"liar.{extension}"
    soundfile.write(path, sine(440.0, 2.0, RATE).T, RATE)
    lie(path)
    # CPU time of this process: others may be using the processor.
    began = time.process_time()
    got = read_or_reason(path)
    if isinstance(got, str):
        assert f"liar.{extension}: " in got
    else:
        assert got.shape[1] == pytest.approx(2 * RATE, abs=4096)
    assert time.process_time() - began < 2.0


def test_a_single_read_is_bounded(tmp_path: Path) -> None:
    """Silence of ten hours is a small FLAC."""
    path = tmp_path / "bomb.flac"
    with soundfile.SoundFile(path, "w", 8000, 1, format="FLAC") as file:
        for _ in range(66):
            file.write(np.zeros(60 * 8000, dtype=np.int16))
    assert path.stat().st_size < 1 << 20
    assert probe(path).duration_s == pytest.approx(3960)
    assert read_audio(path, 8000).shape[1] == MAX_READ_S * 8000


@pytest.mark.parametrize(("rate", "channels"), [(1000, 1), (RATE, 20)])
def test_rates_and_channels_out_of_bounds(rate: int, channels: int, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "odd.wav", np.zeros((100, channels)), rate)
    with pytest.raises(AudioError, match=r"odd\.wav: .*out of bounds"):
        probe(tmp_path / "odd.wav")


def test_a_peak_above_full_scale_is_turned_down_not_clipped(tmp_path: Path) -> None:
    loud = sine(100.0, 0.5, RATE, level=2.5)
    write_wav(tmp_path / "a.wav", loud, RATE)
    written = read_audio(tmp_path / "a.wav", RATE)
    assert np.abs(written).max() == pytest.approx(0.9886, abs=1e-3)
    assert np.allclose(written * 2.5 / np.abs(written).max(), loud, atol=1e-3)
    quiet = sine(100.0, 0.5, RATE, level=0.3)
    write_wav(tmp_path / "b.wav", quiet, RATE)
    assert np.allclose(read_audio(tmp_path / "b.wav", RATE), quiet, atol=1e-4)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch) -> None:
    write_wav(tmp_path / "a.wav", sine(100.0, 0.1, RATE), RATE)
    before = (tmp_path / "a.wav").read_bytes()

    def torn(temporary, *_, **__):
        with open(temporary, "wb") as file:
            file.write(b"half")
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(Path, "write_bytes", torn)
    with pytest.raises(RunError, match=r"a\.wav: cannot be written"):
        write_wav(tmp_path / "a.wav", sine(200.0, 0.1, RATE), RATE)
    assert (tmp_path / "a.wav").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_find_audio_stays_inside(tmp_path: Path) -> None:
    inside = tmp_path / "in"
    (inside / "deep" / "er").mkdir(parents=True)
    outside = tmp_path / "secret.wav"
    for path in (outside, inside / "b.WAV", inside / "deep" / "er" / "a.flac", inside / ".c.wav"):
        path.write_bytes(b"x")
    (inside / "notes.txt").write_bytes(b"x")
    (inside / "folder.wav").mkdir()
    os.symlink(outside, inside / "link.wav")
    os.symlink(tmp_path, inside / "up")
    os.symlink(inside / "b.WAV", inside / "deep" / "same.wav")
    os.symlink(inside / "gone.wav", inside / "dead.wav")
    found = {path.relative_to(inside).as_posix() for path in find_audio(inside)}
    assert found == {"b.WAV", "deep/er/a.flac", "deep/same.wav"}


def test_whatever_is_passed_over_is_named(tmp_path: Path) -> None:
    inside, other = tmp_path / "in", tmp_path / "other"
    (inside / "deep").mkdir(parents=True)
    (inside / "folder.wav").mkdir()
    other.mkdir()
    (inside / "deep" / "a.wav").write_bytes(b"x")
    (other / "b.wav").write_bytes(b"x")
    os.mkfifo(inside / "pipe.wav")
    os.symlink(other, inside / "elsewhere")
    os.symlink(inside / "deep", inside / "again")
    os.symlink(other / "b.wav", inside / "link.wav")
    os.symlink(other / "gone.wav", inside / "dead.wav")
    found = {path.relative_to(inside).as_posix(): why for path, why in find_unread(inside)}
    assert set(found) == {"pipe.wav", "elsewhere", "link.wav", "dead.wav"}
    assert "a link to a folder elsewhere" in found["elsewhere"]
    assert "pipe" in found["pipe.wav"]
    assert "leads nowhere" in found["dead.wav"]


def test_audio_by_another_name_is_named(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    for name in ("take 1", "beat.wav.part", "blobs/0a1b", "notes.txt", "a.wav"):
        soundfile.write(tmp_path / name, np.zeros((9, 1)), RATE, format="WAV", subtype="PCM_16")
    (tmp_path / "film").write_bytes(b"RIFF1234AVI ")
    (tmp_path / "readme").write_bytes(b"x")
    why = "is audio without an audio extension; rename it to end in .wav."
    assert find_unread(tmp_path) == [(tmp_path / name, why) for name in ("beat.wav.part", "take 1")]


def test_what_is_hidden_and_what_is_packed_is_named_and_not_read(tmp_path: Path) -> None:
    names = (".Trash-1000/files/old.wav", ".Trash-1000/x.wav", "deep/.versions/a.wav", "deep/a.wav")
    for name in (*names, ".b.wav", "._a.wav", ".cache/._c.wav", ".git/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    for name in ("Pack.ZIP", "kit.tar.gz", "kit.rar", "data.jsonl.gz"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "unpacked.zip").mkdir()
    assert find_audio(tmp_path) == [tmp_path / "deep/a.wav"]
    found = {path.relative_to(tmp_path).as_posix(): why for path, why in find_unread(tmp_path)}
    folder = "is a hidden folder with audio, which isn't searched; rename it if you want to use it."
    archive = "is an archive, which isn't opened; unpack it if there is audio in it."
    assert found == {
        **dict.fromkeys((".Trash-1000", "deep/.versions"), folder),
        ".b.wav": "is a hidden file, which isn't read; rename it if you want to use it.",
        **dict.fromkeys(("Pack.ZIP", "kit.rar", "kit.tar.gz"), archive),
    }
    # The chosen folder itself may be hidden.
    assert find_audio(tmp_path / ".Trash-1000/files") == [tmp_path / ".Trash-1000/files/old.wav"]


@pytest.mark.parametrize("kind", ["flac", "caf"])
def test_a_half_copied_file_is_told_so_and_what_to_do(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"half.{kind}"
    noise = np.random.default_rng(0).normal(0.0, 0.1, RATE * 4)
    soundfile.write(path, noise, RATE, subtype="PCM_16")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(AudioError, match=r"half\..*was cut off or damaged.*; copy,? .*download"):
        read_audio(path, RATE)


def test_folders_too_deep_to_follow_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_deep(*_: object) -> None:
        raise RecursionError

    monkeypatch.setattr(Path, "rglob", too_deep)
    with pytest.raises(UserError, match="hundreds of folders inside one another"):
        find_audio(tmp_path)
