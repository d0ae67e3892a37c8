"""Training from a packed file: right gradients, bit-equal resuming, what it writes loads."""

from __future__ import annotations

import dataclasses
import json
import shutil
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from musicgen_lora import atomic
from musicgen_lora.dataset.batches import ClipDataset, WindowSampler, epoch_order
from musicgen_lora.dataset.packed import PackedTokens, write_packed
from musicgen_lora.errors import UserError
from musicgen_lora.model.base.loading import load_base, load_processor, load_tokenizer
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.codec import Codec
from musicgen_lora.model.delays import Delays
from musicgen_lora.model.lora.adapter import load_adapter
from musicgen_lora.model.text.states import TextStates
from musicgen_lora.training.packed.captured import (
    CapturedGradients,
    DeviceData,
    step_totals,
    with_wrong_tokens,
)
from musicgen_lora.training.packed.draws import DrawnBatch, Draws
from musicgen_lora.training.packed.settings import PackedSettings
from musicgen_lora.training.packed.train import PackedRun, main, train_packed

CAPTIONS = [["hip hop beat", "trap beat"], ["808 bass"], ["trap drums with 808"], ["minor beat"]]


@pytest.fixture(scope="module")
def tokens(tiny_model_dir):
    """Four clips in which each code follows from the one before: easy to learn."""
    model = load_base(tiny_model_dir)
    lengths = np.array([60, 40, 25, 60])
    frame = np.concatenate([np.arange(n) for n in lengths])
    codes = np.stack([(frame * (k + 1) + k) % 16 for k in range(4)], axis=1).astype(np.uint16)
    held_out = np.array([False, False, False, True])
    return PackedTokens(codes, lengths, CAPTIONS, held_out, 64, 50.0, Codec(model).fingerprint)


@pytest.fixture
def settings(tokens, tiny_model_dir, tmp_path):
    write_packed(tmp_path / "tokens.safetensors", tokens)
    return PackedSettings(
        tokens=tmp_path / "tokens.safetensors",
        output_dir=tmp_path / "out",
        model_path=str(tiny_model_dir),
        batch_size=2,
        gradient_accumulation_steps=2,
        max_duration=0.8,
        max_steps=6,
        save_every=3,
        validate_every=3,
        learning_rate=3e-3,
        device="cpu",
    )


def reference_loss(model, tokens, draws, data, text):
    """Mean over codebooks of the cross-entropy over all predicted frames, window by window."""
    flat = {row: caption for rows, texts in zip(data.captions, tokens.texts, strict=True)
            for row, caption in zip(rows, texts, strict=True)}  # fmt: skip
    sums, counts = [0.0] * 4, [0] * 4
    for draw in draws:
        for start, length, caption in zip(
            *(part.tolist() for part in (draw.starts, draw.n_frames, draw.captions)), strict=True
        ):
            codes = torch.from_numpy(tokens.codes[start : start + length].astype(np.int64)).T[None]
            states, mask = text.batch([flat.get(caption)])
            logits = model.decoder(
                input_ids=Delays([0, 1, 2, 3]).delay(codes, 64).flatten(0, 1),
                encoder_hidden_states=model.enc_to_dec_proj(states) * mask[..., None],
                encoder_attention_mask=mask,
            ).logits.view(1, 4, length, -1)
            for k in range(4):
                predicted, wanted = logits[0, k, k:], codes[0, k, : length - k]
                sums[k] = sums[k] + functional.cross_entropy(predicted, wanted, reduction="sum")
                counts[k] += length - k
    return sum(s / c for s, c in zip(sums, counts, strict=True)) / 4


