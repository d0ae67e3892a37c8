"""Tiny MusicGen folders in Hugging Face's format, for tests: real structure, random weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    EncodecFeatureExtractor,
    MusicgenForConditionalGeneration,
    MusicgenMelodyForConditionalGeneration,
    MusicgenProcessor,
    PreTrainedTokenizerFast,
    T5Config,
)

from musicgen_lora.given import EMBEDDED
from musicgen_lora.model.configs import codec_config, musicgen_config, name_special_token

MELODY_EXTRACTOR = {
    "chunk_length": 30,
    "feature_extractor_type": "MusicgenMelodyFeatureExtractor",
    "feature_size": 12,
    "hop_length": 4096,
    "n_fft": 16384,
    "num_chroma": 12,
    "padding_side": "right",
    "padding_value": 0.0,
    "return_attention_mask": False,
    "sampling_rate": 32000,
    "stem_indices": [3, 2],
}
"""As facebook/musicgen-melody has it."""
SPOKEN = "hip hop 808 beat with trap drums bass and pattern the a bpm minor major sparse dark"


def make_tiny_musicgen(
    folder: Path,
    *,
    stereo: bool = False,
    melody: bool = False,
    seed: int = 0,
    hidden_size: int = 32,
    chroma_length: int = 11,
    t5_words: bool = False,
) -> Path:
    """Saves a MusicGen of about 100,000 parameters: 32 kHz, 50 Hz, 4 codebooks (8 in stereo)
    of 64 entries; one with `melody` reads one of 11 frames. Its tokenizer knows a few words, or
    with `t5_words` those of T5."""
    torch.manual_seed(seed)
    codec = codec_config(
        target_bandwidths=[1.2], num_filters=2, hidden_size=8, codebook_size=64, num_lstm_layers=1
    )
    n_words = 32_128 if t5_words else 64
    text = T5Config(vocab_size=n_words, d_model=24, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    config: Any = musicgen_config(
        codec,
        text,
        melody=melody,
        hidden_size=hidden_size,
        ffn_dim=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_codebooks=8 if stereo else 4,
        audio_channels=2 if stereo else 1,
        dropout=0.1,
    )
    if melody:
        config.chroma_length = chroma_length
        model: Any = MusicgenMelodyForConditionalGeneration(config)
        # Random maps of the default size give conditions too faint to tell one from another.
        for projection in (model.enc_to_dec_proj, model.audio_enc_to_dec_proj):
            torch.nn.init.normal_(projection.weight, std=0.5)
            torch.nn.init.normal_(projection.bias, std=0.5)
    else:
        model = MusicgenForConditionalGeneration(config)
    _listen(model.audio_encoder)
    # Random heads of the default size give logits too flat to tell one bug from another.
    for head in model.decoder.lm_heads:
        torch.nn.init.normal_(head.weight, std=0.3)
    name_special_token(model)
    model.save_pretrained(folder)
    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2} | {
        w: i + 3 for i, w in enumerate(SPOKEN.split())
    }
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    if melody:
        # transformers' own class of it needs torchaudio.
        fast.save_pretrained(folder)
        (folder / "preprocessor_config.json").write_text(json.dumps(MELODY_EXTRACTOR))
    else:
        MusicgenProcessor(
            EncodecFeatureExtractor(sampling_rate=32_000, feature_size=1), fast
        ).save_pretrained(folder)
    if t5_words:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(EMBEDDED / name, folder / name)
    return folder


@torch.no_grad()
def _listen(codec) -> None:
    """Codebooks made of what the random encoder makes of sound: those of the default size would
    give every frame the same code, and hide whatever is lost of it."""
    rate = codec.config.sampling_rate
    time_s = torch.arange(4 * rate) / rate
    sweep = torch.sin(2.0 * torch.pi * 40.0 * (2.0 ** (2.0 * time_s) - 1.0))
    loudness = torch.rand(80).repeat_interleave(len(time_s) // 80)
    sound = loudness * (0.7 * sweep + 0.3 * torch.randn(len(time_s)))
    residual = codec.encoder(sound[None, None])[0].T
    for layer in codec.quantizer.layers:
        chosen = torch.randperm(len(residual))[: codec.config.codebook_size]
        layer.codebook.embed.copy_(residual[chosen])
        residual = residual - layer.decode(layer.encode(residual.T[None]))[0].T
