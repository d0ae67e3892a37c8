"""Text that was not saved as UTF-8 is read if its encoding can be recognised."""

from __future__ import annotations

import pytest

from musicgen_lora.formats.encodings import decode_text

CHINESE = (
    "暗黑的陷阱节拍、有钢琴和808低音。",
    "文件名,描述,速度,调\nbeat.wav,重低音,140,C小调\n",
    "hip hop 节拍",
    "暗黑",
    "悲伤的钢琴循环",
)
WESTERN = (
    "Café con leche, été à la plage",
    "ein schöner, fröhlicher Beat für Jörg",
    "señor, corazón, año",
    "naïve “smart quotes” — dash…",
    "Prélude",
    "déjà vu",
)


@pytest.mark.parametrize("text", CHINESE)
@pytest.mark.parametrize("encoding", ["gbk", "gb18030"])
def test_chinese_windows(text: str, encoding: str) -> None:
    assert decode_text(text.encode(encoding)) == (text, "GB18030")


@pytest.mark.parametrize("text", WESTERN)
def test_western_windows(text: str) -> None:
    assert decode_text(text.encode("cp1252")) == (text, "Windows-1252")


@pytest.mark.parametrize("text", [*CHINESE, *WESTERN, "plain"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_what_is_known_is_not_guessed(text: str, encoding: str) -> None:
    assert decode_text(text.encode(encoding)) == (text, None)


@pytest.mark.parametrize("data", [b"\xff\0\1", b"RIFF\xff\xff\xff\x07", b"\xe9\x81 ", b"a\0b"])
def test_what_is_no_text_is_refused(data: bytes) -> None:
    with pytest.raises(UnicodeDecodeError):
        decode_text(data)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("trap beat", "utf-16-le"),
        ("trap beat", "utf-32"),
        ("暗黑陷阱鼓點，明亮的鋼琴旋律", "big5"),
        ("тёмный трэп бит", "cp1251"),
        ("σκοτεινό μπιτ", "cp1253"),
        ("어두운 트랩 비트", "euc-kr"),
        ("808 베이스가 있는 느린 힙합 비트, 피아노", "cp949"),
        ("슬픈 피아노 루프", "euc-kr"),
        ("ダークなトラップビート", "euc-jp"),
        ("重い低音のビート", "euc-jp"),
    ],
)
def test_what_would_be_read_as_other_letters_is_refused(text: str, encoding: str) -> None:
    with pytest.raises(UnicodeDecodeError):
        decode_text(text.encode(encoding))
