"""Captions and facts are found wherever they are in a folder, and never outside it."""

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf
from prepared.written_facts import read_captions

from musicgen_lora.dataset.caption_words import normalise_bpm
from musicgen_lora.errors import UserError
from musicgen_lora.listening.pitch.key_names import normalise_key
from musicgen_lora.prepare.reading import parquet, tables
from musicgen_lora.prepare.reading.parquet import extract_parquet_audio, find_parquet
from musicgen_lora.prepare.reading.readers import facts_from_tags
from musicgen_lora.prepare.words.facts import (
    Facts,
    facts_from_name,
    merge_facts,
)


def audio(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, np.zeros(800), 8000)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder inside another, with `x.wav` in it and one outside."""
    audio(tmp_path / "outside.wav")
    audio(tmp_path / "folder" / "x.wav")
    return tmp_path / "folder"


@pytest.mark.parametrize(
    ("name", "bpm", "key", "genre", "tags"),
    [
        ("trap_140bpm_Cm.wav", 140, "C minor", "trap", ()),
        ("Dark Drill 142 F#min (prod).wav", 142, "F# minor", "drill", ("dark",)),
        ("trap_140bpm_csharp_minor_003.wav", 140, "C# minor", "trap", ()),
        ("southern_82bpm_a_minor_004.wav", 82, "A minor", "southern hip hop", ()),
        ("LoFi-HipHop_85_Bbmaj.mp3", 85, "Bb major", "lo-fi", ("hip hop",)),
        ("DarkTrapLoop BPM-150 Gm.flac", 150, "G minor", "trap", ("dark",)),
        ("track (77.5 BPM) [Ab minor]", 77.5, "Ab minor", None, ()),
        ("Trap Soul RnB guitar.ogg", None, None, "trap soul", ("r&b", "guitar")),
        ("boom-bap 90bpm 92bpm.wav", None, None, "boom bap", ()),
        ("808 Kick 01.wav", None, None, None, ("808", "kick")),
        ("Make a major hit 3 AM.wav", None, None, None, ()),
        ("trapped in a drillhall F#.wav", None, None, None, ()),
        ("hats 1990.wav", None, None, None, ()),
        ("陷阱鼓点_83_Gmin.wav", 83, "G minor", "trap", ("drums",)),
        ("暗黑陷阱 升C小调 速度140.wav", 140, "C# minor", "trap", ("dark",)),
        ("长笛循环 140拍", 140, None, None, ("flute",)),
        ("长笛 节奏129", 129, None, None, ("flute",)),
        ("陷阱_八十五拍.wav", 85, None, "trap", ()),
        ("陷阱_129拍每分钟_a小调.wav", 129, "A minor", "trap", ()),
        ("晴天.wav", None, None, None, ()),
        ("-rf 😀\n.wav", None, None, None, ()),
        ("", None, None, None, ()),
    ],
)
def test_names(
    name: str, bpm: float | None, key: str | None, genre: str | None, tags: tuple[str, ...]
) -> None:
    facts = facts_from_name(name)
    assert (facts.bpm, facts.key, facts.genre, facts.tags) == (bpm, key, genre, tags)


def test_names_say_how_sure_they_are() -> None:
    assert facts_from_name("loop_140bpm.wav").sure("bpm") == 0.9
    assert facts_from_name("loop 140 Cm.wav").sure("bpm") == 0.8
    assert facts_from_name("loop_140.wav").sure("bpm") == 0.6
    assert facts_from_name("Moonlight Am.wav").sure("key") == 0.6


@pytest.mark.parametrize(
    ("given", "key"),
    [
        *(("C#m", "C# minor"), ("Db minor", "Db minor"), ("c sharp min", "C# minor")),
        *(("F", "F major"), ("Bb", "Bb major"), ("CM", "C major"), ("G:min", "G minor")),
        *(
            ("E♭ Minor", "Eb minor"),
            ("Cb", "B major"),
            ("B#m", "C minor"),
            ("A-flat major", "Ab major"),
        ),
        *(("8A", "A minor"), ("8B", "C major"), ("5A", "C minor"), ("1m", "A minor")),
        *(("升C小調", "C# minor"), ("C和声小调", "C minor"), ("♯C小调", "C# minor")),
        *(("升C小调", "C# minor"), ("降B大调", "Bb major"), ("a小调", "A minor"), ("高调", None)),
        *(("12d", "F major"), ("o", None), ("None", None), ("C, G", None), (3, None), ("", None)),
    ],
)
def test_keys(given: object, key: str | None) -> None:
    assert normalise_key(given) == key


def test_tempi() -> None:
    assert [normalise_bpm(v) for v in (140, "140", " 92.5 BPM", "92,5")] == [140, 140, 92.5, 92.5]
    assert [normalise_bpm(v) for v in ("129拍", "每分钟129拍", "速度129", "129 BPM")] == [129] * 4
    for value in (0, "0", 1e9, "16拍", float("nan"), True, "fast", None, [140]):
        assert normalise_bpm(value) is None


def test_the_surest_value_wins_and_among_equals_the_first() -> None:
    first = Facts(bpm=140, key="C minor", confidence={"bpm": 0.6}, sources={"bpm": "a", "key": "a"})
    second = Facts(
        text="x", texts=("x",), bpm=70, key="D minor", tags=("dark",), sources={"bpm": "b"}
    )
    merged = merge_facts([first, second, Facts(text="y", texts=("y", "x"), tags=("sad", "dark"))])
    assert (merged.bpm, merged.sources["bpm"], merged.sure("bpm")) == (70, "b", 1.0)
    assert (merged.key, merged.sources["key"]) == ("C minor", "a")
    assert (merged.text, merged.texts, merged.tags) == ("x", ("x", "y"), ("dark", "sad"))


RECORD = {"text": "a dark beat", "bpm": "140", "key": "Cm", "tags": ["dark", "Piano"]}


def write_list(folder: Path) -> None:
    (folder / "metadata.json").write_text(json.dumps([{"audio": "x.wav", **RECORD}]))


def write_object(folder: Path) -> None:
    (folder / "metadata.json").write_text(json.dumps({"x.wav": RECORD}))


def write_jsonl(folder: Path) -> None:
    (folder / "metadata.jsonl").write_text("\n" + json.dumps({"file_name": "x.wav", **RECORD}))


def write_csv(folder: Path) -> None:
    text = '\ufefffile_name,Caption,bpm,key,tags\r\nx.wav,a dark beat,140,Cm,"dark, piano"\r\n'
    (folder / "metadata.csv").write_text(text, encoding="utf-8", newline="")


def write_semicolons(folder: Path) -> None:
    text = 'file_name;text;bpm;key;tags\nx.wav;"a dark\nbeat";140;Cm;dark, piano\n'
    (folder / "captions.csv").write_text(text, encoding="utf-16")


def write_parquet(folder: Path) -> None:
    pq.write_table(
        pa.Table.from_pylist([{"file_name": "x.wav", **RECORD}]), folder / "metadata.parquet"
    )


def write_manifest(folder: Path) -> None:
    row = {"path": "/elsewhere/egs/x.wav", "duration": 0.1, "sample_rate": 8000, "amplitude": None}
    with gzip.open(folder / "data.jsonl.gz", "wt") as file:
        file.write(json.dumps(row) + "\n")
    beside = {"description": "a dark beat", "bpm": 140.0, "key": "Cm", "moods": ["dark"]}
    beside |= {"instrument": "Piano", "title": "", "artist": None, "keywords": ""}
    (folder / "x.json").write_text(json.dumps(beside))


def write_beside(folder: Path) -> None:
    (folder / "x.txt").write_text("a dark\n beat\n")
    (folder / "x.wav.json").write_text(json.dumps({**RECORD, "text": None}))


@pytest.mark.parametrize(
    "write",
    [
        write_list,
        write_object,
        write_jsonl,
        write_csv,
        write_semicolons,
        write_parquet,
        write_manifest,
        write_beside,
    ],
)
def test_every_format_says_the_same(folder: Path, write: Callable[[Path], None]) -> None:
    write(folder)
    found = read_captions(folder)
    assert list(found) == ["x.wav"]
    facts = found["x.wav"]
    assert (facts.text, facts.texts) == ("a dark beat", ("a dark beat",))
    assert (facts.bpm, facts.key, facts.tags) == (140, "C minor", ("dark", "piano"))


def test_odd_fields_are_left_out(folder: Path) -> None:
    odd = {"file_name": "x.wav", "Tags": [808, "dark", {"a": 1}], "mood": {"valence": 1}}
    odd |= {"genre": float("nan"), "key": "s3://", "bpm": "fast", "title": 1999, "text": None}
    (folder / "metadata.jsonl").write_text(json.dumps(odd))
    facts = read_captions(folder)["x.wav"]
    assert (facts.tags, facts.title) == (("808", "dark"), "1999")
    assert (facts.text, facts.genre, facts.key, facts.bpm) == (None, None, None, None)


def test_no_caption_is_lost_and_the_nearest_metadata_leads(folder: Path) -> None:
    audio(folder / "sub" / "y.wav")
    (folder / "metadata.json").write_text('{"sub/y.wav": ["far", "near"]}')
    (folder / "sub" / "metadata.csv").write_text("file_name,text\ny.wav,near\n")
    (folder / "sub" / "y.txt").write_text("beside")
    facts = read_captions(folder)["sub/y.wav"]
    assert facts.text == "near"
    assert facts.texts == ("near", "far", "beside")
    assert facts.sources["text"] == f"{folder / 'sub' / 'metadata.csv'}, line 2"


def test_folders_and_names_give_what_nothing_else_does(folder: Path) -> None:
    audio(folder / "Drill Pack 142bpm" / "Sad" / "loop_Gm.wav")
    facts = read_captions(folder)["Drill Pack 142bpm/Sad/loop_Gm.wav"]
    assert (facts.bpm, facts.key, facts.genre, facts.tags) == (142, "G minor", "drill", ("sad",))
    assert facts.sources["bpm"] == "folder 'Drill Pack 142bpm'"
    assert facts.text is None


@pytest.mark.parametrize(
    "given", ["x.wav", "train/x.wav", "old\\place\\x.wav", "/old/x.wav", "C:\\x.wav"]
)
def test_files_that_moved_are_found_by_name(tmp_path: Path, given: str) -> None:
    audio(tmp_path / "train" / "x.wav")
    (tmp_path / "metadata.json").write_text(json.dumps([{"audio": given, "text": "words"}]))
    assert read_captions(tmp_path)["train/x.wav"].text == "words"


def test_two_files_of_one_name_are_not_mixed_up(tmp_path: Path) -> None:
    for name in ("a/x.wav", "b/x.wav"):
        audio(tmp_path / name)
    (tmp_path / "metadata.json").write_text('{"x.wav": "whose?", "old/b/x.wav": "of b"}')
    found = read_captions(tmp_path)
    assert {name: facts.text for name, facts in found.items()} == {
        "a/x.wav": None,
        "b/x.wav": "of b",
    }


@pytest.mark.parametrize(
    "given", ["../outside.wav", "/etc/passwd", "a/../../outside.wav", "link.wav", "x\0.wav"]
)
def test_paths_stay_inside(folder: Path, given: str) -> None:
    (folder / "link.wav").symlink_to(folder.parent / "outside.wav")
    (folder / "metadata.jsonl").write_text(json.dumps({"path": given, "text": "words"}))
    with pytest.raises(UserError, match=r"metadata\.jsonl, line 1"):
        read_captions(folder)


def test_metadata_that_is_a_link_to_outside_is_not_read(folder: Path) -> None:
    (folder.parent / "secret.json").write_text('{"x.wav": "secret"}')
    for name in ("metadata.json", "x.json", "x.txt"):
        (folder / name).symlink_to(folder.parent / "secret.json")
    assert read_captions(folder)["x.wav"].text is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.json", b'[\n{"audio": 1\n"text"}]', "metadata.json, line 3: not valid JSON"),
        ("metadata.json", b"[1]", "metadata.json, entry 1: must be an object"),
        ("metadata.json", b'{"x.wav": 5}', "metadata.json, entry 'x.wav': must be"),
        ("metadata.json", b'[{"text": "words"}]', "metadata.json, entry 1: names no file"),
        ("metadata.json", b'[{"audio": "x.wav", "text": 5}]', "entry 1: 'text' must be text"),
        ("metadata.json", b"[" * 100_000, "metadata.json, line 1: not usable JSON"),
        ("metadata.json", b"5", "metadata.json: must be a list"),
        ("metadata.jsonl", b'{"path": "x.wav"}\n\n{"path"', "metadata.jsonl, line 3: not valid"),
        ("metadata.jsonl", b"{}\n[]", "metadata.jsonl, line 1: names no file"),
        ("metadata.jsonl", b'{"path": "x.wav"}\n\0\xff', "metadata.jsonl, line 2: not UTF-8"),
        ("metadata.csv", b"file_name,text\nx.wav,a,b\n", "metadata.csv, line 2: more columns"),
        ("metadata.csv", b'file_name,text\nx.wav,a\nx.wav,"b', "metadata.csv, line 3: not valid"),
        ("metadata.csv", b"file_name,text\nx.wav,\xe9\x81 \n", "metadata.csv, line 2: not UTF-8"),
        ("metadata.csv", b"text\nwords\n", "metadata.csv, line 2: names no file"),
        ("metadata.parquet", b"PAR1 nothing PAR1", "metadata.parquet: not readable as parquet"),
        ("data.jsonl.gz", b"\x1f\x8b nothing", "data.jsonl.gz: cannot be read"),
        ("x.json", b"[]", "x.json: must be an object"),
        ("x.txt", b"ok\n\xff\0", "x.txt, line 2: not UTF-8"),
        ("x.txt", b"a" * 11_000, "has 11000 characters"),
    ],
)
def test_broken_metadata_is_named_with_its_line(
    folder: Path, name: str, content: bytes, message: str
) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        read_captions(folder)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_sizes_are_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "x.txt").write_bytes(b" " * (tables.MAX_TEXT_BYTES + 1))
    with pytest.raises(UserError, match="too large"):
        read_captions(folder)
    (folder / "x.txt").unlink()
    monkeypatch.setattr(tables, "MAX_FILE_BYTES", 1 << 16)
    (folder / "data.jsonl.gz").write_bytes(gzip.compress(b'{"path": "x.wav"}\n' * 100_000))
    assert (folder / "data.jsonl.gz").stat().st_size < 10_000
    with pytest.raises(UserError, match=r"data\.jsonl\.gz, line \d+: too long"):
        read_captions(folder)


def test_empty_metadata_and_folders(tmp_path: Path) -> None:
    assert read_captions(tmp_path) == {}
    for name in ("metadata.csv", "metadata.jsonl"):
        (tmp_path / name).write_text("")
    assert read_captions(tmp_path) == {}


def id3(frames: dict[str, str]) -> bytes:
    """An ID3v2.3 tag; sizes of the whole are in 7-bit bytes."""
    body = b"".join(
        name.encode() + struct.pack(">IH", len(text) + 1, 0) + b"\0" + text.encode()
        for name, text in frames.items()
    )
    size = bytes((len(body) >> shift) & 127 for shift in (21, 14, 7, 0))
    return b"ID3\x03\0\0" + size + body


def test_id3_tags(tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    sf.write(path, np.zeros(8000), 16000, format="MP3")
    frames = {"TIT2": "Night Ride", "TPE1": "MC", "TBPM": "142", "TKEY": "F#m", "TCON": "Hip-Hop"}
    path.write_bytes(id3(frames) + path.read_bytes())
    facts = facts_from_tags(path)
    assert (facts.title, facts.artist, facts.bpm) == ("Night Ride", "MC", 142)
    assert (facts.key, facts.genre, facts.text) == ("F# minor", "hip hop", None)
    assert facts.sources["bpm"] == "tags"


@pytest.mark.parametrize("suffix", [".flac", ".ogg", ".wav", ".mp3"])
def test_tags_that_soundfile_writes(tmp_path: Path, suffix: str) -> None:
    # By content: the name is wrong.
    path = tmp_path / "song.aiff"
    with sf.SoundFile(path, "w", 16000, 1, format=suffix[1:].upper()) as file:
        file.title, file.artist, file.genre = "Night Ride", "MC", "Blues"
        file.write(np.zeros(8000))
    facts = facts_from_tags(path)
    assert (facts.title, facts.artist, facts.genre) == ("Night Ride", "MC", "blues")
    assert facts.sure("genre") < 0.7


def test_broken_tags_say_nothing(tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    contents = [b"", b"RIFF\xff\xff\xff\xffWAVELIST\xff\xff\xff\xff", b"fLaC" + b"\xff" * 50]
    contents.append(b"ID3\x03\0\0\x7f\x7f\x7f\x7f" + b"\0" * (17 << 20))
    for content in contents:
        path.write_bytes(content)
        assert facts_from_tags(path) == Facts()


def test_torn_tags_say_no_more_than_the_whole_ones(tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    whole = id3({"TIT2": "Night Ride", "TBPM": "142"})
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        facts = facts_from_tags(path)
        assert "Night Ride".startswith(facts.title or "")
        assert facts.bpm in (None, 142.0)


def extracted(folder: Path, out: Path) -> list[tuple[Path, dict[str, Any]]]:
    """What all parquet files of a folder hold."""
    paths = find_parquet(folder, without=out)
    return [found for path in paths for found in extract_parquet_audio(path, folder, out)]


def test_parquet_audio_is_written_to_files_of_its_own(tmp_path: Path) -> None:
    sound = audio(tmp_path / "x.wav").read_bytes()
    dataset = tmp_path / "dataset"
    (dataset / "data").mkdir(parents=True)
    names = ["../../evil.flac", None, "y.exe"]
    rows = [
        {"audio": {"bytes": sound, "path": name}, "caption": f"clip {number}", "bpm": 140}
        for number, name in enumerate(names)
    ]
    rows.append({"audio": {"bytes": None, "path": "gone.wav"}, "caption": "none", "bpm": 1})
    pq.write_table(pa.Table.from_pylist(rows), dataset / "data" / "train-0.parquet")
    pq.write_table(pa.table({"text": ["no audio"]}), dataset / "words.parquet")
    found = extracted(dataset, tmp_path / "out")
    written = [path.relative_to(tmp_path).as_posix() for path, _ in found]
    assert written == [
        f"out/data/train-0/{name}" for name in ("000001.flac", "000002.wav", "000003.wav")
    ]
    assert all(path.read_bytes() == sound for path, _ in found)
    assert [record for _, record in found] == [
        {"caption": f"clip {number}", "bpm": 140} for number in range(3)
    ]
    times = [path.stat().st_mtime_ns for path, _ in found]
    again = extracted(dataset, tmp_path / "out")
    assert [path.stat().st_mtime_ns for path, _ in again] == times


def test_parquet_audio_is_bounded(tmp_path: Path) -> None:
    rows = [bytes(2000), bytes(parquet.MAX_AUDIO_BYTES + 1)]
    pq.write_table(pa.table({"audio": rows}), tmp_path / "x.parquet", compression="zstd")
    found = extract_parquet_audio(tmp_path / "x.parquet", tmp_path, tmp_path / "out")
    assert next(found)[0].read_bytes() == rows[0]
    with pytest.raises(UserError, match=r"x\.parquet, row 2: 256 MiB is too much for a clip"):
        next(found)
