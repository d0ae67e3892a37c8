"""Bad input: exit code 2 and one line that names the culprit."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from adapters import add_lora
from made_datasets import RATE, beat, make_dataset, read_metadata, write_metadata
from tiny import make_tiny_musicgen
from transformers import T5Config, T5EncoderModel

from musicgen_lora.cli import main
from musicgen_lora.model.base.loading import load_base
from musicgen_lora.model.fingerprint import base_fingerprint
from musicgen_lora.model.lora.facts import FACTS_FILE


def refused(arguments: Sequence[object], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that exits with 2."""
    capsys.readouterr()
    words = [str(word) for word in arguments]
    assert main(words) == 2
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if "Loading weights" not in line]
    assert len(lines) == 1, error
    assert lines[0].startswith(f"musicgen-lora {words[0]}: ")
    assert "Traceback" not in error
    return lines[0]


def train_words(model: Path, data: Path, out: Path) -> list[object]:
    return [
        "train",
        *("--model_path", model),
        *("--data_dir", data),
        *("--output_dir", out),
        *("--max_steps", 1),
        *("--previews", "off"),
        "--allow_random_base",
    ]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "data", [0.4, 0.4])


def test_no_such_folder(tmp_path: Path, tiny_model_dir: Path, capsys) -> None:
    gone = tmp_path / "gone"
    said = refused(["prepare", "--input_dir", gone, "--output_dir", tmp_path / "out"], capsys)
    assert f"{gone}: no such folder" in said
    said = refused(train_words(tiny_model_dir, gone, tmp_path / "out"), capsys)
    assert f"{gone}: no such data folder" in said
    said = refused(train_words(gone, make_dataset(tmp_path / "d", [0.2]), tmp_path / "o"), capsys)
    assert f"{gone}: no such model folder" in said
    said = refused(["generate", "--base_model_path", gone, "--prompts", "808"], capsys)
    assert f"{gone}: no such model folder" in said
    lora = ["--base_model_path", tiny_model_dir, "--lora_model_path", gone]
    for command in (["generate", "--prompts", "808"], ["evaluate", "--output_dir", tmp_path / "e"]):
        assert f"{gone}: no such adapter folder" in refused([*command, *lora], capsys)


def test_a_file_in_place_of_a_folder(tmp_path: Path, tiny_model_dir: Path, data, capsys) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    said = refused(["prepare", "--input_dir", file, "--output_dir", tmp_path / "out"], capsys)
    assert f"{file}: is a file, not a folder; give the folder that it is in ({tmp_path})" in said
    assert f"{file}: " in refused(train_words(tiny_model_dir, data, file), capsys)
    assert f"{file}: is a file, not a folder" in refused(
        train_words(file, data, tmp_path / "out"), capsys
    )


def test_outputs_below_a_file(tmp_path: Path, tiny_model_dir: Path, data, capsys) -> None:
    """The output folder cannot be made."""
    file = tmp_path / "file"
    file.write_text("x")
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "a.wav", beat(0, 1.2).T, RATE)
    out = file / "out"
    prepare = ["prepare", "--input_dir", tmp_path / "in", "--output_dir", out]
    examples = ["prepare", "--create_example", "--num_samples", 1, "--output_dir", out]
    generate = ["generate", "--base_model_path", tiny_model_dir, "--prompts", "808"]
    generate += ["--duration", "0.2", "--output_dir", out]
    for words in (prepare, examples, train_words(tiny_model_dir, data, out), generate):
        assert str(file) in refused(words, capsys)


def test_no_audio_in_the_folder(tmp_path: Path, capsys) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("x")
    said = refused(["prepare", "--input_dir", tmp_path / "in"], capsys)
    assert f"{tmp_path / 'in'}: no audio in it" in said


