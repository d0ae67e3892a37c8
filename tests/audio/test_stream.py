"""Files read in pieces or from the middle give the same samples as one full decoding."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from harm.odd_audio import SECONDS, UNKNOWN, sound, without_info_frame, write_mp3
from made_datasets import RATE, beat

from musicgen_lora.audio.files import probe, read_audio
from musicgen_lora.audio.stream import NEARBY_S, AudioStream
from musicgen_lora.errors import AudioError, RunError

LEVELS = {"high": 0.1, "low": 0.99}


def decoded_at_once(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="float32", always_2d=True)[0]


def in_pieces(path: Path, n_piece: int) -> np.ndarray:
    pieces = []
    with AudioStream(path) as stream:
        while len(piece := stream.read(n_piece)) or not pieces:
            pieces.append(piece)
    return np.concatenate(pieces)


def are_equal(found: np.ndarray, expected: np.ndarray) -> bool:
    """Equal up to a float's last bit, as mpg123's rounding depends on memory alignment."""
    is_alike = found.shape == expected.shape
    return is_alike and bool((np.abs(found - expected) <= np.finfo(np.float32).eps).all())


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE", "AVERAGE"])
@pytest.mark.parametrize(("rate", "n_channels"), [(44_100, 2), (16_000, 1)])
def test_an_mp3_in_pieces_is_the_whole(
    rate: int, n_channels: int, mode: str, level: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.mp3"
    write_mp3(path, sound(rate, n_channels), rate, mode, LEVELS[level])
    whole = decoded_at_once(path)
    for n_piece in (1000, 4096, 1 << 16, 100_003):
        assert are_equal(in_pieces(path, n_piece), whole)


FORMATS = [
    ("mp3", "MP3", "MPEG_LAYER_III"),
    ("wav", "WAV", "PCM_16"),
    ("wav", "WAV", "GSM610"),
    ("wav", "WAV", "IMA_ADPCM"),
    ("aiff", "AIFF", "DWVW_16"),
    ("au", "AU", "G721_32"),
    ("w64", "W64", "PCM_24"),
    ("caf", "CAF", "ALAC_16"),
    ("flac", "FLAC", "PCM_16"),
    ("ogg", "OGG", "VORBIS"),
]


@pytest.mark.parametrize(("extension", "kind", "subtype"), FORMATS)
def test_any_order_gives_the_same_samples(
    extension: str, kind: str, subtype: str, tmp_path: Path
) -> None:
    """Near and far, ahead and back, and past the end; GSM, G721 and DWVW aren't seekable."""
    path, rate = tmp_path / f"a.{extension}", 22_050
    seconds = round(2 * NEARBY_S) + 5
    if kind == "MP3":
        write_mp3(path, sound(rate, 1, seconds), rate, "VARIABLE", LEVELS["low"])
    else:
        soundfile.write(path, sound(rate, 1, seconds), rate, format=kind, subtype=subtype)
    with AudioStream(path) as stream:
        whole = stream.read(1 << 30)
        end = len(whole)
        for place in (12_345, 13_000, 20 * rate + 77, 5 * rate, 0, end - 500, end, end + 9999, 1):
            stream.move_to(place)
            assert are_equal(stream.read(3000), whole[place : place + 3000]), place


def test_a_long_gsm_becomes_clips(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, sound(8_000, 1, 40), 8_000, subtype="GSM610")
    parts = [read_audio(path, 8_000, start_s=at, duration_s=1.0) for at in (0.0, 15.0, 31.0)]
    whole = read_audio(path, 8_000)
    for at, part in zip((0, 15, 31), parts, strict=True):
        assert np.array_equal(part, whole[:, at * 8_000 : (at + 1) * 8_000])


@pytest.mark.parametrize("tag", [b"", b"ID3\x04\0\0" + bytes([0, 0, 0x20, 0]) + bytes(0x1000)])
@pytest.mark.parametrize("rate", [8_000, 24_000, 44_100])
def test_an_mp3_without_its_first_frame_is_read_to_its_end(
    rate: int, tag: bytes, tmp_path: Path
) -> None:
    """libsndfile takes the first frame's size for all; those of silence are smaller."""
    samples = sound(rate, 2)[::-1].copy()
    samples[4 * rate : -rate] = 0.0
    samples[-rate:] = samples[:rate]
    path = tmp_path / "cut.mp3"
    content = without_info_frame(write_mp3(path, samples, rate, "VARIABLE", 0.3))
    path.write_bytes(tag + content)
    assert len(decoded_at_once(path)) / rate < SECONDS - 1, "no test of anything"
    assert probe(path).duration_s == pytest.approx(SECONDS, abs=0.3)
    whole = in_pieces(path, 4096)
    assert len(whole) / rate == pytest.approx(SECONDS, abs=0.3)
    stretches = (whole[int(a * rate) : int(b * rate)] for a, b in ((1, 3), (5, 6.8), (7.3, 7.8)))
    first, middle, last = (float(np.square(part).mean()) for part in stretches)
    assert middle < 1e-6 < 0.01 < min(first, last)
    assert AudioStream(path).claimed_s is None


