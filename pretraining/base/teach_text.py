"""Teaches the untrained base what captions say, and gives it a clock:
`python -m pretraining.base.teach_text` (work/untrained to work/taught).

What a caption says about the next token is little beside what the tokens before say, so the
language model never learns to listen to an untrained text encoder. Two things therefore come first:

- **Facts.** The text encoder learns to say, at each word, the facts of the clip that a caption
  belongs to: its tempo as waves, its style and key, which parts and instruments play (`facts`).
- **The reader.** The first layer's cross-attention starts as what hands them on. A score of
  attention is a product of a position and a word, and the phase of the bar, cos(2 pi t / bar),
  nearly is a sum of products of the position's sinusoids and the tempo's waves: six heads are
  fitted, by least squares, as the hands of clocks that go round once in two bars of the caption's
  tempo, once in one, and for ten seconds twice in one. The others look at all words alike and
  pass on the other facts. Its feed-forward units double the clock's speed, since
  cos 2a = cos^2 a - sin^2 a, and those of the next two layers begin by doing so.
  Where a window begins on a bar line the clock says where in the bar it is; elsewhere it says
  what lies a bar ago. A model trained on windows that begin anywhere read none of it: what had
  sounded told it the tempo, and by itself it played none.

The language model is trained from there, with the text encoder and the whole first layer frozen,
and tokens' embeddings bounded: where that layer's self-attention learnt too, what it adds to a
position hid it from the clock, and after 5,000 steps the hands showed next to nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoProcessor, AutoTokenizer, MusicgenForConditionalGeneration

from pretraining.base.facts import (
    END,
    END_LEVEL,
    FLAG,
    KEY,
    N_FACTS,
    STYLE,
    TEMPOS,
    WAVES,
    bar_turns,
    caption_and_facts,
    tempo_waves,
)
from pretraining.paths import WORK

N_POSITIONS = 1536
"""Positions that the clock is right for: 30 s and the delay."""
HANDS = ((0.5, 0.0), (0.5, 0.25), (1.0, 0.0), (1.0, 0.25), (2.0, 0.0), (2.0, 0.25))
"""Turns a bar, and the turn where it is highest, of the heads that are the clock."""
REACH_FRAMES = 512
FAR_WEIGHT = 0.3
"""A head has too few dimensions to follow a hand of one or two turns a bar for 30 s: past this
position an error of it weighs less, and it fades."""
DOUBLINGS = ((0, 2), (1,), (2,))
"""By layer, the hands whose speed it doubles: 0 goes half a turn a bar, 1 one, 2 two."""
N_SPEEDS = 4
"""Half a turn, one, two and four turns a bar."""
N_WORDS = 20
"""Tokens of a usual caption."""
GAIN = 2.0
"""Largest difference of a hand's scores; its signal is the hyperbolic tangent of half of it."""
VOLUME = 3.0
"""Length of a signal where it enters the decoder; a position has a length of 11."""
NOISE = (0.1, 0.05)
"""What the fit allows for in positions (to which tokens come to be added) and in the facts."""


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
    """Trains the text encoder to say the facts in the directions of `basis` `[N_FACTS, D]`."""
    encoder = model.text_encoder
    encoder.requires_grad_(True)
    train = [row for row in rows if row["split"] == "train"]
    held = [row for row in rows if row["split"] == "validation"]
    rng = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=2e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, n_steps, pct_start=0.1)
    began = time.monotonic()
    for step in range(1, n_steps + 1):
        chosen = [train[int(i)] for i in rng.integers(len(train), size=64)]
        error, mask = _errors(encoder, tokenizer, chosen, basis, rng, 0.5)
        loss = error[mask].mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 250 == 0 or step == n_steps:
            with torch.no_grad():
                error, mask = _errors(encoder, tokenizer, held, basis, np.random.default_rng(1), 0)
            kinds = {"tempo": WAVES, "style": STYLE, "key": KEY, "flags": FLAG}
            shown = [f"{name} {error[mask][:, at].mean():.4f}" for name, at in kinds.items()]
            print(
                f"step {step}, {time.monotonic() - began:.0f} s: held-out squared error of "
                + ", ".join(shown),
                flush=True,
            )
    encoder.requires_grad_(False)


