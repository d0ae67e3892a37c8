"""What a command says about its flags, in the page's words: fields are called by their labels."""

from __future__ import annotations

import re

from musicgen_lora.webui.forms import form_of
from musicgen_lora.webui.words import Words

LABELS: dict[str, dict[str, str]] = {
    "prepare": {"input_dir": "Or choose a folder", "output_dir": "Dataset name"},
    "train": {
        "data_dir": "Dataset",
        "model_path": "Base model",
        "output_dir": "Run name",
    },
    "generate": {
        "prompts": "Prompt",
        "lora_model_path": "Adapter",
        "strength": "Strength",
        "base_model_path": "Base model if there is no adapter",
        "duration": "Seconds",
        "variations": "Variations",
        "bpm": "Tempo (BPM)",
        "bars": "Loop length in bars",
        "key": "Key",
        "best_of": "Best of N takes",
        "seed": "Seed",
        "continue_from": "Generated clip",
        "regenerate": "Generated clip",
        "continue_at": "From second (empty: the end)",
        "heard": "Seconds heard before that",
        "from_bar": "From bar",
        "to_bar": "To bar",
    },
    "evaluate": {
        "lora_model_path": "Adapters and checkpoints",
        "strengths": "Strengths",
        "num_prompts": "Number of prompts",
        "compare": "Compare with the base",
    },
    "export": {
        "lora_model_path": "Runs",
        "strength": "Strength of each, 0 to 2",
        "format": "Export as",
        "output_dir": "Name",
    },
    "merge": {
        "lora_model_path": "Runs",
        "strength": "Strength of each, 0 to 2",
        "output_dir": "Name",
    },
}
"""Labels by command and setting; `advanced` fields are labelled with the setting's name."""
QUOTED = {"en": '"{}"', "zh": "“{}”"}
_FLAG = re.compile(r"--([a-z][a-z0-9_]*)(?![A-Za-z0-9_])|^([a-z][a-z0-9_]*)(?= = )")
"""How the commands write a flag, and a setting whose value is refused."""


def with_labels(line: str, command: str, say: Words) -> str:
    """A line of a command, in any language, with the flags that are fields of its tab replaced by
    their labels; others stay, since only the command line has them."""
    labels = {setting.name: setting.name for setting in form_of(command)}
    labels |= {name: say(label) for name, label in LABELS[command].items()}

    def named(found: re.Match[str]) -> str:
        label = labels.get(found[1] or found[2])
        return QUOTED[say.language].format(label) if label else found[0]

    return _FLAG.sub(named, line)