def test_the_gradient_is_that_of_one_big_batch(tokens, tiny_model_dir):
    base = BaseModel.load(tiny_model_dir)
    model, text = base.hf, base.text
    model.decoder.requires_grad_(True)
    data = DeviceData(tokens, text, 40, torch.device("cpu"))
    tokens = dataclasses.replace(tokens, held_out=np.zeros(4, dtype=bool))
    draws = Draws(tokens, data.captions, WindowSampler(40, 0, 0.4)).step(0, 2, 2)
    assert {int(row) for draw in draws for row in draw.captions} > {0}
    gradients = CapturedGradients(base, data, 2, autocast=None, capture=False)
    for draw in draws:
        gradients.add(draw, step_totals(draws, Delays.of(4, 1)))
    ours = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    loss = reference_loss(model, tokens, draws, data, text)
    loss.backward()
    assert float(gradients.codebooks.mean()) == pytest.approx(loss.item(), abs=1e-5)
    assert ours
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(ours[name], parameter.grad, atol=2e-6, rtol=1e-4)


def test_windows_are_of_their_clip_and_dropped_captions_are_null(tokens):
    captions = [[1, 2], [3], [4], [5]]
    draws = Draws(tokens, captions, WindowSampler(40, 1, 0.25))
    draw = draws.batch([(epoch, clip) for epoch in range(400) for clip in range(3)])
    rows = np.tile([0, 1, 2], 400)
    inside = draw.starts.numpy() - tokens.offsets[rows]
    assert inside.min() == 0
    assert inside[rows == 0].max() == 20
    assert (inside[rows > 0] == 0).all()
    assert (draw.n_frames.numpy() == np.minimum(tokens.n_frames[rows], 40)).all()
    chosen = draw.captions.numpy()
    assert (chosen == 0).mean() == pytest.approx(0.25, abs=0.04)
    for row in range(3):
        assert set(chosen[rows == row]) - {0} == set(captions[row])


def test_a_share_of_the_windows_begins_on_a_bar_line(tokens):
    """Of a clip whose bars begin at 3.4, 14.9, 26.4 and so on; the second's are not known and the
    third's leave no whole window."""
    bars = np.array([[3.4, 11.5], [np.nan, np.nan], [20.0, 8.0], [0.0, 10.0]], np.float32)
    tokens = dataclasses.replace(tokens, bars=bars)
    places = [(epoch, clip) for epoch in range(300) for clip in range(3)]

    def starts(share):
        draws = Draws(tokens, [[1]] * 4, WindowSampler(24, 1), bar_start_share=share)
        found = draws.batch(places).starts.numpy() - tokens.offsets[np.tile([0, 1, 2], 300)]
        return found.reshape(300, 3)

    anywhere, half, all_of_them = starts(0.0), starts(0.5), starts(1.0)
    assert set(all_of_them[:, 0]) == {3, 15, 26}
    assert np.isin(half[:, 0], [3, 15, 26]).mean() == pytest.approx(0.5 + 0.5 * 3 / 37, abs=0.1)
    np.testing.assert_array_equal(all_of_them[:, 1:], anywhere[:, 1:])


def test_loops_go_round_in_whole_bars(tokens, tiny_model_dir):
    """One bar of 5 frames, or two: four do not fit twice into 24 frames. A loop is on a bar line,
    and its tokens come again."""
    bars = np.array([[2.0, 5.0], *[[np.nan, np.nan]] * 3], np.float32)
    tokens = dataclasses.replace(tokens, bars=bars)
    text = BaseModel.load(tiny_model_dir).text
    data = DeviceData(tokens, text, 24, torch.device("cpu"))

    def drawn(loop_share, bar_start_share=0.5):
        draws = Draws(
            tokens,
            data.captions,
            WindowSampler(24, 1),
            bar_start_share=bar_start_share,
            loop_share=loop_share,
        )
        return draws.batch([(epoch, clip) for epoch in range(200) for clip in range(2)])

    draw = drawn(1.0)
    periods = draw.periods.numpy().reshape(200, 2)
    assert set(periods[:, 0]) == {5, 10, 24}
    assert (periods[:, 0] < 24).mean() == pytest.approx(0.5 * 2 / 3, abs=0.1)
    assert (periods[:, 1] == 24).all(), "its bars are not known"
    starts = draw.starts.numpy().reshape(200, 2)[:, 0]
    assert ((starts[periods[:, 0] < 24] - 2) % 5 == 0).all()
    codes = data.batch(draw)[0].numpy()
    for clip, start, length in zip(codes, draw.starts.tolist(), draw.periods.tolist(), strict=True):
        period = int(length)
        np.testing.assert_array_equal(clip[:, period:], clip[:, : 24 - period])
        np.testing.assert_array_equal(clip[:, :period].T, tokens.codes[start : start + period])
    assert (drawn(0.0).periods == 24).all()
    assert (drawn(1.0, bar_start_share=0.0).periods == 24).all()


