"""Example data: a folder of 808 beats with captions, ready for training.

Nobody should need a record collection to try the tool. The beats are composed and played
here, so tempo, key and instruments in the captions are known rather than guessed.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from musicgen_lora.audio.files import write_wav
from musicgen_lora.beats.beats808 import Beat, beat_facts, caption, make_beat, render_beat
from musicgen_lora.prepare.clips.entries import MADE_NAMES
from musicgen_lora.prepare.rerun.shared_metadata import SharedMetadata
from musicgen_lora.prepare.words.captions import mark_made, merge_edits

N_THREADS = 2
"""Threads that render beats in parallel. For two thirds of the time numpy works on long arrays and
blocks no other thread; more than two threads would wait for the remaining third."""


def create_examples(
    output_dir: Path,
    n_samples: int,
    *,
    duration_s: float = 15.0,
    sample_rate: int = 32000,
    seed: int = 0,
    metadata_file: str = "metadata.json",
) -> Path:
    """Renders `n_samples` beats to `output_dir/train` and lists them in the metadata.

    Clip number i depends only on `seed` and i, so a larger set extends a smaller one, and the
    same seed gives the same bytes. Existing metadata is extended: entries of other files and the
    user's edits are kept. The dataset must be locked.

    Args:
        duration_s: target length; each clip has the even number of bars nearest to it.
        seed: of composition, rendering and captions.

    Returns:
        Path of the metadata file.

    Raises:
        UserError: the metadata exists and is not a JSON list of entries.
    """
    metadata_path = output_dir / metadata_file
    # Read before rendering, to fail early if it can't be extended.
    metadata = SharedMetadata(metadata_path)
    new = {}
    pool = ThreadPoolExecutor(N_THREADS)
    try:
        clips = [
            pool.submit(_create_clip, output_dir, index, duration_s, sample_rate, seed)
            for index in range(n_samples)
        ]
        for clip in clips:
            entry = clip.result()
            new[entry["audio"]] = mark_made(entry, MADE_NAMES)
    finally:
        pool.shutdown(cancel_futures=True)
    kept = {entry.get("audio"): entry for entry in metadata.entries}
    entries = [entry for entry in metadata.entries if entry.get("audio") not in new]
    entries += [
        merge_edits(kept[audio], entry) if audio in kept else entry for audio, entry in new.items()
    ]
    metadata.write(entries)
    return metadata_path


def _create_clip(
    output_dir: Path, index: int, duration_s: float, sample_rate: int, seed: int
) -> dict[str, Any]:
    """Writes one clip and returns its metadata entry."""
    beat = make_beat((seed, index), duration_s=duration_s)
    waveform = render_beat(beat, sample_rate, seed=index)
    path = output_dir / "train" / _file_name(beat, index)
    write_wav(path, waveform, sample_rate)
    return {
        "audio": path.relative_to(output_dir).as_posix(),
        "text": caption(beat, (seed, index, 1)),
        "source": f"kit808-seed{seed}-{index:03d}",
        **beat_facts(beat),
        "duration_s": round(waveform.shape[1] / sample_rate, 6),
    }


def _file_name(beat: Beat, index: int) -> str:
    """A name such as `trap_140bpm_csharp_minor_003.wav`."""
    style = beat.style.replace(" ", "_")
    key = "drums" if beat.key is None else beat.key.lower().replace("#", "sharp").replace(" ", "_")
    return f"{style}_{beat.bpm}bpm_{key}_{index:03d}.wav"
