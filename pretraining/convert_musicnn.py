"""Writes the bundled weights of musicnn from an archive of the original's variables.

    python pretraining/convert_musicnn.py MSD_musicnn.npz

The archive holds MSD_musicnn (ISC) under TensorFlow's names and in its layouts; the output has
torch's, in float32, with nothing else changed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from musicgen_lora.listening.musicnn import WEIGHTS

NAMES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "mean",
    "moving_variance": "variance",
}
LAYERS = {"conv2d": "conv", "batch_normalization": "norm", "dense": "dense"}


def convert(name: str, value: np.ndarray) -> tuple[str, torch.Tensor]:
    """A variable's name and value for `listening.musicnn`."""
    layer, _, part = name.partition("/")
    kind = next(kind for kind in LAYERS if layer.startswith(kind))
    number = int(layer.removeprefix(kind).removeprefix("_") or 0)
    if part == "kernel":
        # HWIO to OIHW, in-out to out-in.
        value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
        if kind == "conv2d" and number >= 5:
            # [7, C, 1, 64], over all channels at once: a convolution over time alone.
            value = value[:, 0].transpose(0, 2, 1)
    tensor = torch.from_numpy(np.ascontiguousarray(value))
    return f"{LAYERS[kind]}{number}.{NAMES[part]}", tensor


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("archive", type=Path)
    options = parser.parse_args()
    with np.load(options.archive, allow_pickle=False) as archive:
        tensors = dict(convert(name, archive[name]) for name in archive)
    WEIGHTS.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, WEIGHTS)


if __name__ == "__main__":
    main()
