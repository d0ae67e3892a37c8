"""Compressed audio and spectrograms embedded in the page, so that it opens at once."""

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
"""Total size of what is embedded; for clips beyond it the page names their files."""
COMPRESSION = 0.3
"""MP3 compression level, 0 to 1: this gives about 80 kbit/s per channel."""
CHUNK = 16_384
MOST_AT_ONCE = 4
"""Sides of a prompt that are compressed in parallel."""


def mp3_bytes(waveform: np.ndarray, sample_rate: int) -> bytes:
    """Encode a waveform `[C, N]` as MP3, which all browsers play; Safari before 18.4 lacks Ogg."""
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
    """Draw a spectrogram without margins, so that it can serve as a seek bar.

    Args:
        levels: in dB, from `log_spectrogram`.
        loudest: the level shown as white, the same for all sides of a prompt.
    """
    share = np.clip((levels - loudest) / DYNAMIC_RANGE_DB + 1.0, 0.0, 1.0)
    colours = matplotlib.colormaps["magma"](share[::-1], bytes=True)[..., :3]
    target = BytesIO()
    imsave(target, colours, format="png")
    return target.getvalue()


def embed_sounds(
    groups: list[list[str]], output_dir: Path
) -> tuple[dict[str, str], dict[str, bytes]]:
    """Encode the audio and spectrograms of clips, group by group (the sides of a prompt) while they
    fit.

    Args:
        groups: names of WAV files in `output_dir`.

    Returns:
        MP3 data URIs and PNG images, both by name.
    """
    sounds: dict[str, str] = {}
    pictures: dict[str, bytes] = {}
    n_bytes = 0
    # All sides of a prompt in parallel: encoding MP3 and computing spectrograms release the GIL.
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
    """A WAV file as an MP3 data URI, and its spectrogram levels."""
    rate = probe(path).sample_rate
    wave = read_audio(path, rate)
    return data_uri("audio/mpeg", mp3_bytes(wave, rate)), log_spectrogram(wave, rate)


def sound_groups(report: Mapping[str, Any]) -> list[list[str]]:
    """File names for each prompt, for each prompt in another style, and of each generated clip's
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
