"""The pretraining corpus: how tracks develop, what captions say, how kits are coloured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.beats.sequencer import Hit, Pattern
from musicgen_lora.dataset.bar_lines import bar_lines
from musicgen_lora.dataset.metadata import load_dataset, write_entries
from pretraining.base.facts import STATED_TEMPO
from pretraining.corpus.captions import captions
from pretraining.corpus.colour import Colour, drum_colours
from pretraining.corpus.composition import FRAME_S, Clip, Timing, compose, heard
from pretraining.corpus.grooves import GROOVES, Playing, choose, half_time, play
from pretraining.corpus.harmony import Harmony
from pretraining.corpus.kits import DRUM_KITS
from pretraining.corpus.render import Job, coloured_beat, metadata_row, on_frames, write_clip
from pretraining.corpus.sections import arrange
from pretraining.corpus.soundfont import SAMPLE_RATE
from pretraining.corpus.styles import LAYERS, STYLES

TIMING = Timing(97.3, 0.5, 0.0, on_grid=False, is_half_time=False)


def a_clip(layers: str, style: str = "funk", has_hats: bool = True) -> Clip:
    parts = LAYERS[layers]
    words = {"bass": "slap bass", "chords": "organ", "lead": "brass"}
    has_drums = "drums" in parts
    return Clip(
        style=style,
        pattern=Pattern(TIMING.bpm, 1, {}),
        kit={},
        timing=TIMING,
        start_s=0.0,
        harmony=Harmony(0, "minor", (0,), False) if parts != ("drums",) else None,
        layers=layers,
        energy="energetic",
        drums=DRUM_KITS[0] if has_drums else None,
        words={part: word for part, word in words.items() if part in parts},
        drum_words=("hi-hats",) if has_drums and has_hats else (),
        has_hats=has_drums and has_hats,
    )


def test_a_corpus_read_back_is_whole_files_whose_bars_are_where_the_kick_is(
    tmp_path: Path,
) -> None:
    job = Job(tmp_path, "train", 0, 1, 7, 4.0)
    clip = replace(a_clip("full"), start_s=2.0)
    rows = [metadata_row("a.flac", ["funk"], clip, job, 0)]
    write_clip(tmp_path / "a.flac", np.zeros(4 * SAMPLE_RATE, np.float32))
    write_entries(tmp_path / "metadata.json", rows)
    (read,) = load_dataset(tmp_path)
    assert (read.start_s, read.duration_s) == (0.0, None)
    first, length = bar_lines(read, 50.0)
    bar_s = 240.0 / TIMING.bpm
    # The track's second bar line, heard 2 s earlier.
    assert first / 50.0 == pytest.approx(bar_s - 2.0, abs=1e-4)
    assert length / 50.0 == pytest.approx(bar_s)


def all_captions(clip: Clip, n: int = 300) -> list[str]:
    return [text.lower() for text in captions(np.random.default_rng(0), clip, n)]


def test_sections_follow_each_other_without_a_gap_and_something_always_plays() -> None:
    rng = np.random.default_rng(0)
    for parts in LAYERS.values():
        for _ in range(50):
            n_bars = int(rng.integers(3, 60))
            sections = arrange(rng, n_bars, float(rng.uniform(1.3, 4.0)), parts, 1.0)
            assert [bar for section in sections for bar in section.bars] == list(range(n_bars))
            assert all(set(parts) - section.resting for section in sections)


def test_a_track_that_develops_has_rests_and_one_that_does_not_has_none() -> None:
    rng = np.random.default_rng(0)
    parts = LAYERS["full"]
    assert any(s.resting for s in arrange(rng, 200, 2.0, parts, 1.0))
    assert not any(s.resting or s.variant for s in arrange(rng, 200, 2.0, parts, 0.0))


def test_half_time_moves_the_backbeat_to_the_third_beat_and_leaves_hats() -> None:
    backbeat, eighths = "....9.......9...", "8.5.7.5.8.5.7.5."
    slow = half_time({"snare": (backbeat, backbeat), "hat": (eighths, eighths)})
    assert slow["snare"] == ("........9.......", "........9.......")
    assert slow["hat"] == (eighths, eighths)


def test_a_kick_that_rests_is_not_heard_and_the_other_drums_are() -> None:
    rng = np.random.default_rng(0)
    bars = choose(rng, GROOVES["house"].core, "medium")
    sections = [
        replace(section, resting=frozenset({"kick"}))
        for section in arrange(rng, 8, 2.0, ("drums",), 0.0)
    ]
    tracks = play(rng, (bars, bars), sections, Playing(0.4, fills=False, crashes=False))
    assert "kick" not in tracks
    assert tracks["clap"]


def test_grids_of_other_styles_and_changed_ones_stay_a_bar_long_and_have_strokes() -> None:
    rng = np.random.default_rng(0)
    for groove in GROOVES.values():
        for _ in range(20):
            for track, (grid, _) in choose(rng, groove.core, "medium", foreign=1.0).items():
                assert len(grid) == 16, track
                assert set(grid) <= set(".123456789"), track


def test_a_clips_energy_is_heard_in_how_often_something_begins() -> None:
    moments: dict[str, list[float]] = {}
    for seed in range(120):
        clip = compose(np.random.default_rng(seed), 30.0, held_out=False)
        if clip.drums is not None:
            steps = {hit.step for hits in clip.pattern.tracks.values() for hit in hits}
            moments.setdefault(clip.energy, []).append(len(steps) / clip.pattern.n_bars)
    sparse, medium, energetic = (np.mean(moments[e]) for e in ("sparse", "medium", "energetic"))
    assert 1.2 * sparse < medium < energetic / 1.15


def test_only_what_sounds_in_enough_bars_of_the_window_is_heard() -> None:
    hits = {"kick": [Hit(16.0 * bar) for bar in range(20)], "clap": [Hit(0.0), Hit(16.0)]}
    pattern = Pattern(120.0, 20, hits)
    assert heard(pattern, 0.0, 20.0) == {"kick"}
    assert heard(pattern, 0.0, 4.0) == {"kick", "clap"}
    assert heard(pattern, 4.0, 4.0) == {"kick"}


def test_on_the_grid_every_hit_begins_with_a_frame() -> None:
    pattern = Pattern(3000 / 29, 2, {"hat": [Hit(step) for step in range(32)]}, swing=0.61)
    moved = on_frames(pattern)
    frames = np.array([hit.step for hit in moved.tracks["hat"]]) * 15.0 / moved.bpm / FRAME_S
    assert np.allclose(frames, np.round(frames), atol=1e-6)


@pytest.mark.parametrize(
    ("layers", "never"),
    [
        ("drums only", ["bass", "organ", "brass", "minor"]),
        ("no bass", ["slap bass", "with bass"]),
        ("no drums", ["kit", "drum machine", "hi-hats", " beat,"]),
        ("chords only", ["bass", "drums", "brass"]),
    ],
)
def test_captions_say_nothing_of_what_is_not_there(layers: str, never: list[str]) -> None:
    for text in all_captions(a_clip(layers)):
        said = text.replace("no beat", "").replace("without a bass", "").replace("no bass", "")
        assert not [word for word in never if word in said.replace("no drums", "")], text


def test_every_style_has_captions_with_and_without_drums() -> None:
    for style in STYLES:
        for layers in ("no drums", "chords only", "lead only"):
            assert all(all_captions(a_clip(layers, style), 20))


def test_a_stated_tempo_is_the_clips_rounded() -> None:
    stated = [STATED_TEMPO.search(text) for text in all_captions(a_clip("full"))]
    tempos = {(found["after"] or found["before"]) for found in stated if found}
    assert tempos == {"97"}
    assert 0.75 < np.mean([found is not None for found in stated]) < 0.97


def test_captions_vary_in_case_and_have_the_merged_form() -> None:
    texts = captions(np.random.default_rng(0), a_clip("full"), 300)
    assert any(text.isupper() for text in texts)
    assert any(text.islower() for text in texts)
    assert any("bpm: 97. key: C minor." in text for text in texts)


def test_missing_hats_are_said_where_there_are_drums() -> None:
    texts = all_captions(a_clip("no lead", has_hats=False))
    said = ["hats" in text or "no cymbals" in text for text in texts]
    assert np.mean(said) > 0.8


def test_a_colour_keeps_the_peak_and_neutral_changes_nothing() -> None:
    sound = (np.sin(np.arange(8000) / 9.0) * np.exp(-np.arange(8000) / 900.0)).astype(np.float32)
    assert np.allclose(Colour()(sound), sound, atol=1e-6)
    colour = Colour(2.0, 0.1, 60.0, 5000.0, 1000.0, 6.0, 2.0, 8)
    assert np.isclose(np.abs(colour(sound)).max(), np.abs(sound).max(), rtol=1e-3)


def test_the_codecs_808_beats_are_of_many_kits_and_the_same_each_time() -> None:
    beat = make_beat(1, duration_s=4.0)
    plain = render_beat(beat, SAMPLE_RATE, seed=1)[0]
    sounds = [coloured_beat(np.random.default_rng(seed), beat, 1) for seed in range(6)]
    alike = [np.allclose(sound, plain) for sound in sounds]
    assert any(alike)
    assert not all(alike)
    assert np.array_equal(sounds[3], coloured_beat(np.random.default_rng(3), beat, 1))


def test_no_kick_is_tuned_down_into_an_808() -> None:
    rng = np.random.default_rng(0)
    kicks = [drum_colours(rng, ["kick"])["kick"] for _ in range(500)]
    assert min(kick.semitones for kick in kicks) >= -0.7
    assert max(kick.semitones for kick in kicks) > 1.0
