"""From shards to batches: every draw depends only on (seed, epoch, index)."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_datasets import make_dataset, read_metadata, write_metadata

from musicgen_lora.dataset.batches import (
    ClipDataset,
    Window,
    WindowSampler,
    collate,
    epoch_order,
    fixed_windows,
    grouped_order,
)
from musicgen_lora.dataset.clip_ids import clip_ids
from musicgen_lora.dataset.metadata import Clip, load_dataset
from musicgen_lora.dataset.tokens import tokenise_clips
from musicgen_lora.model.base.loading import load_base, load_tokenizer
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.text.states import TextStates

DURATIONS_S = [2.0, 1.0, 0.3, 1.5]
MAX_FRAMES = 30


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path):
    """Clips and their codes; the first clip has three captions."""
    folder = make_dataset(tmp_path_factory.mktemp("batches") / "data", DURATIONS_S)
    entries = read_metadata(folder)
    entries[0] |= {"text": "one", "texts": ["one", "two", "three"]}
    write_metadata(folder, entries)
    clips = load_dataset(folder)
    ids = clip_ids(clips, folder)
    return clips, tokenise_clips(clips, ids, BaseModel.load(tiny_model_dir), folder)


def dataset(parts, melodies=None, **drawn) -> ClipDataset:
    sampler = WindowSampler(**({"n_frames": MAX_FRAMES, "seed": 3} | drawn))
    return ClipDataset(*parts, sampler, melodies=melodies)


def test_windows_of_a_known_tempo_begin_on_its_bar_lines(parts) -> None:
    """A bar is 24 frames at 500 bpm. Of the clips of 100, 50, 15 and 75 frames the second has no
    tempo and the third is shorter than a window."""
    clips, codes = parts
    tempos: list[dict[str, Any]] = [
        {"bpm": 500, "first_bar_s": 0.1},
        {},
        {"bpm": 500},
        {"bpm": 500},
    ]
    timed = [
        clip._replace(entry=json.dumps({**clip.fields, **fields}))
        for clip, fields in zip(clips, tempos, strict=True)
    ]
    sampler = WindowSampler(MAX_FRAMES, seed=3)
    anywhere = ClipDataset(timed, codes, sampler)
    on_bars = ClipDataset(timed, codes, sampler, frame_rate=50.0)
    starts: list[set[int]] = [set() for _ in range(4)]
    for epoch in range(60):
        for data in (anywhere, on_bars):
            data.set_epoch(epoch)
        for index in range(4):
            window = on_bars[index].codes
            found = np.flatnonzero(
                [np.array_equal(codes[index][at:][:MAX_FRAMES], window) for at in range(71)]
            )
            starts[index].add(int(found[0]))
        np.testing.assert_array_equal(anywhere[1].codes, on_bars[1].codes)
    assert starts[0] == {5, 29, 53}
    assert len(starts[1]) > 10
    assert starts[2] == {0}
    assert starts[3] == {0, 24}


@pytest.mark.parametrize("n_clips", [1, 2, 7, 100])
def test_an_epoch_sees_each_clip_once(n_clips: int) -> None:
    for epoch in range(3):
        assert sorted(epoch_order(n_clips, 0, epoch)) == list(range(n_clips))


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    assert np.array_equal(epoch_order(50, 1, 2), epoch_order(50, 1, 2))
    assert not np.array_equal(epoch_order(50, 1, 2), epoch_order(50, 1, 3))
    assert not np.array_equal(epoch_order(50, 1, 2), epoch_order(50, 2, 2))


@pytest.mark.parametrize("n_clips", [1, 7, 64, 1000])
def test_grouped_steps_hold_like_lengths_and_miss_no_clip(n_clips: int) -> None:
    lengths = np.random.default_rng(0).integers(10, 1500, n_clips)
    orders = [grouped_order(lengths, 5, epoch, 8) for epoch in range(3)]
    for epoch, order in enumerate(orders):
        assert sorted(order) == list(range(n_clips))
        assert np.array_equal(order, grouped_order(lengths, 5, epoch, 8))
    order = orders[-1]
    if n_clips == 1000:
        assert not np.array_equal(order, grouped_order(lengths, 5, 0, 8))

        def padding(order: np.ndarray) -> float:
            steps = lengths[order].reshape(-1, 8)
            return 1.0 - steps.sum() / (steps.max(axis=1).sum() * 8)

        assert padding(order) < padding(epoch_order(n_clips, 5, 2)) / 4


def starts_of(window: np.ndarray, whole: np.ndarray) -> list[int]:
    n = len(window)
    return [s for s in range(len(whole) - n + 1) if np.array_equal(whole[s : s + n], window)]


def test_windows_lie_inside_their_clip_and_reach_its_ends(parts) -> None:
    data, (_, codes) = dataset(parts), parts
    seen: dict[int, set[int]] = {index: set() for index in range(len(data))}
    for epoch in range(300):
        data.set_epoch(epoch)
        for index in range(len(data)):
            window = data[index].codes
            whole = codes[index]
            assert len(window) == min(MAX_FRAMES, len(whole))
            seen[index].update(starts_of(window, whole))
    assert seen[2] == {0}, "a clip shorter than the window is whole"
    last = len(codes[1]) - MAX_FRAMES
    assert seen[1] == set(range(last + 1))


def test_a_sample_is_a_function_of_seed_epoch_and_index(parts) -> None:
    one, two = dataset(parts, condition_dropout=0.5), dataset(parts, condition_dropout=0.5)
    for epoch in (4, 0, 4):
        one.set_epoch(epoch)
        two.set_epoch(epoch)
        for index in (3, 0, 1, 0):
            assert np.array_equal(one[index].codes, two[index].codes)
            assert one[index].caption == two[index].caption
    one.set_epoch(0)
    other_epoch, other_seed = dataset(parts), dataset(parts, seed=4)
    other_epoch.set_epoch(1)
    for other in (other_epoch, other_seed):
        assert any(not np.array_equal(one[i].codes, other[i].codes) for i in (0, 1, 3))


def test_processes_that_load_for_another_draw_the_same(parts) -> None:
    data = dataset(parts)
    copy = pickle.loads(pickle.dumps(data))
    assert all(np.array_equal(copy[i].codes, data[i].codes) for i in range(len(data)))


def test_captions_are_drawn_and_dropped_at_their_rates(parts) -> None:
    data = dataset(parts, condition_dropout=0.2)
    captions = []
    for epoch in range(1000):
        data.set_epoch(epoch)
        captions.append(data[0].caption)
    assert captions.count(None) / 1000 == pytest.approx(0.2, abs=0.04)
    for text in ("one", "two", "three"):
        assert captions.count(text) / 1000 == pytest.approx(0.8 / 3, abs=0.05)


def test_without_dropout_no_caption_is_lost(parts) -> None:
    data = dataset(parts)
    for epoch in range(100):
        data.set_epoch(epoch)
        assert all(data[index].caption for index in range(len(data)))


def test_collate_pads_at_the_end_and_keeps_the_lengths() -> None:
    windows = [np.arange(8, dtype=np.uint16).reshape(4, 2), np.full((2, 2), 7, dtype=np.uint16)]
    batch = collate([Window(windows[0], "a"), Window(windows[1], None)])
    assert batch.codes.dtype == torch.int64
    assert batch.codes.tolist() == [[[0, 2, 4, 6], [1, 3, 5, 7]], [[7, 7, 0, 0], [7, 7, 0, 0]]]
    assert batch.n_frames.tolist() == [4, 2]
    assert batch.captions == ["a", None]


def test_validation_windows_cover_every_clip_end_to_end(parts) -> None:
    clips, codes = parts
    windows = fixed_windows(clips, codes, max_frames=40, min_frames=4)
    for index, clip in enumerate(clips):
        own = [window.codes for window in windows if window.source == clip.source]
        assert np.array_equal(np.concatenate(own), codes[index])
        assert all(len(window) <= 40 for window in own)
        assert {w.caption for w in windows if w.source == clip.source} == {clip.texts[0]}
    short = fixed_windows(clips, codes, max_frames=40, min_frames=21)
    assert min(len(window.codes) for window in short) >= 21


def test_validation_windows_are_thinned_before_their_tunes_are_heard(parts) -> None:
    clips, codes = parts
    heard = Spots()
    every = fixed_windows(clips, codes, max_frames=10, min_frames=4)
    some = fixed_windows(clips, codes, max_frames=10, min_frames=4, max_windows=7, melodies=heard)
    assert len(some) == len(heard.spots) == 7 < len(every)
    assert len({(name, start) for name, start, _ in heard.spots}) == 7
    for window, (name, start, n_frames) in zip(some, heard.spots, strict=True):
        index = [clip.name for clip in clips].index(name)
        assert start % 10 == 0
        assert np.array_equal(window.codes, codes[index][start : start + n_frames])


class FakeCodes:
    """Clips of given lengths, whose codes are their own position: `[clip, place]`."""

    def __init__(self, n_frames: list[int]) -> None:
        self.n_frames = np.array(n_frames)

    def __getitem__(self, row: int) -> np.ndarray:
        places = np.arange(self.n_frames[row])
        return np.stack([np.full(len(places), row), places], axis=1)


@pytest.mark.parametrize(
    ("n_clips", "n_frames", "limit"),
    [
        (134, 150, 200),
        (150, 150, 200),
        (200, 200, 200),
        (400, 200, 200),
        (201, 100, 200),
        (67, 600, 200),
        (1, 50_000, 200),
        (3, 90, 200),
    ],
)
def test_chosen_windows_are_spread_over_clips_and_places(
    n_clips: int, n_frames: int, limit: int
) -> None:
    """Windows of 100 frames. Evenly spaced picks can hit only the first of each clip."""
    clips = [Clip(f"{i}.wav", Path("/data"), ("808",), f"{i}.wav") for i in range(n_clips)]
    codes: Any = FakeCodes([n_frames] * n_clips)
    windows = fixed_windows(clips, codes, max_frames=100, min_frames=4, max_windows=limit)
    chosen = [tuple(window.codes[0].tolist()) for window in windows]
    n_places = -(-n_frames // 100)
    assert len(set(chosen)) == len(chosen) == min(limit, n_clips * n_places)
    a_clip = np.bincount([row for row, _ in chosen], minlength=n_clips)
    assert a_clip.max() - a_clip.min() <= 1
    a_place = np.bincount([start // 100 for _, start in chosen], minlength=n_places)
    assert a_place.max() - a_place.min() <= max(2, 0.05 * len(chosen))


def test_longer_clips_give_more_of_the_chosen_windows() -> None:
    clips = [Clip(f"{i}.wav", Path("/data"), ("808",), f"{i}.wav") for i in range(20)]
    codes: Any = FakeCodes([100, 900] * 10)
    windows = fixed_windows(clips, codes, max_frames=100, min_frames=4, max_windows=50)
    long = sum(int(window.source.split(".")[0]) % 2 for window in windows)
    assert len(windows) == 50
    assert long == pytest.approx(45, abs=1)


class Spots:
    """A fake `Melodies` that records its calls."""

    def __init__(self) -> None:
        self.spots: list[tuple[str, int, int]] = []

    def window(self, clip, start: int, n_frames: int) -> np.ndarray:
        self.spots.append((clip.name, start, n_frames))
        return np.full(3, 7, dtype=np.uint8)


def test_a_tune_is_of_the_samples_own_window(parts) -> None:
    clips, codes = parts
    heard = Spots()
    tuned = dataset(parts, melodies=heard)
    for epoch in range(4):
        tuned.set_epoch(epoch)
        for index in range(len(clips)):
            window = tuned[index].codes
            assert tuned[index].melody is not None
            name, start, n_frames = heard.spots[-1]
            assert name == clips[index].name
            assert np.array_equal(window, codes[index][start : start + n_frames])
    assert dataset(parts)[0].melody is None


def test_tunes_are_dropped_apart_from_captions_and_change_no_other_draw(parts) -> None:
    plain = dataset(parts, condition_dropout=0.3)
    tuned = dataset(parts, condition_dropout=0.3, melodies=Spots(), melody_dropout=0.5)
    drops = []
    for epoch in range(500):
        plain.set_epoch(epoch)
        tuned.set_epoch(epoch)
        found = tuned[0]
        assert np.array_equal(found.codes, plain[0].codes)
        assert found.caption == plain[0].caption
        assert found.melody is not None
        assert np.array_equal(found.melody, tuned[0].melody)
        drops.append((found.caption is None, not found.melody.any()))
    shares = np.array(drops, dtype=float)
    assert shares.mean(axis=0) == pytest.approx([0.3, 0.5], abs=0.07)
    assert abs(np.corrcoef(shares.T)[0, 1]) < 0.15


CAPTIONS = ["808", "trap drums with bass and the 808 pattern", "hip hop beat"]


def test_the_null_condition_is_zero_states_and_a_zero_mask(tiny_model_dir: Path) -> None:
    text = TextStates(load_base(tiny_model_dir), load_tokenizer(tiny_model_dir))
    states, mask = text.batch([None, CAPTIONS[1], None])
    assert not states[0].any()
    assert not states[2].any()
    assert mask[0].sum() == mask[2].sum() == 0
    assert mask[1].all()
    states, mask = text.batch([None])
    assert states.shape[1] >= 1
    assert not mask.any()


def test_states_equal_the_text_encoder_run_caption_by_caption(tiny_model_dir: Path) -> None:
    model, tokenizer = load_base(tiny_model_dir), load_tokenizer(tiny_model_dir)
    text = TextStates(model, tokenizer)
    states, mask = text.batch(CAPTIONS)
    for caption, row, row_mask in zip(CAPTIONS, states, mask, strict=True):
        tokens = tokenizer(caption, return_tensors="pt")
        with torch.no_grad():
            alone = model.text_encoder(input_ids=tokens["input_ids"]).last_hidden_state[0]
        assert int(row_mask.sum()) == len(alone)
        assert row_mask[: len(alone)].all()
        assert torch.allclose(row[: len(alone)], alone, atol=1e-5)
        assert not row[len(alone) :].any()


def test_a_caption_is_encoded_once(tiny_model_dir: Path) -> None:
    model = load_base(tiny_model_dir)
    text = TextStates(model, load_tokenizer(tiny_model_dir))
    text.prepare(CAPTIONS)
    expected = text.batch(CAPTIONS)[0]

    def refuse(*_, **__):
        raise AssertionError("the text encoder ran again")

    model.text_encoder.forward = refuse
    assert torch.equal(text.batch([*CAPTIONS, None, CAPTIONS[0]])[0][:3], expected)
