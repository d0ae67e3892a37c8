"""Windows of a long clip begin on bar lines where its tempo is known."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from musicgen_lora.config import GenerateSettings
from musicgen_lora.dataset.bar_lines import UNKNOWN, Lines
from musicgen_lora.evaluation.generations import play_prompts
from musicgen_lora.evaluation.performers import base_performer
from musicgen_lora.evaluation.play_tasks import ClipKind
from musicgen_lora.evaluation.store import Store
from musicgen_lora.generation.decoding import caches, decode
from musicgen_lora.generation.decoding.decode import (
    generate_codes,
    play_frames,
    window_start,
    windows_sentence,
)
from musicgen_lora.generation.decoding.decoder import Decoder
from musicgen_lora.generation.decoding.request import Conditions, Request, Scenes
from musicgen_lora.generation.decoding.sampling import GREEDY, Sampling
from musicgen_lora.generation.decoding.window import DecodingWindow, FixedWindow
from musicgen_lora.generation.musicgen import MusicGen as Player
from musicgen_lora.generation.player import Instrument, Length
from musicgen_lora.generation.player import Player as ClipPlayer
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.lora.mixture import Mixture
from musicgen_lora.model.text.states import EncodedText

PROMPTS = ["hip hop 808 beat", "trap drums with bass and the 808 pattern", "sparse dark drums"]
BARS: list[Lines] = [(0.0, 5.0), UNKNOWN, (0.0, 7.0)]
SEEDS = [5, 6, 7]


class Band:
    """A base that was trained on 20 frames, of which 12 are new in each window."""

    def __init__(self, folder: Path) -> None:
        self.base = BaseModel.load(folder)
        self.decoder = Decoder(self.base)

    def conditions(self, prompts: Sequence[str | None], bars: Sequence[Lines] = ()) -> Conditions:
        return Conditions(self.base.text.batch(list(prompts)), bars=bars)

    def play(
        self, conditions: Conditions | Scenes, seeds: Sequence[int], **values: Any
    ) -> torch.Tensor:
        chunk, n_frames = values.pop("chunk", None), values.pop("n_frames", 71)
        request = Request(conditions, n_frames, seeds, **values)
        return torch.cat(list(play_frames(self.decoder, request, chunk=chunk)), dim=-1)

    def each_alone(
        self, conditions: Callable[[int], Conditions | Scenes], **values: Any
    ) -> torch.Tensor:
        return torch.cat(
            [self.play(conditions(clip), [seed], **values) for clip, seed in enumerate(SEEDS)]
        )


@pytest.fixture(scope="module")
def band(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Band:
    return Band(_trained_on(0.4, tiny_model_dir, tmp_path_factory.mktemp("short")))


def _trained_on(seconds: float, folder: Path, copy: Path) -> Path:
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    path = copy / "config.json"
    facts = {"musicgen_lora": {"trained_duration_s": seconds}}
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))
    return copy


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[int, int]]]:
    """For each round of windows, where each clip's window and its new music begin."""
    found: list[list[tuple[int, int]]] = []

    class NotedWindow(DecodingWindow):
        def _make_ready(self) -> None:
            found.append([(s.begin, s.begin + s.given.shape[-1]) for s in self.passages])

    monkeypatch.setattr(decode, "window_kind", lambda decoder: NotedWindow)
    return found


@pytest.mark.parametrize("bpm", [43, 60, 70, 79.5, 88, 120, 140, 142, 174, 220, 400])
@pytest.mark.parametrize("first", [0.0, 31.4, -500.0])
def test_a_window_begins_on_the_bar_line_nearest_to_where_it_would(bpm: float, first: float):
    window, stride, bar = 500, 300, 240.0 / bpm * 50.0
    for n_known in (500, 731, 29_999):
        start = window_start(n_known, (window, stride), (first, bar))
        n_bars = (start - first) / bar
        assert abs(n_bars - round(n_bars)) * bar <= 0.5, "a frame is the nearest to a bar line"
        assert abs(start - (n_known - 200)) <= bar / 2 + 1
        assert 0 < start < n_known
        assert window_start(n_known, (window, stride), UNKNOWN) == n_known - 200


