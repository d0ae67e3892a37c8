"""Sounds and spectrograms that the page carries inside, compressed: it opens at once."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import soundfile
from matplotlib.image import imsave

from musicgen_lora.audio.files import probe, read_audio
from musicgen_lora.evaluation.report.document import sides
from musicgen_lora.evaluation.report.plots import DYNAMIC_RANGE_DB, log_spectrogram
from musicgen_lora.page import data_uri

PAGE_BYTES = 14_000_000
"""Bytes of what is inside the page; clips beyond are named by their files."""
COMPRESSION = 0.3
"""Quality of MP3, 0 to 1: about 80 kbit/s a channel."""
CHUNK = 16_384
MOST_AT_ONCE = 4
"""Sides of a prompt that are compressed at once."""


def mp3_bytes(waveform: np.ndarray, sample_rate: int) -> bytes:
    """A waveform `[C, N]` as MP3, which every browser plays: Safari has no Ogg before 18.4."""
    target = BytesIO()
    with soundfile.SoundFile(
        target,
        "w",
        sample_rate,
        waveform.shape[0],
        format="MP3",
        subtype="MPEG_LAYER_III",
        compression_level=COMPRESSION,
    ) as file:
        for start in range(0, waveform.shape[1], CHUNK):
            file.write(waveform[:, start : start + CHUNK].T)
    return target.getvalue()


def spectrogram_png(levels: np.ndarray, loudest: float) -> bytes:
    """A spectrogram that fills its picture, time from edge to edge, so that it can be a seek bar.

    Args:
        levels: in dB, from `log_spectrogram`.
        loudest: level that is white, one for all sides of a prompt.
    """
    share = np.clip((levels - loudest) / DYNAMIC_RANGE_DB + 1.0, 0.0, 1.0)
    colours = matplotlib.colormaps["magma"](share[::-1], bytes=True)[..., :3]
    target = BytesIO()
    imsave(target, colours, format="png")
    return target.getvalue()


def embed_sounds(
    groups: list[list[str]], output_dir: Path
) -> tuple[dict[str, str], dict[str, bytes]]:
    """Sounds and spectrograms of clips, a group (the sides of a prompt) at a time while they fit.

    Args:
        groups: names of WAV files in `output_dir`.

    Returns:
        Data URIs of MP3 by name, and PNG by name.
    """
    sounds: dict[str, str] = {}
    pictures: dict[str, bytes] = {}
    n_bytes = 0
    # The sides of a prompt at once: neither an MP3 nor a spectrogram holds Python up.
    with ThreadPoolExecutor(MOST_AT_ONCE) as pool:
        for group in groups:
            embedded = [*pool.map(_embed, [output_dir / name for name in group])]
            uris = {name: uri for name, (uri, _) in zip(group, embedded, strict=True)}
            loudest = max(float(own.max()) for _, own in embedded)
            levels = [own for _, own in embedded]
            drawn = pool.map(partial(spectrogram_png, loudest=loudest), levels)
            images = dict(zip(group, drawn, strict=True))
            n_bytes += sum(map(len, uris.values())) + sum(4 * len(i) // 3 for i in images.values())
            if n_bytes > PAGE_BYTES:
                break
            sounds |= uris
            pictures |= images
    return sounds, pictures


def _embed(path: Path) -> tuple[str, np.ndarray]:
    """A WAV file as a data URI of MP3, and its levels."""
    rate = probe(path).sample_rate
    wave = read_audio(path, rate)
    return data_uri("audio/mpeg", mp3_bytes(wave, rate)), log_spectrogram(wave, rate)


def sound_groups(report: Mapping[str, Any]) -> list[list[str]]:
    """Names of the files of each prompt, of those of other styles, and of each generated clip's
    nearest training clip."""
    clips = report["generation"]["clips"]
    groups = [[own["audio"] for own in sides(clip).values()] for clip in clips]
    off_style = report["off_style"]
    if off_style["computed"]:
        groups += [
            [clip[side]["audio"] for side in ("base", "again", "adapter")]
            for clip in off_style["clips"]
        ]
    nearest = report["memorisation"]["nearest"]
    if nearest["computed"]:
        groups += [[clip["audio"]] for clip in nearest["clips"] if clip["audio"]]
    return groups
