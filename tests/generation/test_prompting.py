"""The command: prompts from every source, recordings to continue, and sound on standard output."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from adapters import make_adapter
from rich.console import Console
from trainer import file_hashes

from musicgen_lora.cli import main
from musicgen_lora.config import GenerateSettings
from musicgen_lora.errors import UserError
from musicgen_lora.generation.generate import generate_audio
from musicgen_lora.generation.orders import draw_captions, orders_of
from musicgen_lora.model.base.loading import load_base
from musicgen_lora.model.lora.adapter import AdapterFiles
from musicgen_lora.model.lora.facts import AdapterFacts

RATE = 32_000


def generate(model: Path, folder: Path, *words: Any) -> int:
    given = ["generate", "--base_model_path", str(model), "--output_dir", str(folder)]
    return main([*given, *map(str, words)])


def facts_in(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    return sorted(found, key=lambda facts: facts["seed"])


def noise(path: Path, seconds: float, rate: int = RATE, n_channels: int = 1) -> Path:
    rng = np.random.default_rng(0)
    samples = 0.3 * rng.standard_normal((round(seconds * rate), n_channels))
    soundfile.write(path, np.clip(samples, -1, 1), rate)
    return path


def test_rows_are_played_by_their_settings_and_to_the_sample(
    tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"prompt": "808", "duration": 0.30003, "negative_prompt": "bass", "guidance_scale": 1},
        {"prompts": [{"at": 0, "prompt": "trap"}, {"at": 0.2, "prompt": "hip hop"}], "seed": 9},
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    words = ["--prompts_file", tmp_path / "rows.json", "--duration", "0.4", "--variations", "2"]
    assert generate(tiny_model_dir, tmp_path / "out", *words, "--guidance_end", "1") == 0
    found = facts_in(tmp_path / "out")
    assert [one["seed"] for one in found] == [0, 1, 9, 10]
    assert [one["prompt"] for one in found] == ["808", "808", "trap", "trap"]
    assert found[2]["prompts"] == [{"at": 0.0, "prompt": "trap"}, {"at": 0.2, "prompt": "hip hop"}]
    assert (found[0]["negative_prompt"], found[0]["guidance_end"]) == ("bass", 1.0)
    lengths = {soundfile.info(path).frames for path in (tmp_path / "out").glob("808*.wav")}
    assert lengths == {round(0.30003 * RATE)}
    assert "--negative_prompt has no effect" in capsys.readouterr().out


def test_rows_that_ask_for_the_same_clip_are_told(
    tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They share one file and are played once; without a seed of their own they would be two."""
    table = tmp_path / "rows.csv"
    table.write_text("prompt,seed,top_k\n808,7,\n808,7,\n808,7,50\n808,,\n808,,\n")
    words = ["--prompts_file", table, "--duration", "0.1"]
    assert generate(tiny_model_dir, tmp_path / "out", *words) == 0
    assert len(facts_in(tmp_path / "out")) == 4
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.endswith(".wav") for line in lines) == 4
    assert [line for line in lines if "same clip" in line] == [
        f"{table}, line 3: asks for the same clip as {table}, line 2; it is generated once, "
        "into one file. Give the row another seed, or none."
    ]