def test_bars_longer_than_what_is_new_of_a_window_do_not_count():
    assert window_start(500, (500, 300), (0.0, 300.0)) == 300
    assert window_start(600, (500, 300), (0.0, 300.0)) == 300
    assert window_start(600, (500, 300), (0.0, 301.0)) == 400


@pytest.mark.parametrize("bar", [3.0, 5.0, 7.3, 9.6, 12.0])
def test_each_window_after_the_first_begins_on_a_bar(band: Band, begun: Any, bar: float) -> None:
    band.play(band.conditions(PROMPTS[:1], [(0.0, bar)]), [5])
    starts = [start for ((start, _),) in begun]
    lines = {round(number * bar) for number in range(30)}
    assert starts[0] == 0
    assert len(starts) > 3
    assert set(starts) <= lines
    # What is new begins where the window before has ended.
    assert [n_known for ((_, n_known),) in begun][1:] == [start + 20 for start in starts[:-1]]


def test_without_a_tempo_windows_begin_where_they_did(band: Band, begun: Any) -> None:
    plain = band.play(band.conditions(PROMPTS), SEEDS)
    assert [{start for start, _ in found} for found in begun] == [{0}, {12}, {24}, {36}, {48}, {60}]
    begun.clear()
    slow = band.play(band.conditions(PROMPTS, [UNKNOWN, (0.0, 12.1), UNKNOWN]), SEEDS)
    assert len(begun) == 6
    assert torch.equal(slow, plain)


@pytest.mark.parametrize(
    "sampling", [GREEDY, Sampling(), Sampling(guidance_end=1.5), Sampling(1.0)]
)
def test_a_clip_is_the_same_beside_others_of_other_tempi(
    band: Band, begun: Any, sampling: Sampling
) -> None:
    together = band.play(band.conditions(PROMPTS, BARS), SEEDS, sampling=sampling)
    assert len({start for start, _ in begun[1]}) == 3, "windows of a round begin apart"
    alone = band.each_alone(
        lambda clip: band.conditions(PROMPTS[clip : clip + 1], BARS[clip : clip + 1]),
        sampling=sampling,
    )
    assert torch.equal(together, alone)
    plain = band.play(band.conditions(PROMPTS), SEEDS, sampling=sampling)
    changed = [not torch.equal(*pair) for pair in zip(together, plain, strict=True)]
    assert changed == [True, False, True]


def test_with_a_beginning_and_prompts_that_change_it_is_too(band: Band) -> None:
    given = torch.randint(0, 64, (3, 4, 23), generator=torch.Generator().manual_seed(0))

    def scenes(clips: slice) -> Scenes:
        first = band.conditions(PROMPTS[clips], BARS[clips])
        then = band.conditions(PROMPTS[::-1][clips], [UNKNOWN, (2.0, 6.0), (0.0, 7.0)][clips])
        return [(0, first), (40, then)]

    together = band.play(scenes(slice(None)), SEEDS, prompt_codes=given)
    for clip, seed in enumerate(SEEDS):
        some = slice(clip, clip + 1)
        alone = band.play(scenes(some), [seed], prompt_codes=given[some])
        assert torch.equal(together[some], alone)
    assert torch.equal(together[..., :23], given)


@pytest.mark.parametrize("chunk", [1, 6, 50])
def test_a_stream_has_the_same_codes(band: Band, chunk: int) -> None:
    conditions = band.conditions(PROMPTS, BARS)
    whole = band.play(conditions, SEEDS)
    assert torch.equal(band.play(conditions, SEEDS, chunk=chunk), whole)


