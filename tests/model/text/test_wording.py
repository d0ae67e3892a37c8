"""Chinese music words in English."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from musicgen_lora.model.text.reading import describe_readings, t5_reader
from musicgen_lora.model.text.wording import HAN, WORDS_FILE, english_of

PROMPTS = Path(__file__).with_name("chinese_prompts.txt").read_text(encoding="utf-8").splitlines()

FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}


def listed() -> tuple[list[tuple[str, str]], dict[str, str]]:
    """Words with their English, and traditional characters with the simplified ones."""
    words, _, characters = WORDS_FILE.read_text(encoding="utf-8").partition("[traditional]")
    lines = [line for line in words.splitlines() if "=" in line and line[0] != "#"]
    halves = [line.split("=") for line in lines]
    pairs = [(word, english.strip()) for chinese, english in halves for word in chinese.split()]
    return pairs, dict(pair.split("=") for pair in characters.split())


@pytest.mark.parametrize("line", PROMPTS)
def test_what_beatmakers_say(line: str) -> None:
    chinese, english = line.split(" = ")
    assert english_of(chinese) == english


@pytest.mark.parametrize("text", ["", "trap  beat , 140 bpm", "ダーク", "темный", "😀", "café"])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert english_of(text) == text


def test_unknown_characters_stay_and_make_no_word_of_their_neighbours() -> None:
    # 鼓 is drums and 无 is no, but 鼓励 is to encourage and 无限 is unlimited.
    assert english_of("鼓励") == "鼓励"
    assert english_of("无限循环的鼓") == "无限 loop drums"
    assert english_of("无鼓") == "no drums"


@pytest.mark.parametrize(
    ("chinese", "english"),
    [
        # The longest word first would leave a character over: 嘻哈鼓 点, 大鼓 点.
        ("嘻哈鼓点", "hip hop drum pattern"),
        ("陷阱鼓点 149 BPM", "trap drum pattern 149 BPM"),
        ("大鼓点", "big drum pattern"),
        ("大鼓", "kick"),
        ("南方808，八分踩镲", "southern 808, eighth-note hi-hats"),
    ],
)
def test_words_are_chosen_so_that_fewest_characters_stay_unknown(
    chinese: str, english: str
) -> None:
    assert english_of(chinese) == english


@pytest.mark.parametrize(
    ("chinese", "english"),
    [
        ("老派，808拍手", "old school hip hop, 808 claps"),
        ("909 拍手声 90拍", "909 claps 90 bpm"),
        ("140拍打击乐", "140 bpm percussion"),
        ("140拍手鼓", "140 bpm hand drum"),
        ("120拍子", "120 bpm"),
        *((said, "129 bpm") for said in ("每分129拍", "一分钟129拍", "129拍/分钟", "129拍每分鐘")),
        *((said, "129 bpm") for said in ("速度为129", "曲速129拍", "速度：129 BPM")),
        ("速度90.5", "90.5 bpm"),
        *((said, "129 bpm") for said in ("129节拍", "节奏129", "节拍：129", "节奏129拍")),
        *(
            (said, "129 bpm")
            for said in ("一百二十九拍", "一二九拍", "速度一百二十九", "129节拍每分钟")
        ),
        *((said, "85 bpm") for said in ("八十五拍", "每分钟八十五拍", "节奏是八十五")),
        *((said, "140 bpm") for said in ("一百四拍", "一百四十拍", "节拍一百四BPM")),
        ("BPM：八十五", "BPM: 85"),
        ("一百零四拍", "104 bpm"),
        ("两百拍", "200 bpm"),
        ("四四拍", "4/4 time"),
        ("四拍底鼓", "four-on-the-floor kick"),
        ("八十五拍手鼓", "85 bpm hand drum"),
        ("节奏布鲁斯", "R&B"),
        ("80节奏布鲁斯", "80 R&B"),
        ("808节拍", "808 beat"),
        ("节奏808低音", "rhythm 808 bass"),
        ("节奏90年代", "rhythm 90年代"),
        *((said, "C# minor") for said in ("C升小调", "♯C小调", "升c小调", "升C和声小调")),
        *((said, "Bb major") for said in ("B降大调", "bB大调", "降b大调")),
        ("c小调", "C minor"),
        # "A minor trap" may be English, what this says is not.
        ("A小调陷阱", "in A minor trap"),
        ("92.5拍", "92.5 bpm"),
        ("16拍循环", "16 beats loop"),
        ("3/4拍", "3/4 time"),
    ],
)
def test_what_is_counted_in_beats_is_a_tempo_only_where_it_can_be_one(
    chinese: str, english: str
) -> None:
    assert english_of(chinese) == english


@pytest.mark.parametrize(
    ("text", "english"),
    [
        ("BPM：140", "BPM: 140"),
        ("dark\u3000trap，140".translate(FULL_WIDTH) + " bpm", "dark trap, 140 bpm"),
        ("dark trap、140 bpm。", "dark trap, 140 bpm."),
        ("【trap】C♯ minor, B♭ bass", "(trap)C# minor, Bb bass"),
    ],
)
def test_signs_that_the_text_encoder_does_not_know_are_written_as_english_does(
    text: str, english: str
) -> None:
    assert english_of(text) == english
    assert t5_reader().read(text).unknown == ()
    assert describe_readings([text], t5_reader, "prompt") == []


def test_what_is_said_in_two_words_and_in_one_is_said_once() -> None:
    assert english_of("滑音808贝斯，钢琴") == "gliding 808 bass, piano"
    assert english_of("电子舞曲音乐") == "dance music"
    assert english_of("贝斯 bass") == "bass bass"


def test_the_list_is_sound() -> None:
    words, simplified = listed()
    assert len(words) >= 250
    twice = [word for word, count in Counter(word for word, _ in words).items() if count > 1]
    assert twice == []
    for word, english in words:
        assert all(HAN.match(character) or character.isdigit() for character in word), word
        assert english.isascii(), word
        assert not set(word) & set(simplified), f"{word} is not simplified, and never found"
        assert english_of(word) == english
    assert all(old != new for old, new in simplified.items())


def test_the_text_encoder_knows_all_of_its_english() -> None:
    assert [english for _, english in listed()[0] if t5_reader().read(english).unknown] == []


def test_a_long_text_takes_no_long_time_and_no_deep_stack() -> None:
    assert english_of("的" * 100_000) == ""
    assert english_of("鼓" * 20_000 + "励").endswith("鼓励")
