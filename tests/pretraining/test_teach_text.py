"""The start of the embedded base: facts of captions, and a clock that runs at their tempo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    EncodecConfig,
    MusicgenConfig,
    MusicgenDecoderConfig,
    MusicgenForConditionalGeneration,
    T5Config,
)

from pretraining.base import clock, lengthen, teach_text
from pretraining.base import facts as caption_facts

ROW = {"style": "funk", "tags": ["funk", "drums and bass", "energetic", "no hats"], "texts": []}
WIDTH, D_TEXT = 256, 96


def small_base() -> Any:
    decoder = MusicgenDecoderConfig(
        vocab_size=16, num_hidden_layers=2, ffn_dim=256, num_attention_heads=8, hidden_size=WIDTH
    )
    text = T5Config(vocab_size=16, d_model=D_TEXT, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    codec = EncodecConfig(num_filters=2, hidden_size=8, codebook_size=16)
    config: Any = MusicgenConfig(text_encoder=text, audio_encoder=codec, decoder=decoder)
    torch.manual_seed(0)
    return MusicgenForConditionalGeneration(config).eval()


def started_base() -> tuple[Any, torch.Tensor]:
    """A base with a fresh reader, and the directions in which its text states say the facts."""
    base = small_base()
    basis = torch.linalg.qr(torch.randn(D_TEXT, D_TEXT))[0][: caption_facts.N_FACTS]
    clock.start_reader(base, basis)
    return base, basis


def perfectly_said(
    base: Any, basis: torch.Tensor, bpm: float | None, n_words: int = 20
) -> tuple[torch.Tensor, torch.Tensor]:
    """Text states and mask, as the decoder has them, when a perfect encoder says the facts of `ROW`
    at `bpm`."""
    tokens = {
        "input_ids": torch.tensor([[5] * n_words + [1]]),
        "attention_mask": torch.ones(1, n_words + 1, dtype=torch.long),
    }
    said, mask = teach_text.targets(tokens, caption_facts.clip_facts(ROW, bpm)[None], 1)
    assert bool(mask.all())
    with torch.no_grad():
        return base.enc_to_dec_proj(said @ basis), mask


def what_is_shown(bpm: float | None) -> np.ndarray:
    """What a fresh reader adds in each hand's direction, `[T, hands]`."""
    base, basis = started_base()
    decoder = base.decoder.model.decoder
    positions = decoder.embed_positions.weights[None, : clock.N_POSITIONS]
    with torch.no_grad():
        read = clock.read_text(decoder.layers[0], positions, perfectly_said(base, basis, bpm))
    return (read @ clock.Signals.of(decoder).hands.T)[0].numpy()


@pytest.mark.parametrize("bpm", [62.5, 93.75, 120.0, 139.0, 176.47])
def test_the_fitted_hands_follow_the_bar_at_the_captions_tempo(bpm: float) -> None:
    shown = what_is_shown(bpm)
    turn = 2.0 * np.pi * np.arange(clock.N_POSITIONS) * bpm / (4.0 * 3000.0)
    for signal, (turns, phase) in zip(shown.T, clock.FITTED, strict=False):
        hand = np.cos(turns * turn - 2.0 * np.pi * phase)
        assert np.corrcoef(signal, hand)[0, 1] > 0.9, turns
        assert 0.3 < signal.std() / clock.VOLUME < 0.8, turns


def test_the_first_layer_reads_and_does_nothing_else() -> None:
    """What is taught by hand is what the layer does: it hears no token before."""
    base, basis = started_base()
    states, mask = perfectly_said(base, basis, 120.0)
    layer = base.decoder.model.decoder.layers[0]
    heard = torch.randn(1, 40, WIDTH)
    torch.nn.init.normal_(layer.fc2.weight, std=0.1)
    with torch.no_grad():
        whole = layer(heard, encoder_hidden_states=states)
        whole = whole[0] if isinstance(whole, tuple) else whole
        by_hand = heard + clock.read_text(layer, heard, (states, mask))
    torch.testing.assert_close(whole, by_hand, atol=1e-4, rtol=1e-4)


def test_without_a_tempo_the_clock_stands_still() -> None:
    moving, still = (what_is_shown(bpm).std(axis=0).max() for bpm in (120.0, None))
    assert moving > 10.0 * still