def test_progress_never_says_more_than_is_done(band: Band) -> None:
    steps: list[tuple[int, int]] = []
    request = Request(band.conditions(PROMPTS, BARS), 71, SEEDS)
    list(play_frames(band.decoder, request, on_step=lambda *told: steps.append(told)))
    assert {total for _, total in steps} == {74}
    assert max(done for done, _ in steps) == steps[-1][0] == 74
    # A window goes back by the delay, and no further.
    assert all(after - before >= -3 for (before, _), (after, _) in itertools.pairwise(steps))


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(guidance_end=1.5)])
def test_the_form_for_cards_plays_the_same_windows(
    band: Band, monkeypatch: pytest.MonkeyPatch, sampling: Sampling
) -> None:
    monkeypatch.setattr(caches, "BUCKET", 16)
    conditions = band.conditions(PROMPTS, BARS)
    plain = band.play(conditions, SEEDS, sampling=GREEDY)
    monkeypatch.setattr(decode, "window_kind", lambda decoder: FixedWindow)
    if sampling is GREEDY:
        assert torch.equal(band.play(conditions, SEEDS, sampling=GREEDY), plain)
    # It draws in blocks, and those of a clip are no other clip's affair.
    alone = band.each_alone(
        lambda clip: band.conditions(PROMPTS[clip : clip + 1], BARS[clip : clip + 1]),
        sampling=sampling,
    )
    assert torch.equal(band.play(conditions, SEEDS, sampling=sampling), alone)


def test_a_tune_goes_on_with_each_clip_from_where_its_window_begins() -> None:
    tune = torch.arange(20)[None].expand(2, -1)
    nothing = EncodedText(torch.zeros(2, 1, 4), torch.ones(2, 1))
    conditions = Conditions(nothing, melodies=tune)
    shifted = conditions.shifted([0.6, 0.25]).melodies
    assert shifted is not None
    assert shifted[:, 0].tolist() == [12, 5]
    # Of a tune of four windows each is given its own, and after its end the beginning.
    shifted = conditions.shifted([1.6, 3.8], 5).melodies
    assert shifted is not None
    assert shifted.tolist() == [[8, 9, 10, 11, 12], [19, 0, 1, 2, 3]]


def test_what_is_told_of_windows(band: Band) -> None:
    said = windows_sentence(band.base, 50)
    assert "from the last 0.16 s of the one before" in said
    # 12 frames, 0.24 s, hold a bar of 1,000 bpm.
    assert "if the tempo is known and 1000 bpm or more" in said
    assert windows_sentence(band.base, 20) == ""


def test_rows_of_conditions_are_those_of_their_clips(band: Band) -> None:
    all_of = replace(
        band.conditions([*PROMPTS[:2], None], BARS),
        melodies=torch.arange(6).view(3, 2),
        negative=band.base.text.batch([None, "minor", None]),
    )
    some = all_of.rows([2, 0])
    for row, clip in enumerate((2, 0)):
        for own, its in zip(some.text.alone(row), all_of.text.alone(clip), strict=True):
            np.testing.assert_array_equal(own, its)
        np.testing.assert_array_equal(some.melody_of(row), all_of.melody_of(clip))
        assert some.bars_of(row) == all_of.bars_of(clip)
        assert (some.negative_of(row) is None) == (all_of.negative_of(clip) is None)


