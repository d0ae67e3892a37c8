"""New music within a recording, with known takes: what stays, the seams, and the levels."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from musicgen_lora.audio.writing import CEILING, sound_bytes
from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.config import GenerateSettings
from musicgen_lora.errors import UserError
from musicgen_lora.generation.clips.takes import JudgedTake
from musicgen_lora.generation.clips.written import read_facts
from musicgen_lora.generation.musicgen import MusicGen
from musicgen_lora.generation.recordings import recording
from musicgen_lora.generation.recordings.bar_grid import find_grid
from musicgen_lora.generation.recordings.extension import Extension, quieter_sentence
from musicgen_lora.generation.recordings.recording import (
    Recording,
    asked_of,
    silence_sentence,
    tempo_sentence,
)
from musicgen_lora.model.delays import Delays
from musicgen_lora.model.shape import Shape

RATE = 32_000
SHAPE = Shape(4, 1, Delays.of(4, 1), 64, RATE, 50.0)
PATTERN = make_beat(24, duration_s=14.0)
BAR_S = 240.0 / PATTERN.bpm
LOOP = render_beat(PATTERN, RATE, seed=0)[:, : round(8 * BAR_S * RATE)]
OTHER = render_beat(make_beat(7, duration_s=14.0), RATE, seed=7)[:, : LOOP.shape[1]]


def regenerated(extension: Extension, source: np.ndarray, gain: float = 1.0) -> Any:
    """A take that continues like the recording, or like another one."""
    n_heard = extension.n_heard(SHAPE)
    heard = extension.recording[:, extension.begin - n_heard : extension.begin]
    new = source[:, extension.begin : extension.end]
    return extension.finish(np.float32(gain) * np.concatenate([heard, new], axis=1), SHAPE)


def bars(first: int, last: int, n_frames: int = 100) -> Extension:
    begin, end = (round(bar * BAR_S * RATE) for bar in (first - 1, last))
    return Extension(LOOP, RATE, begin, end, n_frames)


def test_what_was_played_there_is_the_recording_again() -> None:
    done = regenerated(bars(3, 4), LOOP)
    np.testing.assert_allclose(done.waveform, LOOP, atol=1e-6)
    assert done.faults == []


def test_outside_of_the_bars_and_their_crossfades_no_sample_changes() -> None:
    extension = bars(3, 4)
    done = regenerated(extension, OTHER)
    assert done.waveform.shape == LOOP.shape
    begin, end = done.seams["begin"].fade, done.seams["end"].fade
    assert extension.begin - 0.06 * RATE <= begin[0] < begin[1] <= extension.begin
    assert extension.end - 0.11 * RATE <= end[0] < end[1] <= extension.end - 0.01 * RATE
    for kept in (slice(0, begin[0]), slice(end[1], None)):
        np.testing.assert_array_equal(done.waveform[:, kept], LOOP[:, kept])
    inside = slice(begin[1], end[0])
    assert np.abs(done.waveform[:, inside] - LOOP[:, inside]).max() > 0.1


@pytest.mark.parametrize(("name", "at"), [("begin", 0.0), ("end", -0.3)])
def test_a_hole_at_either_seam_is_a_fault(name: str, at: float) -> None:
    extension = bars(3, 4)
    source = LOOP.copy()
    line = {"begin": extension.begin, "end": extension.end}[name]
    start = line + round(at * RATE)
    source[:, start : start + round(0.3 * RATE)] = 0.0
    done = regenerated(extension, source)
    assert done.faults == [f"leaves a hole where it {name}s"]


@pytest.mark.parametrize("wraps", [False, True])
def test_what_is_quiet_before_a_hit_anyway_is_no_hole(wraps: bool) -> None:
    """Claps that ring out before each bar line, over a bass that is held through the first half of
    the bar: 30 dB lie between what comes before a line and what comes after."""
    at_s = np.arange(round(8 * BAR_S * RATE)) / RATE % BAR_S
    bass = 0.5 * np.sin(2.0 * np.pi * 50.0 * at_s) * (at_s < 0.6 * BAR_S)
    noise = np.random.default_rng(0).uniform(-0.01, 0.01, len(at_s))
    beat = (bass + noise * np.exp(-at_s))[None].astype(np.float32)
    begin, end = (round(bar * BAR_S * RATE) for bar in (5, 8 if wraps else 7))
    extension = Extension(beat, RATE, begin, end, 100, wraps=wraps)
    assert regenerated(extension, beat).faults == []
    source = beat.copy()
    source[:, end - round(0.3 * RATE) : end] = 0.0
    assert regenerated(extension, source).faults == ["leaves a hole where it ends"]


def test_new_music_is_brought_near_the_level_of_what_it_replaces() -> None:
    extension = bars(3, 4)
    n_rise = round(0.25 * RATE)
    place = slice(extension.begin + n_rise, extension.end - round(0.1 * RATE))

    def level_db(waveform: np.ndarray) -> float:
        return 10.0 * np.log10(np.square(waveform[:, place]).mean())

    n_heard = extension.n_heard(SHAPE)
    heard = LOOP[:, extension.begin - n_heard : extension.begin]
    quiet = 0.4 * LOOP[:, extension.begin : extension.end]
    done = extension.finish(np.concatenate([heard, quiet], axis=1), SHAPE)
    # 8 dB too quiet, of which 2 are let be.
    assert done.raised_db == pytest.approx(20.0 * np.log10(2.5) - 2.0, abs=0.1)
    assert level_db(done.waveform) == pytest.approx(level_db(LOOP) - 2.0, abs=0.1)
    assert done.quieter_db == 0.0
    assert np.abs(done.waveform).max() <= max(1.0, np.abs(LOOP).max())


def test_new_music_that_its_peaks_keep_quieter_is_told() -> None:
    extension = bars(3, 4)
    n_heard = extension.n_heard(SHAPE)
    heard = LOOP[:, extension.begin - n_heard : extension.begin]
    quiet = 0.4 * LOOP[:, extension.begin : extension.end]
    # One click at the ceiling: none of the 6 dB that are lacking can be added.
    quiet[:, RATE] = max(CEILING, np.abs(LOOP).max())
    done = extension.finish(np.concatenate([heard, quiet], axis=1), SHAPE)
    assert done.raised_db == pytest.approx(0.0, abs=0.1)
    assert done.quieter_db == pytest.approx(20.0 * np.log10(2.5), abs=0.2)
    assert done.facts()["onto"]["quieter_db"] == round(done.quieter_db, 2)
    take = JudgedTake(0, done.waveform, (), 0.0, done.facts())
    assert quieter_sentence(take.figures["onto"]).startswith(
        f"the new music is {done.quieter_db:.1f} dB quieter"
    )
    matched = JudgedTake(0, done.waveform, (), 0.0, regenerated(extension, LOOP).facts())
    assert quieter_sentence(matched.figures["onto"]) == ""


def test_a_loop_s_first_bar_goes_on_from_its_last() -> None:
    n_samples = LOOP.shape[1]
    end = round(BAR_S * RATE)
    extension = Extension(LOOP, RATE, 0, end, 50, wraps=True)
    n_heard = extension.n_heard(SHAPE)
    take = np.concatenate([LOOP[:, -n_heard:], LOOP[:, :end]], axis=1)
    done = extension.finish(take, SHAPE)
    np.testing.assert_allclose(done.waveform, LOOP, atol=1e-6)
    begin, stop = done.seams["begin"].fade, done.seams["end"].fade
    assert n_samples - 0.06 * RATE <= begin[0] <= n_samples
    assert end - 0.11 * RATE <= stop[0] < end


@pytest.mark.parametrize(("rate", "n_channels"), [(44_100, 2), (48_000, 1), (22_050, 2)])
def test_a_recording_keeps_its_rate_and_its_channels(rate: int, n_channels: int) -> None:
    rng = np.random.default_rng(0)
    waveform = 0.2 * rng.standard_normal((n_channels, 4 * rate)).astype(np.float32)
    extension = Extension(waveform, rate, 4 * rate, 6 * rate + 17, 100)
    take = 0.2 * rng.standard_normal((1, 2 * RATE + 3 * RATE)).astype(np.float32)
    done = extension.finish(take, SHAPE)
    assert done.waveform.shape == (n_channels, 6 * rate + 17)
    first = done.seams["begin"].fade[0]
    np.testing.assert_array_equal(done.waveform[:, :first], waveform[:, :first])


@pytest.mark.parametrize(("kind", "step"), [("wav", 2**15), ("wav24", 2**23), ("flac", 2**15)])
def test_what_was_read_is_written_as_it_was(kind: Any, step: int) -> None:
    rng = np.random.default_rng(1)
    steps = rng.integers(-step, step, (2, 5_000))
    waveform = (steps / step).astype(np.float32)
    content = sound_bytes(waveform, RATE, kind, ceiling_db=0.0)
    read, _ = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    np.testing.assert_array_equal(read.T, waveform)


def test_bars_are_counted_by_the_json_the_flag_or_by_ear(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    measured = find_grid(path, LOOP, RATE, {})
    assert (measured.source, measured.n_bars, measured.is_loop) == ("measured", 8, True)
    assert measured.bpm == pytest.approx(PATTERN.bpm, rel=1e-3)
    given = find_grid(path, LOOP[:, : -RATE // 2], RATE, {}, 100.0)
    assert (given.source, given.n_bars, given.first_s) == ("--bpm", 4, 0.0)
    path.with_suffix(".json").write_text(
        json.dumps({"prompt": "x", "seed": 0, "bpm": PATTERN.bpm, "bars": 8})
    )
    told = find_grid(path, LOOP, RATE, read_facts(path.with_suffix(".json")))
    assert (told.source, told.bpm, told.n_bars, told.is_loop) == ("its JSON", PATTERN.bpm, 8, True)
    assert told.span(3, 4, RATE) == (round(2 * BAR_S * RATE), round(4 * BAR_S * RATE))
    # A JSON that doesn't fit the samples, or is another program's, is not believed.
    facts = {"bpm": PATTERN.bpm, "bars": 8}
    assert find_grid(path, LOOP[:, :-1000], RATE, facts).source == "measured"
    path.with_suffix(".json").write_text('{"bpm": 90, "bars": 8}')
    foreign = read_facts(path.with_suffix(".json"))
    assert find_grid(path, LOOP, RATE, foreign).source == "measured"
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (1, 6 * RATE)).astype(np.float32)
    with pytest.raises(UserError, match="give its tempo with --bpm"):
        find_grid(path, noise, RATE, {})


def test_a_loop_whose_tempo_is_given_stays_one(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    assert find_grid(path, LOOP, RATE, {}, float(PATTERN.bpm)).is_loop
    assert find_grid(path, LOOP[:, :-1000], RATE, {}, float(PATTERN.bpm)).is_loop is False
    # Other people's loops are 1, 2, 4, 8 ... bars; our clips say whether they are any.
    six = LOOP[:, : round(6 * BAR_S * RATE)]
    assert find_grid(path, six, RATE, {}, float(PATTERN.bpm)).is_loop is False
    facts = {"prompt": "x", "seed": 0, "bpm": PATTERN.bpm}
    assert find_grid(path, LOOP, RATE, facts, float(PATTERN.bpm)).is_loop is False
    assert find_grid(path, six, RATE, {**facts, "bars": 6}, float(PATTERN.bpm)).is_loop


def test_a_prompt_with_another_tempo_than_the_recording_s_is_told(loop_path: Path) -> None:
    bpm = float(PATTERN.bpm)
    more = asked(loop_path, continue_from=loop_path, duration=2.0)
    bars = asked(loop_path, regenerate=loop_path, from_bar=2, to_bar=2)
    for one in (more, bars):
        assert one.bpm == pytest.approx(bpm, rel=0.01)
        assert f"plays {bpm:.0f}" in tempo_sentence(one, 1.3 * bpm)
        for said in (None, bpm, 1.02 * bpm, 0.5 * bpm, 2.0 * bpm):
            assert tempo_sentence(one, said) == ""


def asked(path: Path, **values: Any) -> Any:
    return asked_of(GenerateSettings(prompts=["x"], **values), 10.0, 50.0)


@pytest.fixture(scope="module")
def loop_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("loops") / "loop.wav"
    soundfile.write(path, LOOP.T, RATE)
    return path


def test_what_is_asked_of_a_recording(loop_path: Path) -> None:
    again = asked(loop_path, regenerate=loop_path, from_bar=3, to_bar=4, bpm=float(PATTERN.bpm))
    extension = again.extension
    assert (extension.begin, extension.end) == (bars(3, 4).begin, bars(3, 4).end)
    # As much as there is before, or as a window has room for.
    room_s = min(2 * BAR_S, 10.0 - 2 * BAR_S)
    assert extension.n_frames == int(room_s * 50)
    assert again.facts["regenerated"]["bpm_from"] == "--bpm"
    more = asked(loop_path, continue_from=loop_path, heard=4.0, duration=2.5)
    # As much as each window hears of the one before it, where the recording is longer than one.
    assert asked(loop_path, continue_from=loop_path, duration=2.5).facts == more.facts
    assert more.extension.n_frames == 200
    assert more.extension.end - more.extension.begin == round(2.5 * RATE)
    assert asked_of(GenerateSettings(), 10.0, 50.0) is None


def test_bars_are_played_anew_after_whole_bars_that_are_heard(loop_path: Path) -> None:
    """The context begins on a bar line, unless its length is given."""
    told = {"regenerate": loop_path, "bpm": float(PATTERN.bpm)}
    last = asked(loop_path, **told, from_bar=8, to_bar=8)
    n_bars = last.extension.n_frames / (BAR_S * 50)
    assert n_bars == pytest.approx(int((10.0 - BAR_S) / BAR_S), abs=0.5 / (BAR_S * 50))
    assert asked(loop_path, **told, from_bar=8, to_bar=8, heard=3.0).extension.n_frames == 150
    first, bar = last.bar_lines(last.extension.n_frames, 50.0)
    # The first new frame is on a line, and so is the first that is heard.
    assert first % bar == pytest.approx(last.extension.n_frames % bar, abs=1e-2)
    assert bar == pytest.approx(BAR_S * 50)


def test_windows_of_what_goes_on_begin_on_the_recordings_bars(
    loop_path: Path, tmp_path: Path
) -> None:
    late = tmp_path / "late.wav"
    soundfile.write(late, LOOP[:, round(0.4 * BAR_S * RATE) :].T, RATE)
    for path, values, first_s in (
        (loop_path, {"bpm": float(PATTERN.bpm)}, 0.0),
        (loop_path, {}, 0.0),
        (late, {}, 0.6 * BAR_S),
    ):
        more = asked(path, continue_from=path, heard=4.0, duration=12.0, **values)
        assert f"Windows begin on its bars (bar 1 at {first_s:.1f}" in more.said
        begin_s = more.extension.begin / RATE
        first, bar = more.bar_lines(200, 50.0)
        assert bar == pytest.approx(BAR_S * 50, rel=2e-3)
        # The lines of the recording, counted from its last 200 frames on.
        off = (first - 200 + (begin_s - first_s) * 50) % bar
        assert min(off, bar - off) < 1.0
        # What goes on is no loop, however the recording was.
        assert not more.grid.is_loop
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (1, 6 * RATE)).astype(np.float32)
    path = tmp_path / "noise.wav"
    soundfile.write(path, noise.T, RATE)
    more = asked(path, continue_from=path, duration=12.0)
    assert "with --bpm, windows begin on them" in more.said
    assert np.isnan(more.bar_lines(300, 50.0)).all()
    # A bar of 9.6 s is too long for a window of 10; a single window needs no bars.
    for values in ({"bpm": 25.0, "duration": 12.0}, {"duration": 3.0}):
        more = asked(path, continue_from=path, **values)
        assert more.grid is None
        assert "indows begin" not in more.said


def test_a_recording_is_gone_on_with_from_where_one_says(loop_path: Path) -> None:
    """As if the rest of the recording had been cut off."""
    before = loop_path.with_name("before.wav")
    soundfile.write(before, LOOP[:, : 5 * RATE // 2].T, RATE)
    cut = asked(before, continue_from=before, duration=2.0).extension
    more = asked(loop_path, continue_from=loop_path, continue_at=2.5, duration=2.0)
    np.testing.assert_array_equal(more.extension.recording, cut.recording)
    assert (more.extension.begin, more.extension.end, more.extension.n_frames) == (
        cut.begin,
        cut.end,
        cut.n_frames,
    )
    assert more.facts["continued"]["begin_s"] == 2.5
    assert "from 2.5 s on, in place of the rest" in more.said
    length_s = LOOP.shape[1] / RATE
    whole = asked(loop_path, continue_from=loop_path, continue_at=length_s, heard=4.0)
    read = Recording.read(loop_path).waveform
    np.testing.assert_array_equal(whole.extension.recording, read)


def test_silence_that_is_to_be_continued_is_told(tmp_path: Path) -> None:
    """As where a beat was exported with its tail: the model would go on with silence."""
    path = tmp_path / "tail.wav"
    sound = np.concatenate([LOOP[:, : 2 * RATE], np.zeros((len(LOOP), 3 * RATE))], axis=1)
    soundfile.write(path, sound.T, RATE)

    def told(**values: Any) -> str:
        return silence_sentence(asked(path, **values), SHAPE)

    assert "give a --continue_at before the silence" in told(continue_from=path, heard=2.0)
    assert told(continue_from=path, heard=4.0) == ""
    assert told(continue_from=path, heard=2.0, continue_at=2.0) == ""
    # Bars that follow the silence have as little to follow.
    bars = {"regenerate": path, "bpm": 240.0, "heard": 1.0}
    assert "give other bars" in told(**bars, from_bar=5, to_bar=5)
    assert told(**bars, from_bar=2, to_bar=2) == ""
    assert told(**bars, from_bar=1, to_bar=1) == ""


def test_the_json_beside_a_recording_is_read_once(
    loop_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    monkeypatch.setattr(recording, "read_facts", lambda path: read.append(path) or {})
    asked(loop_path, regenerate=loop_path, from_bar=2, to_bar=2)
    asked(loop_path, continue_from=loop_path, duration=12.0)
    assert read == [loop_path.with_suffix(".json")] * 2


def test_what_is_heard_and_new_music_that_fill_a_window_take_one(
    tiny_model_dir: Path, loop_path: Path
) -> None:
    """And not a second one for the frame by which rates may differ."""
    model = MusicGen.load(tiny_model_dir, precision="fp32")
    window = model.base.shape.frames(model.base.facts.window_s)
    seconds = window / model.base.shape.frame_rate
    for new_s, n_frames in ((seconds - 2.0, window), (seconds - 3.0, window - 49)):
        settings = GenerateSettings(
            prompts=["x"], continue_from=loop_path, heard=2.0, duration=new_s
        )
        session = model.session(settings)
        (order,) = session.orders
        assert session._asked is not None
        assert session._length_onto(order.settings, session._asked).n_frames == n_frames


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"continue_from": True, "heard": 10.0}, "--heard 10: the base hears less than 10 s"),
        ({"continue_from": True, "continue_at": 99.0}, "--continue_at 99: "),
        (
            {"continue_from": True, "continue_at": 1e-6},
            "less than one codec frame; give a longer recording",
        ),
        ({"from_bar": 8, "to_bar": 9}, "--to_bar 9: "),
        ({"from_bar": 1, "to_bar": 8}, "this is all of "),
    ],
)
def test_what_cannot_be_asked_is_one_line(
    values: dict[str, Any], said: str, loop_path: Path
) -> None:
    name = "continue_from" if values.pop("continue_from", None) else "regenerate"
    with pytest.raises(UserError) as caught:
        asked(loop_path, **{name: loop_path}, **values)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_recordings_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    empty, silent, wide = (tmp_path / name for name in ("empty.wav", "none.wav", "wide.wav"))
    empty.touch()
    soundfile.write(silent, np.zeros((0, 1)), RATE)
    soundfile.write(wide, np.zeros((100, 4)), RATE)
    for path, said in (
        (tmp_path / "gone.wav", "no such audio file"),
        (empty, "is empty"),
        (silent, "has no samples"),
        (wide, "has 4 channels"),
    ):
        with pytest.raises(UserError) as caught:
            Recording.read(path)
        assert str(caught.value).startswith(str(path))
        assert said in str(caught.value)
