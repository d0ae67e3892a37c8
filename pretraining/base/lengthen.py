"""Extends the clock of a trained base to 30 s, before it is trained on windows of that length:
`python -m pretraining.base.lengthen` (work/lm to work/lengthened).

The first layer (`clock`) was taught positions up to 10 s. At later ones it shows hands of up to
three times their size that point anywhere, which other layers can't tell from true ones.

So its hands of half a turn and of one turn per bar are fitted again, as in `clock`, but over 30 s,
where the slowest is as accurate as over 10 s. Then the layer learns to show all true hands there
too, with the help of the slow ones, as far as it can: for the others, the least squared error is to
show nothing. At the positions that the base knows, its output must stay the same, since all other
layers are used to it.
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoProcessor, AutoTokenizer, MusicgenForConditionalGeneration

from pretraining.base.clock import (
    FITTED,
    N_HELD,
    N_POSITIONS,
    NOISE,
    SPEEDS,
    VOLUME,
    ClockLesson,
    Said,
    fitted_head,
    read_text,
    ridge,
    shares_shown,
    train_reader,
)
from pretraining.base.facts import N_WAVES, tempo_waves
from pretraining.paths import WORK

N_LONG = 1506
"""Positions for 30 s, the delay, and a few spare ones."""
CAPTIONS_A_STEP = 24
EACH = 64
"""Known positions per caption in each step, and as many later ones."""
KNOWN_WEIGHT = 3.0
"""Weight of an error at a position that the base knows."""
N_REFITTED = 4
"""Heads that are fitted again, the first of `FITTED`; over 30 s the others aren't such sums."""
SCORES_RATE = 0.2
"""Learning rate of queries and keys, which were fitted, as a share of the others'."""
WAVE_NOISE = 0.15
"""Noise that the fit allows for in the tempo's waves, as said by the words of some captions."""
END_WEIGHT = 4
"""Weight of an end token relative to a word, since there are many more words."""
SPANS = ((0, N_POSITIONS), (N_POSITIONS, 1000), (1000, N_LONG))


