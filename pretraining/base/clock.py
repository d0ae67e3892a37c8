"""The first layer of the language model as a clock: it tells each position where it is within a bar
at the caption's tempo, down to the sixteenth note.

An attention score is a product of a position and a word, and the phase of the bar,
cos(2 pi t / bar), is nearly a sum of products of the position's sinusoids and the tempo's waves
(`facts`). So six heads of the layer's cross-attention are initialised by least squares as the hands
of clocks that turn once in two bars, once in one and twice in one; the others attend to all words
equally and pass on the other facts. Faster hands are not such sums: over ten seconds, the sinusoids
are too far apart for them. So the layer's cross-attention and feed-forward units then learn by
gradient descent to show the hands of half a turn to sixteen turns per bar, and nothing else,
whatever the tokens are.

The language model is trained with this layer frozen and token embeddings bounded. When the layer
was trained too, its hands had vanished after 5,000 steps; when only hands of up to four turns were
shown, no layer learnt where eighths are, and generated onsets were spread over the beat.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.training.packed.train import position_directions
from pretraining.base.facts import (
    END,
    END_LEVEL,
    FLAG,
    STYLE,
    TEMPOS,
    WAVES,
    bar_turns,
    caption_and_facts,
    stated_tempo,
    tempo_waves,
    vocabulary_words,
    with_strange_words,
)

N_POSITIONS = 516
"""Positions for which the clock is right: 10 s, the delay, and a few spare ones."""
FITTED = ((0.5, 0.0), (0.5, 0.25), (1.0, 0.0), (1.0, 0.25), (2.0, 0.0), (2.0, 0.25))
"""Turns per bar and phase (the turn of the maximum) of the fitted heads."""
SPEEDS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Turns per bar of the hands, each shown as a cosine and a sine."""
N_WORDS = 20
"""Tokens in a typical caption."""
GAIN = 2.0
"""Largest difference between a fitted hand's scores; its signal is tanh of half the difference."""
VOLUME = 2.3
"""Norm of a signal where it enters the decoder; a position has a norm of 11."""
NOISE = (0.1, 0.05)
"""Noise that the fit allows for in positions (to which tokens are added) and in the facts."""
LONGEST_TOKENS = 6.0
"""Largest norm of what tokens add to a position while the clock is taught."""
N_CAPTIONS = 6000
"""Captions that the clock is taught on; the last `N_HELD` are held out for the figures."""
N_HELD = 300
CAPTIONS_A_STEP = 48
POSITIONS_A_CAPTION = 170
LEARNING_RATE = 2e-3


@dataclass(frozen=True)
class Signals:
    """The directions of the reader's signals in the decoder's width.

    Args:
        hands: directions of the cosine and the sine of each of `SPEEDS`, `[2 * len(SPEEDS), D]`.
        facts: directions of style, key and flags, `[facts, D]`.
    """

    hands: torch.Tensor
    facts: torch.Tensor

    @classmethod
    def of(cls, decoder: Any) -> Signals:
        """The directions least like positions, where signals disturb them least."""
        table = decoder.embed_positions.weights.double()
        quiet = torch.linalg.svd(table - table.mean(0), full_matrices=True)[2].flip(0)
        n_hands, n_facts = 2 * len(SPEEDS), FLAG.stop - STYLE.start
        return cls(quiet[:n_hands].float(), quiet[n_hands : n_hands + n_facts].float())


@dataclass(frozen=True)
class Said:
    """What is read from the states of words, as directions in the decoder's width.

    Args:
        waves: their products with a word's state are the waves of its caption's tempo, and zero at
            the end token, `[2 * N_WAVES, D]`.
        end: its product with a state is 1 at the end token and -1 at words, `[D]`.
    """

    waves: torch.Tensor
    end: torch.Tensor


