"""Files for other programs: samples, chunks and tags, checked by independent readers."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tinytag import TinyTag

from musicgen_lora.audio import writing
from musicgen_lora.audio.loudness import integrated_loudness
from musicgen_lora.audio.writing import (
    FORMATS,
    Format,
    SoundFacts,
    check_format,
    free_stem,
    levelled,
    pack_name,
    sound_bytes,
)
from musicgen_lora.errors import UserError
from musicgen_lora.prepare.reading.readers import facts_from_tags
from musicgen_lora.prepare.words.facts import facts_from_name

RATE = 32_000
LOSSLESS: dict[Format, float] = {
    "wav": 1.0 / 2**15,
    "wav24": 1.0 / 2**23,
    "wav_float": 0.0,
    "flac": 1.0 / 2**23,
}
LOOP = SoundFacts(
    title="dark trap",
    comment="prompt: dark trap, Ünïcode 暗黑; seed: 5; adapter: 0123abcd",
    software="musicgen-lora 1.2",
    bpm=142.5,
    key="C#m",
    root_pitch_class=1,
    n_bars=4,
)
SFC_GET_LOOP_INFO, SFC_GET_INSTRUMENT = 0x10E0, 0x10D0


def noise(n_samples: int = 20_001, n_channels: int = 2, level: float = 0.5) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.uniform(-level, level, (n_channels, n_samples)).astype(np.float32)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("facts", [None, LOOP])
def test_soundfile_reads_the_same_samples(kind: Format, facts: SoundFacts | None) -> None:
    time_s = np.arange(RATE + 1) / RATE
    waveform = 0.5 * np.sin(2.0 * np.pi * np.array([[220.0], [331.0]]) * time_s)
    waveform = waveform.astype(np.float32)
    content = sound_bytes(waveform, RATE, kind, facts)
    read, rate = soundfile.read(io.BytesIO(content), dtype="float64", always_2d=True)
    assert rate == RATE
    assert read.T.shape == waveform.shape
    if kind in LOSSLESS:
        assert np.abs(read.T - waveform).max() <= LOSSLESS[kind]
    else:
        # In place, up to inaudible differences.
        error = np.square(read.T - waveform).sum() / np.square(waveform).sum()
        assert 10.0 * np.log10(error) < -40.0


@pytest.mark.parametrize("kind", FORMATS)
def test_the_same_sound_is_the_same_file(kind: Format) -> None:
    waveform = noise()
    assert sound_bytes(waveform, RATE, kind, LOOP) == sound_bytes(waveform, RATE, kind, LOOP)


@pytest.mark.parametrize("kind", FORMATS)
def test_tags_are_read_by_others_and_by_prepare(kind: Format, tmp_path: Path) -> None:
    path = tmp_path / f"loop{FORMATS[kind].suffix}"
    path.write_bytes(sound_bytes(noise(), RATE, kind, LOOP))
    tag = TinyTag.get(path)
    assert tag.title == LOOP.title
    assert tag.comment == LOOP.comment
    assert tag.duration == pytest.approx(20_001 / RATE, abs=0.1)
    facts = facts_from_tags(path)
    assert (facts.bpm, facts.key) == (LOOP.bpm, "C# minor")


def wav_chunks(content: bytes) -> dict[str, bytes]:
    """Chunks by name, in order, from an independent minimal reader."""
    found, stream = {}, io.BytesIO(content)
    riff, size, wave = struct.unpack("<4sI4s", stream.read(12))
    assert (riff, wave, size + 8) == (b"RIFF", b"WAVE", len(content))
    while head := stream.read(8):
        name, n_bytes = struct.unpack("<4sI", head)
        found[name.decode()] = stream.read(n_bytes)
        assert len(found[name.decode()]) == n_bytes
        stream.read(n_bytes % 2)
    return found


@pytest.mark.parametrize("kind", ["wav", "wav24", "wav_float"])
def test_chunks_come_before_the_samples(kind: Format) -> None:
    chunks = wav_chunks(sound_bytes(noise(), RATE, kind, LOOP))
    assert list(chunks)[-1] == "data"
    assert {"acid", "smpl", "LIST", "bext", "id3 "} < set(chunks)
    assert "PEAK" not in chunks
    flags, root, _, _, n_beats, under, over, bpm = struct.unpack("<IHHfIHHf", chunks["acid"])
    assert (flags, root, n_beats, under, over, bpm) == (0x06, 61, 16, 4, 4, 142.5)
    assert len(chunks["bext"]) == 602
    assert chunks["bext"][:7] == b"prompt:"


def asked(content: bytes, command: int, n_bytes: int) -> bytes:
    """What libsndfile reads from a WAV's chunks."""
    with soundfile.SoundFile(io.BytesIO(content)) as file:
        answer = soundfile._ffi.new("char[]", n_bytes)
        assert soundfile._snd.sf_command(file._file, command, answer, n_bytes)
        return bytes(soundfile._ffi.buffer(answer))


