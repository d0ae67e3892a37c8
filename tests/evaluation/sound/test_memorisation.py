"""An adapter that memorised its clips is flagged, one that learned their style is not."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from adapters import add_lora

from musicgen_lora.dataset.metadata import Clip
from musicgen_lora.evaluation.compared import Compared
from musicgen_lora.evaluation.measures.damage import Damage
from musicgen_lora.evaluation.performers import Performer
from musicgen_lora.evaluation.report.learned import memorisation_sentences
from musicgen_lora.evaluation.sound.ear import Heard
from musicgen_lora.evaluation.sound.memorisation import (
    TrainedSounds,
    find_nearest,
    measure_continuations,
)
from musicgen_lora.evaluation.sound.references import References
from musicgen_lora.evaluation.store import Store
from musicgen_lora.evaluation.trained_clips import TrainedClips
from musicgen_lora.listening.duplicates import audio_fingerprint
from musicgen_lora.model.base_model import BaseModel

N_FRAMES = 40


def clips_of(n: int, name: str) -> list[Clip]:
    return [Clip(f"{name}{i}.wav", Path("."), ("808 beat",), f"{name}{i}") for i in range(n)]


def random_codes(n: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 64, (N_FRAMES, 4)).astype(np.uint16) for _ in range(n)]


def held_codes(n: int, seed: int) -> list[np.ndarray]:
    """Clips that hold a chord of codes: knowing the style is enough to continue them correctly."""
    rng = np.random.default_rng(seed)
    return [
        np.repeat(rng.integers(0, 64, (1, 4)), N_FRAMES, axis=0).astype(np.uint16) for _ in range(n)
    ]


def learn(model: BaseModel, codes: list[np.ndarray], n_steps: int) -> Any:
    """An adapter of rank 32, the model's width, trained on clips for `n_steps`."""
    torch.manual_seed(0)
    adapted = add_lora(model, base_name=model.path, rank=32, alpha=32)
    weights = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-2)
    batch = torch.from_numpy(np.stack([own.T for own in codes]).astype(np.int64))
    texts = model.text.batch(["808 beat"] * len(codes))
    lengths = torch.full((len(codes),), N_FRAMES)
    for _ in range(n_steps):
        sums, counts = model.losses(batch, lengths, texts)
        optimizer.zero_grad()
        (sums.sum() / counts.sum()).backward()
        optimizer.step()
    return adapted


def sides_of(model: BaseModel, adapted: Any) -> dict[str, Performer]:
    """The model with the adapter applied, and the model without it."""
    off = adapted.disable_adapter if adapted is not None else nullcontext
    return {
        "base": Performer(model, Store(), "base", off),
        "adapter": Performer(model, Store(), "adapter", nullcontext),
    }


def measure(
    model: BaseModel, adapted: Any, trained: Any, held_out: Any, others: Any = ()
) -> dict[str, Any]:
    return measure_continuations(
        sides_of(model, adapted),
        TrainedClips(clips_of(len(trained), "trained"), trained, len(trained)),
        (clips_of(len(held_out), "other"), held_out),
        others=others,
        seed=0,
        on_step=lambda done, total: None,
    )


def test_a_memoriser_is_flagged(tiny_model_dir: Path) -> None:
    model = BaseModel.load(tiny_model_dir)
    trained, held_out = random_codes(4, 0), random_codes(8, 1)
    adapted = learn(model, trained, 250)
    found = measure(model, adapted, trained, held_out)
    assert found["flagged"]
    assert found["trained"] > 0.3
    assert found["held_out"] < 0.1
    assert found["base_trained"] < 0.1
    assert (found["n_trained"], found["n_held_out"]) == (4, 8)
    # Codes of 64 values are equal in one of 64 by chance, and the clip itself is all of them.
    anchors, position = found["anchors"], found["position"]
    assert anchors["halves"]["value"] == pytest.approx(1 / 64, abs=0.01)
    assert anchors["noise"]["value"] == 1 / model.shape.special
    assert anchors["other_music"]["why"] == "no other music is long enough"
    assert position["trained"] > 0.3 > 0.1 > position["held_out"]


def test_clips_of_one_source_are_one_observation(tiny_model_dir: Path) -> None:
    """Two recordings cut into many clips are too few for a test, however many clips there are."""
    model = BaseModel.load(tiny_model_dir)
    codes = random_codes(8, 0)
    clips = [clip._replace(source=f"mix{place % 2}") for place, clip in enumerate(clips_of(8, ""))]
    found = measure_continuations(
        sides_of(model, None),
        TrainedClips(clips, codes, 8),  # pyright: ignore[reportArgumentType]
        (clips_of(8, "other"), codes),
        seed=0,
        on_step=lambda done, total: None,
    )
    assert (found["n_trained"], found["n_held_out"], found["p_value"]) == (2, 8, None)


