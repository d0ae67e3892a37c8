"""Puts held-out clips of the corpus into the package, two of each style: the loss on them shows
what an adapter has forgotten. Each begins on its first bar line, like generated clips. Their codes
from the embedded base are included. Run after `corpus.render` and `base.export`:

    python -m pretraining.base.export_styles
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import soundfile as sf

from musicgen_lora import EMBEDDED_NAME, atomic
from musicgen_lora.dataset.encoding import encode_clips, write_shard
from musicgen_lora.dataset.metadata import load_dataset
from musicgen_lora.model.base_model import BaseModel
from pretraining.paths import PACKAGE_ASSETS, WORK

EACH = 2
DURATION_S = 10.0


def export_styles(corpus: Path, output_dir: Path) -> int:
    """Writes a dataset of Ogg Vorbis clips and returns their number."""
    entries = json.loads((corpus / "metadata.json").read_text(encoding="utf-8"))
    by_style: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for entry in entries:
        if entry["split"] == "validation" and len(by_style[entry["style"]]) < EACH:
            by_style[entry["style"]].append(entry)
    shutil.rmtree(output_dir, ignore_errors=True)
    (output_dir / "validation").mkdir(parents=True)
    chosen = []
    for style, found in sorted(by_style.items()):
        for number, entry in enumerate(found, start=1):
            audio = f"validation/{style.replace(' ', '_')}_{number}.ogg"
            samples, sample_rate = sf.read(corpus / entry["audio"])
            start = round(entry["first_bar_s"] * sample_rate)
            samples = samples[start : start + round(DURATION_S * sample_rate)]
            sf.write(output_dir / audio, samples, sample_rate, format="OGG", subtype="VORBIS")
            kept = ("text", "source", "split", "bpm", "key", "tags")
            chosen.append({"audio": audio} | {k: entry[k] for k in kept if k in entry})
    text = json.dumps(chosen, indent=1, ensure_ascii=False) + "\n"
    (output_dir / "metadata.json").write_text(text, encoding="utf-8")
    return len(chosen)


def add_codes(folder: Path, model: BaseModel) -> None:
    """Writes a token shard of a dataset's clips into its `tokens/`, replacing all others."""
    shutil.rmtree(folder / "tokens", ignore_errors=True)
    clips = load_dataset(folder)
    shards = folder / "tokens" / model.codec.fingerprint
    shards.mkdir(parents=True)
    ids = [atomic.sha256_file(clip.path) for clip in clips]
    write_shard(shards, ids, encode_clips(clips, model))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, default=WORK / "corpus")
    parser.add_argument("--output_dir", type=Path, default=PACKAGE_ASSETS / "other_styles")
    parser.add_argument("--base", default=EMBEDDED_NAME)
    options = parser.parse_args()
    print(f"{export_styles(options.corpus, options.output_dir)} clips in {options.output_dir}")
    add_codes(options.output_dir, BaseModel.load(options.base))