def test_nothing_to_prepare(capsys) -> None:
    assert "--input_dir" in refused(["prepare"], capsys)
    assert "--default_text" in refused(
        ["prepare", "--input_dir", ".", "--default_text", " "], capsys
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{torn", "metadata.json, line 1: not valid JSON"),
        ('[{"text": "808"}]', 'metadata.json: entry 1 lacks "audio"'),
        ('[{"audio": "train/beat0.wav"}]', 'entry 1 (train/beat0.wav) lacks "text"'),
        ('[{"audio": "train/none.wav", "text": "a"}]', "train/none.wav does not exist"),
        ('[{"audio": "../out.wav", "text": "a"}]', "../out.wav points outside the data folder"),
        ('[{"audio": "/etc/hosts", "text": "a"}]', "/etc/hosts points outside the data folder"),
        ("[]", "metadata.json: no entries"),
    ],
)
def test_bad_metadata(
    content: str, said: str, tmp_path: Path, tiny_model_dir: Path, data: Path, capsys
) -> None:
    (tmp_path / "out.wav").write_bytes((data / "train" / "beat0.wav").read_bytes())
    (data / "metadata.json").write_text(content)
    assert said in refused(train_words(tiny_model_dir, data, tmp_path / "out"), capsys)


def test_no_metadata(tmp_path: Path, tiny_model_dir: Path, data: Path, capsys) -> None:
    words = [*train_words(tiny_model_dir, data, tmp_path / "out"), "--metadata_file", "other.json"]
    assert "other.json: no such metadata file" in refused(words, capsys)


def test_metadata_of_the_input_folder_that_is_not_json(tmp_path: Path, data: Path, capsys) -> None:
    (data / "metadata.json").write_text("{torn")
    said = refused(["prepare", "--input_dir", data, "--output_dir", tmp_path / "out"], capsys)
    assert f"{data / 'metadata.json'}, line 1: not valid JSON" in said


@pytest.mark.parametrize("kind", ["not audio", "NaN samples", "empty"])
def test_unusable_audio(
    kind: str, tmp_path: Path, tiny_model_dir: Path, data: Path, capsys
) -> None:
    path = data / "train" / "beat1.wav"
    if kind == "not audio":
        path.write_text("not audio")
    elif kind == "empty":
        soundfile.write(path, np.zeros((0, 1)), RATE)
    else:
        samples = beat(0, 0.4)
        samples[0, 5] = np.nan
        soundfile.write(path, samples.T, RATE, subtype="FLOAT")
    said = refused(train_words(tiny_model_dir, data, tmp_path / "out"), capsys)
    assert f"{path}: " in said
    assert {"not audio": "not readable", "empty": "no audio", "NaN samples": "NaN"}[kind] in said


def test_empty_prompts(tmp_path: Path, tiny_model_dir: Path, capsys) -> None:
    words = ["generate", "--base_model_path", tiny_model_dir, "--output_dir", tmp_path]
    assert "--prompts is empty" in refused(words, capsys)
    assert "--prompts" in refused([*words, "--prompts", "808", "  "], capsys)
    assert not list(tmp_path.glob("*.wav"))


def test_a_model_folder_that_is_not_musicgen(tmp_path: Path, data: Path, capsys) -> None:
    empty, other, torn = tmp_path / "empty", tmp_path / "t5", tmp_path / "torn"
    empty.mkdir()
    T5EncoderModel(T5Config(vocab_size=8, d_model=8, d_ff=8, num_layers=1)).save_pretrained(other)
    torn.mkdir()
    (torn / "config.json").write_text("{torn")
    for folder, reason in [
        (empty, "has no config.json"),
        (other, "its model_type is 't5', not 'musicgen' or"),
        (torn, "line 1: not valid JSON"),
    ]:
        for words in (
            train_words(folder, data, tmp_path / "out"),
            ["generate", "--base_model_path", folder, "--prompts", "808"],
        ):
            said = refused(words, capsys)
            assert str(folder) in said
            assert reason in said


