"""Captions reach the files that they belong to, and what is not used is reported by name."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf

from musicgen_lora.errors import UserError
from musicgen_lora.prepare.reading import remarks as kinds
from musicgen_lora.prepare.reading.fields import facts_from_record
from musicgen_lora.prepare.reading.readers import StatedFacts
from musicgen_lora.prepare.reading.remarks import Remarks
from musicgen_lora.prepare.words.facts import Facts


def put(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, np.zeros(800), 8000, format="WAV")


def read(folder: Path) -> tuple[dict[str, list[Facts]], Remarks]:
    """What people wrote about each file, by its path."""
    remarks = Remarks(folder)
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".wav")
    stated = StatedFacts(folder, files, remarks)
    found = {path.relative_to(folder).as_posix(): stated.about(path) for path in files}
    stated.say_unread()
    return found, remarks


def captions(found: dict[str, list[Facts]]) -> dict[str, list[str]]:
    """The captions of each file that has any."""
    texts = {name: [t for facts in stated for t in facts.texts] for name, stated in found.items()}
    return {name: given for name, given in texts.items() if given}


def table(folder: Path, *rows: str, header: str = "file_name,text") -> None:
    (folder / "metadata.csv").write_text("\n".join([header, *rows, ""]), encoding="utf-8")


NFC, NFD = (unicodedata.normalize(form, "Café") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("file", "given"),
    [
        ("Four.WAV", "four.wav"),
        ("five.wav", " five.wav "),
        ("six.wav", "six"),
        ("Seven.wav", "SEVEN"),
        (f"{NFD}.wav", f"{NFC}.wav"),
        (f"{NFC}.wav", f"{NFD}.WAV"),
        ("deep/beat.v2.wav", "old/Beat.v2"),
        (f"Pack/{NFD}/x.wav", f"pack/{NFC}/X.wav"),
    ],
)
def test_a_row_means_the_one_file_that_is_spelled_alike(
    tmp_path: Path, file: str, given: str
) -> None:
    put(tmp_path, file, "other.wav")
    table(tmp_path, f'"{given}",words')
    found, remarks = read(tmp_path)
    assert captions(found) == {file: ["words"]}
    assert remarks.items(kinds.MATCHED) == [f"metadata.csv, line 2: {given!r} is {file}"]
    assert not remarks.items(kinds.UNMATCHED)


@pytest.mark.parametrize(
    ("files", "given"),
    [
        (("A.wav", "a.WAV"), "A.WAV"),
        (("a/x.wav", "b/x.wav"), "X"),
        (("x.wav",), "x.mp3"),
        (("x.wav",), "y.wav"),
        (("x.wav",), "wav"),
    ],
)
def test_a_row_that_may_mean_several_or_none_is_said(
    tmp_path: Path, files: tuple[str, ...], given: str
) -> None:
    put(tmp_path, *files)
    table(tmp_path, f"{given},words")
    found, remarks = read(tmp_path)
    assert captions(found) == {}
    assert remarks.items(kinds.UNMATCHED) == [f"metadata.csv, line 2: {given!r}"]


def test_a_file_that_a_row_names_exactly_is_no_other_rows(tmp_path: Path) -> None:
    put(tmp_path, "Four.wav")
    table(tmp_path, "four.wav,of a file that is gone", "Four.wav,its own")
    found, remarks = read(tmp_path)
    assert captions(found) == {"Four.wav": ["its own"]}
    assert remarks.items(kinds.UNMATCHED) == ["metadata.csv, line 2: 'four.wav'"]


def test_every_unmatched_row_is_in_the_report_and_the_first_in_the_terminal(
    tmp_path: Path,
) -> None:
    put(tmp_path, "x.wav")
    table(tmp_path, *(f"gone{index}.wav,words" for index in range(7)))
    _, remarks = read(tmp_path)
    (remark,) = remarks.as_json()
    assert len(remark["items"]) == 7
    line = kinds.in_one_line(remark)
    assert line.startswith("7 rows of the metadata name no audio file here: metadata.csv, line 2")
    assert "and 4 more, in the report" in line
    assert "gone6" not in line


@pytest.mark.parametrize(
    ("beside", "file"),
    [
        *(("A.TXT", "A.WAV"), ("a.txt", "A.wav"), ("d.caption", "d.wav"), ("d.Caption", "D.wav")),
        *(("f.caption.txt", "f.wav"), ("f.wav.caption", "f.wav"), (f"{NFC}.txt", f"{NFD}.wav")),
        ("deep/x.v2.txt", "deep/x.v2.wav"),
    ],
)
def test_captions_beside_the_audio(tmp_path: Path, beside: str, file: str) -> None:
    put(tmp_path, file)
    (tmp_path / beside).write_text("words")
    found, remarks = read(tmp_path)
    assert captions(found) == {file: ["words"]}
    assert remarks.as_json() == []


def test_files_that_differ_by_case_alone_keep_their_own_captions(tmp_path: Path) -> None:
    put(tmp_path, "a.wav", "A.wav")
    (tmp_path / "a.txt").write_text("small")
    assert captions(read(tmp_path)[0]) == {"a.wav": ["small"]}


def test_lyrics_beside_a_caption_and_notes_are_named_and_not_read(tmp_path: Path) -> None:
    put(tmp_path, "f.wav")
    (tmp_path / "f.caption.txt").write_text("words")
    for name in ("f.txt", "f.lyrics.txt", "list.csv", "list.xlsx", "gone.txt"):
        (tmp_path / name).write_text("la la la")
    (tmp_path / ".hidden.txt").write_text("")
    (tmp_path / ".old").mkdir()
    (tmp_path / ".old" / "metadata.csv").write_text("file_name,text\nf.wav,old words\n")
    found, remarks = read(tmp_path)
    assert captions(found) == {"f.wav": ["words"]}
    assert remarks.items(kinds.NOT_READ) == sorted(
        ["f.txt", "f.lyrics.txt", "list.csv", "list.xlsx", "gone.txt"]
    )


def test_a_dataset_of_acesteps_under_any_name(tmp_path: Path) -> None:
    put(tmp_path, "song1.wav", "deep/song2.wav")
    samples = [
        {"audio_path": f"./datasets/{name}", "filename": Path(name).name, "caption": caption}
        | {"bpm": bpm, "keyscale": "D major", "lyrics": "[Instrumental]", "genre": "trap"}
        for name, caption, bpm in (("song1.wav", "first", 140), ("song2.wav", "second", None))
    ]
    content = {"metadata": {"name": "mine", "custom_tag": "xyz"}, "samples": samples}
    (tmp_path / "my_dataset.json").write_text(json.dumps(content))
    (tmp_path / "other.json").write_text('{"samples": [1]}')
    (tmp_path / "broken.json").write_text("{")
    found, remarks = read(tmp_path)
    assert captions(found) == {"song1.wav": ["first"], "deep/song2.wav": ["second"]}
    (facts,) = found["song1.wav"]
    assert (facts.bpm, facts.key, facts.genre) == (140, "D major", "trap")
    assert facts.other == {"lyrics": "[Instrumental]"}
    assert remarks.items(kinds.UNUSED) == ["my_dataset.json: lyrics"]
    assert remarks.items(kinds.NOT_READ) == ["broken.json", "other.json"]


@pytest.mark.parametrize(
    ("caption", "bpm", "key"),
    [
        ("dark trap, 129 bpm, C# minor", 129, "C# minor"),
        ("暗黑陷阱，129拍，升C小调", 129, "C# minor"),
        ("每分钟129拍的陷阱，F大调", 129, "F major"),
        ("129bpm节拍，速度快", 129, None),
        ("trap between 120 bpm and 140 bpm, I Am The One", None, None),
    ],
)
def test_a_tempo_and_key_that_only_a_caption_states_count(
    tmp_path: Path, caption: str, bpm: float | None, key: str | None
) -> None:
    """What is heard would contradict the caption in the metadata otherwise."""
    put(tmp_path, "a.wav", "b.wav")
    (tmp_path / "a.txt").write_text(caption, encoding="utf-8")
    (tmp_path / "b.json").write_text(json.dumps({"caption": caption, "bpm": 90, "key": "Am"}))
    found, _ = read(tmp_path)
    assert (found["a.wav"][0].bpm, found["a.wav"][0].key) == (bpm, key)
    assert (found["b.wav"][0].bpm, found["b.wav"][0].key) == (90, "A minor")


@pytest.mark.parametrize("encoding", ["utf-8", "gbk"])
def test_a_table_of_chinese_windows(tmp_path: Path, encoding: str) -> None:
    put(tmp_path, "鼓点一.wav")
    text = "文件名,描述,标题,速度,调,备注\n鼓点一.wav,暗黑的陷阱节拍,夜行,140,Cm,还没混音\n"
    (tmp_path / "metadata.csv").write_bytes(text.encode(encoding))
    found, remarks = read(tmp_path)
    (facts,) = found["鼓点一.wav"]
    assert (facts.text, facts.title) == ("暗黑的陷阱节拍", "夜行")
    assert (facts.bpm, facts.key) == (140, "C minor")
    assert facts.other == {"标题": "夜行", "备注": "还没混音"}
    assert remarks.items(kinds.UNUSED) == ["metadata.csv: 标题, 备注"]
    guessed = ["metadata.csv: read as GB18030"] if encoding == "gbk" else []
    assert remarks.items(kinds.ENCODING) == guessed


def test_text_files_of_other_encodings_are_read_and_named(tmp_path: Path) -> None:
    put(tmp_path, "a.wav", "b.wav", "c.wav")
    (tmp_path / "a.txt").write_bytes("Café noir".encode("latin-1"))
    (tmp_path / "b.txt").write_bytes("重低音节拍".encode("gb18030"))
    (tmp_path / "c.txt").write_text("été", encoding="utf-8")
    found, remarks = read(tmp_path)
    assert captions(found) == {"a.wav": ["Café noir"], "b.wav": ["重低音节拍"], "c.wav": ["été"]}
    assert remarks.items(kinds.ENCODING) == [
        "a.txt: read as Windows-1252",
        "b.txt: read as GB18030",
    ]


@pytest.mark.parametrize(
    "column",
    ["caption", "transcription", "prompt", "description", "text", "Text", "sentence", "描述"],
)
def test_columns_that_hold_captions(tmp_path: Path, column: str) -> None:
    put(tmp_path, "x.wav")
    table(tmp_path, "x.wav,words", header=f"File Name,{column}")
    found, remarks = read(tmp_path)
    assert captions(found) == {"x.wav": ["words"]}
    assert remarks.as_json() == []


def test_a_table_without_captions_is_named_with_its_columns(tmp_path: Path) -> None:
    put(tmp_path, "x.wav")
    table(tmp_path, "x.wav,words,1,44100", header="file_name,legend,rating,sample_rate")
    found, remarks = read(tmp_path)
    assert captions(found) == {}
    assert found["x.wav"][0].other == {"legend": "words", "rating": "1"}
    assert remarks.items(kinds.NO_CAPTIONS) == [
        "metadata.csv: its columns are file_name, legend, rating, sample_rate"
    ]
    assert remarks.items(kinds.UNUSED) == ["metadata.csv: legend, rating"]
    assert remarks.items(kinds.MEASURED) == ["metadata.csv: sample_rate"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("metadata.json", '{"x.wav": "a", "x.wav": "b"}', "the key 'x.wav' occurs twice"),
        ("metadata.json", '[{"audio": "x.wav", "text": "a", "text": "b"}]', "'text' occurs twice"),
        ("metadata.jsonl", '\n{"path": "x.wav", "path": "y"}', "metadata.jsonl, line 2"),
        ("x.json", '{"a": {"b": 1, "b": 2}}', "'b' occurs twice"),
        ("metadata.csv", "file_name,text,Text\nx.wav,a,b\n", "metadata.csv, line 1: the column"),
        ("metadata.csv", "wave,text\nx.wav,a\n", "(it has: 'wave', 'text')"),
        (
            "metadata.csv",
            "file_name,split\nx.wav,tset\n",
            "metadata.csv, line 2: \"split\" is 'tset'",
        ),
        ("metadata.csv", "file_name,start_s\nx.wav,soon\n", "'start_s' must be a number"),
        ("metadata.csv", "file_name,start_s\nx.wav,-1\n", "'start_s' must be a number"),
        ("metadata.csv", "file_name,start_s,end_s\nx.wav,9,3\n", "before it starts"),
    ],
)
def test_what_contradicts_itself_is_refused(
    tmp_path: Path, name: str, content: str, said: str
) -> None:
    put(tmp_path, "x.wav")
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as error:
        read(tmp_path)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("nothing", ["N/A", "none", "-", "null", "NaN", " n/a ", "None", "无"])
def test_what_says_nothing_is_no_caption(tmp_path: Path, nothing: str) -> None:
    put(tmp_path, "x.wav", "y.wav")
    table(tmp_path, f"x.wav,{nothing},{nothing}", "y.wav,none of it,", header="file_name,text,tags")
    found, remarks = read(tmp_path)
    assert captions(found) == {"y.wav": ["none of it"]}
    assert found["x.wav"][0].tags == ()
    tidy = nothing.strip()
    assert remarks.items(kinds.SAYS_NOTHING) == [
        f"metadata.csv, line 2: text {tidy!r}",
        f"metadata.csv, line 2: tags {tidy!r}",
    ]


def test_tempi_and_keys_that_nobody_understands_are_said(tmp_path: Path) -> None:
    put(tmp_path, "x.wav", "y.wav")
    rows = ["x.wav,fast,H minor", "y.wav,0,N/A"]
    table(tmp_path, *rows, header="file_name,bpm,key")
    _, remarks = read(tmp_path)
    assert remarks.items(kinds.NOT_UNDERSTOOD) == [
        "metadata.csv, line 2: bpm 'fast'",
        "metadata.csv, line 2: key 'H minor'",
    ]


@pytest.mark.parametrize(
    ("record", "part"),
    [
        ({"start_s": 0, "duration_s": 30}, (0.0, 30.0)),
        ({"start_s": "30", "duration": "30"}, (30.0, 60.0)),
        ({"start_s": 30}, (30.0, None)),
        ({"start_s": 30, "end_s": 40}, (30.0, 40.0)),
        ({"start": 1.5, "end": 2}, (1.5, 2.0)),
        ({"start": "2024-01-01"}, None),
        ({"start_s": 0}, None),
        ({"duration_s": 30}, None),
        ({"start_s": None, "duration_s": 30}, None),
    ],
)
def test_parts(record: dict[str, Any], part: tuple[float, float | None] | None) -> None:
    facts = facts_from_record({"text": "words", **record}, "here", Remarks(Path()))
    assert facts.part == part
    assert facts.other == ({"start": "2024-01-01"} if record.get("start") == "2024-01-01" else {})


def test_fields_that_mean_nothing_here_are_kept_as_they_are(tmp_path: Path) -> None:
    put(tmp_path, "x.wav")
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    record = {"lyrics": "la", "rating": 4.5, "who": {"name": ["a", None]}, "loudness_lufs": -9}
    odd = {"long": "x" * 20_000, "deep": deep, "inf": float("inf"), "half": "\ud800"}
    remarks = Remarks(tmp_path)
    facts = facts_from_record({**record, **odd, "empty": "", "": "x"}, "here", remarks)
    del record["loudness_lufs"]
    assert facts.other == record
    assert remarks.items(kinds.NOT_KEPT) == [f"here: {name!r}" for name in odd]


def test_parquet_rows_may_hold_dates(tmp_path: Path) -> None:
    put(tmp_path, "x.wav")
    day = pa.array([1], pa.date32())
    pq.write_table(
        pa.table({"file_name": ["x.wav"], "text": ["words"], "day": day}),
        tmp_path / "metadata.parquet",
    )
    found, _ = read(tmp_path)
    assert found["x.wav"][0].other == {"day": "1970-01-02"}
