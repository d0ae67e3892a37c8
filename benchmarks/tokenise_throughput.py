"""Seconds of audio that tokenising encodes per second: with transformers, clip by clip, and as the
package does it.

    python benchmarks/tokenise_throughput.py                 # tiny-beats' codec, 200 clips
    python benchmarks/tokenise_throughput.py --full_size     # random weights in MusicGen's shapes
    python benchmarks/tokenise_throughput.py --stereo

Clips are the first 8 to 12 seconds of rendered 808 beats, all of different lengths, like
recordings, so that work that a library does once per length counts. The methods take turns on the
same clips, and their codes are compared with the first method's: "other codes" counts those that
differ. CPU seconds are those of all threads; on a shared machine they are steadier than wall time.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from musicgen_lora.runtime.threads import bounded_spinning

os.environ.update(bounded_spinning())

import numpy as np
import torch
from full_size import full_size_codec

from musicgen_lora.audio.files import read_audio
from musicgen_lora.dataset.clip_ids import clip_ids
from musicgen_lora.dataset.encoding import encode_clips
from musicgen_lora.dataset.metadata import Clip, load_dataset, read_entries, write_entries
from musicgen_lora.dataset.tokens import tokenise_clips
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.prepare.examples import create_examples

LENGTHS_S = (8.0, 12.0)


def make_clips(folder: Path, n_clips: int) -> Sequence[Clip]:
    """The beginnings of so many beats."""
    metadata = create_examples(folder, n_clips, duration_s=LENGTHS_S[1])
    lengths = np.linspace(*LENGTHS_S, n_clips).tolist()
    entries = [
        entry | {"start_s": 0.0, "duration_s": length_s}
        for entry, length_s in zip(read_entries(metadata), lengths, strict=True)
    ]
    write_entries(metadata, entries)
    return load_dataset(folder)


def clip_by_clip(clips: Sequence[Clip], model: BaseModel) -> list[np.ndarray]:
    return [codes for clip in clips for codes in encode_clips([clip], model)]


def by_transformers(clips: Sequence[Clip], model: BaseModel) -> list[np.ndarray]:
    """Mono only."""
    codec: Any = model.codec.module
    found = []
    for clip in clips:
        wave = read_audio(clip.path, 32_000, start_s=0.0, duration_s=clip.duration_s).mean(axis=0)
        samples = torch.from_numpy(wave)[None, None].to(codec.device)
        with torch.inference_mode():
            found.append(codec.encode(samples).audio_codes[0, 0].T.cpu().numpy())
    return found


def as_the_package(clips: Sequence[Clip], model: BaseModel, data_dir: Path) -> list[np.ndarray]:
    ids = clip_ids(clips, data_dir)
    return list(tokenise_clips(clips, ids, model, data_dir))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--full_size", action="store_true")
    parser.add_argument("--stereo", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = BaseModel.load("tiny-beats")
    hf: Any = model.hf
    if options.full_size:
        hf.audio_encoder = full_size_codec()
    if options.stereo:
        hf.config.decoder.audio_channels = 2
        hf.config.decoder.num_codebooks *= 2
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        clips = make_clips(folder, options.clips)
        # What comes first meets the lengths first.
        ways: dict[str, Callable[[], list[np.ndarray]]] = {
            "tokenise_clips": lambda: as_the_package(clips, model, folder),
            "clip by clip": lambda: clip_by_clip(clips, model),
        }
        if not options.stereo:
            ways = {"transformers": lambda: by_transformers(clips, model)} | ways
        clip_by_clip(clips[:1], model)
        shortest_s, longest_s = LENGTHS_S
        print(f"{len(clips)} clips of {shortest_s:g} to {longest_s:g} s, ", end="")
        print(f"{options.threads} threads, ", end="")
        print("GPU" if torch.cuda.is_available() else "CPU")
        first: list[np.ndarray] = []
        for name, way in ways.items():
            began, cpu_began = time.perf_counter(), time.process_time()
            codes = way()
            seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
            first = first or codes
            differ = sum(int((a != b).sum()) for a, b in zip(codes, first, strict=True))
            total_s = sum(clip.duration_s or 0.0 for clip in clips)
            print(
                f"{name:16}{total_s / seconds:8.1f} s a second{total_s / cpu_s:8.1f} s a CPU "
                f"second, other codes: {differ}"
            )


if __name__ == "__main__":
    main()
