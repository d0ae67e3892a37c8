"""Reference points (anchors) of faults and CLAP agreement, with known answers."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from made_datasets import make_dataset

from musicgen_lora.dataset.metadata import Clip, load_dataset
from musicgen_lora.errors import AudioError
from musicgen_lora.evaluation.compared import Compared
from musicgen_lora.evaluation.measures.between import share_between
from musicgen_lora.evaluation.measures.damage import Damage
from musicgen_lora.evaluation.measures.embeddings import Embedding
from musicgen_lora.evaluation.measures.listeners import CLAP, Listener
from musicgen_lora.evaluation.sound import references
from musicgen_lora.evaluation.sound.agreement import measure_agreement
from musicgen_lora.evaluation.sound.damage import compare_damage
from musicgen_lora.evaluation.sound.ear import Heard
from musicgen_lora.evaluation.sound.references import References

WORDS = ("kick", "snare", "hat", "bass")


def heard(clicks: int = 0, stuck: float = 0.0, like: str = "kick") -> Heard:
    nothing = np.zeros(0, np.uint64)
    return Heard({}, {CLAP: vector(like)}, Damage(0, clicks, stuck), nothing, np.nan, None)


def vector(word: str) -> np.ndarray:
    return np.eye(len(WORDS))[WORDS.index(word)]


def clips(captions: list[str]) -> list[Clip]:
    return [Clip(f"{i}.wav", Path("."), (text,), f"{i}") for i, text in enumerate(captions)]


@pytest.mark.parametrize(
    ("value", "low", "high", "share"),
    [(3.0, 2.0, 4.0, 0.5), (1.0, 2.0, 4.0, -0.5), (3.0, 4.0, 2.0, None), (3.0, None, 4.0, None)],
)
def test_a_value_has_a_place_between_anchors_that_are_apart(
    value: float, low: float | None, high: float | None, share: float | None
) -> None:
    assert share_between(value, low, high) == share


def test_faults_stand_beside_those_of_anchors() -> None:
    references = References(
        heard=[heard(clicks=2) for _ in range(4)],
        clips=clips(["kick"] * 4),
        some={
            "recorded": {0: heard(clicks=1, stuck=np.nan), 3: heard(stuck=np.nan)},
            "other_music": {0: heard(clicks=6, stuck=0.5)},
        },
    )
    found = compare_damage(Compared(None, [heard(clicks=3)]), references, seed=0)
    clicks, stuck = found["clicks"]["anchors"], found["stuck_share"]["anchors"]
    assert clicks["recorded"] == {"mean": 0.5, "n_with": 1, "n": 2, "why": ""}
    assert clicks["other_music"]["mean"] == 6.0
    assert clicks["halves"] == {"difference": 0.0, "n": 4, "why": ""}
    assert stuck["other_music"] == {"mean": 0.5, "n_with": 1, "n": 1, "why": ""}
    assert stuck["recorded"]["mean"] is None
    assert "codes" in stuck["recorded"]["why"]
    nothing = compare_damage(Compared(None, [heard()]), References(), seed=0)["clicks"]
    assert nothing["reference"] is None
    assert all(own["why"] for own in nothing["anchors"].values())


def test_halves_of_the_held_out_clips_differ_as_their_clips_do() -> None:
    references = References(
        heard=[heard(clicks=n) for n in (0, 0, 8, 8)], clips=clips(["kick"] * 4)
    )
    halves = compare_damage(Compared(None, [heard()]), references, seed=0)["clicks"]["anchors"][
        "halves"
    ]
    # Of three ways to part them one parts 0 from 8, and the others are even.
    assert 0.0 < halves["difference"] < 8.0


def agreement(references: References) -> dict[str, Any]:
    def read(texts: Any) -> np.ndarray:
        return np.stack([vector(text) for text in texts])

    listener = Listener(Embedding(CLAP, "CLAP", lambda wave, rate: vector("kick")), read, "clap")
    adapter = [heard(like="kick"), heard(like="hat")]
    return measure_agreement(
        listener, ["kick", "snare"], Compared(None, adapter), references, seed=0
    )


def test_agreement_stands_between_other_captions_and_the_right_ones() -> None:
    held_out = ["hat", "hat", "bass"]
    found = agreement(
        References(
            heard=[heard(like=word) for word in held_out],
            clips=clips(held_out),
            recorded=[{CLAP: vector(word)} for word in ("hat", "kick", "kick")],
            others=[{CLAP: vector("snare")}],
            why_no_others="",
        )
    )
    values = {name: own["value"] for name, own in found["anchors"].items()}
    assert values == {
        "halves": 0.0,
        "recorded": pytest.approx(1 / 3),
        "other_music": 0.5,
        "noise": None,
    }
    assert found["anchors"]["noise"]["why"]
    # One of two clips is as its prompt says.
    assert found["position"] == {"base": None, "adapter": 0.5}


def test_agreement_without_held_out_clips_says_what_it_cant_be_read_against() -> None:
    found = agreement(References())
    assert found["reference"] is None
    assert all(own["why"] for own in found["anchors"].values())
    assert found["position"] == {"base": None, "adapter": None}


def test_recordings_that_change_meanwhile_are_no_reference(tmp_path: Path) -> None:
    """One that was cut short was compared with the codes of the whole."""
    data = make_dataset(tmp_path, [0.5, 0.5])
    cut, gone = load_dataset(data)[:2]
    model: Any = SimpleNamespace(shape=SimpleNamespace(sample_rate=32_000))
    assert references._recording(model, cut, 0.5)[0].shape[1] == 16_000
    os.truncate(cut.path, 8_000)
    gone.path.unlink()
    with pytest.raises(AudioError, match="changed while it was evaluated; run the command again"):
        references._recording(model, cut, 0.5)
    with pytest.raises(AudioError, match="no such"):
        references._recording(model, gone, 0.5)
