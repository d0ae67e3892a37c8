"""Every command line of the guide, verbatim, on the embedded base and beats of usual length.

Only the guide's three places are replaced: its model folder, its audio folder, and `python`.
`cd` and `pip install` are left out. No flag is added where the guide runs, and the settings file is
the one that ships. A shell runs the first command of each script; the others are run by the same
scripts in this process, which saves loading the libraries again.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import soundfile
from made_datasets import RATE, beat, read_metadata, read_rows
from safetensors.torch import load_file

from musicgen_lora import atomic
from musicgen_lora.audio.files import probe, read_audio
from musicgen_lora.config import EMBEDDED_NAME
from musicgen_lora.language.choice import choose
from musicgen_lora.language.translate import translated

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = Path(__file__).with_name("guide_commands.md")
MODEL_PLACE = "/root/autodl-tmp/musicgen/local/musicgen-small"
AUDIO_PLACE = "/path/to/your/audio/files"
OWN_S = 15.0
"""Length of the audio that somebody brings: within what the guide advises."""


def command_lines(path: Path) -> list[str]:
    """The commands in a document's bash blocks, each on one line."""
    blocks = re.findall(r"```bash\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines if line.strip() and line[0] != "#"]


# One fixture runs all the commands.
pytestmark = pytest.mark.timeout(1800)
GUIDE = command_lines(COMMANDS)
TO_RUN = [line for line in GUIDE if not line.startswith(("cd ", "pip install "))]


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_readme_gives_the_guides_commands(name: str) -> None:
    assert command_lines(ROOT / "finetune" / "lora" / name) == GUIDE


def test_every_command_is_run_or_known() -> None:
    assert len(GUIDE) == 11
    assert [line for line in GUIDE if line not in TO_RUN] == [
        "cd /root/autodl-tmp/musicgen/finetune/lora",
        "pip install -r requirements.txt",
    ]


@dataclass(frozen=True)
class Guide:
    """A copy of the guide's folder, and what its commands may be given."""

    folder: Path
    audio: Path

    def _placed(self, line: str) -> str:
        return line.replace(MODEL_PLACE, EMBEDDED_NAME).replace(AUDIO_PLACE, str(self.audio))

    def run_here(self, line: str, cwd: Path) -> str:
        """Runs a script in this process. Returns what it printed."""
        python, *words = shlex.split(self._placed(line))
        assert python == "python"
        said, complaints = io.StringIO(), io.StringIO()
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(complaints),
        ):
            patch.chdir(cwd)
            patch.setattr(sys, "argv", words)
            patch.setattr(sys, "path", list(sys.path))
            with pytest.raises(SystemExit) as left:
                runpy.run_path(words[0], run_name="__main__")
        assert left.value.code == 0, f"{line}\n{said.getvalue()}\n{complaints.getvalue()}"
        assert "Warning" not in complaints.getvalue(), complaints.getvalue()
        return said.getvalue()

    def run(self, line: str, cwd: Path) -> str:
        """Runs a command line in a shell. Returns what it printed."""
        line = self._placed(line)
        places = {
            "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            # Tiny layers spend their time on waiting for the other threads.
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        began = time.monotonic()
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=cwd,
            env=os.environ | places,
            capture_output=True,
            text=True,
            timeout=1500,
        )
        print(f"{time.monotonic() - began:.1f} s: {line}")
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        assert "Warning" not in done.stderr, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory) -> Guide:
    folder = tmp_path_factory.mktemp("guide")
    shutil.copytree(
        ROOT / "finetune" / "lora",
        folder / "finetune" / "lora",
        ignore=shutil.ignore_patterns("__pycache__", "finetune"),
    )
    os.symlink(ROOT / "src", folder / "src")
    python = folder / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    audio = folder / "my audio files"
    for index, name in enumerate(["one.wav", "deep/two.flac", "three.mp3"]):
        path = audio / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, beat(20 + index, OWN_S).T, RATE)
    # The guide's place has no spaces, so it is not in quotes there.
    os.symlink(audio, folder / "audio")
    return Guide(folder, folder / "audio")


@pytest.fixture(scope="module")
def printed(guide: Guide) -> dict[str, list[str]]:
    """What the guide's commands print, run one after another from finetune/lora, by script."""
    said: dict[str, list[str]] = {}
    for line in TO_RUN:
        name = line.split()[1]
        run = guide.run_here if name in said else guide.run
        said.setdefault(name, []).append(run(line, guide.folder / "finetune" / "lora"))
    return said


@pytest.fixture(scope="module")
def made(printed: dict[str, list[str]], guide: Guide) -> Path:
    """Where the commands left their results."""
    return guide.folder / "finetune" / "lora" / "finetune"


def test_cuda_is_asked_for(printed: dict[str, list[str]]) -> None:
    (said,) = printed["-c"]
    assert said.strip() in ("True", "False")


def test_prepare_makes_a_dataset_of_the_folder_and_the_examples(made: Path) -> None:
    entries = read_metadata(made / "data")
    assert len(entries) == 13
    own, examples = entries[:3], entries[3:]
    assert {entry["source"] for entry in own} == {"one.wav", "deep/two.flac", "three.mp3"}
    assert all("hip hop 808 beat" in entry["text"] for entry in own)
    assert len({entry["text"] for entry in examples}) == 10
    for entry in entries:
        info = probe(made / "data" / entry["audio"])
        assert info.sample_rate == RATE
        assert info.duration_s == pytest.approx(entry["duration_s"], abs=0.1)


