"""The 808 kit, the composed beats and the example data, measured in the rendered audio."""

import json
from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from musicgen_lora.beats.beats808 import STYLES, Beat, caption, make_beat, render_beat
from musicgen_lora.beats.kit808 import bass_voice, load_kit808
from musicgen_lora.beats.sequencer import Hit, Pattern, render
from musicgen_lora.errors import UserError
from musicgen_lora.prepare.examples import create_examples

RATE = 32000
BEATS = [make_beat((7, index)) for index in range(24)]


@cache
def rendered(index: int) -> np.ndarray:
    return render_beat(BEATS[index], RATE, seed=index)[0]


def midi_hz(pitch: float) -> float:
    return 440.0 * 2.0 ** ((pitch - 69.0) / 12.0)


def loudest_hz(waveform: np.ndarray) -> float:
    """Frequency of the highest peak of a windowed, zero-padded spectrum."""
    n_fft = 1 << 17
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)), n_fft))
    return float(spectrum.argmax() * RATE / n_fft)


def band_share(waveform: np.ndarray, low_hz: float, high_hz: float) -> float:
    power = np.abs(np.fft.rfft(waveform)) ** 2
    frequency = np.fft.rfftfreq(len(waveform), 1 / RATE)
    return float(power[(frequency >= low_hz) & (frequency < high_hz)].sum() / power.sum())


