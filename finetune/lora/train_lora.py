"""Train a LoRA adapter: `musicgen-lora train` with the settings in config.yaml."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The guide installs only the requirements; the package itself is in the checkout.
sys.path.insert(0, str(HERE.parents[1] / "src"))

from musicgen_lora.cli import run  # noqa: E402

if __name__ == "__main__":
    run(["train", *sys.argv[1:]], config=HERE / "config.yaml")