def _errors(
    encoder: Any,
    tokenizer: Any,
    rows: list[dict[str, Any]],
    basis: torch.Tensor,
    rng: np.random.Generator,
    other_tempo: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    pairs = [caption_and_facts(row, rng, other_tempo) for row in rows]
    tokens = dict(tokenizer([text for text, _ in pairs], padding=True, return_tensors="pt"))
    states = encoder(**tokens).last_hidden_state
    wanted, mask = targets(tokens, np.stack([facts for _, facts in pairs]), tokenizer.eos_token_id)
    return (states @ basis.T - wanted).square(), mask


def clock_products(positions: np.ndarray, turns: float, phase: float) -> np.ndarray:
    """The matrix `[D, 2 * N_WAVES]` between positions and tempo waves whose products are
    cos(2 pi (turns * t / bar - phase)), by least squares over all tempos.

    Args:
        positions: `[N_POSITIONS, D]`.
    """
    bpm = np.arange(TEMPOS[0], TEMPOS[1], 0.5)
    waves = tempo_waves(bpm)
    frames = np.arange(N_POSITIONS)
    weights = np.ones(N_POSITIONS)
    wanted = np.cos(2.0 * np.pi * (turns * frames[:, None] * bar_turns(bpm) - phase))
    if turns > 0.5:
        wanted *= np.interp(frames, (REACH_FRAMES, 2 * REACH_FRAMES), (1.0, 0.0))[:, None]
        weights[REACH_FRAMES:] = FAR_WEIGHT
    half = _ridge(positions, wanted, NOISE[0], weights)
    return _ridge(waves, half.T, NOISE[1]).T


def _ridge(
    inputs: np.ndarray, outputs: np.ndarray, noise: float, weights: np.ndarray | None = None
) -> np.ndarray:
    """Least squares of rows that weigh so much, where each input carries noise of that standard
    deviation."""
    weights = np.ones(len(inputs)) if weights is None else weights
    weighed = inputs * weights[:, None]
    gram = weighed.T @ inputs + noise**2 * weights.sum() * np.eye(inputs.shape[1])
    return np.linalg.solve(gram, weighed.T @ outputs)


@torch.no_grad()
def start_reader(model: Any, basis: torch.Tensor) -> None:
    """Sets the first layer to the clock and the facts, and feed-forward units of the next two that
    double its speed."""
    decoder = model.decoder.model.decoder
    width, n_heads = model.decoder.config.hidden_size, model.decoder.config.num_attention_heads
    size = width // n_heads
    table = decoder.embed_positions.weights[:N_POSITIONS].double()
    # What is least like a position is where signals disturb them least.
    quiet = torch.linalg.svd(table - table.mean(0), full_matrices=True)[2].flip(0)
    positions = torch.nn.functional.layer_norm(table, (width,)).numpy()
    # The text enters in its own size, in as many directions as it has.
    entry = torch.linalg.qr(torch.randn(width, basis.shape[1]))[0]
    model.enc_to_dec_proj.weight.copy_(entry)
    model.enc_to_dec_proj.bias.zero_()
    said = (basis @ entry.T).double()
    attention = decoder.layers[0].encoder_attn
    query, key, value, out = (torch.zeros(width, width, dtype=torch.float64) for _ in range(4))
    constant = torch.from_numpy(_ridge(positions, np.ones((N_POSITIONS, 1)), NOISE[0]))[:, 0]
    for head, (turns, phase) in enumerate(HANDS):
        rows = slice(head * size, (head + 1) * size)
        products = GAIN * size**0.5 * torch.from_numpy(clock_products(positions, turns, phase))
        left, strengths, right = torch.linalg.svd(products, full_matrices=False)
        root = strengths.sqrt()[:, None]
        # A head has one dimension less for the products; those left out are the smallest.
        n = min(len(root), size - 1)
        query[rows][:n] = (root * left.T)[:n]
        key[rows][:n] = (root * right)[:n] @ said[WAVES]
        # Words together weigh as much as the end token where the hand shows nothing.
        query[rows][n] = constant * size**0.5
        key[rows][n] = math.log(N_WORDS) / (2.0 * END_LEVEL) * said[END]
        value[rows.start] = -said[END] / END_LEVEL
        out[:, rows.start] = VOLUME * quiet[head]
    facts = range(STYLE.start, FLAG.stop)
    first = len(HANDS) * size
    assert len(facts) <= width - first
    for number, fact in enumerate(facts):
        value[first + number] = said[fact]
        out[:, first + number] = VOLUME / 2 * quiet[2 * N_SPEEDS + number]
    for part, weight in (("q", query), ("k", key), ("v", value), ("out", out)):
        getattr(attention, f"{part}_proj").weight.copy_(weight)
    # The first layer is the reader and nothing else.
    decoder.layers[0].self_attn.out_proj.weight.zero_()
    decoder.layers[0].fc2.weight.zero_()
    for layer, hands in zip(decoder.layers, DOUBLINGS, strict=False):
        for number, hand in enumerate(hands):
            _double(layer, quiet, first=2 * hand, unit=8 * number)


def _double(layer: Any, quiet: torch.Tensor, *, first: int, unit: int) -> None:
    """Eight units, from `unit` on, that turn cos a and sin a in directions `first` and `first + 1`
    of `quiet` into cos 2a and sin 2a in the next two.

    GELU(x) + GELU(-x) is even, and of cos a it has a part in cos 2a; what is constant in it falls
    out of the difference of two.
    """
    cosine, sine = quiet[first], quiet[first + 1]
    pairs = ((cosine, sine), (cosine + sine, cosine - sine))
    for number, (high, low) in enumerate(pairs):
        for at, (direction, sign) in enumerate(
            ((high, 1), (-high, 1), (low, -1), (-low, -1)), start=unit + 4 * number
        ):
            layer.fc1.weight[at] = direction / direction.norm()
            layer.fc2.weight[:, at] = sign * quiet[first + 2 + number]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model_path", type=Path, default=WORK / "untrained")
    parser.add_argument("--corpus", type=Path, default=WORK / "corpus")
    parser.add_argument("--output_dir", type=Path, default=WORK / "taught")
    parser.add_argument("--n_steps", type=int, default=2500)
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
    model.save_pretrained(options.output_dir)
    AutoProcessor.from_pretrained(options.model_path).save_pretrained(options.output_dir)


if __name__ == "__main__":
    main()
