"""What a command says of its flags, in the page's words: a field there is called by its label."""

from __future__ import annotations

import re

from musicgen_lora.webui.forms import form_of
from musicgen_lora.webui.words import Words

LABELS: dict[str, dict[str, str]] = {
    "prepare": {"input_dir": "Or a folder", "output_dir": "Name of the dataset"},
    "train": {
        "data_dir": "Dataset",
        "model_path": "Base model",
        "output_dir": "Name of the run",
    },
    "generate": {
        "prompts": "What to play",
        "lora_model_path": "Adapter",
        "strength": "Strength",
        "base_model_path": "Base model, without an adapter",
        "duration": "Seconds",
        "variations": "Variations",
        "bpm": "Tempo (BPM)",
        "bars": "Loop of bars",
        "key": "Key",
        "best_of": "Best of takes",
        "seed": "Seed",
        "continue_from": "Clip that was made",
        "regenerate": "Clip that was made",
        "continue_at": "From second (empty: its end)",
        "heard": "Seconds before that it hears",
        "from_bar": "From bar",
        "to_bar": "To bar",
    },
    "evaluate": {
        "lora_model_path": "Adapters and checkpoints",
        "strengths": "Strengths",
        "num_prompts": "Prompts",
        "compare": "Compare with the base",
    },
    "export": {
        "lora_model_path": "Runs",
        "strength": "Strength of each, 0 to 2",
        "format": "What is written",
        "output_dir": "Its name",
    },
    "merge": {
        "lora_model_path": "Runs",
        "strength": "Strength of each, 0 to 2",
        "output_dir": "Its name",
    },
}
"""Labels by a command's settings; those of `advanced` fields are the settings' own names."""
QUOTED = {"en": '"{}"', "zh": "“{}”"}
_FLAG = re.compile(r"--([a-z][a-z0-9_]*)(?![A-Za-z0-9_])|^([a-z][a-z0-9_]*)(?= = )")
"""As the commands write a flag, and a setting whose value is refused."""


def with_labels(line: str, command: str, say: Words) -> str:
    """A line of a command, in any language, in which flags that are fields of its tab have their
    labels; others stay, since the command line alone has them."""
    labels = {setting.name: setting.name for setting in form_of(command)}
    labels |= {name: say(label) for name, label in LABELS[command].items()}

    def named(found: re.Match[str]) -> str:
        label = labels.get(found[1] or found[2])
        return QUOTED[say.language].format(label) if label else found[0]

    return _FLAG.sub(named, line)