def test_what_is_predicted_is_right_where_what_is_heard_is_wrong(tokens, tiny_model_dir):
    base = BaseModel.load(tiny_model_dir)
    base.hf.decoder.requires_grad_(True)
    data = DeviceData(tokens, base.text, 40, torch.device("cpu"))
    draws = Draws(tokens, data.captions, WindowSampler(40))
    draw = draws.step(0, 2, 1)[0]
    gradients = CapturedGradients(base, data, 2, autocast=None, capture=False, wrong_tokens=0.9)
    gradients.add(draw, step_totals([draw], base.delays))
    codes, texts = data.batch(draw)
    logits = base.logits(with_wrong_tokens(codes, draw.seeds, 0.9), texts)
    for k in range(4):
        predicted = [logits[b, k, : n - k] for b, n in enumerate(draw.n_frames.tolist())]
        wanted = [codes[b, k, : n - k] for b, n in enumerate(draw.n_frames.tolist())]
        expected = functional.cross_entropy(torch.cat(predicted), torch.cat(wanted))
        assert gradients.codebooks[k].item() == pytest.approx(expected.item(), abs=1e-5)


def test_embeddings_stay_as_short_as_asked(settings):
    bounded = dataclasses.replace(settings, max_embedding_norm=0.1)
    state = train_packed(bounded)
    assert state.step == 6
    best = BaseModel.load(str(settings.output_dir / "best_model"))
    lengths = [t.weight.norm(dim=1) for t in best.hf.decoder.model.decoder.embed_tokens]
    longest = float(torch.cat(lengths).max())
    assert longest <= 0.1 + 1e-4
    assert longest > 0.09, "nothing was bounded"


def test_bars_that_are_not_known_are_asked_for(settings):
    settings = dataclasses.replace(settings, bar_start_share=0.5)
    with pytest.raises(UserError, match="metadata, and first_bar_s"):
        PackedRun(settings)


def test_draws_are_those_of_the_dataset_that_was_packed(tokens):
    """Order, windows, captions and dropped conditions, of one seed, step for step."""
    tokens = dataclasses.replace(tokens, held_out=np.array([False, True, False, False]))
    rows = np.flatnonzero(~tokens.held_out)
    starts, seed, n_frames = tokens.offsets, 2**32 + 7, 30
    sampler = WindowSampler(n_frames, seed, condition_dropout=0.3)
    codes = [tokens.codes[starts[row] : starts[row] + tokens.n_frames[row]] for row in rows]
    dataset = ClipDataset(
        [SimpleNamespace(texts=CAPTIONS[row], source="") for row in rows],
        Codes(codes),
        sampler,
    )
    table = [None, *dict.fromkeys(text for texts in CAPTIONS for text in texts)]
    captions = [[table.index(text) for text in texts] for texts in CAPTIONS]
    draws = Draws(tokens, captions, sampler)
    for step in range(12):
        found = [draw for batch in draws.step(step, 2, 2) for draw in windows_of(batch)]
        for number, (start, length, caption) in enumerate(found, start=4 * step):
            epoch, place = divmod(number, len(rows))
            dataset.set_epoch(epoch)
            window = dataset[int(epoch_order(len(rows), seed, epoch)[place])]
            np.testing.assert_array_equal(tokens.codes[start : start + length], window.codes)
            assert table[caption] == window.caption


