"""The dataset classes, for notebooks and other trainers.

from dataset import ClipDataset, clip_ids, load_dataset, tokenise_clips
"""

import sys
from pathlib import Path

# The guide installs only the requirements; the package itself is in the checkout.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from musicgen_lora.dataset.batches import (
    Batch,
    ClipDataset,
    Window,
    WindowSampler,
    collate,
    epoch_order,
    fixed_windows,
)
from musicgen_lora.dataset.clip_ids import clip_ids
from musicgen_lora.dataset.metadata import Clip, Clips, load_dataset, split_clips
from musicgen_lora.dataset.tokens import TokenStore, tokenise_clips

__all__ = [
    "Batch",
    "Clip",
    "ClipDataset",
    "Clips",
    "TokenStore",
    "Window",
    "WindowSampler",
    "clip_ids",
    "collate",
    "epoch_order",
    "fixed_windows",
    "load_dataset",
    "split_clips",
    "tokenise_clips",
]
