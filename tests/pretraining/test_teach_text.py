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

from pretraining.base import facts as caption_facts
from pretraining.base import teach_text

ROW = {"style": "funk", "tags": ["funk", "drums and bass", "energetic", "no hats"], "texts": []}
WIDTH, D_TEXT = 256, 96


def small_base() -> Any:
    decoder = MusicgenDecoderConfig(
        vocab_size=16, num_hidden_layers=2, ffn_dim=64, num_attention_heads=8, hidden_size=WIDTH
    )
    text = T5Config(vocab_size=16, d_model=D_TEXT, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    codec = EncodecConfig(num_filters=2, hidden_size=8, codebook_size=16)
    config: Any = MusicgenConfig(text_encoder=text, audio_encoder=codec, decoder=decoder)
    torch.manual_seed(0)
    return MusicgenForConditionalGeneration(config).eval()


def what_is_read(bpm: float | None, n_words: int = 20) -> tuple[np.ndarray, Any]:
    """What a base with a fresh reader adds to each position `[T, D]` when a perfect encoder says
    the facts of `ROW` at `bpm`, and the base."""
    base = small_base()
    basis = torch.linalg.qr(torch.randn(D_TEXT, D_TEXT))[0][: caption_facts.N_FACTS]
    teach_text.start_reader(base, basis)
    facts = caption_facts.clip_facts(ROW, bpm)[None]
    tokens = {
        "input_ids": torch.tensor([[5] * n_words + [1]]),
        "attention_mask": torch.ones(1, n_words + 1, dtype=torch.long),
    }
    said, mask = teach_text.targets(tokens, facts, 1)
    assert bool(mask.all())
    layer = base.decoder.model.decoder.layers[0]
    positions = base.decoder.model.decoder.embed_positions.weights[None, :1500]
    with torch.no_grad():
        text = base.enc_to_dec_proj(said @ basis)
        read = layer.encoder_attn(layer.encoder_attn_layer_norm(positions), text)[0]
    return read[0].numpy(), base


@pytest.mark.parametrize("bpm", [62.5, 93.75, 120.0, 139.0, 176.47])
def test_the_hands_follow_the_bar_at_the_captions_tempo(bpm: float) -> None:
    read, base = what_is_read(bpm)
    attention = base.decoder.model.decoder.layers[0].encoder_attn
    turn = 2.0 * np.pi * np.arange(1500) * bpm / (4.0 * 3000.0)
    for head, (turns, phase) in enumerate(teach_text.HANDS):
        direction = attention.out_proj.weight[:, head * 32].detach().numpy()
        signal = read @ direction / np.linalg.norm(direction)
        hand = np.cos(turns * turn - 2.0 * np.pi * phase)
        reach = teach_text.REACH_FRAMES if turns > 1.0 else 1500
        right = np.corrcoef(signal[:reach], hand[:reach])[0, 1]
        assert right > {0.5: 0.95, 1.0: 0.7, 2.0: 0.85}[turns], (turns, right)
        assert 0.3 < signal[:reach].std() / teach_text.VOLUME < 0.8, turns


@pytest.mark.parametrize("bpm", [71.0, 120.0, 168.0])
def test_the_first_layer_reads_and_does_nothing_else(bpm: float) -> None:
    """It hears no token before, so that what it reads stays what it is; its feed-forward units
    double hands of half a turn and of two."""
    read, base = what_is_read(bpm)
    layer = base.decoder.model.decoder.layers[0]
    positions = base.decoder.model.decoder.embed_positions.weights[: teach_text.N_POSITIONS]
    quiet = torch.linalg.svd(positions.double() - positions.double().mean(0))[2].flip(0).float()
    with torch.no_grad():
        heard = positions[None, :1500]
        assert not layer.self_attn(layer.self_attn_layer_norm(heard))[0].any()
        clock = heard + torch.from_numpy(read)
        units = layer.activation_fn(layer.fc1(layer.final_layer_norm(clock)))
        doubled = (layer.fc2(units)[0] @ quiet.T).numpy()
    turn = 2.0 * np.pi * np.arange(1500) * bpm / (4.0 * 3000.0)
    for first, turns, reach in ((2, 1.0, 1500), (6, 4.0, teach_text.REACH_FRAMES)):
        for direction, phase in ((first, 0.0), (first + 1, 0.25)):
            hand = np.cos(turns * turn - 2.0 * np.pi * phase)[:reach]
            assert np.corrcoef(doubled[:reach, direction], hand)[0, 1] > 0.85, (turns, phase)


def test_without_a_tempo_the_clock_stands_still() -> None:
    moving, _ = what_is_read(120.0)
    still, _ = what_is_read(None)
    assert moving.std(axis=0).max() > 10.0 * still.std(axis=0).max()


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