def test_libsndfile_reads_tempo_and_loop_points() -> None:
    content = sound_bytes(noise(20_001, 1), RATE, "wav", LOOP)
    fields = struct.unpack("<hhiifi24x", asked(content, SFC_GET_LOOP_INFO, 44))
    assert (fields[0], fields[1], fields[3], fields[4]) == (4, 4, 16, 142.5)
    instrument = asked(content, SFC_GET_INSTRUMENT, 16 + 16 * 16)
    # Gain, four bytes of ranges with padding, the number of loops, and the first.
    n_loops, _, start, end, count = struct.unpack_from("<iiIII", instrument, 12)
    assert (n_loops, start, end, count) == (1, 0, 20_001, 0)


def test_what_is_no_loop_says_no_beats() -> None:
    clip = SoundFacts(title="x", comment="y", software="z", bpm=None)
    assert not {"acid", "smpl"} & set(wav_chunks(sound_bytes(noise(), RATE, "wav", clip)))


def test_peaks_are_scaled_and_not_clamped() -> None:
    loud = 3.0 * noise()
    for kind in LOSSLESS:
        read, _ = soundfile.read(io.BytesIO(sound_bytes(loud, RATE, kind, LOOP)), always_2d=True)
        gain = 10.0 ** (-0.1 / 20.0) / np.abs(loud).max()
        assert np.abs(read.T - gain * loud).max() < 1e-4


def test_loudness_is_reached_as_far_as_peaks_allow() -> None:
    quiet = noise(2 * RATE, level=0.01)
    louder, gain_db = levelled(quiet, RATE, -30.0)
    assert integrated_loudness(louder, RATE) == pytest.approx(-30.0, abs=0.05)
    assert gain_db > 0.0
    held, _ = levelled(quiet, RATE, 10.0)
    assert np.abs(held).max() == pytest.approx(10.0 ** (-0.1 / 20.0), abs=1e-4)
    assert levelled(np.zeros((1, RATE), dtype=np.float32), RATE, -14.0)[1] == 0.0


def test_names_are_those_of_sample_packs_and_prepare_reads_them() -> None:
    name = pack_name("dark trap beat with gliding 808 bass", bpm=140.0, key="C#min")
    assert name == "Dark_Trap_Beat_140bpm_C#min"
    facts = facts_from_name(f"{name}_01.wav")
    assert (facts.bpm, facts.key) == (140.0, "C# minor")
    assert pack_name("暗黑 808", bpm=84.5) == "Loop_84.5bpm"
    assert pack_name("../../etc/passwd [*]") == "Etc_Passwd"


def test_a_name_that_is_there_is_not_taken_again(tmp_path: Path) -> None:
    assert free_stem(tmp_path, "Trap_C#min") == "Trap_C#min_01"
    (tmp_path / "Trap_C#min_01.wav").touch()
    (tmp_path / "Trap_C#min_02.json").touch()
    assert free_stem(tmp_path, "Trap_C#min") == "Trap_C#min_03"
    assert free_stem(tmp_path, "Trap") == "Trap_01"


def test_a_format_that_libsndfile_lacks_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    check_format("mp3", RATE)
    with pytest.raises(UserError, match=r"--format mp3: can't hold 31999 Hz"):
        check_format("mp3", 31_999)
    monkeypatch.setattr(writing.soundfile, "available_formats", lambda: {"WAV": "", "FLAC": ""})
    with pytest.raises(
        UserError, match=r"--format mp3: .* choose one of wav, wav24, wav_float, flac"
    ):
        check_format("mp3", RATE)


@pytest.mark.parametrize("kind", ["ogg", "mp3"])
def test_lossy_files_decode_within_full_scale(kind: Format) -> None:
    """What an encoder leaves out raises peaks, which a player would clip."""
    time_s = np.arange(2 * RATE) / RATE
    square = np.sign(np.sin(2.0 * np.pi * 110.0 * time_s)).astype(np.float32)[None]
    for waveform in (square, noise(2 * RATE, 1, 1.0)):
        decoded, _ = soundfile.read(io.BytesIO(sound_bytes(waveform, RATE, kind)), dtype="float32")
        assert 0.8 < np.abs(decoded).max() <= 1.0
        # The gain is told, and once it is applied no other is.
        made, gain_db = levelled(waveform, RATE, kind=kind)
        assert gain_db < -0.1
        np.testing.assert_allclose(made, waveform * 10.0 ** (gain_db / 20.0), atol=1e-6)
        assert sound_bytes(made, RATE, kind, LOOP) == sound_bytes(waveform, RATE, kind, LOOP)
