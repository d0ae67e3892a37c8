"""Training and decoding run without libraries for audio, tables or command lines."""

from __future__ import annotations

import subprocess
import sys

PATH = [
    "dataset.batches",
    "dataset.packed",
    "generation.decoding.decode",
    "generation.decoding.precision",
    "generation.decoding.stream",
    "model.lora.adapter",
    "model.codec",
    "model.loss",
    "model.base_model",
    "model.lora.quantise",
    "model.text",
    "training.packed.captured",
    "training.checkpoints",
    "training.optimizers",
    "training.packed.train",
    "training.schedule",
    "training.step",
    "training.validation",
    "training.weights",
]
ABSENT = ["pyarrow", "soundfile", "soxr", "pyloudnorm", "tyro", "pydantic", "rich", "tinytag"]
SCRIPT = """
import gc, importlib, sys

# Libraries load in less time.
gc.disable()
path, absent = sys.argv[1].split(), set(sys.argv[2].split())
# The libraries of the path may look for some of them; it is we who must not.
import accelerate, peft, transformers
from transformers import MusicgenForConditionalGeneration
for name in list(sys.modules):
    if name.split(".")[0] in absent:
        del sys.modules[name]

class Absent:
    def find_spec(self, name, path=None, target=None):
        frame = sys._getframe(1)
        while "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        if name.split(".")[0] in absent and "musicgen_lora" in frame.f_code.co_filename:
            raise ModuleNotFoundError(f"{name}, wanted by {frame.f_code.co_filename}")

sys.meta_path.insert(0, Absent())
for name in path:
    importlib.import_module(f"musicgen_lora.{name}")
try:
    importlib.import_module("musicgen_lora.dataset.metadata")
except ModuleNotFoundError as error:
    print("absent:", error)
"""


def test_the_path_of_a_step_needs_no_file_formats():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, " ".join(PATH), " ".join(ABSENT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # The check can fail: what reads tables asks for them.
    assert "absent: pyarrow" in done.stdout