class Codes(list):
    """Takes the place of `TokenStore`."""

    @property
    def n_frames(self):
        return np.array([len(codes) for codes in self])


def windows_of(draw):
    parts = (draw.starts, draw.n_frames, draw.captions)
    return zip(*(part.tolist() for part in parts), strict=True)


@pytest.mark.parametrize("trainable", ["full", "lora"])
def test_a_run_that_was_stopped_equals_an_unbroken_one(settings, tmp_path, trainable):
    whole = dataclasses.replace(settings, trainable=trainable)
    train_packed(whole)
    parts = dataclasses.replace(whole, output_dir=tmp_path / "parts", max_minutes=0.0)
    for step in range(1, 7):
        assert train_packed(parts).step == step
    name = "model.safetensors" if trainable == "full" else "adapter_model.safetensors"
    for file in (f"best_model/{name}", f"checkpoints/step-000006/{name}"):
        assert (whole.output_dir / file).read_bytes() == (parts.output_dir / file).read_bytes()
    rows = [json.loads(line) for line in (parts.output_dir / "metrics.jsonl").open()]
    losses = [row["loss"] for row in rows if row["event"] == "validation"]
    assert losses[-1] < losses[0]


def test_what_it_writes_is_what_the_commands_load(settings):
    train_packed(settings)
    trained = load_base(settings.output_dir / "best_model")
    assert len(trained.decoder.lm_heads) == 4
    load_processor(settings.output_dir / "best_model")
    adapter = dataclasses.replace(
        settings, trainable="lora", output_dir=settings.output_dir / "lora"
    )
    train_packed(adapter)
    load_adapter(BaseModel.load(settings.model_path), adapter.output_dir / "best_model")


def test_other_settings_or_tokens_are_another_run(settings, tokens):
    train_packed(settings)
    with pytest.raises(UserError, match="another --output_dir"):
        train_packed(dataclasses.replace(settings, learning_rate=1e-4))
    # More steps are the same run, which goes on.
    assert train_packed(dataclasses.replace(settings, max_steps=7)).step == 7
    for change, said in (({"codec": "x"}, "different codec"), ({"bars": np.ones((4, 2))}, "other")):
        write_packed(settings.tokens, dataclasses.replace(tokens, **change))
        with pytest.raises(UserError, match=said):
            train_packed(settings)


def test_a_run_that_was_drawn_otherwise_is_another_one(settings):
    """As by a release before, whose checkpoints don't say how they drew."""
    train_packed(dataclasses.replace(settings, max_steps=3))
    checkpoints = settings.output_dir / "checkpoints"

    def fill(folder):
        shutil.copytree(checkpoints / "step-000003", folder, dirs_exist_ok=True)
        (folder / atomic.MANIFEST).unlink()
        state = json.loads((folder / "state.json").read_text())
        del state["draws_version"]
        (folder / "state.json").write_text(json.dumps(state))

    atomic.publish_folder(checkpoints / "step-000004", fill)
    with pytest.raises(UserError, match=r"another release, which draws .* another --output_dir"):
        train_packed(settings)


def test_as_a_command(settings, capsys):
    flags = [f"--{name}={value}" for name, value in settings.plain().items()]
    assert main([*flags, "--max_steps=1"]) == 0
    assert "step 1/1" in capsys.readouterr().out
    assert main([*flags, "--model_path=/nowhere"]) == 2
    assert "/nowhere" in capsys.readouterr().err