def test_pickled_weights_alone(tmp_path: Path, data: Path, capsys) -> None:
    folder = make_tiny_musicgen(tmp_path / "pickled")
    model = load_base(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    said = refused(train_words(folder, data, tmp_path / "out"), capsys)
    assert f"{folder}: has no .safetensors file; pickled weights" in said


@pytest.mark.parametrize("damage", ["torn weights", "torn tokenizer", "lost tensor", "bad config"])
def test_a_damaged_model(damage: str, tmp_path: Path, data: Path, capsys) -> None:
    folder = make_tiny_musicgen(tmp_path / "model")
    if damage == "torn weights":
        content = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    elif damage == "torn tokenizer":
        (folder / "tokenizer.json").write_text("{torn")
    elif damage == "lost tensor":
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / "model.safetensors")
        tensors.pop("decoder.model.decoder.layers.1.fc1.weight")
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        config = json.loads((folder / "config.json").read_text())
        config["decoder"]["num_codebooks"] = "four"
        (folder / "config.json").write_text(json.dumps(config))
    assert str(folder) in refused(train_words(folder, data, tmp_path / "out"), capsys)


def test_an_adapter_of_another_base(tmp_path: Path, tiny_model_dir: Path, capsys) -> None:
    base = load_base(make_tiny_musicgen(tmp_path / "other", seed=3))
    adapter = tmp_path / "adapter"
    add_lora(base, base_name="other", rank=2, alpha=4).save_pretrained(
        str(adapter), save_embedding_layers=False
    )
    facts = {
        "format_version": 1,
        "base": {"path": "other", "fingerprint": base_fingerprint(base)},
    }
    (adapter / FACTS_FILE).write_text(json.dumps(facts))
    lora = ["--base_model_path", tiny_model_dir, "--lora_model_path", adapter]
    for command in (["generate", "--prompts", "808"], ["evaluate", "--output_dir", tmp_path / "e"]):
        said = refused([*command, *lora], capsys)
        assert f"{adapter}: this adapter was trained on another base (other" in said


HOLD = """
import sys
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""

WITHOUT_TORCH = """
import sys
from musicgen_lora.cli import main
from musicgen_lora.commands import loading

