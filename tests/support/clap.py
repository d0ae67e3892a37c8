"""Tiny CLAPs in the format of laion's: real structure, random weights, sound or at fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, PreTrainedTokenizerFast

from musicgen_lora.evaluation.measures.listeners import (
    SELF_TEST,
    SELF_TEST_RATE,
    SELF_TEST_S,
    UNRELATED,
    self_test_sounds,
)

Fault = Literal["", "deaf", "illiterate", "mismatched"]
N_PROJECTED = 16


def make_tiny_clap(folder: Path, fault: Fault = "") -> Path:
    """Saves a CLAP whose words match the sounds of the self-test; or one that takes all sounds for
    one, or all texts, or each text for another sound."""
    torch.manual_seed(0)
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    audio = {"patch_embeds_hidden_size": 16, "depths": [1, 1], "num_attention_heads": [2, 2]}
    config = ClapConfig(
        text_config=text
        | {"vocab_size": 64, "intermediate_size": 16, "max_position_embeddings": 90}
        | {"projection_dim": N_PROJECTED},
        audio_config=audio
        | {"hidden_size": 32, "num_hidden_layers": 2, "projection_dim": N_PROJECTED},
        projection_dim=N_PROJECTED,
    )
    model: Any = ClapModel(config).eval()
    for projection in (model.text_projection, model.audio_projection):
        torch.nn.init.normal_(projection.linear1.weight, std=1.0)
        torch.nn.init.normal_(projection.linear2.weight, std=1.0)
    torch.nn.init.normal_(model.text_model.embeddings.word_embeddings.weight, std=1.0)
    texts = [*SELF_TEST, *UNRELATED]
    words = sorted({word for own in texts for word in own.replace(",", "").split()})
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3} | {
        word: index + 4 for index, word in enumerate(words[:60])
    }
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    extractor = ClapFeatureExtractor(truncation="rand_trunc", max_length_s=int(SELF_TEST_S))
    _teach(model, fast, extractor, shift=fault == "mismatched")
    dulled = {"deaf": model.audio_projection, "illiterate": model.text_projection}.get(fault)
    if dulled is not None:
        with torch.no_grad():
            dulled.linear2.weight.mul_(1e-4)
            dulled.linear2.bias.fill_(1.0)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return folder


@torch.no_grad()
def _teach(model: Any, tokenizer: Any, extractor: Any, *, shift: bool) -> None:
    """Solves the last layer of the words for the sounds that they name, or for the next ones."""
    sounds = self_test_sounds()
    features = torch.cat(
        [
            extractor(sounds[name][0], sampling_rate=SELF_TEST_RATE, return_tensors="pt")[
                "input_features"
            ]
            for name in SELF_TEST.values()
        ]
    )
    inner = model.audio_model(input_features=features.float()).pooler_output
    heard = model.audio_projection(inner)
    # What random weights make of all sounds alike is taken off.
    model.audio_projection.linear2.bias.sub_(heard.mean(dim=0))
    wanted = (heard - heard.mean(dim=0)).numpy()
    wanted = np.roll(wanted, 1, axis=0) if shift else wanted
    tokens = tokenizer(list(SELF_TEST), padding=True, return_tensors="pt")
    pooled = model.text_model(
        input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
    ).pooler_output
    projection = model.text_projection
    inner = projection.activation(projection.linear1(pooled)).numpy()
    weight, *_ = np.linalg.lstsq(inner, wanted - projection.linear2.bias.numpy(), rcond=None)
    projection.linear2.weight.copy_(torch.from_numpy(weight.T))
