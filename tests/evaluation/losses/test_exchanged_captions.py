"""Captions that match their clips are told apart from shuffled ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from musicgen_lora.dataset.batches import Window
from musicgen_lora.dataset.metadata import Clip
from musicgen_lora.evaluation.held_out import HeldOut
from musicgen_lora.evaluation.losses import captions
from musicgen_lora.evaluation.losses.captions import judge_captions, measure_captions
from musicgen_lora.evaluation.report.learned import caption_sentences
from musicgen_lora.evaluation.trained_clips import TrainedClips

N_FRAMES = 20
WORDS = ("kick", "snare", "sub bass", "hats", "drill", "phonk", "cowbell", "swing")
GAIN = 0.03


def clips_of(captions: list[str], name: str) -> list[Clip]:
    return [
        Clip(f"{name}{i}.wav", Path("."), (text,), f"{name}{i}") for i, text in enumerate(captions)
    ]


def codes_of(captions: list[str]) -> list[np.ndarray]:
    """Clips that consist of the code named by their caption."""
    return [np.full((N_FRAMES, 4), WORDS.index(text), np.uint16) for text in captions]


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An adapter whose loss is lower if the caption names the codes, as on the embedded base's
    beats, and a base that ignores captions."""
    rng = np.random.default_rng(0)

    def score(performer: str, windows: Sequence[Window], *_: Any) -> tuple[np.ndarray, np.ndarray]:
        losses = rng.normal(5.0, 0.02, (len(windows), 4, 3))
        for row, window in enumerate(windows):
            is_right = window.caption == WORDS[int(window.codes[0, 0])]
            losses[row] -= GAIN if performer.model.reads and is_right else 0.0  # pyright: ignore[reportAttributeAccessIssue]
        return 50.0 * losses, np.full(losses.shape, 50.0)

    monkeypatch.setattr(captions, "score_windows", score)
    monkeypatch.setattr(captions, "open_melodies", lambda model: None)
    shape = SimpleNamespace(frames=lambda seconds, least: N_FRAMES)
    models = [
        SimpleNamespace(reads=reads, delays=SimpleNamespace(shortest=4), shape=shape)
        for reads in (False, True)
    ]
    return {
        side: SimpleNamespace(model=model)
        for side, model in zip(("base", "adapter"), models, strict=True)
    }


def measure(sides: Any, trained_captions: list[str], held_out_captions: list[str]) -> Any:
    """The datasets' captions, on clips whose words are in the right order."""
    words = list(WORDS) * 2
    return measure_captions(
        sides,
        HeldOut(clips_of(held_out_captions, "other")),
        codes_of(words),
        TrainedClips(clips_of(trained_captions, "trained"), codes_of(words)),  # pyright: ignore[reportArgumentType]
        batch_size=16,
        seed=0,
    )


def test_right_captions_help_whoever_reads_them(reader: Any) -> None:
    found = measure(reader, list(WORDS) * 2, list(WORDS) * 2)
    assert found["reads"]
    assert not found["flagged"]
    assert not found["base_reads"]
    gain = found["held_out"]["adapter"]
    assert gain["gain"] == pytest.approx(GAIN, abs=0.01)
    assert found["trained"]["n"] == found["held_out"]["adapter"]["n"] == 16
    # Wrong captions are as good as each other.
    exchange = gain["exchange"]
    assert exchange["n"] == 16
    assert exchange["ci_low"] < 0.0 < exchange["ci_high"] < gain["ci_low"]


def test_training_captions_in_a_wrong_order_are_flagged(reader: Any) -> None:
    shuffled = np.random.default_rng(0).permutation(list(WORDS) * 2).tolist()
    found = measure(reader, shuffled, list(WORDS) * 2)
    assert found["flagged"]
    assert found["excess"]["ci_high"] < 0.0


def test_captions_that_tell_nothing_are_not_read(reader: Any) -> None:
    shuffled = np.random.default_rng(0).permutation(list(WORDS) * 2).tolist()
    found = measure(reader, shuffled, shuffled)
    assert not found["reads"]
    assert not found["flagged"]


def test_one_caption_for_all_clips_has_none_to_exchange(reader: Any) -> None:
    found = measure(reader, ["kick"] * 16, ["kick"] * 16)
    assert found == {"computed": False, "why": "needs 4 held-out sources whose captions differ"}


def test_without_held_out_clips_it_says_why() -> None:
    model: Any = None
    found = measure_captions(
        model, HeldOut(why_none="no clip was held out"), None, TrainedClips(), batch_size=1, seed=0
    )
    assert found == {"computed": False, "why": "no clip was held out"}


def test_no_difference_is_rarely_called_one() -> None:
    """Captions that help both sides equally, with noise as on the embedded base's beats."""
    rng = np.random.default_rng(0)
    n_flagged = 0
    for _ in range(40):
        base, adapter = (np.stack([np.zeros(16), rng.normal(0.03, 0.018, 16)]) for _ in range(2))
        trained = np.stack([np.zeros(24), rng.normal(0.03, 0.02, 24)])
        n_flagged += judge_captions(base, adapter, trained)["flagged"]
    assert n_flagged <= 2


def test_a_gain_that_is_just_not_certain_is_no_unlearned_one() -> None:
    """Both sides gain equally, near the detection limit: in a third of the cases one gain is
    significant and the other isn't."""
    rng = np.random.default_rng(0)
    warned = 0
    for seed in range(60):
        gains = rng.normal(0.03, 0.03, 8)
        sides = [np.stack([np.zeros(8), gains + rng.normal(0.0, 0.015, 8)]) for _ in range(2)]
        (said,) = caption_sentences(judge_captions(sides[0], sides[1], None, seed=seed))
        warned += "no longer uses" in said
    assert warned <= 3


def told(gain: float, spread: float, *, base: float = 0.0, trained: float | None = None) -> str:
    """The sentence for 16 held-out sources with this mean gain, give or take the spread."""
    noise = np.linspace(-spread, spread, 16)

    def losses(mean: float) -> np.ndarray:
        return np.stack([np.full(16, 5.0), 5.0 + mean + noise])

    found = judge_captions(losses(base), losses(gain), None if trained is None else losses(trained))
    (sentence,) = caption_sentences(found)
    assert "n = 16 " in sentence
    return sentence


def test_what_is_said() -> None:
    assert told(0.03, 0.02).startswith("Captions are used: ")
    assert told(0.03, 0.02, trained=0.0).startswith("Warning: the training captions don't match")
    assert told(0.0, 0.02, base=0.05).startswith("Warning: the adapter no longer uses captions")
    assert told(0.0, 0.02).startswith("Warning: captions make no measurable difference")
    # An evaluation that could not have seen a gain doesn't say that there is none.
    assert told(0.0, 0.5).startswith("No clear sign that captions are used")
