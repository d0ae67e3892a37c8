"""Puts the parts of tiny-beats together: the trained codec, a small T5, an untrained language
model, and the T5 tokenizer, as a MusicGen folder that the project's own training loop trains.

    python -m pretraining.base.start
"""

from __future__ import annotations

import argparse
import math
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import (
    EncodecFeatureExtractor,
    EncodecModel,
    MusicgenForConditionalGeneration,
    MusicgenProcessor,
    PreTrainedTokenizerFast,
    T5Config,
)

from musicgen_lora.model.configs import musicgen_config, name_special_token
from pretraining.paths import ASSETS, WORK

TOKEN_LENGTH = 1.2
"""Norm of a token's embedding at the start."""


def make_base(
    codec_dir: Path, output_dir: Path, *, seed: int = 0
) -> MusicgenForConditionalGeneration:
    """Saves the untrained base and returns it.

    Args:
        codec_dir: EnCodec in Hugging Face's format: 32 kHz, 4 codebooks of 2,048.
        output_dir: receives model, configuration and processor.
        seed: of the untrained weights.
    """
    torch.manual_seed(seed)
    codec = EncodecModel.from_pretrained(codec_dir, dtype=torch.float32)
    text = T5Config(
        vocab_size=32_128,
        d_model=96,
        d_kv=24,
        d_ff=192,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="relu",
        dropout_rate=0.0,
    )
    config: Any = musicgen_config(
        codec.config,
        text,
        max_position_embeddings=2048,
        num_hidden_layers=5,
        ffn_dim=1024,
        num_attention_heads=8,
        hidden_size=256,
        dropout=0.0,
    )
    config.decoder.decoder_start_token_id = config.decoder.vocab_size
    model: Any = MusicgenForConditionalGeneration(config)
    model.audio_encoder.load_state_dict(codec.state_dict())
    _open_text_path(model)
    # T5's default embeddings have unit variance; small ones keep words that no caption uses quiet,
    # whatever a later prompt says.
    torch.nn.init.normal_(model.text_encoder.shared.weight, std=0.2)
    for table in model.decoder.model.decoder.embed_tokens:
        # A position has a norm of 11: beside it, tokens of the usual 0.3 would be learnt late.
        torch.nn.init.normal_(table.weight, std=TOKEN_LENGTH / config.decoder.hidden_size**0.5)
    _order_numbers(model.text_encoder.shared.weight, _make_processor().tokenizer)
    name_special_token(model)
    generation = model.generation_config
    generation.do_sample, generation.guidance_scale = True, 3.0
    generation.top_k, generation.max_length = 250, 1500
    model.save_pretrained(output_dir)
    _make_processor().save_pretrained(output_dir)
    shutil.copy(ASSETS / "t5" / "tokenizer.json", output_dir / "tokenizer.json")
    return model


@torch.no_grad()
def _open_text_path(model: Any) -> None:
    """Initialises cross-attention so that words can be learnt (`teach_text` sets the first layer).

    The configuration's std of 0.02 is made for a width of 1,024; at 256, three such matrices in
    series leave a hundredth of the text, and of its gradient. These weights keep its variance, and
    the last matrix starts at zero: untrained attention to the text is noise, which the model would
    learn to ignore.
    """
    for layer in model.decoder.model.decoder.layers:
        attention = layer.encoder_attn
        for part in (attention.q_proj, attention.k_proj, attention.v_proj):
            torch.nn.init.normal_(part.weight, std=part.in_features**-0.5)
        torch.nn.init.zeros_(attention.out_proj.weight)


@torch.no_grad()
def _order_numbers(embedding: torch.Tensor, tokenizer: Any) -> None:
    """Initialises numbers as waves of their logarithm, so that close tempos start as close words
    and learn from each other's clips; with random ones, 120 tempos would be learnt one by one.

    Args:
        embedding: `[V, D]`, changed in place.
        tokenizer: says which rows are numbers.
    """
    pairs = embedding.shape[1] // 2
    # From one wave over all tempos to one per tenth of an octave.
    frequencies = torch.logspace(math.log10(0.25), 1.0, pairs)
    for piece, row in tokenizer.get_vocab().items():
        word = piece.removeprefix("\u2581")
        if word.isascii() and word.isdecimal() and 40 <= int(word) <= 240:
            angles = 2 * math.pi * frequencies * math.log2(int(word) / 40)
            waves = torch.cat([angles.sin(), angles.cos()])
            embedding[row] = 0.2 * math.sqrt(2) * waves


def _make_processor() -> MusicgenProcessor:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(ASSETS / "t5" / "tokenizer.json"),
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=512,
    )
    extractor = EncodecFeatureExtractor(
        feature_size=1, sampling_rate=32_000, padding_value=0.0, return_attention_mask=True
    )
    return MusicgenProcessor(extractor, tokenizer)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--codec_dir", type=Path, default=WORK / "codec")
    parser.add_argument("--output_dir", type=Path, default=WORK / "untrained")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    made = make_base(options.codec_dir, options.output_dir, seed=options.seed)
    for name, part in made.named_children():
        print(f"{name}: {sum(p.numel() for p in part.parameters()):,} parameters")