def test_who_learned_the_style_is_not(tiny_model_dir: Path) -> None:
    model = BaseModel.load(tiny_model_dir)
    adapted = learn(model, held_codes(32, 0), 120)
    far = [np.full((N_FRAMES, 4), 2000, np.uint16)] * 2
    found = measure(model, adapted, held_codes(6, 0), held_codes(8, 1), far)
    assert found["trained"] > found["base_trained"]
    assert found["anchors"]["other_music"] == {"value": 0.0, "n": 2, "why": ""}
    assert not found["flagged"]


def test_reasons_for_having_none(tiny_model_dir: Path) -> None:
    model = BaseModel.load(tiny_model_dir)
    nothing = TrainedClips(why_none="it is not known which clips the adapter was trained on")
    none = None
    found = measure_continuations(
        sides_of(model, none), nothing, ([], []), seed=0, on_step=lambda done, total: None
    )
    assert (found["computed"], found["why"]) == (False, nothing.why_none)
    short = [codes[:10] for codes in random_codes(4, 0)]
    assert "too short" in measure(model, none, short, short)["why"]
    sounds = TrainedSounds(nothing, model, 1.0)
    assert not find_nearest(Compared(None, []), sounds, References(), output_dir=Path())["computed"]


def hear(wave: np.ndarray) -> Heard:
    return Heard({}, {}, Damage(0, 0, 0.0), audio_fingerprint(wave, 32_000), float("nan"), None)


def test_a_copy_of_a_training_clip_is_named_and_written(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    model = BaseModel.load(tiny_model_dir)
    waves = [rng.normal(0.0, 0.1, (1, 64_000)).astype(np.float32) for _ in range(9)]
    # The sound of a clip stands in for that of its codes, which a random codec has none of.
    monkeypatch.setattr(model, "decode", lambda codes: waves[int(codes[0, 0, 0])][None])
    codes: Any = [np.full((100, 4), place, np.uint16) for place in range(4)]
    trained = TrainedClips(clips_of(4, "trained"), codes, 4)
    made, held_out = [hear(waves[2]), hear(waves[4])], [hear(wave) for wave in waves[5:]]
    sounds = TrainedSounds(trained, model, 2.0)
    references = References(
        heard=held_out,
        clips=clips_of(4, "other"),
        some={"recorded": {2: hear(0.5 * waves[7])}, "other_music": {}, "noise": {0: held_out[0]}},
        why_no_others="there is none",
    )
    found = find_nearest(Compared(held_out, made), sounds, references, output_dir=tmp_path)
    assert [clip["copied"] for clip in found["clips"]] == [True, False]
    assert found["clips"][0]["trained"] == "trained2.wav"
    assert found["clips"][0]["odds"] == pytest.approx(1 / 5)
    assert found["flagged"]
    # A copy is what the same clip is at another level; nobody else has heard them.
    anchors = found["anchors"]
    assert anchors["recorded"] == {"median": pytest.approx(1.0, abs=0.01)} | {
        "highest": anchors["recorded"]["median"],
        "n": 1,
        "why": "",
    }
    assert anchors["base"]["median"] == found["held_out_median"]
    assert (anchors["other_music"]["n"], anchors["other_music"]["why"]) == (0, "there is none")
    assert anchors["noise"]["highest"] <= found["held_out_highest"]
    assert found["clips"][0]["position"] == pytest.approx(1.0, abs=0.02)
    assert found["clips"][1]["position"] < 0.5
    written = tmp_path / found["clips"][0]["audio"]
    assert soundfile.info(written).frames == 64_000
    assert found["held_out_copies"] == []
    # One that is trained on under another name, at another level, is told, and hides no copy.
    leaky = replace(references, heard=[*held_out[:3], hear(0.3 * waves[1])])
    found = find_nearest(Compared(held_out, made), sounds, leaky, output_dir=tmp_path)
    (leaked,) = found["held_out_copies"]
    assert (leaked["held_out"], leaked["trained"]) == ("other3.wav", "trained1.wav")
    assert found["held_out_highest"] < 0.7
    assert found["flagged"]
    said = memorisation_sentences({"continuations": {"computed": False}, "nearest": found})[0]
    assert said.startswith(
        "Warning: 1 of 4 held-out clips repeats a training clip, such as other3."
    )
