"""The package's smaller vocabulary: captions are split as before, and every word can be spelt."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import MusicgenConfig, MusicgenForConditionalGeneration, T5Config

from pretraining.base.vocabulary import keep_rows, kept_pieces, same_pieces, with_pieces
from pretraining.paths import ASSETS

CAPTIONS = ["lively neo-soul with clean guitar, shaker. bpm: 75. key: D minor.", "TECHNO, 141BPM"]


@pytest.fixture(scope="module")
def whole():
    return json.loads((ASSETS / "t5" / "tokenizer.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def kept(whole):
    return kept_pieces(whole, CAPTIONS)


def test_captions_are_split_as_before(whole, kept):
    before, after = (
        Tokenizer.from_str(json.dumps(content)) for content in (whole, with_pieces(whole, kept))
    )
    for text in CAPTIONS:
        assert after.encode(text).tokens == before.encode(text).tokens
        assert [kept[n] for n in after.encode(text).ids] == before.encode(text).ids
    assert kept[:3] == [0, 1, 2]
    assert len(kept) < 17_000


def test_a_smaller_vocabulary_is_found_again_in_the_whole_one(whole, kept):
    assert same_pieces(whole, with_pieces(whole, kept)) == kept


def test_rare_words_are_spelt_and_not_unknown(whole, kept):
    smaller = Tokenizer.from_str(json.dumps(with_pieces(whole, kept)))
    tokens = smaller.encode("Internațional zydeco").tokens
    assert "<unk>" not in tokens
    assert "".join(tokens) == "\u2581Internațional\u2581zydeco</s>"


def test_the_text_encoder_says_the_same(kept):
    text = T5Config(vocab_size=32_128, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    config = MusicgenConfig(text_encoder=text)
    config.decoder.num_hidden_layers, config.decoder.hidden_size = 1, 16
    config.decoder.num_attention_heads, config.decoder.ffn_dim = 2, 16
    config.audio_encoder.num_filters, config.audio_encoder.hidden_size = 2, 8
    model = MusicgenForConditionalGeneration(config).eval()
    chosen = np.random.default_rng(0).choice(len(kept), 12)
    with torch.no_grad():
        before = model.text_encoder(torch.tensor([[kept[n] for n in chosen]])).last_hidden_state
        keep_rows(model, kept)
        after = model.text_encoder(torch.from_numpy(chosen)[None]).last_hidden_state
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert model.config.text_encoder.vocab_size == len(kept)