@pytest.mark.parametrize(
    "between", [b"", b"TAG" + bytes(125), b"ID3\x04\0\0\0\0\0\x7f" + bytes(127)]
)
@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_joined_mp3s_are_read_to_their_end(mode: str, between: bytes, tmp_path: Path) -> None:
    path = tmp_path / "joined.mp3"
    parts = [sound(RATE, 1), beat(3, 4.0).T]
    contents = [write_mp3(path, part, RATE, mode, 0.5) for part in parts]
    path.write_bytes(between.join(contents))
    with AudioStream(path) as stream:
        whole = stream.read(1 << 30)
        assert stream.claimed_s == pytest.approx(SECONDS, abs=0.2)
    assert len(whole) / RATE == pytest.approx(SECONDS + 4.0, abs=0.2)
    path.write_bytes(contents[0])
    first = decoded_at_once(path)
    assert are_equal(whole[: len(first)], first)


@pytest.mark.parametrize(("rate", "n_channels"), [(48_000, 1), (44_100, 2)])
def test_joined_mp3s_of_two_kinds_are_refused(rate: int, n_channels: int, tmp_path: Path) -> None:
    path = tmp_path / "joined.mp3"
    contents = [
        write_mp3(path, sound(*kind), kind[0], "CONSTANT", 0.5)
        for kind in ((44_100, 1), (rate, n_channels))
    ]
    path.write_bytes(b"".join(contents))
    with pytest.raises(AudioError, match=rf"joined\.mp3: changes midway .* {rate} Hz"):
        probe(path)


def test_an_mp3_that_knows_its_length_is_left_alone(tmp_path: Path) -> None:
    """The encoder's delay and padding stay trimmed: a loop keeps its length."""
    path = tmp_path / "a.mp3"
    for mode in ("CONSTANT", "VARIABLE"):
        content = write_mp3(path, sound(44_100, 2), 44_100, mode, 0.5)
        assert len(in_pieces(path, 4096)) == SECONDS * 44_100
        path.write_bytes(content[: len(content) // 2])
        with AudioStream(path) as stream:
            assert stream.claimed_s == SECONDS
            assert len(stream.read(1 << 30)) / 44_100 < 0.7 * SECONDS
    # Without its first frame, a constant rate tells the length as well.
    content = without_info_frame(write_mp3(path, sound(48_000, 1), 48_000, "CONSTANT", 0.5))
    path.write_bytes(content)
    assert are_equal(in_pieces(path, 4096), decoded_at_once(path))


@pytest.mark.parametrize("kind", UNKNOWN)
def test_a_header_that_does_not_know_is_no_fault(kind: str, tmp_path: Path) -> None:
    extension = kind.partition(",")[0]
    path = tmp_path / f"a.{extension}"
    soundfile.write(path, beat(0, 3.0).T, RATE, format=extension.upper(), subtype="PCM_16")
    whole = decoded_at_once(path)
    path.write_bytes(UNKNOWN[kind](path.read_bytes()))
    assert np.array_equal(in_pieces(path, 5000), whole)
    assert probe(path).duration_s == len(whole) / RATE
    assert np.array_equal(read_audio(path, RATE, start_s=2.0).T, whole[2 * RATE :])


def test_a_wav_that_is_empty_indeed_stays_so(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros((0, 1)), RATE)
    note = b"LIST" + struct.pack("<I", 26) + b"INFOISFT" + struct.pack("<I", 14) + b"a program name"
    path.write_bytes(path.read_bytes() + note)
    assert len(in_pieces(path, 1000)) == 0


def test_ogg_recordings_in_a_row_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ogg"
    soundfile.write(path, beat(0, 2.0).T, RATE)
    path.write_bytes(2 * path.read_bytes())
    with pytest.raises(AudioError, match=r"a\.ogg: has several recordings"):
        probe(path)


def test_a_disk_that_fails_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, beat(0, 4.0).T, RATE)
    path.write_bytes(UNKNOWN["wav, zero"](path.read_bytes()))
    with AudioStream(path) as stream:
        assert stream._headed is not None
        # Like a network drive that went away.
        stream._headed._file.close()
        stream._headed._file = open("/proc/self/mem", "rb")  # noqa: SIM115
        with pytest.raises(RunError, match=r"a\.wav: cannot be read"):
            stream.read(1 << 20)


def test_an_mp3_that_begins_within_a_frame_is_read_to_its_end(tmp_path: Path) -> None:
    """As stream recordings do; its length used to be the decoder's guess."""
    path = tmp_path / "a.mp3"
    content = write_mp3(path, sound(RATE, 1), RATE, "VARIABLE", 0.5)
    # At a quarter, whose sound is as dense as the others'.
    cut = len(content) // 4
    path.write_bytes(content[cut:])
    with AudioStream(path) as stream:
        seconds = len(stream.read(1 << 30)) / RATE
        assert stream.claimed_s is None
    assert seconds == pytest.approx(probe(path).duration_s, abs=0.05)
    assert 0.5 * SECONDS < seconds < SECONDS


def test_what_the_decoder_of_mp3s_prints_is_counted_and_not_shown(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.mp3"
    content = bytearray(write_mp3(path, sound(RATE, 1), RATE, "VARIABLE", 0.5))
    draws = np.random.default_rng(0)
    for at in draws.integers(len(content) // 4, len(content) // 2, 100):
        content[at] = draws.integers(256)
    faults = []
    for damaged in (path.read_bytes(), bytes(content)):
        path.write_bytes(damaged)
        with AudioStream(path) as stream:
            stream.read(1 << 30)
            os.write(2, b"ours\n")
            faults.append(stream.n_faults)
    assert faults[0] == 0 < faults[1]
    assert capfd.readouterr().err == "ours\nours\n"