def test_the_clock_learns_hands_that_no_fit_has(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four turns a bar, from the fitted two, on captions that a perfect encoder says; then what it
    shows at the positions of 10 s it also shows after them."""
    for name, value in {
        "N_CAPTIONS": 60,
        "N_HELD": 20,
        "CAPTIONS_A_STEP": 10,
        "POSITIONS_A_CAPTION": 32,
    }.items():
        monkeypatch.setattr(clock, name, value)
    for name, value in {"N_HELD": 20, "CAPTIONS_A_STEP": 10, "EACH": 32}.items():
        monkeypatch.setattr(lengthen, name, value)

    def said(model: Any, tokenizer: Any, captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        pairs = [
            perfectly_said(model, basis, caption_facts.stated_tempo(text)) for text in captions
        ]
        states, masks = zip(*pairs, strict=True)
        return torch.cat(states), torch.cat(masks)

    monkeypatch.setattr(clock, "_states", said)
    monkeypatch.setattr(clock, "vocabulary_words", lambda tokenizer: ["strange"])
    base, basis = started_base()
    layer = base.decoder.model.decoder.layers[0]
    rows = [{**ROW, "texts": [f"funk groove, {bpm} bpm"]} for bpm in range(60, 180, 3)]
    lesson = clock.ClockLesson(base, None, rows)
    torch.manual_seed(0)
    before = clock.hands_shown(layer, lesson)
    clock.teach_clock(base, lesson, n_steps=150)
    after = clock.hands_shown(layer, lesson)
    assert before[3] == pytest.approx(0.0, abs=0.05)
    assert after[3] > 0.3
    assert min(after[:3]) > 0.85
    assert "turns per bar" in capsys.readouterr().out
    long = lengthen.LongLesson(base, clock.ClockLesson(base, None, rows, lengthen.N_LONG))
    known, later = (0, clock.N_POSITIONS), (clock.N_POSITIONS, lengthen.N_LONG)
    own, unknown = long.shown(layer, known), long.shown(layer, later)
    lengthen.lengthen(base, long, n_steps=150)
    np.testing.assert_allclose(long.shown(layer, known)[:4], own[:4], atol=0.15)
    learnt = long.shown(layer, later)
    assert learnt[0] > 0.8 > 0.0 > unknown[0], "the slowest is fitted"
    assert min(learnt) > -0.5 > -1.0 > min(unknown), "little where it isn't known, not anything"
    assert "positions 1000 to 1506 show" in capsys.readouterr().out
    assert not any(parameter.requires_grad for parameter in layer.encoder_attn.parameters())


def test_the_facts_are_what_the_clip_is() -> None:
    facts = caption_facts.clip_facts(ROW, None)
    flags = dict(zip(caption_facts.FLAGS, facts[caption_facts.FLAG], strict=True))
    true = {flag for flag, value in flags.items() if value > 0}
    assert true == {"drums", "bass", "energetic"}
    styles = list(caption_facts.STYLES)
    assert styles[int(facts[caption_facts.STYLE].argmax())] == "funk"
    assert not facts[caption_facts.WAVES].any()


def test_close_keys_are_close_and_the_mode_is_told() -> None:
    c, g, f_sharp = (caption_facts.key_facts(f"{tonic} major") for tonic in ("C", "G", "F#"))
    assert np.linalg.norm(c - g) < np.linalg.norm(c - f_sharp)
    assert np.linalg.norm(c - caption_facts.key_facts("C minor")) == 2.0
    row = {**ROW, "key": "A minor"}
    facts = caption_facts.clip_facts(row, None)[caption_facts.KEY]
    assert np.allclose(facts, caption_facts.KEY_LEVEL * caption_facts.key_facts("A minor"))


def test_a_captions_tempo_is_the_clips_or_the_one_put_in_its_place() -> None:
    row = {**ROW, "texts": ["funk groove, 103 bpm, no hats"]}
    rng = np.random.default_rng(0)
    text, facts = caption_facts.caption_and_facts(row, rng, other_tempo=0.0)
    own = caption_facts.tempo_waves(np.array([103.0]))[0]
    assert text == row["texts"][0]
    assert np.allclose(facts[caption_facts.WAVES], own, atol=1e-6)
    for _ in range(20):
        text, facts = caption_facts.caption_and_facts(row, rng, other_tempo=1.0)
        bpm = int(text.removeprefix("funk groove, ").removesuffix(" bpm, no hats"))
        other = caption_facts.tempo_waves(np.array([float(bpm)]))[0]
        assert np.allclose(facts[caption_facts.WAVES], other, atol=1e-6)


def test_strange_words_leave_the_caption_and_its_tempo_as_they_are() -> None:
    text, rng = "funk groove, tempo 103, no hats", np.random.default_rng(0)
    changed = [
        caption_facts.with_strange_words(text, ["Haus", "gliding"], rng).split() for _ in range(100)
    ]
    for words in changed:
        own = iter(words)
        assert all(word in own for word in text.split()), "in their order"
        assert caption_facts.stated_tempo(" ".join(words)) == 103
        assert len(words) <= len(text.split()) + caption_facts.MOST_STRANGE
    added = [word for words in changed for word in words if word not in text.split()]
    numbers = [word for word in added if word.isdecimal()]
    assert len(numbers) / len(added) == pytest.approx(caption_facts.STRANGE_NUMBERS, abs=0.05)
    assert set(added) - set(numbers) == {"Haus", "gliding"}
    assert caption_facts.with_strange_words("funk", ["Haus"], rng) == "funk"


@pytest.mark.parametrize(
    ("text", "bpm"),
    [
        ("90s hip hop with synth, drums only, 71 bpm", "71"),
        ("Funk. bpm: 81. key: C minor.", "81"),
        ("TECHNO, TEMPO 120, IN A MINOR", "120"),
        ("80s electro, 116bpm", "116"),
        ("112 beats per minute disco", "112"),
        ("70s disco in C minor.", None),
    ],
)
def test_a_tempo_is_found_in_every_form_of_the_captions(text: str, bpm: str | None) -> None:
    stated = caption_facts.STATED_TEMPO.search(text)
    assert (stated and (stated["after"] or stated["before"])) == bpm


@pytest.mark.parametrize(
    ("missing", "maker"), [("--model_path", "base.start"), ("--corpus", "corpus.render")]
)
def test_a_missing_folder_is_named_with_what_makes_it(
    missing: str,
    maker: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("config.json", "metadata.json"):
        (tmp_path / name).write_text("[]")
    folders = {"--model_path": tmp_path, "--corpus": tmp_path, missing: tmp_path / "nowhere"}
    words = [str(word) for flag in folders.items() for word in flag]
    monkeypatch.setattr("sys.argv", ["teach_text.py", *words])
    with pytest.raises(SystemExit) as stop:
        teach_text.main()
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "nowhere" in said
    assert f"python -m pretraining.{maker}" in said
