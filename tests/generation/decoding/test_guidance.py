"""What guidance leads to and away from, how its scale changes, and prompts that change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from musicgen_lora.generation.decoding.decode import play_frames
from musicgen_lora.generation.decoding.decoder import Decoder
from musicgen_lora.generation.decoding.playing import Playing
from musicgen_lora.generation.decoding.request import (
    Conditions,
    Passage,
    Request,
    Scenes,
    WindowRequest,
)
from musicgen_lora.generation.decoding.sampling import GREEDY, Noise, Sampling
from musicgen_lora.generation.decoding.window import DecodingWindow, FixedWindow
from musicgen_lora.model.base.loading import load_base, load_tokenizer
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.text.states import TextStates

PROMPTS = ["hip hop 808 beat", "sparse dark trap drums with bass"]
NEGATIVE = ["minor", "a major 808 pattern and drums"]


class Band:
    """A model, and encoded texts."""

    def __init__(self, folder: Path) -> None:
        model = load_base(folder)
        torch.manual_seed(1)
        # Random weights of the default size hardly hear their text.
        for parameter in model.enc_to_dec_proj.parameters():
            torch.nn.init.normal_(parameter, std=2.0)
        for block in model.decoder.model.decoder.layers:
            if hasattr(block, "encoder_attn"):
                torch.nn.init.normal_(block.encoder_attn.out_proj.weight, std=1.0)
        self.decoder = Decoder(BaseModel(model))
        self.texts = TextStates(model, load_tokenizer(folder))

    def conditions(
        self, prompts: list[str], negative: list[str | None] | None = None
    ) -> Conditions:
        away = None if negative is None else self.texts.batch(negative)
        return Conditions(self.texts.batch(list(prompts)), negative=away)

    def play(self, conditions: Conditions | Scenes, n_frames: int = 12, **values) -> torch.Tensor:
        given = {"sampling": GREEDY, "seeds": [1, 2]} | values
        return torch.cat(
            list(play_frames(self.decoder, Request(conditions, n_frames=n_frames, **given))), -1
        )


@pytest.fixture(scope="module")
def band(tiny_model_dir: Path) -> Band:
    return Band(tiny_model_dir)


@pytest.fixture(scope="module")
def melody_band(tiny_melody_dir: Path) -> Band:
    return Band(tiny_melody_dir)


@pytest.mark.parametrize("batched", [False, True])
def test_guidance_leads_from_the_negative_prompt_to_the_prompt(band: Band, batched: bool) -> None:
    given = torch.randint(0, 64, (2, 4, 3), generator=torch.Generator().manual_seed(0))

    def logits(conditions: Conditions, *, guided: bool) -> torch.Tensor:
        playing = Playing(
            band.decoder, conditions, given[..., :2], 5, guided=guided, batched=batched
        )
        return playing.step(given[..., 2], 3.0)

    with torch.inference_mode():
        towards = logits(band.conditions(PROMPTS), guided=False)
        away = logits(band.conditions(NEGATIVE), guided=False)
        found = logits(band.conditions(PROMPTS, NEGATIVE), guided=True)
    assert (away + 3.0 * (towards - away)).allclose(found, atol=1e-4)
    assert not found.allclose(towards, atol=0.1)


def test_the_heads_multiply_one_row_a_clip(band: Band, monkeypatch: pytest.MonkeyPatch) -> None:
    predict, n_rows = band.decoder.predict, []

    def count(states: torch.Tensor) -> torch.Tensor:
        n_rows.append(len(states))
        return predict(states)

    monkeypatch.setattr(band.decoder, "predict", count)
    band.play(band.conditions(PROMPTS, [None, NEGATIVE[1]]))
    assert set(n_rows) == {2}


def test_away_from_the_prompt_itself_is_no_guidance(band: Band, melody_band: Band) -> None:
    for players in (band, melody_band):
        plain = players.play(
            players.conditions(PROMPTS), sampling=replace(GREEDY, guidance_scale=1)
        )
        same = players.play(players.conditions(PROMPTS, list(PROMPTS)))
        assert torch.equal(same, plain)
        assert not torch.equal(players.play(players.conditions(PROMPTS, NEGATIVE)), plain)


def test_a_clip_without_a_negative_prompt_is_as_it_was(band: Band) -> None:
    plain = band.play(band.conditions(PROMPTS), sampling=Sampling())
    mixed = band.play(band.conditions(PROMPTS, [None, NEGATIVE[1]]), sampling=Sampling())
    assert torch.equal(mixed[0], plain[0])
    assert not torch.equal(mixed[1], plain[1])
    unguided = Sampling(guidance_scale=1.0)
    assert torch.equal(
        band.play(band.conditions(PROMPTS, NEGATIVE), sampling=unguided),
        band.play(band.conditions(PROMPTS), sampling=unguided),
    )


def test_the_scale_goes_in_a_straight_line_over_the_whole_clip() -> None:
    sampling = Sampling(guidance_scale=5.0, guidance_end=1.0)
    assert sampling.scales(0, 8, 5).tolist() == [5.0, 4.0, 3.0, 2.0, 1.0, 1.0, 1.0, 1.0]
    assert sampling.scales(2, 4, 5).tolist() == [3.0, 2.0, 1.0, 1.0]
    assert Sampling().scales(0, 8, 5) is None
    assert sampling.is_guided
    assert Sampling(guidance_scale=1.0, guidance_end=3.0).is_guided
    assert not Sampling(guidance_scale=1.0, guidance_end=1.0).is_guided


def test_a_scale_that_ends_where_it_began_changes_nothing(band: Band) -> None:
    conditions = band.conditions(PROMPTS)
    plain = band.play(conditions, sampling=Sampling())
    assert torch.equal(band.play(conditions, sampling=Sampling(guidance_end=3.0)), plain)
    assert not torch.equal(band.play(conditions, sampling=Sampling(guidance_end=9.0)), plain)


def test_windows_of_fixed_shapes_are_guided_alike(band: Band) -> None:
    sampling = Sampling(guidance_scale=4.0, guidance_end=1.5)
    tokens = []
    with torch.inference_mode():
        for kind in (DecodingWindow, FixedWindow):
            request = WindowRequest(
                band.conditions(PROMPTS, [None, NEGATIVE[1]]),
                [Passage(torch.empty(4, 0, dtype=torch.long), 10, begin=5)] * 2,
                sampling,
                20,
            )
            window = kind(band.decoder, request, Noise([1, 2], (4, 64)))
            while window.step < window.n_steps:
                window.advance()
            tokens.append(torch.stack([window.frames(row, 5, 15) for row in range(2)]))
    assert torch.equal(*tokens)


def test_from_a_change_on_the_clip_is_what_goes_on_by_the_new_prompt(band: Band) -> None:
    first, then = band.conditions(PROMPTS), band.conditions(PROMPTS[::-1])
    changed = band.play([(0, first), (7, then)], n_frames=15)
    before = band.play(first, n_frames=7)
    assert torch.equal(changed[..., :7], before)
    assert torch.equal(changed, band.play(then, n_frames=15, prompt_codes=before))
    assert not torch.equal(changed, band.play(first, n_frames=15))