def test_generated_clips_are_the_same_in_any_batch_and_say_their_bars(
    tiny_model_dir: Path, tmp_path: Path, begun: Any
) -> None:
    """Windows of 60 frames, of which 36 are new: bars of 30 and 40 frames."""
    base = _trained_on(1.2, tiny_model_dir, tmp_path)
    model = Player.load(base, precision="fp32")
    prompts = ["trap, 400 bpm", "hip hop drums, 300 bpm", "808 beat", "dark bass 350 bpm"]
    asked = {"duration": 2.0, "guidance_scale": 1.0}
    together = model.generate(prompts, batch_size=4, **asked)
    assert [start for start, _ in begun[1]] == [30, 36, 36, 34]
    for clip, alone in zip(together, model.generate(prompts, batch_size=1, **asked), strict=True):
        np.testing.assert_array_equal(clip.waveform, alone.waveform)
        assert clip.identity == alone.identity
    told = [clip.facts.get("window_bpm") for clip in together]
    assert told == [[400.0], None, None, [350.0]]
    assert all(clip.facts["window_s"] == 1.2 for clip in together)
    (short,) = model.generate(prompts[0], duration=1.2, guidance_scale=1.0)
    assert not {"window_s", "window_bpm"} & set(short.facts)
    told_by_flag = model.session(
        GenerateSettings(prompts=["trap"], bpm=400.0, duration=2.0, guidance_scale=1.0)
    )
    (clip,) = told_by_flag.clips()
    assert clip.facts["window_bpm"] == [400.0]


def test_on_a_card_clips_are_named_by_the_tempi_beside_them_too(
    band: Band, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A product of fewer rows may differ there, and clips with fewer windows finish earlier."""
    monkeypatch.setattr("musicgen_lora.generation.player.depends_on_batch", lambda device: True)
    model = Player(band.base, "fp32")

    def identities(prompts: list[str]) -> list[str]:
        found: list[str] = []
        session = model.session(GenerateSettings(prompts=prompts, duration=40.0, batch_size=2))
        assert not list(session.missing(lambda place, identity: not found.append(identity)))
        return found

    alike, other = identities(["808", "trap"]), identities(["808", "trap, 400 bpm"])
    # A window of 0.4 s has no room for a bar: nothing differs.
    assert other[0] == alike[0]
    monkeypatch.setattr(decode, "window_frames", lambda base: (500, 300))
    alike, other = identities(["808", "trap"]), identities(["808", "trap, 400 bpm"])
    assert other[0] != alike[0]


def test_bars_go_on_until_the_prompt_states_another_tempo(band: Band) -> None:
    player = ClipPlayer(
        Instrument(band.decoder, band.base.text, Mixture(band.base), {}),
        None,
        Console(quiet=True),
    )
    length = Length(1000, 1000 * 640, (100, 333, 500))
    texts = ["pads, 120 bpm", "beat, 120 bpm", "beat, 150 bpm", "outro"]
    assert player.bars(texts[:3], length) == [(0.0, 100.0), (0.0, 100.0), (333, 80.0)]
    assert np.isnan(player.bars(texts, length)[-1][1])
    # A recording's own bars count, whatever the prompt says of its tempo, until that changes.
    onto = replace(length, bars=(17.5, 99.0))
    assert player.bars(texts[:3], onto) == [(17.5, 99.0), (17.5, 99.0), (333, 80.0)]
    unknown = player.bars(texts[:2], replace(length, bars=UNKNOWN))
    assert np.isnan(unknown).all()


def test_an_evaluation_plays_anew_what_was_kept_of_windows_that_began_elsewhere(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    model = BaseModel.load(_trained_on(1.2, tiny_model_dir, tmp_path))
    performer, prompts = base_performer(model, Store()), ["trap, 400 bpm", "808 beat"]
    playing = ClipKind(90, Sampling(1.0))
    kept = np.zeros((4, 90), dtype=np.int32)
    for number, prompt in enumerate(prompts):
        how = (decode.VERSION, "fp32", performer.reads(prompt), number, 90, None)
        key = performer.key("clip", *how, asdict(playing.sampling))
        performer.store.put("clips", {key: {"codes": kept}})
    played = play_prompts(
        performer, prompts, playing, seed=0, batch_size=2, on_step=lambda done, of: None
    )
    np.testing.assert_array_equal(played[1], kept)
    conditions = Conditions(model.text.batch(prompts[:1]), bars=[(0.0, 30.0)])
    (expected,) = generate_codes(model, Request(conditions, 90, [0], Sampling(1.0))).numpy()
    np.testing.assert_array_equal(played[0], expected)
