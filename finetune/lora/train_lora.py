"""Train a LoRA adapter: `musicgen-lora train`, its settings in config.yaml."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The guide installs requirements only; the package is found in the checkout.
sys.path.insert(0, str(HERE.parents[1] / "src"))

from musicgen_lora.cli import run  # noqa: E402

if __name__ == "__main__":
    run(["train", *sys.argv[1:]], config=HERE / "config.yaml")