def fitted_head(
    positions: np.ndarray,
    said: Said,
    turns: float,
    phase: float,
    *,
    size: int,
    noise: tuple[float, float] = NOISE,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Query and key `[size, D]` of a head that shows cos(2 pi (turns * t / bar - phase)).

    When it shows nothing, all words together weigh as much as the end token.

    Args:
        positions: from the first one on, normalised as for the layer's attention to the text,
            `[T, D]`.
        size: dimensions of the head. All but one are for the products, of which the smallest are
            left out.
        noise: allowed for in positions and in the tempo's waves.
    """
    products = GAIN * size**0.5 * torch.from_numpy(clock_products(positions, turns, phase, noise))
    left, strengths, right = torch.linalg.svd(products, full_matrices=False)
    root = strengths.sqrt()[:, None]
    n = min(len(root), size - 1)
    query, key = (torch.zeros(size, positions.shape[1], dtype=torch.float64) for _ in range(2))
    query[:n] = (root * left.T)[:n]
    key[:n] = (root * right)[:n] @ said.waves
    constant = ridge(positions, np.ones((len(positions), 1)), noise[0])
    query[n] = size**0.5 * torch.from_numpy(constant)[:, 0]
    key[n] = math.log(N_WORDS) / 2.0 * said.end
    return query, key


def clock_products(
    positions: np.ndarray, turns: float, phase: float, noise: tuple[float, float]
) -> np.ndarray:
    """The matrix `[D, 2 * N_WAVES]` between positions and tempo waves whose products are
    cos(2 pi (turns * t / bar - phase)), by least squares over all tempos.

    Args:
        positions: `[T, D]`.
    """
    bpm = np.arange(TEMPOS[0], TEMPOS[1], 0.5)
    frames = np.arange(len(positions))
    wanted = np.cos(2.0 * np.pi * (turns * frames[:, None] * bar_turns(bpm) - phase))
    half = ridge(positions, wanted, noise[0])
    return ridge(tempo_waves(bpm), half.T, noise[1]).T


def ridge(inputs: np.ndarray, outputs: np.ndarray, noise: float) -> np.ndarray:
    """Least squares with noise of that standard deviation on each input."""
    gram = inputs.T @ inputs + noise**2 * len(inputs) * np.eye(inputs.shape[1])
    return np.linalg.solve(gram, inputs.T @ outputs)


@torch.no_grad()
def start_reader(model: Any, basis: torch.Tensor) -> None:
    """Sets the first layer to the fitted hands and the facts.

    Args:
        basis: directions of the text states that say the facts, `[N_FACTS, D_text]`.
    """
    decoder = model.decoder.model.decoder
    width, n_heads = model.decoder.config.hidden_size, model.decoder.config.num_attention_heads
    size = width // n_heads
    signals = Signals.of(decoder)
    table = decoder.embed_positions.weights[:N_POSITIONS].double()
    positions = nn.functional.layer_norm(table, (width,)).numpy()
    # The text enters in its own size, in as many directions as it has.
    entry = torch.linalg.qr(torch.randn(width, basis.shape[1]))[0]
    model.enc_to_dec_proj.weight.copy_(entry)
    model.enc_to_dec_proj.bias.zero_()
    said = (basis @ entry.T).double()
    layer = decoder.layers[0]
    query, key, value, out = (torch.zeros(width, width, dtype=torch.float64) for _ in range(4))
    words = Said(said[WAVES], said[END] / END_LEVEL)
    for head, (turns, phase) in enumerate(FITTED):
        rows = slice(head * size, (head + 1) * size)
        query[rows], key[rows] = fitted_head(positions, words, turns, phase, size=size)
        value[rows.start] = -words.end
        out[:, rows.start] = VOLUME * signals.hands[head]
    first = len(FITTED) * size
    assert len(signals.facts) <= width - first
    for number, direction in enumerate(signals.facts):
        value[first + number] = said[STYLE.start + number]
        out[:, first + number] = VOLUME / 2 * direction
    for part, weight in (("q", query), ("k", key), ("v", value), ("out", out)):
        getattr(layer.encoder_attn, f"{part}_proj").weight.copy_(weight)
    # The first layer is the reader and nothing else.
    layer.self_attn.out_proj.weight.zero_()
    layer.fc2.weight.zero_()


def read_text(layer: Any, heard: torch.Tensor, text: tuple[torch.Tensor, torch.Tensor]) -> Any:
    """What a reader adds to each position `[B, T, D]`.

    Args:
        layer: the first layer of a decoder.
        heard: positions with their tokens, `[B, T, D]`.
        text: the captions' states `[B, L, D]` and their mask `[B, L]`.
    """
    states, mask = text
    attended = _attend(layer.encoder_attn, layer.encoder_attn_layer_norm(heard), states, mask)
    normed = layer.final_layer_norm(heard + attended)
    return attended + layer.fc2(layer.activation_fn(layer.fc1(normed)))


def _attend(
    attention: Any, queries: torch.Tensor, states: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    def by_head(x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(2, (attention.num_heads, -1)).transpose(1, 2)

    found = nn.functional.scaled_dot_product_attention(
        by_head(attention.q_proj(queries)),
        by_head(attention.k_proj(states)),
        by_head(attention.v_proj(states)),
        attn_mask=mask[:, None, None],
    )
    return attention.out_proj(found.transpose(1, 2).flatten(2))


class ClockLesson:
    """Training data for the clock: captions, positions with any tokens on them, and the hands.

    Args:
        model: with a taught text encoder and an initialised reader.
        rows: of the corpus's metadata.
        n_positions: positions to teach.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        rows: list[Mapping[str, Any]],
        n_positions: int = N_POSITIONS,
    ) -> None:
        rng = np.random.default_rng(0)
        drawn = [rows[int(rng.integers(len(rows)))] for _ in range(N_CAPTIONS)]
        captions = [caption_and_facts(dict(row), rng, 0.7)[0] for row in drawn]
        words = vocabulary_words(tokenizer)
        captions[::2] = [with_strange_words(text, words, rng) for text in captions[::2]]
        self.tempos = torch.tensor([float(stated_tempo(text) or 0) for text in captions])
        self.states, self.mask = _states(model, tokenizer, captions)
        decoder = model.decoder.model.decoder
        self.positions = decoder.embed_positions.weights[:n_positions].float()
        self._embeddings = [table.weight.detach() for table in decoder.embed_tokens]
        self.signals = Signals.of(decoder)
        # Tokens are kept orthogonal to positions when the language model is trained, so here too.
        self._on_positions = position_directions(BaseModel(model))
        parts = torch.arange(len(self.tempos)).split(100)
        self.facts = torch.cat([self._facts_as_read(decoder.layers[0], at) for at in parts])

    @torch.no_grad()
    def _facts_as_read(self, layer: Any, at: torch.Tensor) -> torch.Tensor:
        heard = self.positions[200].expand(len(at), 1, -1)
        return read_text(layer, heard, self.text(at))[:, 0] @ self.signals.facts.T

    def text(self, at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The states and mask of the captions with those indices."""
        return self.states[at], self.mask[at]

    def heard(self, frames: torch.Tensor) -> torch.Tensor:
        """Positions `[B, T, D]` with random tokens added, or with noise as large as tokens may
        become.

        Args:
            frames: indices of the positions, `[B, T]`.
        """
        tokens = [
            table[torch.randint(len(table), frames.shape)].float() for table in self._embeddings
        ]
        shape = (*frames.shape, self.positions.shape[1])
        anything = nn.functional.normalize(self._off_positions(torch.randn(shape)), dim=-1)
        anything = anything * LONGEST_TOKENS * torch.rand(*frames.shape, 1)
        real = self._off_positions(torch.stack(tokens).sum(0))
        chosen = torch.rand(len(frames), 1, 1) < 0.5
        return self.positions[frames] + torch.where(chosen, anything, real)

    def _off_positions(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens - tokens @ self._on_positions.T @ self._on_positions

    def hands(self, at: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """What the hands should show `[B, T, 2 * len(SPEEDS)]`: zeros if no tempo is stated."""
        turns = torch.from_numpy(bar_turns(self.tempos[at].double().numpy()))[:, None] * frames
        angles = [2.0 * math.pi * speed * turns for speed in SPEEDS]
        shown = torch.stack([part(a) for a in angles for part in (torch.cos, torch.sin)], dim=-1)
        return VOLUME * shown.float() * (self.tempos[at] > 0)[:, None, None]


@torch.no_grad()
def _states(model: Any, tokenizer: Any, captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = dict(tokenizer(captions, padding=True, return_tensors="pt"))
    parts = [
        model.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        for ids, mask in zip(
            tokens["input_ids"].split(250), tokens["attention_mask"].split(250), strict=True
        )
    ]
    return model.enc_to_dec_proj(torch.cat(parts)), tokens["attention_mask"].bool()


def train_reader(
    layer: Any,
    loss_of: Callable[[], torch.Tensor],
    *,
    n_steps: int,
    every: int,
    show: Callable[[str], None],
    scores_rate: float = 1.0,
) -> None:
    """Trains a first layer's cross-attention and feed-forward units.

    Args:
        loss_of: draws captions and positions, and returns the loss on them.
        every: interval, in steps, at which `show` is called, and after the last step.
        show: called with a text that names the step and the time.
        scores_rate: the learning rate of queries and keys as a share of the others'.
    """
    scores, others = [], []
    for name, parameter in layer.named_parameters():
        if not name.startswith("self_attn"):
            parameter.requires_grad_(True)
            (scores if "q_proj" in name or "k_proj" in name else others).append(parameter)
    parameters = [*others, *scores]
    optimizer = torch.optim.Adam(
        [{"params": others}, {"params": scores}], lr=LEARNING_RATE, betas=(0.9, 0.98)
    )
    rates = [LEARNING_RATE, LEARNING_RATE * scores_rate]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, n_steps, pct_start=0.1)
    began = time.monotonic()
    for step in range(1, n_steps + 1):
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 10.0)
        optimizer.step()
        schedule.step()
        if step % every == 0 or step == n_steps:
            show(f"step {step}, {time.monotonic() - began:.0f} s")
    for parameter in parameters:
        parameter.requires_grad_(False)


def teach_clock(model: Any, lesson: ClockLesson, *, n_steps: int) -> None:
    """Trains the first layer to show the hands and the facts, and nothing else."""
    layer, generator = model.decoder.model.decoder.layers[0], np.random.default_rng(1)

    def loss_of() -> torch.Tensor:
        at = torch.from_numpy(generator.integers(N_CAPTIONS - N_HELD, size=CAPTIONS_A_STEP))
        read, wanted = _read_and_wanted(layer, lesson, at)
        return (read - wanted).square().sum(-1).mean()

    def show(when: str) -> None:
        shown = ", ".join(f"{share:.3f}" for share in hands_shown(layer, lesson))
        speeds = ", ".join(f"{speed:g}" for speed in SPEEDS)
        print(f"{when}: shown of the hands of {speeds} turns per bar: {shown}", flush=True)

    train_reader(layer, loss_of, n_steps=n_steps, every=250, show=show)


def _read_and_wanted(
    layer: Any, lesson: ClockLesson, at: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the layer adds at random positions and what it should, `[B, T, D]`."""
    frames = torch.randint(0, N_POSITIONS, (len(at), POSITIONS_A_CAPTION))
    signals = lesson.signals
    wanted = lesson.hands(at, frames) @ signals.hands
    wanted = wanted + lesson.facts[at][:, None] @ signals.facts
    # The language model runs in this precision, whose rounding the clock must tolerate.
    with torch.autocast("cpu", torch.bfloat16):
        read = read_text(layer, lesson.heard(frames), lesson.text(at))
    return read.float(), wanted


@torch.no_grad()
def hands_shown(layer: Any, lesson: ClockLesson) -> list[float]:
    """The share of each of `SPEEDS`' variance that a reader shows, over held-out captions that
    state a tempo."""
    at = torch.arange(N_CAPTIONS - N_HELD, N_CAPTIONS)
    read, wanted = _read_and_wanted(layer, lesson, at[lesson.tempos[at] > 0])
    directions = lesson.signals.hands.T
    return shares_shown(read @ directions, wanted @ directions)


def shares_shown(said: torch.Tensor, wanted: torch.Tensor) -> list[float]:
    """The share of each hand's variance that is shown, from cosines and sines
    `[B, T, 2 * len(SPEEDS)]`."""
    missed, whole = (
        x.square().mean((0, 1)).view(len(SPEEDS), 2).sum(1) for x in (said - wanted, wanted)
    )
    return (1.0 - missed / whole).tolist()
