"""MusicGen as scripts and notebooks play it: the same clips as the command's, as values."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from adapters import draw_adapter
from tiny import make_tiny_musicgen

from musicgen_lora import GenerateSettings, MusicGen, UserError, generate_audio
from musicgen_lora.atomic import sha256_file
from musicgen_lora.generation.clips.clip import GeneratedClip
from musicgen_lora.model.lora.facts import AdapterFacts

PROMPTS = ["hip hop 808 beat", "sparse <b>drums</b>"]


@pytest.fixture(scope="module")
def model(tiny_model_dir: Path) -> MusicGen:
    """Shared: every test leaves it without adapters."""
    return MusicGen.load(tiny_model_dir)


@pytest.fixture(autouse=True)
def without_adapters(model: MusicGen) -> Any:
    yield
    for folder in list(model.adapters):
        model.remove_adapter(folder)


def sounds(clips: list[GeneratedClip]) -> list[bytes]:
    return [clip.waveform.tobytes() for clip in clips]


def test_it_plays_what_the_command_plays(
    model: MusicGen, pair: list[Path], tiny_model_dir: Path, tmp_path: Path
) -> None:
    for folder, strength in zip(pair, [0.7, 0.3], strict=True):
        model.add_adapter(folder, strength=strength)
    clips = model.generate(PROMPTS, duration=0.3, seed=5, top_k=20)
    paths = generate_audio(
        GenerateSettings(
            base_model_path=str(tiny_model_dir),
            lora_model_path=pair,
            strength=[0.7, 0.3],
            prompts=PROMPTS,
            duration=0.3,
            seed=5,
            top_k=20,
            output_dir=tmp_path,
        )
    )
    for index, (clip, path) in enumerate(zip(clips, paths, strict=True)):
        saved = clip.save(tmp_path / "saved" / f"{index}.wav")
        assert saved.read_bytes() == path.read_bytes()
        assert saved.with_suffix(".json").read_bytes() == path.with_suffix(".json").read_bytes()


def test_adapters_come_change_and_go_without_a_trace(model: MusicGen, pair: list[Path]) -> None:
    before = {name: tensor.clone() for name, tensor in model.base.hf.state_dict().items()}
    base = sounds(model.generate(PROMPTS, duration=0.2))
    model.add_adapter(pair[0])
    one = sounds(model.generate(PROMPTS, duration=0.2))
    model.add_adapter(str(pair[1]), strength=0.5)
    both = sounds(model.generate(PROMPTS, duration=0.2))
    assert model.adapters == {pair[0].resolve(): 1.0, pair[1].resolve(): 0.5}
    model.set_strength(pair[1], 0.0)
    assert sounds(model.generate(PROMPTS, duration=0.2)) == one
    model.set_strength(pair[0], 0.0)
    assert sounds(model.generate(PROMPTS, duration=0.2)) == base
    model.remove_adapter(pair[0])
    model.remove_adapter(pair[1])
    assert sounds(model.generate(PROMPTS, duration=0.2)) == base
    assert len({*base, *one, *both}) == 6
    after = model.base.hf.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_the_callers_random_numbers_stay_their_own(
    tiny_model_dir: Path, pair: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the first use of a base, which measures what is fastest, as on every later one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # In a place of its own, so that it is read and not copied from another test's.
    folder = shutil.copytree(tiny_model_dir, tmp_path / "base")
    before = torch.random.get_rng_state()
    for _ in range(2):
        model = MusicGen.load(folder)
        assert torch.equal(torch.random.get_rng_state(), before)
        model.add_adapter(pair[1])
        assert torch.equal(torch.random.get_rng_state(), before)
        model.generate(PROMPTS, duration=0.2)
        assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["tiny_model_dir", "tiny_stereo_dir"])
def test_a_stream_is_the_clip_in_parts(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = request.getfixturevalue(kind)
    model = MusicGen.load(folder)
    model.add_adapter(draw_adapter(folder, tmp_path / "lora"), 0.8)
    asked: dict[str, Any] = {"duration": 0.5, "seed": 3, "bpm": 90, "key": "Cm"}
    parts = list(model.stream(PROMPTS[0], chunk_s=0.1, **asked))
    (clip,) = model.generate(PROMPTS[0], **asked)
    assert len(parts) >= 5
    whole = np.concatenate(parts, axis=1) * 10.0 ** (clip.gain_db / 20.0)
    assert whole.shape == clip.waveform.shape
    assert np.allclose(whole, clip.waveform, atol=1e-5)


def test_a_loop_is_its_bars_long(model: MusicGen, tmp_path: Path) -> None:
    clip = model.loop("808 beat", bpm=140, bars=1, key="C#m", loop_tries=1)
    assert clip.waveform.shape == (1, round(240 / 140 * 32_000))
    assert (clip.facts["bars"], clip.facts["key"]) == (1, "C# minor")
    assert len(clip.facts["takes"]) == 1
    path = clip.save(tmp_path / "loop.flac")
    with soundfile.SoundFile(path) as file:
        assert "prompt: 808 beat; seed: " in file.comment


def test_captions_of_an_adapter_that_is_on_are_asked_for_from_python(
    model: MusicGen, tiny_model_dir: Path, tmp_path: Path
) -> None:
    folder = draw_adapter(tiny_model_dir, tmp_path / "lora")
    with pytest.raises(UserError, match="the captions come from an adapter"):
        model.generate([], duration=0.2, from_captions=1)
    base = {"path": "x", "fingerprint": model.base.fingerprint}
    AdapterFacts({"format_version": 1, "base": base, "data": {"captions": PROMPTS}}).write(folder)
    model.add_adapter(folder)
    clips = model.generate([], duration=0.2, from_captions=2)
    assert {clip.facts["prompt"] for clip in clips} == {*PROMPTS}


def test_prompts_and_recordings_are_asked_for_as_by_the_command(
    model: MusicGen, tmp_path: Path
) -> None:
    first, second = model.generate("808", duration=0.2, variations=2, negative_prompt="bass")
    assert [clip.facts["seed"] for clip in (first, second)] == [0, 1]
    assert first.facts["negative_prompt"] == "bass"
    (changed,) = model.generate(PROMPTS, duration=0.4, change_at=[0.2])
    assert [part["at"] for part in changed.facts["prompts"]] == [0.0, 0.2]
    parts = list(model.stream(PROMPTS, duration=0.4, change_at=[0.2], chunk_s=0.1))
    assert np.concatenate(parts, axis=1).shape == changed.waveform.shape
    given = first.save(tmp_path / "given.wav")
    (longer,) = model.generate("808", duration=0.3, continue_from=given, loop_tries=1)
    assert longer.duration_s == 0.5
    fade_s = longer.facts["takes"][0]["seams"]["begin"]["fade_s"][0]
    kept = round(fade_s * longer.sample_rate) - 4
    was = soundfile.read(given, dtype="float32", always_2d=True)[0].T
    np.testing.assert_array_equal(longer.waveform[:, :kept], was[:, :kept])


def test_a_notebook_plays_it(model: MusicGen) -> None:
    clips = model.generate(PROMPTS, duration=0.2)
    page = clips._repr_html_()
    players = re.findall(r'<audio controls src="data:audio/wav;base64,([^"]+)"></audio>', page)
    assert len(players) == 2
    for player, clip in zip(players, clips, strict=True):
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(player)), always_2d=True)
        assert rate == clip.sample_rate == 32_000
        assert np.allclose(samples.T, clip.waveform, atol=2**-14)
    assert "<b>" not in page
    assert "&lt;b&gt;" in page
    assert re.fullmatch(r"<Clip 'hip hop 808 beat', seed 0: 0.2 s, 1x6400 .*>", repr(clips[0]))


def test_a_clip_is_saved_in_any_format_and_over_nothing_else(
    model: MusicGen, tmp_path: Path
) -> None:
    first, second = model.generate(PROMPTS, duration=0.2, format="wav24", spectrogram=True)
    path = first.save(tmp_path / "a.wav")
    assert soundfile.info(path).subtype == "PCM_24"
    assert {p.suffix for p in tmp_path.iterdir()} == {".wav", ".json", ".png"}
    said = json.loads(path.with_suffix(".json").read_text())
    hashes = {p.suffix: sha256_file(p) for p in tmp_path.iterdir() if p.suffix != ".json"}
    assert said == {**first.facts, "sha256": hashes}
    assert first.save(str(path)) == path, "the same clip again"
    for other in ("a.wav", "a.ogg"):
        with pytest.raises(UserError, match=r"a\.(json|png|wav): already exists"):
            second.save(tmp_path / other)
    with pytest.raises(UserError, match=r"a.m4a: unknown format; use one of \.mp3"):
        first.save(tmp_path / "a.m4a")
    assert soundfile.info(first.save(tmp_path / "b.ogg")).format == "OGG"
    assert len(list(tmp_path.iterdir())) == 6


def test_what_is_asked_wrongly_is_one_line_and_changes_nothing(
    model: MusicGen, pair: list[Path], tmp_path: Path
) -> None:
    model.add_adapter(pair[0], 0.5)
    other = draw_adapter(make_tiny_musicgen(tmp_path / "base", seed=9), tmp_path / "other")
    cases: list[tuple[Any, str]] = [
        (lambda: model.add_adapter(tmp_path / "gone"), "no such adapter folder"),
        (lambda: model.add_adapter(other), "trained on another base"),
        (lambda: model.add_adapter(pair[0]), "was added already"),
        (lambda: model.add_adapter(pair[1], strength=3), "strength = 3: must be from 0"),
        (lambda: model.set_strength(pair[0], -1), "strength = -1: must be from 0"),
        (lambda: model.set_strength(pair[1], 1), r"no such adapter was added; added are: .*one"),
        (lambda: model.remove_adapter("gone"), "gone: no such adapter was added"),
        (lambda: model.generate([]), "--prompts is empty"),
        (lambda: model.generate(" "), "--prompts has an empty one"),
        (
            lambda: model.generate("x", temprature=1),
            r"temprature: no such setting; did you mean temperature\?",
        ),
        (lambda: model.generate("x", output_dir="y"), "output_dir: no such setting"),
        (
            lambda: model.generate("x", duration=601.0),
            "^duration = 601.0: Input should be less than or equal to 600.$",
        ),
        (lambda: model.generate("x", melody=tmp_path / "tune.wav"), "takes no melody"),
        (lambda: model.loop("x", bpm=140, bars=4, key="H"), 'no such key; give one such as "C#'),
        (lambda: model.loop("x", bpm=20, bars=4), r"make 48.0 s, but a loop is at most 30 s"),
        (lambda: model.stream("x", best_of=3), "best_of: is for whole clips"),
        (lambda: model.stream("x", chunk_s=-1.0), "chunk_s = -1.0: must be a number above 0"),
        (lambda: model.stream("x", chunk_s="a"), "chunk_s = 'a': must be a number above 0"),
        (lambda: model.stream("x", chunk_s=np.inf), "chunk_s = inf: must be a number above 0"),
        (lambda: model.generate(5), "^prompts = 5: Input should be a valid list.$"),
        (lambda: model.generate(None), "^prompts = None: Input should be a valid list.$"),
        (lambda: model.stream(5), "^prompts = 5: Input should be a valid list.$"),
        (lambda: model.add_adapter(pair[1], strength="a"), "strength = 'a': must be from 0"),
        (lambda: model.set_strength(pair[0], None), "strength = None: must be from 0"),
        (lambda: model.add_adapter(5), "^5: is not a path; give text or a Path.$"),
        (lambda: model.add_adapter([pair[1]]), "is not a path; give text or a Path.$"),
        (lambda: model.remove_adapter(5), "^5: is not a path; give text or a Path.$"),
        (lambda: MusicGen.load(precision="fp99"), "^precision = 'fp99': Input should be 'auto'"),
        (lambda: model.stream(["x", "y"]), "A stream is one clip"),
    ]
    for call, said in cases:
        with pytest.raises(UserError) as raised:
            call()
        assert re.search(said, str(raised.value)), raised.value
        assert "\n" not in str(raised.value)
    assert model.adapters == {pair[0].resolve(): 0.5}


def test_an_adapter_at_home_is_changed_and_removed_by_the_name_it_was_added_by(
    model: MusicGen, pair: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(pair[0].parent))
    named = f"~/{pair[0].name}"
    model.add_adapter(named, np.float32(0.5))
    model.set_strength(named, 1)
    assert model.adapters == {pair[0].resolve(): 1}
    model.remove_adapter(named)
    assert not model.adapters


def test_a_notebook_shows_nothing_of_what_libraries_say(
    tiny_model_dir: Path, pair: list[Path]
) -> None:
    """In a process of its own: a command that ran before has silenced them."""
    words = [
        "import sys",
        "from musicgen_lora import MusicGen",
        "model = MusicGen.load(sys.argv[1])",
        "model.add_adapter(sys.argv[2])",
        "from transformers.utils import logging",
        "assert logging.is_progress_bar_enabled()",
    ]
    command = [sys.executable, "-c", "\n".join(words), str(tiny_model_dir), str(pair[0])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_a_model_says_what_it_is_and_what_it_plays_by_once(
    tiny_model_dir: Path, pair: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(tiny_model_dir, tmp_path / "advising")
    config = json.loads((folder / "config.json").read_text())
    config["musicgen_lora"] = {"advised_guidance_scale": 2.5, "advised_temperature": 0.9}
    (folder / "config.json").write_text(json.dumps(config))
    model = MusicGen.load(folder, precision="fp32")
    for seed in (0, 1):
        model.generate(PROMPTS[:1], duration=0.1, seed=seed)
    assert repr(model) == f"<MusicGen {folder}, mono at 32000 Hz, fp32 on cpu; adapters: none>"
    model.add_adapter(pair[0], strength=0.5)
    model.generate(PROMPTS[:1], duration=0.1)
    said = capsys.readouterr().out
    assert said.count("As this base recommends: --guidance_scale 2.5 --temperature 0.9.") == 1
    assert said.count("Decoding in fp32") == 1
    assert f"adapters: {pair[0].resolve()} x 0.5>" in repr(model)
    # Another part of the advice is another line.
    model.generate(PROMPTS[:1], duration=0.1, guidance_scale=1.0)
    assert "As this base recommends: --temperature 0.9." in capsys.readouterr().out