def test_training_lands_where_the_guide_says(made: Path) -> None:
    """The first training; the FAQ's, with other settings, has moved it aside."""
    (first,) = (made / "output" / "previous").iterdir()
    for folder, batch, accumulation in ((first, 2, 4), (made / "output", 1, 8)):
        run = json.loads((folder / "run.json").read_text())
        assert run["status"] == "finished"
        settings = run["settings"]
        assert (settings["lora_rank"], settings["lora_alpha"]) == (12, 24)
        # The first command gives a rate; the other takes the one that the base advises.
        rate = 3e-4 if folder == first else 2e-3
        assert (settings["learning_rate"], settings["num_epochs"]) == (rate, 5)
        assert settings["batch_size"] == batch
        assert settings["gradient_accumulation_steps"] == accumulation
        assert settings["fp16"] is (folder == first)
        assert run["best"]["loss"] < run["base_loss"]["loss"]
        assert len(read_rows(folder, "validation")) == 5
        assert not atomic.manifest_faults(folder / "best_model")
        assert list((folder / "checkpoints").glob("step-*"))


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_every_output_that_the_guide_explains_is_there(
    name: str, printed: dict[str, list[str]]
) -> None:
    text = (ROOT / "finetune" / "lora" / name).read_text(encoding="utf-8")
    (table,) = re.findall(r"\| (?:output|输出) \|[^\n]*\n\|[ -|]*\n((?:\|.*\n)*)", text)
    outputs = re.findall(r"^\| `(.*?)` \|", table, re.MULTILINE)
    assert len(outputs) > 10
    choose("zh" if "zh" in name else None)
    told = ["\n".join(map(translated, t.splitlines())) for t in printed["train_lora.py"]]
    choose(None)
    for said in told:
        for output in outputs:
            # Figures vary, and A and B stand for some.
            pattern = re.sub(r"\d+(\\\.\d+)?|\b[AB]\b", r"[\\d.]+", re.escape(output))
            assert re.search(pattern, said), output


def test_training_shows_what_the_guide_says(printed: dict[str, list[str]]) -> None:
    for said in printed["train_lora.py"]:
        for shown in (r"loss \d", r"validation loss \d", r"rate \d", r"step \d+/\d+", "left"):
            assert re.search(shown, said), shown
        assert "12 clips to train on, 1 held out (1 source)" in said
        assert "as --max_duration says" not in said, "the examples are heard whole"
    assert "--fp16" in printed["train_lora.py"][0]


def _of_first_run(made: Path) -> Path:
    """Where the guide's first run is, with what was generated and measured by its adapter, since
    the memory advice trains another one into the same folder."""
    (first,) = (made / "output" / "previous").iterdir()
    return first


def test_inference_plays_every_prompt(made: Path, guide: Guide) -> None:
    files = sorted((_of_first_run(made) / "generated").glob("*.wav"))
    assert len(files) == 4
    prompts = []
    for path in files:
        facts = json.loads(path.with_suffix(".json").read_text())
        prompts.append(facts["prompt"])
        assert facts["base"]["path"] == EMBEDDED_NAME
        (adapter,) = facts["adapters"]
        assert adapter["path"].endswith("best_model")
        waveform = read_audio(path, RATE)
        assert waveform.shape == (1, 10 * RATE)
        assert waveform.std() > 1e-4
    assert sorted(prompts) == [
        "808 bass and trap drums",
        "hip hop 808 beat",
        "hip hop 808 beat with trap drums",
        "trap beat with 808",
    ]


def test_evaluation_reports(made: Path, printed: dict[str, list[str]]) -> None:
    folder = _of_first_run(made) / "evaluation"
    report = json.loads((folder / "report.json").read_text())
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<html" in page
    assert not re.search(r'(src|href)="https?://', page), "the page needs nothing from elsewhere"
    assert report["settings"]["compare"] is True
    assert list(folder.rglob("*.wav"))
    assert len(printed["evaluate.py"]) == 2


def test_the_commands_run_from_the_repositorys_root_too(guide: Guide, made: Path) -> None:
    """They find the package and their settings, and their paths are below the folder that they are
    called from. Other tests show what commands make of their settings: three beats, one step and a
    second of sound are enough here."""
    chosen = [
        line
        for line in TO_RUN
        if "--create_example" in line or "train_lora.py --model_path" in line
    ]
    chosen += [line for line in TO_RUN if "inference_lora.py" in line][:1]
    assert len(chosen) == 3
    for line in chosen:
        script = line.split()[1]
        line = line.replace(script, f"finetune/lora/{script}")
        line = line.replace("--num_samples 10", "--num_samples 3")
        line = line.replace("--duration 10", "--duration 1")
        if script == "train_lora.py":
            line += " --max_steps 1 --previews off"
        guide.run_here(line, guide.folder)
    output = guide.folder / "finetune" / "output"
    weights = load_file(output / "best_model" / "adapter_model.safetensors")
    assert any(name.endswith("lora_B.weight") and value.any() for name, value in weights.items())
    assert len(list((output / "generated").glob("*.wav"))) == 1
    assert len(read_metadata(guide.folder / "finetune" / "data")) == 3


def test_the_dataset_classes_are_offered(guide: Guide, made: Path) -> None:
    code = (
        "from dataset import ClipDataset, load_dataset; from pathlib import Path; "
        "print(len(load_dataset(Path('finetune/data'))), ClipDataset.__name__)"
    )
    said = guide.run(f"python -c {shlex.quote(code)}", guide.folder / "finetune" / "lora")
    assert said.split() == ["13", "ClipDataset"]