# However busy the machine is.
loading.AT_ONCE_S = 60.0
code = main(sys.argv[1:])
print([name for name in ("torch", "transformers", "peft") if name in sys.modules])
sys.exit(code)
"""


def refused_before_torch(arguments: Sequence[object], said: str) -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
    fresh = subprocess.run(command, capture_output=True, text=True, check=False)
    assert fresh.stderr == f"{said}\n"
    loaded = fresh.stdout.splitlines()[-1]
    assert (fresh.returncode, loaded) == (2, "[]"), "it waited for what it doesn't need"


def test_a_file_that_is_gone_is_said_at_once(
    tmp_path: Path, tiny_model_dir: Path, data: Path, capsys
) -> None:
    (data / "train" / "beat1.wav").unlink()
    words = train_words(tiny_model_dir, data, tmp_path / "out")
    said = refused(words, capsys)
    assert "metadata.json: entry 2: train/beat1.wav does not exist" in said
    refused_before_torch(words, said)


def test_an_output_folder_in_use(tmp_path: Path, tiny_model_dir: Path, data: Path, capsys) -> None:
    out = tmp_path / "out"
    out.mkdir()
    words = [sys.executable, "-c", HOLD, str(out / ".lock")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        said = refused(train_words(tiny_model_dir, data, out), capsys)
        refused_before_torch(train_words(tiny_model_dir, data, out), said)
        holder.communicate()
    assert f"{out}: in use by another run" in said
    assert os.listdir(out) == [".lock"]
    # The one before it has gone: a lock file that is left behind is no obstacle.
    assert main([str(word) for word in train_words(tiny_model_dir, data, out)]) == 0


def test_an_entry_twice_and_a_split_that_contradicts_itself(
    tmp_path: Path, tiny_model_dir: Path, data: Path, capsys
) -> None:
    entries = read_metadata(data)
    write_metadata(data, [entries[0], entries[0]])
    words = train_words(tiny_model_dir, data, tmp_path / "out")
    assert "train/beat0.wav is listed twice" in refused(words, capsys)
    one = {"source": "one"}
    split = [entries[0] | one | {"split": "train"}, entries[1] | one | {"split": "test"}]
    write_metadata(data, split)
    assert "its source 'one' is in both train and validation" in refused(words, capsys)


def test_standard_streams_that_are_closed_end_no_command(tmp_path: Path) -> None:
    """The next file opened would get their number, to which libraries print."""
    words = [
        "import os, sys",
        "from musicgen_lora.cli import run",
        "from musicgen_lora.terminals import open_streams",
        "open_streams()",
        f"assert open({str(tmp_path / 'x')!r}, 'w').fileno() > 2",
        "os.write(1, b'x') and os.write(2, b'x') and print('x', file=sys.stderr)",
        "assert not sys.stdin.read()",
        "run(['--version'])",
    ]
    command = shlex.join([sys.executable, "-c", "\n".join(words)])
    for closed in (">&-", "<&- >&- 2>&-"):
        done = subprocess.run(
            ["sh", "-c", f"{command} {closed}"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    done = subprocess.run(
        ["sh", "-c", shlex.join([sys.executable, "-m", "musicgen_lora.cli", "--help"]) + " >&-"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_libraries_say_nothing_of_a_home_that_cannot_be_written() -> None:
    words = [
        "from musicgen_lora.commands.loading import load",
        "with load('musicgen_lora.fonts:readable')():",
        "    import matplotlib.font_manager",
    ]
    env = {name: value for name, value in os.environ.items() if name != "MPLCONFIGDIR"}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(words)],
        env=env | {"HOME": "/proc/none", "XDG_CONFIG_HOME": "", "XDG_CACHE_HOME": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("dash", ["-", *"\u2013\u2014\u2212", "\u2014\u2014", "\uff0d\uff0d"])
@pytest.mark.parametrize("value", [["7"], []])
def test_a_flag_with_another_dash_is_no_prompt(
    dash: str, value: list[str], tmp_path: Path, tiny_model_dir: Path, capsys
) -> None:
    """Word processors and Chinese keyboards make one dash of two; what follows was played."""
    flag = f"{dash}loop-tries"
    words = [flag, *value] if value else [f"{flag}=7"]
    playing = ["--base_model_path", tiny_model_dir, "--output_dir", tmp_path / "out"]
    said = refused(["generate", *playing, "--prompts", "808", *words], capsys)
    assert "a flag begins with two hyphens: --loop_tries" in said
    assert not (tmp_path / "out").exists()


def test_numbers_with_a_decimal_comma(tmp_path: Path, capsys) -> None:
    playing = ["generate", "--prompts", "808"]
    said = refused([*playing, "--temperature", "0,8"], capsys)
    assert "--temperature 0,8: must be a number; write a point: 0.8." in said
    assert "1,5 2" in refused([*playing, "--change_at", "1,5", "2"], capsys)
    file = tmp_path / "a.yaml"
    file.write_text("generate:\n  temperature: 0,8\n")
    said = refused([*playing, "--config", file], capsys)
    assert "temperature = '0,8': must be a number; write a point: 0.8." in said


def test_text_that_the_locale_garbles_says_how_to_give_it(capsys) -> None:
    """With PYTHONUTF8=0 and LC_ALL=C, each byte of a Chinese prompt arrives as a lone surrogate."""
    garbled = "节拍".encode().decode("ascii", "surrogateescape")
    for flag in ("prompts", "key", "negative_prompt"):
        said = refused(["generate", f"--{flag}", garbled], capsys)
        assert f"{flag} = " in said
        assert "is not UTF-8" in said
        assert "set PYTHONUTF8=1 if the locale is not UTF-8." in said


def test_a_user_without_a_home_folder(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs for a user whom its system doesn't know."""

    def homeless(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    said = refused(["generate", "--prompts", "808", "--output_dir", "~/out"], capsys)
    assert "no home folder; set HOME" in said