def heard_bpm(waveform: np.ndarray, near_bpm: float) -> float:
    """Tempo within 8 % of `near_bpm` whose bar the onsets repeat best.

    Onsets are the rises of the level, in 2.5 ms frames; their energy is summed at the
    harmonics of the bar's rate, 1 to 16 a bar.
    """
    hop = RATE // 400
    frames = waveform[: len(waveform) // hop * hop].reshape(-1, hop)
    treble = np.diff(frames, axis=1)
    level = np.log10(1e-6 + (treble**2).mean(axis=1))
    onsets = np.maximum(0.0, np.diff(level, prepend=level[0]))
    onsets -= onsets.mean()
    time_s = np.arange(len(onsets)) / 400.0
    candidates = near_bpm * np.arange(0.92, 1.08, 0.002)
    rates = candidates[:, None] / 240.0 * np.arange(1, 17)
    waves = np.exp(-2j * np.pi * rates[..., None] * time_s)
    return float(candidates[(np.abs(waves @ onsets) ** 2).sum(axis=1).argmax()])


@pytest.mark.parametrize("pitch", [24, 29, 34, 40])
def test_bass_sounds_at_its_pitch(pitch: int) -> None:
    note = bass_voice(1.0, 2.0)(Hit(0, pitch=pitch), 1.0, RATE)
    assert loudest_hz(note[RATE // 16 :]) == pytest.approx(midi_hz(pitch), rel=0.01)
    assert band_share(note, 20, 120) > 0.9
    assert band_share(note, 1.8 * midi_hz(pitch), 600) > 0.005, "harmonics for small speakers"


def test_bass_glides_smoothly_to_the_target() -> None:
    note = bass_voice(1.5, 1.5)(Hit(0, pitch=28, glide_to=40), 2.0, RATE)
    early, late = note[RATE // 8 : 7 * RATE // 8], note[round(1.72 * RATE) : 2 * RATE]
    assert loudest_hz(early) == pytest.approx(midi_hz(28), rel=0.03)
    assert loudest_hz(late) == pytest.approx(midi_hz(40), rel=0.03)
    # Smooth: no step in the waveform larger than its steepest slope allows.
    assert np.abs(np.diff(note[RATE // 16 :])).max() < 0.06


def test_bass_follows_its_length() -> None:
    voice = bass_voice(1.5, 1.5)
    assert len(voice(Hit(0, pitch=30), 0.5, RATE)) == pytest.approx(0.53 * RATE, abs=1)
    assert len(voice(Hit(0, pitch=30), None, RATE)) == pytest.approx(7.53 * RATE, abs=1)
    with pytest.raises(ValueError, match="pitch"):
        voice(Hit(0), 0.5, RATE)


def test_closed_hat_chokes_the_open_one() -> None:
    kit = load_kit808(RATE)
    ringing = render(Pattern(60, 1, {"open_hat": [Hit(0)]}), kit, RATE, humanise_ms=0.0)[0]
    tracks = {"open_hat": [Hit(0)], "closed_hat": [Hit(2)]}
    choked = render(Pattern(60, 1, tracks), kit, RATE, humanise_ms=0.0)[0]
    after = slice(round(0.7 * RATE), RATE)
    assert np.std(ringing[after]) > 20 * np.std(choked[after])


@pytest.mark.parametrize("rate", [16000, 32000, 48000])
def test_every_track_of_the_kit_sounds(rate: int) -> None:
    for track, channel in load_kit808(rate).items():
        sound = channel.voice(Hit(0, pitch=30 if track == "sub" else None), None, rate)
        assert sound.dtype == np.float32
        assert np.isfinite(sound).all()
        assert 0.9 < np.abs(sound).max() <= 1.2, track


def test_beats_are_deterministic_and_all_different() -> None:
    assert [make_beat((7, index)) for index in range(24)] == BEATS
    for one, other in combinations(BEATS, 2):
        assert one.pattern.tracks != other.pattern.tracks
    captions = {caption(beat, (7, index)) for index, beat in enumerate(BEATS)}
    assert len(captions) == len(BEATS)


def test_beats_cover_the_styles_and_their_tempos() -> None:
    beats = [make_beat(seed) for seed in range(150)]
    assert {beat.style for beat in beats} == set(STYLES)
    assert 0.05 < np.mean([beat.key is None for beat in beats]) < 0.25
    assert len({beat.key for beat in beats}) == 13
    for beat in beats:
        assert 120 <= beat.bpm <= 170 if beat.half_time else 60 <= beat.bpm <= 90
        assert beat.pattern.bpm == beat.bpm
        assert 10 < beat.pattern.duration_s < 21


@pytest.mark.parametrize("index", range(len(BEATS)))
def test_backbeats_fall_where_the_feel_says(index: int) -> None:
    tracks = BEATS[index].pattern.tracks
    loud = {
        hit.step % 16
        for track in ("snare", "snare_tight", "clap")
        for hit in tracks.get(track, ())
        if hit.velocity > 0.85 and hit.step % 16 < 12.5
    }
    assert loud == ({8} if BEATS[index].half_time else {4, 12})


@pytest.mark.parametrize("index", range(len(BEATS)))
def test_bars_vary(index: int) -> None:
    pattern = BEATS[index].pattern
    bars = {
        frozenset(
            (track, round(hit.step % 16, 3))
            for track, hits in pattern.tracks.items()
            for hit in hits
            if hit.step // 16 == bar
        )
        for bar in range(pattern.n_bars)
    }
    assert len(bars) >= pattern.n_bars / 2


@pytest.mark.parametrize("index", range(12))
def test_tempo_is_heard(index: int) -> None:
    beat = BEATS[index]
    assert heard_bpm(rendered(index), beat.bpm * 1.02) == pytest.approx(beat.bpm, rel=0.01)


@pytest.mark.parametrize("index", range(12))
def test_level_and_spectrum(index: int) -> None:
    waveform = rendered(index)
    assert np.abs(waveform).max() == pytest.approx(10 ** (-1 / 20), rel=1e-4)
    assert abs(waveform[-1]) < 1e-3, "no click at the end"
    low, high = (0.35, 0.95) if BEATS[index].key else (0.2, 0.9)
    assert low < band_share(waveform, 20, 60) < high
    assert band_share(waveform, 6000, 14000) > 0.001, "hi-hats"
    assert band_share(waveform, 0, 20) < 0.02


def bass_only(beat: Beat) -> Beat:
    tracks = {"sub": beat.pattern.tracks["sub"]}
    return replace(beat, pattern=replace(beat.pattern, tracks=tracks), humanise_ms=0.0)


@pytest.mark.parametrize("index", [i for i, beat in enumerate(BEATS) if beat.key][:6])
def test_bass_notes_of_a_beat_are_in_tune_and_in_key(index: int) -> None:
    beat = BEATS[index]
    waveform = render_beat(bass_only(beat), RATE)[0]
    names = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
    tonic = names.index(str(beat.key).split()[0])
    line = beat.pattern.tracks["sub"]
    assert line[0].pitch is not None
    assert line[0].pitch % 12 == tonic
    step_s = 15.0 / beat.bpm
    measured = 0
    for hit in line:
        assert hit.pitch is not None
        assert hit.length is not None
        # Minor, and the second degree: the fifth of a flat seven's fifth.
        assert (hit.pitch - tonic) % 12 in (0, 1, 2, 3, 5, 6, 7, 8, 10)
        if hit.glide_to is None and hit.length * step_s > 0.35:
            start = round((hit.step * step_s + 0.06) * RATE)
            stop = round((hit.step + hit.length) * step_s * RATE)
            assert loudest_hz(waveform[start:stop]) == pytest.approx(midi_hz(hit.pitch), rel=0.03)
            measured += 1
    assert measured >= 1


def test_captions_tell_the_facts() -> None:
    for index in range(60):
        beat = make_beat(index)
        text = caption(beat, index)
        assert f"{beat.bpm} bpm" in text
        assert beat.key is None or beat.key in text
        assert ("808" in text) or beat.key is None
        assert ("glid" in text) == ("gliding bass" in beat.tags)
        assert ("gliding bass" in beat.tags) == (
            sum(hit.glide_to is not None for hit in beat.pattern.tracks.get("sub", ())) >= 2
        )
        assert any(word in text for word in ("hip hop", "beat", "trap", "808"))


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return create_examples(tmp_path_factory.mktemp("examples"), 6, duration_s=8.0)


def test_examples_are_whole_bars_of_pcm16(examples: Path) -> None:
    entries = json.loads(examples.read_text())
    assert len(entries) == 6
    assert len({entry["source"] for entry in entries}) == 6
    for entry in entries:
        info = sf.info(examples.parent / entry["audio"])
        assert (info.samplerate, info.channels, info.subtype) == (RATE, 1, "PCM_16")
        bars = info.frames / RATE * entry["bpm"] / 240
        assert bars == pytest.approx(round(bars), abs=1e-4)
        assert info.frames / RATE == pytest.approx(entry["duration_s"], abs=1e-6)
        assert str(entry["bpm"]) in entry["audio"]
        assert entry["tags"]
    assert sorted(path.name for path in (examples.parent / "train").iterdir()) == sorted(
        Path(entry["audio"]).name for entry in entries
    ), "no temporary files left"


def test_same_seed_same_bytes_and_a_larger_set_extends(examples: Path, tmp_path: Path) -> None:
    again = create_examples(tmp_path, 7, duration_s=8.0)
    entries = json.loads(again.read_text())
    assert entries[:6] == json.loads(examples.read_text())
    for entry in entries[:6]:
        one, other = examples.parent / entry["audio"], tmp_path / entry["audio"]
        assert one.read_bytes() == other.read_bytes()


def test_other_seed_other_clips(examples: Path, tmp_path: Path) -> None:
    other = json.loads(create_examples(tmp_path, 3, duration_s=8.0, seed=1).read_text())
    texts = {entry["text"] for entry in json.loads(examples.read_text())}
    assert not texts & {entry["text"] for entry in other}


def test_existing_entries_and_edits_are_kept(tmp_path: Path) -> None:
    first = create_examples(tmp_path, 2, duration_s=8.0)
    entries = json.loads(first.read_text())
    mine = {"audio": "train/mine.wav", "text": "my beat", "mood": "dusty"}
    edited = {**entries[0], "text": "edited", "skip": True}
    first.write_text(json.dumps([mine, edited]))
    create_examples(tmp_path, 2, duration_s=8.0)
    assert json.loads(first.read_text()) == [mine, edited, entries[1]]


@pytest.mark.parametrize("content", ["{", '{"audio": 1}', "[1]"])
def test_unreadable_metadata_is_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "metadata.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"metadata\.json"):
        create_examples(tmp_path, 1, duration_s=8.0)
    assert path.read_text() == content
    assert not (tmp_path / "train").exists()
