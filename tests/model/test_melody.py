"""Melody models against transformers' own forward and generate, and tunes against an extractor
written out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from made_datasets import RATE, beat, sine
from transformers.audio_utils import chroma_filter_bank

from musicgen_lora.errors import UserError
from musicgen_lora.generation.decoding.decode import generate_codes
from musicgen_lora.generation.decoding.request import Conditions, Request
from musicgen_lora.generation.decoding.sampling import Sampling
from musicgen_lora.model.base.loading import load_base, load_tokenizer
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.chroma import Chroma
from musicgen_lora.model.delays import Delays
from musicgen_lora.model.loss import codebook_cross_entropies
from musicgen_lora.model.text.states import TextStates

PROMPTS = ["hip hop 808 beat", "trap drums with bass and the 808 pattern"]
MONO, STEREO = Delays((0, 1, 2, 3)), Delays((0, 0, 1, 1, 2, 2, 3, 3))


@pytest.fixture(params=["mono", "stereo"])
def loaded(request, tiny_melody_dir: Path, tiny_stereo_melody_dir: Path):
    """Model, its folder, and its delays."""
    if request.param == "mono":
        return load_base(tiny_melody_dir), tiny_melody_dir, MONO
    return load_base(tiny_stereo_melody_dir), tiny_stereo_melody_dir, STEREO


def random_tunes(n_clips: int) -> torch.Tensor:
    return torch.randint(0, 12, (n_clips, 11), generator=torch.Generator().manual_seed(1))


def logits_of_transformers(model, folder, codes, caption, tune, delays):
    """`[K, T, V]` of one clip `[K, T]`; a caption of None is the null condition."""
    tokens = load_tokenizer(folder)("" if caption is None else caption, return_tensors="pt")
    mask = tokens["attention_mask"]
    output = model(
        input_ids=tokens["input_ids"],
        attention_mask=torch.zeros_like(mask) if caption is None else mask,
        input_features=None if tune is None else torch.eye(12)[tune][None],
        decoder_input_ids=delays.delay(codes[None], 64)[0],
    ).logits
    # The conditions' positions come first.
    return output[:, -codes.shape[-1] :]


@torch.no_grad()
@pytest.mark.parametrize("with_tunes", [True, False])
def test_logits_and_loss_equal_transformers_clip_by_clip(loaded, with_tunes: bool) -> None:
    """Captions of three lengths (one is dropped) and clips of three, in one batch."""
    model, folder, delays = loaded
    lengths = [30, 17, 9]
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 64, (3, len(delays), 30), generator=generator)
    tunes = random_tunes(3) if with_tunes else None
    captions = [PROMPTS[1], None, PROMPTS[0]]
    texts = TextStates(model, load_tokenizer(folder)).batch(captions)
    ours = BaseModel(model).logits(codes, texts, tunes)
    sums, counts = codebook_cross_entropies(
        BaseModel(model).states(codes, texts, tunes),
        list(model.decoder.lm_heads),
        codes,
        torch.tensor(lengths),
        delays,
    )
    nats = [[0.0, 0] for _ in delays]
    for index, length in enumerate(lengths):
        theirs = logits_of_transformers(
            model,
            folder,
            codes[index, :, :length],
            captions[index],
            None if tunes is None else tunes[index],
            delays,
        )
        for k, delay in enumerate(delays):
            for frame in range(length - delay):
                row = theirs[k, frame + delay]
                assert torch.allclose(ours[index, k, frame], row, atol=1e-4)
                nats[k][0] -= float(row.double().log_softmax(0)[codes[index, k, frame]])
                nats[k][1] += 1
    assert counts.sum(0).tolist() == [count for _, count in nats]
    expected = sum(total / count for total, count in nats) / len(delays)
    assert float((sums.sum(0) / counts.sum(0)).mean()) == pytest.approx(expected, abs=1e-5)


@torch.no_grad()
def test_the_tune_matters_and_none_is_one_that_stays_on_c(loaded) -> None:
    model, folder, delays = loaded
    codes = torch.zeros(1, len(delays), 8, dtype=torch.long)
    conditions = TextStates(model, load_tokenizer(folder)).batch(PROMPTS[:1])
    with_tune = BaseModel(model).states(codes, conditions, random_tunes(1))
    without = BaseModel(model).states(codes, conditions)
    on_c = BaseModel(model).states(codes, conditions, torch.zeros(1, 11))
    assert torch.equal(without, on_c)
    assert not torch.allclose(with_tune, without, atol=1e-2)


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
@pytest.mark.parametrize("with_tunes", [True, False])
def test_greedy_tokens_equal_transformers(
    tiny_melody_dir: Path, guidance_scale: float, with_tunes: bool
) -> None:
    """Prompts of two lengths in one batch; transformers is given them one by one."""
    model = load_base(tiny_melody_dir)
    tunes = random_tunes(2) if with_tunes else None
    texts = TextStates(model, load_tokenizer(tiny_melody_dir)).batch(PROMPTS)
    ours = generate_codes(
        BaseModel(model),
        Request(
            Conditions(texts, melodies=tunes),
            n_frames=20,
            seeds=[0, 1],
            sampling=Sampling(guidance_scale, top_k=1),
        ),
    )
    decode, seen = model.audio_encoder.decode, []
    model.audio_encoder.decode = lambda codes, **kw: seen.append(codes[0]) or decode(codes, **kw)
    for index, prompt in enumerate(PROMPTS):
        features = {} if tunes is None else {"input_features": torch.eye(12)[tunes[index]][None]}
        model.generate(
            **load_tokenizer(tiny_melody_dir)(prompt, return_tensors="pt"),
            **features,
            do_sample=False,
            guidance_scale=guidance_scale,
            max_new_tokens=20 + 3,
        )
    assert torch.equal(ours, torch.cat(seen))
    assert len(ours.unique()) > 4


def extracted_by_hand(waveform: np.ndarray, length: int) -> np.ndarray:
    """Frame by frame with numpy's FFT, the padding spelt out."""
    mono = waveform.mean(axis=0).astype(np.float64)
    if len(mono) < 16384:
        lacking = 16384 - len(mono)
        mono = np.concatenate([np.zeros(lacking // 2), mono, np.zeros(lacking - lacking // 2)])
    padded = np.concatenate([mono[8192:0:-1], mono, mono[-2:-8194:-1]])
    hann = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(16384) / 16384)
    filters = chroma_filter_bank(16384, 12, 32000, tuning=0)
    classes = []
    for begin in range(0, len(mono) + 1, 4096):
        power = np.abs(np.fft.rfft(padded[begin : begin + 16384] * hann)) ** 2
        classes.append(int(np.argmax(filters @ power)))
    return np.array([classes[i % len(classes)] for i in range(length)])


@pytest.mark.parametrize("duration_s", [0.2, 0.6, 3.9])
def test_tunes_equal_an_extractor_written_out(tiny_melody_dir: Path, duration_s: float) -> None:
    waveform = beat(0, duration_s)
    tune = Chroma(tiny_melody_dir, 40)(waveform)
    expected = extracted_by_hand(waveform, 40)
    # Two classes within the rounding of float32 may change places.
    assert np.mean(tune == expected) > 0.97
    assert tune.dtype == np.uint8


def test_tunes_equal_the_extractor_of_transformers(tiny_melody_dir: Path) -> None:
    pytest.importorskip("torchaudio", exc_type=ImportError)
    from transformers import MusicgenMelodyFeatureExtractor

    waveform = beat(1, 3.9)
    theirs = MusicgenMelodyFeatureExtractor.from_pretrained(tiny_melody_dir)(
        waveform.mean(axis=0), sampling_rate=RATE, return_tensors="pt"
    ).input_features[0]
    ours = Chroma(tiny_melody_dir, len(theirs))(waveform)
    assert ours.tolist() == theirs.argmax(-1).tolist()


def test_a_tune_has_the_notes_that_are_played(tiny_melody_dir: Path) -> None:
    """A4, C5, E5: classes 9, 0, 4, a second each."""
    played = np.concatenate([sine(f, 1.0, RATE) for f in (440.0, 523.25, 659.26)], axis=1)
    tune = Chroma(tiny_melody_dir, 24)(played).tolist()
    assert [tune[round((second + 0.5) * RATE / 4096)] for second in range(3)] == [9, 0, 4]


def test_a_tune_longer_than_the_model_reads_is_read_whole(tiny_melody_dir: Path) -> None:
    """A4, C5, E5: four seconds each, of which a window of the model reads 1.4."""
    played = np.concatenate([sine(f, 4.0, RATE) for f in (440.0, 523.25, 659.26)], axis=1)
    chroma = Chroma(tiny_melody_dir, 11)
    chroma.max_duration_s = 1.4
    tune = chroma.along(played)
    assert [tune[round((4 * part + 2) * RATE / 4096)] for part in range(3)] == [9, 0, 4]
    assert len(tune) == 1 + 12 * RATE // 4096
    assert tune[:9].tolist() == chroma(played)[:9].tolist()
    # What fits is what the model is trained on.
    short = played[:, : round(0.6 * RATE)]
    assert chroma.along(short).tolist() == chroma(short).tolist()


def test_a_model_without_extractor_settings_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no preprocessor_config"):
        Chroma(tmp_path, 11)


def test_the_melody_of_channels_that_cancel(tiny_melody_dir: Path) -> None:
    """As of a recording with one channel inverted: their mean is what rounding leaves."""
    chroma = Chroma(tiny_melody_dir, 11)
    left = sine(440.0, 2.0, RATE)
    noise = 1e-5 * np.random.default_rng(0).standard_normal(left.shape).astype(np.float32)
    assert np.array_equal(chroma(np.concatenate([left, noise - left])), chroma(left))