class LongLesson:
    """The first layer's targets, derived from its outputs at the positions that it knows.

    The directions of its hands are those that follow the hands' true values there, since the
    singular vectors by which they were chosen, of nearly equal size, differ between machines.
    """

    def __init__(self, model: Any, lesson: ClockLesson) -> None:
        self.lesson, n = lesson, len(lesson.tempos)
        self.taught = copy.deepcopy(model.decoder.model.decoder.layers[0])
        stated = torch.nonzero(lesson.tempos[: n - N_HELD] > 0)[:, 0][:500]
        frames = torch.randint(0, N_POSITIONS, (len(stated), EACH))
        said = self.read(self.taught, stated, frames)
        hands = lesson.hands(stated, frames) / VOLUME
        hands, centred = (x - x.mean(1, keepdim=True) for x in (hands, said))
        slopes = torch.linalg.lstsq(hands.flatten(0, 1), centred.flatten(0, 1)).solution
        self.slopes, self.directions = slopes / VOLUME, nn.functional.normalize(slopes, dim=1)
        parts = torch.arange(n).split(200)
        self.rest = torch.cat([self._rest(at) for at in parts])

    @torch.no_grad()
    def read(self, layer: Any, at: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """What a layer adds to these positions for these captions, `[B, T, D]`."""
        return read_text(layer, self.lesson.heard(frames), self.lesson.text(at)).float()

    def _rest(self, at: torch.Tensor) -> torch.Tensor:
        """What the layer says about captions besides the hands, `[B, D]`."""
        frames = torch.randint(0, N_POSITIONS, (len(at), EACH))
        said = self.read(self.taught, at, frames)
        return (said - self.lesson.hands(at, frames) @ self.slopes).mean(1)

    def errors(self, layer: Any, at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The squared errors `[B, EACH]` at known positions, and at later ones."""
        lesson = self.lesson
        known = torch.randint(0, N_POSITIONS, (len(at), EACH))
        later = torch.randint(N_POSITIONS, N_LONG, (len(at), EACH))
        heard = lesson.heard(torch.cat([known, later], dim=1))
        text = lesson.text(at)
        with torch.no_grad():
            wanted = torch.cat(
                [
                    read_text(self.taught, heard[:, :EACH], text).float(),
                    lesson.hands(at, later) @ self.directions + self.rest[at][:, None],
                ],
                dim=1,
            )
        # The language model runs in this precision, whose rounding the clock must tolerate.
        with torch.autocast("cpu", torch.bfloat16):
            said = read_text(layer, heard, text)
        errors = (said.float() - wanted).square().sum(-1)
        return errors[:, :EACH], errors[:, EACH:]

    def shown(self, layer: Any, span: tuple[int, int]) -> list[float]:
        """The share of each of `SPEEDS`' variance that a layer shows at these positions, over
        held-out captions that state a tempo."""
        n = len(self.lesson.tempos)
        at = torch.arange(n - N_HELD, n)
        at = at[self.lesson.tempos[at] > 0]
        frames = torch.randint(*span, (len(at), EACH))
        wanted = self.lesson.hands(at, frames)
        said = (self.read(layer, at, frames) - self.rest[at][:, None]) @ self.directions.T
        return shares_shown(said, wanted)


@torch.no_grad()
def refit(layer: Any, lesson: ClockLesson) -> None:
    """Fits the slow hands of a first layer again, over all positions of the lesson."""
    attention = layer.encoder_attn
    positions = layer.encoder_attn_layer_norm(lesson.positions).double().numpy()
    said, size = said_by_words(lesson), attention.head_dim
    for head, (turns, phase) in enumerate(FITTED[:N_REFITTED]):
        rows = slice(head * size, (head + 1) * size)
        query, key = fitted_head(
            positions, said, turns, phase, size=size, noise=(NOISE[0], WAVE_NOISE)
        )
        attention.q_proj.weight[rows] = query.float()
        attention.k_proj.weight[rows] = key.float()
        attention.v_proj.weight[rows] = 0.0
        attention.v_proj.weight[rows.start] = -said.end.float()


def said_by_words(lesson: ClockLesson) -> Said:
    """Finds the directions in which captions' states say their tempos and their end."""
    stated = lesson.tempos > 0
    states, mask, tempos = (x[stated] for x in (lesson.states, lesson.mask, lesson.tempos))
    ends = torch.zeros_like(mask)
    ends[torch.arange(len(mask)), mask.sum(1) - 1] = True
    words = mask & ~ends
    waves = tempo_waves(tempos[:, None].expand_as(words)[words].double().numpy())
    n_ends = END_WEIGHT * len(states)
    outputs = np.zeros((len(waves) + n_ends, 2 * N_WAVES + 1))
    outputs[: len(waves), :-1], outputs[: len(waves), -1], outputs[len(waves) :, -1] = waves, -1, 1
    inputs = torch.cat([states[words], states[ends].repeat(END_WEIGHT, 1)]).double().numpy()
    found = torch.from_numpy(ridge(inputs, outputs, 1e-3).T)
    return Said(found[:-1], found[-1])


def lengthen(model: Any, lesson: LongLesson, *, n_steps: int) -> None:
    """Trains the first layer on positions beyond those that it knows."""
    layer, generator = model.decoder.model.decoder.layers[0], np.random.default_rng(2)
    refit(layer, lesson.lesson)
    n_train, errors = len(lesson.lesson.tempos) - N_HELD, ""

    def loss_of() -> torch.Tensor:
        nonlocal errors
        at = torch.from_numpy(generator.integers(n_train, size=CAPTIONS_A_STEP))
        known, later = (x.mean() for x in lesson.errors(layer, at))
        errors = f"errors {known:.2f} and {later:.2f}"
        return KNOWN_WEIGHT * known + later

    def show(when: str) -> None:
        _show(layer, lesson, f"{when}, {errors}")

    _show(layer, lesson, "fitted")
    train_reader(layer, loss_of, n_steps=n_steps, every=200, show=show, scores_rate=SCORES_RATE)


def _show(layer: Any, lesson: LongLesson, when: str) -> None:
    print(f"{when}: of the hands of {', '.join(f'{speed:g}' for speed in SPEEDS)} turns per bar")
    for span in SPANS:
        shown = ", ".join(f"{share:.2f}" for share in lesson.shown(layer, span))
        print(f"  positions {span[0]} to {span[1]} show {shown}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model_path", type=Path, default=WORK / "lm" / "best_model")
    parser.add_argument("--corpus", type=Path, default=WORK / "corpus")
    parser.add_argument("--output_dir", type=Path, default=WORK / "lengthened")
    parser.add_argument("--n_steps", type=int, default=5000)
    options = parser.parse_args()
    for path, maker in [
        (options.model_path / "config.json", "musicgen_lora.training.packed"),
        (options.corpus / "metadata.json", "pretraining.corpus.render"),
    ]:
        if not path.is_file():
            parser.error(f"{path} is not there; make it with python -m {maker}")
    torch.manual_seed(0)
    model: Any = MusicgenForConditionalGeneration.from_pretrained(
        options.model_path, dtype=torch.float32
    )
    tokenizer = AutoTokenizer.from_pretrained(options.model_path)
    rows = json.loads((options.corpus / "metadata.json").read_text(encoding="utf-8"))
    lesson = LongLesson(model, ClockLesson(model, tokenizer, rows, N_LONG))
    lengthen(model, lesson, n_steps=options.n_steps)
    model.save_pretrained(options.output_dir)
    AutoProcessor.from_pretrained(options.model_path).save_pretrained(options.output_dir)


if __name__ == "__main__":
    main()