def test_draws_past_the_last_clip_are_masked(tokens, tiny_model_dir):
    model = load_base(tiny_model_dir)
    data = DeviceData(
        tokens, TextStates(model, load_tokenizer(tiny_model_dir)), 100, torch.device("cpu")
    )
    start, length = torch.tensor([int(tokens.offsets[-1])]), torch.tensor([60])
    zero = torch.tensor([0])
    last = DrawnBatch(start, length, zero, length, zero)
    codes, (states, mask) = data.batch(last)
    np.testing.assert_array_equal(codes[0, :, :60].numpy().T, tokens.codes[-60:])
    assert not states.any()
    assert not mask.any()


@pytest.mark.parametrize(
    "change",
    [{"seed": -1}, {"learning_rate": float("nan")}, {"batch_size": 0}, {"max_duration": 1e39}],
    ids=str,
)
def test_a_setting_out_of_range_is_one_line(settings, change, capsys):
    with pytest.raises(UserError, match=next(iter(change))):
        dataclasses.replace(settings, **change)
    flags = [f"--{name}={value}" for name, value in (settings.plain() | change).items()]
    assert main(flags) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_an_adapters_windows_are_no_longer_than_the_bases(
    settings, tiny_model_dir, tmp_path, capsys
):
    base = tmp_path / "base"
    shutil.copytree(tiny_model_dir, base)
    config = json.loads((base / "config.json").read_text())
    config["musicgen_lora"] = {"trained_duration_s": 0.5}
    (base / "config.json").write_text(json.dumps(config))
    run = PackedRun(dataclasses.replace(settings, model_path=str(base), trainable="lora"))
    assert run.n_frames == 25
    assert "trained on no longer ones" in capsys.readouterr().out
    assert PackedRun(dataclasses.replace(settings, model_path=str(base))).n_frames == 40


def test_a_share_of_the_steps_has_more_and_shorter_windows(settings, tmp_path):
    """As many frames in all; which steps, goes by the seed, so that a stopped run goes on as an
    unbroken one would."""
    mixed = dataclasses.replace(settings, short_duration=0.2, short_share=0.5)
    run = PackedRun(mixed)
    sizes = [run._windows_of(step).batch_size for step in range(200)]
    assert set(sizes) == {2, 8}
    assert sizes.count(8) == pytest.approx(100, abs=25)
    short = run._windows_of(sizes.index(8)).draws.step(0, 8, 1)[0]
    assert short.n_frames.tolist() == [10] * 8
    train_packed(mixed)
    parts = dataclasses.replace(mixed, output_dir=tmp_path / "parts", max_minutes=0.0)
    assert [train_packed(parts).step for _ in range(6)] == [1, 2, 3, 4, 5, 6]
    whole, broken = (
        BaseModel.load(str(folder / "best_model"))
        for folder in (mixed.output_dir, parts.output_dir)
    )
    for own, other in zip(whole.hf.parameters(), broken.hf.parameters(), strict=True):
        assert torch.equal(own, other)


def test_short_windows_are_no_longer_than_the_others(settings):
    with pytest.raises(UserError, match="no more than --max_duration"):
        dataclasses.replace(settings, short_duration=0.9, short_share=0.5)


def test_tokens_stay_off_the_directions_of_positions(settings):
    apart = dataclasses.replace(settings, tokens_off_positions=True)
    train_packed(apart)
    best = BaseModel.load(str(settings.output_dir / "best_model"))
    decoder: Any = best.hf.decoder.model.decoder
    positions = decoder.embed_positions.weights
    for table in decoder.embed_tokens:
        lengths = table.weight.norm(dim=1)
        assert lengths.min() > 0.01, "nothing is left"
        along = (table.weight @ positions.T).abs() / (lengths[:, None] * positions.norm(dim=1))
        assert along.max() < 0.05


def test_what_changes_the_base_is_not_for_adapters(settings):
    for change in ({"tokens_off_positions": True}, {"max_embedding_norm": 1.0}):
        with pytest.raises(UserError, match="--trainable full"):
            dataclasses.replace(settings, trainable="lora", **change)
