"""`make demo`: the whole job on two CPU cores: 808 beats in, an adapter out, new beats, and a
report on how far the model moved. Everything goes to `demo/`."""

from __future__ import annotations

import json
import shlex
import sys
import time
from pathlib import Path

from musicgen_lora.cli import main
from musicgen_lora.language.choice import chosen_language
from musicgen_lora.language.translate import translated

FOLDER = Path("demo")
PROMPTS = [
    "trap beat with long gliding 808 bass, rolling hi-hats and claps, 140 bpm, C# minor",
    "hip hop 808 beat with boom bap drums and swing, 84 bpm",
]
STEPS = [
    f"prepare --create_example --output_dir {FOLDER}/data --num_samples 240",
    f"train --data_dir {FOLDER}/data --output_dir {FOLDER}/output --validation_fraction 0.1 "
    "--batch_size 4 --gradient_accumulation_steps 1 --num_epochs 4 --learning_rate 3e-3 "
    "--group_by_length --previews off --lora_targets attention feed_forward heads",
    f"generate --lora_model_path {FOLDER}/output/best_model --output_dir {FOLDER}/generated "
    "--duration 10 --best_of 4 "
    f"--prompts {' '.join(shlex.quote(prompt) for prompt in PROMPTS)}",
    f"evaluate --lora_model_path {FOLDER}/output/best_model --output_dir {FOLDER}/evaluation "
    "--duration 10 --num_prompts 8 --batch_size 12 --compare",
]
ENDS = {
    "en": (
        "\nDone in {:.0f} s. How far the model moved:",
        "\nReport: {0}/report.html\n"
        "Audio:  {1} (adapter), {0}/audio (base and adapter, pair by pair)",
    ),
    "zh": (
        "\n完成，用时 {:.0f} 秒。模型的变化：",
        "\n报告：{0}/report.html（用浏览器打开）\n音频：{1}（适配器），{0}/audio（基础模型与适配器，逐对）",
    ),
}
"""What is printed before and after the findings, by language."""


def run_demo() -> int:
    """Runs the four commands in turn; returns the first failure's exit code, else 0."""
    began = time.monotonic()
    for step in STEPS:
        print(f"\n$ musicgen-lora {step}", flush=True)
        code = main(shlex.split(step))
        if code:
            return code
    report = json.loads((FOLDER / "evaluation" / "report.json").read_text(encoding="utf-8"))
    done, where = ENDS[chosen_language()]
    print(done.format(time.monotonic() - began))
    for sentence in report["findings"]:
        print(f"- {translated(sentence)}")
    print(where.format(FOLDER / "evaluation", FOLDER / "generated"))
    return 0


if __name__ == "__main__":
    sys.exit(run_demo())
