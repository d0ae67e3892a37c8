"""Teaches the untrained base what captions say, and gives it a clock:
`python -m pretraining.base.teach_text` (work/untrained to work/taught).

A caption says little about the next token compared to the tokens before it, so the language model
never learns to use an untrained text encoder. Two things therefore come first:

- **Facts.** The text encoder learns to say, at each word, the facts of the clip that a caption
  belongs to: its tempo as waves, its style and key, which parts and instruments play (`facts`).
- **The clock.** The first layer learns to pass them on, and to show where in the bar of the
  caption's tempo each position is (`clock`).
  Where a window begins on a bar line the clock says where in the bar it is; elsewhere it says
  what lies a bar ago. A model trained on windows that begin anywhere read none of it: what had
  sounded told it the tempo, and by itself it played none.

The language model is trained from there, with the text encoder and the whole first layer frozen.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoProcessor, AutoTokenizer, MusicgenForConditionalGeneration

from pretraining.base.clock import ClockLesson, start_reader, teach_clock
from pretraining.base.facts import (
    END,
    END_LEVEL,
    FLAG,
    KEY,
    N_FACTS,
    STYLE,
    WAVES,
    caption_and_facts,
    vocabulary_words,
    with_strange_words,
)
from pretraining.paths import WORK


def targets(
    tokens: dict[str, torch.Tensor], facts: np.ndarray, end_id: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the encoder should say at each token `[B, L, N_FACTS]`, and which count `[B, L]`."""
    mask = tokens["attention_mask"].bool()
    at_end = (tokens["input_ids"] == end_id) & mask
    wanted = torch.from_numpy(facts)[:, None].expand(-1, mask.shape[1], -1).clone()
    wanted[at_end] = 0.0
    wanted[..., END] = END_LEVEL * (2.0 * at_end - 1.0)
    return wanted, mask


def teach_facts(
    model: Any, tokenizer: Any, rows: list[dict[str, Any]], basis: torch.Tensor, *, n_steps: int
) -> None:
    """Trains the text encoder to say the facts in the directions of `basis` `[N_FACTS, D]`, even
    among words that no caption of the corpus has, but an adapter's captions may."""
    encoder, words = model.text_encoder, vocabulary_words(tokenizer)
    encoder.requires_grad_(True)
    train = [row for row in rows if row["split"] == "train"]
    held = [row for row in rows if row["split"] == "validation"]
    rng = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=2e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, n_steps, pct_start=0.1)
    began = time.monotonic()
    for step in range(1, n_steps + 1):
        chosen = [train[int(i)] for i in rng.integers(len(train), size=64)]
        pairs = [caption_and_facts(row, rng, 0.5) for row in chosen]
        pairs[::2] = [(with_strange_words(text, words, rng), said) for text, said in pairs[::2]]
        error, mask = _errors(encoder, tokenizer, pairs, basis)
        loss = error[mask].mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 250 == 0 or step == n_steps:
            print(f"step {step}, {time.monotonic() - began:.0f} s: held-out squared error of")
            fresh = np.random.default_rng(1)
            own = [caption_and_facts(row, fresh, 0) for row in held]
            strange = [(with_strange_words(text, words, fresh), said) for text, said in own]
            for name, pairs in {"captions": own, "the same among strange words": strange}.items():
                with torch.no_grad():
                    error, mask = _errors(encoder, tokenizer, pairs, basis)
                kinds = {"tempo": WAVES, "style": STYLE, "key": KEY, "flags": FLAG}
                shown = [f"{kind} {error[mask][:, at].mean():.4f}" for kind, at in kinds.items()]
                print(f"  {name}: {', '.join(shown)}", flush=True)
    encoder.requires_grad_(False)


def _errors(
    encoder: Any,
    tokenizer: Any,
    pairs: list[tuple[str, np.ndarray]],
    basis: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = dict(tokenizer([text for text, _ in pairs], padding=True, return_tensors="pt"))
    states = encoder(**tokens).last_hidden_state
    wanted, mask = targets(tokens, np.stack([facts for _, facts in pairs]), tokenizer.eos_token_id)
    return (states @ basis.T - wanted).square(), mask


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model_path", type=Path, default=WORK / "untrained")
    parser.add_argument("--corpus", type=Path, default=WORK / "corpus")
    parser.add_argument("--output_dir", type=Path, default=WORK / "taught")
    parser.add_argument("--n_steps", type=int, default=2500, help="of the text encoder")
    parser.add_argument("--n_clock_steps", type=int, default=2500)
    options = parser.parse_args()
    metadata = options.corpus / "metadata.json"
    for path, maker in [
        (options.model_path / "config.json", "base.start"),
        (metadata, "corpus.render"),
    ]:
        if not path.is_file():
            parser.error(f"{path} is not there; make it with python -m pretraining.{maker}")
    torch.manual_seed(0)
    model: Any = MusicgenForConditionalGeneration.from_pretrained(options.model_path)
    tokenizer = AutoTokenizer.from_pretrained(options.model_path)
    rows = json.loads(metadata.read_text(encoding="utf-8"))
    d_text = model.config.text_encoder.d_model
    basis = torch.linalg.qr(torch.randn(d_text, d_text))[0][:N_FACTS]
    teach_facts(model, tokenizer, rows, basis, n_steps=options.n_steps)
    start_reader(model, basis)
    teach_clock(model, ClockLesson(model, tokenizer, rows), n_steps=options.n_clock_steps)
    model.save_pretrained(options.output_dir)
    AutoProcessor.from_pretrained(options.model_path).save_pretrained(options.output_dir)


if __name__ == "__main__":
    main()