def test_rows_that_spell_one_clip_in_two_ways_are_told(tmp_path: Path) -> None:
    rows = [
        *({"prompt": "808", "seed": 7}, {"prompt": "808", "seed": 7, "format": "wav"}),
        *({"prompt": "808", "seed": 7, "key": key} for key in ("C# minor", "c#m")),
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    said = io.StringIO()
    settings = GenerateSettings(prompts_file=tmp_path / "rows.json")
    orders = orders_of(settings, [], Console(file=said, width=300))
    assert [order.settings.key for order in orders] == ["", "C# minor"]
    assert "entry 2: asks for the same clip" in said.getvalue()
    assert "entry 4: asks for the same clip" in said.getvalue()


def test_a_clip_of_several_windows_ends_where_it_was_asked_to(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    assert generate(tiny_model_dir, tmp_path, "--prompts", "808", "--duration", "31.00001") == 0
    (path,) = tmp_path.glob("*.wav")
    assert soundfile.info(path).frames == round(31.00001 * RATE)
    assert facts_in(tmp_path)[0]["window_s"] == 30.0


def test_a_recording_goes_on_and_is_not_touched(tiny_model_dir: Path, tmp_path: Path) -> None:
    given = noise(tmp_path / "given.wav", 1.0, 44_100, 2)
    before = given.read_bytes()
    words = ["--prompts", "808", "--continue_from", given, "--duration", "0.5", "--loop_tries", "1"]
    assert generate(tiny_model_dir, tmp_path / "out", *words) == 0
    (path,) = (tmp_path / "out").glob("*.wav")
    samples, rate = soundfile.read(path, dtype="int16")
    was, _ = soundfile.read(given, dtype="int16")
    assert (rate, samples.shape) == (44_100, (round(1.5 * 44_100), 2))
    (facts,) = facts_in(tmp_path / "out")
    fade = facts["takes"][0]["seams"]["begin"]["fade_s"]
    kept = round(fade[0] * rate) - 1
    np.testing.assert_array_equal(samples[:kept], was[:kept])
    assert facts["continued"]["heard_s"] == 1.0
    assert given.read_bytes() == before


def test_new_music_that_stays_quieter_than_the_recording_is_told(
    tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The first bar, which is heard, is 20 dB quieter than the two that are played anew.
    given = noise(tmp_path / "loop.wav", 4.0)
    samples, _ = soundfile.read(given)
    samples[:RATE] *= 0.1
    soundfile.write(given, samples, RATE)
    words = ["--prompts=808", "--regenerate", given, "--from_bar=2", "--to_bar=3", "--bpm=240"]
    assert generate(tiny_model_dir, tmp_path / "out", *words, "--loop_tries=1") == 0
    levels = facts_in(tmp_path / "out")[0]["takes"][0]["onto"]
    assert levels["quieter_db"] > 2.0
    said = f"the new music is {levels['quieter_db']:.1f} dB quieter"
    assert said in " ".join(capsys.readouterr().out.split())


def test_bars_are_played_anew_and_the_rest_stays(tiny_model_dir: Path, tmp_path: Path) -> None:
    # Four bars of 240 bpm, which the JSON beside them tells.
    given = noise(tmp_path / "loop.wav", 4.0)
    told = {"prompt": "trap 808", "bpm": 240, "bars": 4, "key": "C# minor", "seed": 0}
    (tmp_path / "loop.json").write_text(json.dumps(told))
    before = file_hashes(tmp_path)
    words = ["--regenerate", given, "--from_bar", 2, "--to_bar", 3, "--loop_tries", 1]
    assert generate(tiny_model_dir, tmp_path, *words) == 0
    assert before.items() <= file_hashes(tmp_path).items()
    path = tmp_path / "Trap_240bpm_C#min_01.wav"
    samples, _ = soundfile.read(path, dtype="int16")
    was, _ = soundfile.read(given, dtype="int16")
    facts = json.loads(path.with_suffix(".json").read_text())
    (begin, _), (_, end) = (
        [round(at * RATE) for at in facts["takes"][0]["seams"][name]["fade_s"]]
        for name in ("begin", "end")
    )
    assert len(samples) == len(was)
    np.testing.assert_array_equal(samples[: begin - 2], was[: begin - 2])
    np.testing.assert_array_equal(samples[end + 2 :], was[end + 2 :])
    assert not np.array_equal(samples[RATE : 2 * RATE], was[RATE : 2 * RATE])
    assert (facts["bpm"], facts["bars"], facts["prompt"]) == (240, 4, "trap 808")
    assert facts["read_as"] == "trap 808, 240 bpm, C# minor"
    # And once more, of what was made; other words may mean another key.
    assert generate(tiny_model_dir, tmp_path, "--regenerate", path, *words[2:]) == 0
    assert (tmp_path / "Trap_240bpm_C#min_02.wav").is_file()
    assert generate(tiny_model_dir, tmp_path, *words, "--prompts", "drill, F minor") == 0
    assert (tmp_path / "Drill_Minor_240bpm_01.wav").is_file()


def test_standard_output_has_the_sound_alone(
    tiny_model_dir: Path, tmp_path: Path, capfdbinary: Any
) -> None:
    words = ["--prompts", "808", "trap", "--duration", "1.2", "--stdout", "s16"]
    assert generate(tiny_model_dir, tmp_path, *words) == 0
    out, err = capfdbinary.readouterr()
    files = [soundfile.read(path, dtype="int16")[0] for path in sorted(tmp_path.glob("*.wav"))]
    heard = np.frombuffer(out, dtype="<i2")
    # Parts are the whole up to rounding.
    assert np.abs(heard.astype(int) - np.concatenate(files)).max() <= 1
    assert b"Standard output: s16, 32000 Hz, 1 channel." in err
    # The files are those of a run that nobody heard.
    assert generate(tiny_model_dir, tmp_path / "plain", *words[:-2]) == 0
    plain = {name: h for name, h in file_hashes(tmp_path / "plain").items() if name != ".lock"}
    assert plain.items() <= file_hashes(tmp_path).items()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--prompts_file", "{gone}"], "{gone}: cannot be read (No such file"),
        (["--prompts_file", "{bad}"], "{bad}, entry 1: 'tempo': no such field"),
        (["--prompts_file", "{key}"], '{key}, entry 2: --key "H": no such key'),
        (["--prompts", "x", "--continue_from", "{gone}"], "--continue_from {gone}: no such file"),
        (["--prompts", "x", "--continue_from", "{empty}"], "{empty}: is empty"),
        (["--regenerate", "{empty}", "--from_bar", "1", "--to_bar", "1"], "{empty}: is empty"),
        (
            ["--prompts=x", "--regenerate={long}", "--from_bar=1", "--to_bar=99", "--bpm=120"],
            "--to_bar 99: {long} has 15 bars at 120 bpm (--bpm)",
        ),
        (["--from_captions", "3"], "pass --lora_model_path"),
        (["--prompts", "x", "--play"], "--play needs sounddevice: pip install"),
    ],
)
def test_what_cannot_be_ends_with_two_and_writes_nothing(
    words: list[str],
    said: str,
    tiny_model_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("musicgen_lora.extras.find_spec", lambda name: None)
    places = {name: tmp_path / name for name in ("gone", "bad.json", "key.json", "empty", "long")}
    names = {path.stem: str(path) for path in places.values()}
    places["bad.json"].write_text('[{"prompt": "x", "tempo": 1}]')
    places["key.json"].write_text('["x", {"prompt": "x", "key": "H"}]')
    places["empty"].touch()
    if any("{long}" in word for word in words):
        shutil.move(noise(tmp_path / "long.wav", 30.5), places["long"])
    words = [word.format(**names) for word in words]
    assert generate(tiny_model_dir, tmp_path / "out", *words) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "weights" not in line]
    assert len(lines) == 1, lines
    assert said.format(**names) in lines[0]
    assert not (tmp_path / "out").exists()


def adapter(captions: list[str] | None) -> AdapterFiles:
    data = {} if captions is None else {"captions": captions}
    facts = AdapterFacts({"base": {"path": "x", "fingerprint": "y"}, "data": data})
    return AdapterFiles(Path("adapter"), {}, {}, facts, {})


def test_captions_are_drawn_by_the_seed_each_before_one_comes_again() -> None:
    known = [f"beat {number}" for number in range(5)]
    found, said = draw_captions([adapter(known)], 5, 1)
    assert sorted(found) == known
    assert said == ""
    assert draw_captions([adapter(known)], 5, 1)[0] == found
    assert draw_captions([adapter(known)], 5, 2)[0] != found
    many, said = draw_captions([adapter(known), adapter(["other"])], 8, 1)
    assert {*many[:6]} == {*known, "other"}
    assert said.startswith("The adapter keeps 6 captions, fewer than 8")
    for files in (adapter(None), adapter([])):
        with pytest.raises(UserError, match="adapter: has no captions of its training"):
            draw_captions([files], 1, 0)


def test_an_adapter_without_captions_is_refused_before_a_base_is_looked_for(
    tmp_path: Path, tiny_model_dir: Path
) -> None:
    folder = make_adapter(load_base(tiny_model_dir), tmp_path / "adapter")
    settings = GenerateSettings(
        base_model_path=str(tmp_path / "none"), lora_model_path=[folder], from_captions=2
    )
    with pytest.raises(UserError, match="has no captions of its training"):
        generate_audio(settings)
