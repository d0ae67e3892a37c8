"""The `tokenise` command: the codec turns a dataset's audio into token shards.

Training does this for clips that have no tokens. As a command of its own it can run beforehand, on
another machine, or while captions are being written.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from musicgen_lora.cluster.engine import open_engine
from musicgen_lora.config import TokeniseSettings, TrainSettings
from musicgen_lora.console import OnStep, plain_console, progress
from musicgen_lora.dataset.bar_lines import bar_lines
from musicgen_lora.dataset.clip_ids import clip_ids
from musicgen_lora.dataset.encoding import UnencodedClips
from musicgen_lora.dataset.metadata import Clip, Clips, load_dataset, parts_sentence, split_rows
from musicgen_lora.dataset.packed import PackedTokens, write_packed
from musicgen_lora.dataset.remote import tokenise_remote
from musicgen_lora.dataset.shard_tasks import encode_by
from musicgen_lora.dataset.tokens import TokenStore, tokenise_clips
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.plural import count
from musicgen_lora.urls import url_of


def tokenise_dataset(settings: TokeniseSettings) -> Path:
    """Encodes the clips of a dataset that are not in any shard yet.

    Returns:
        The folder of the shards, or the dataset's URL if it is remote.

    Raises:
        UserError: no such dataset or model, or audio that cannot be used.
    """
    console = plain_console()
    if url_of(settings.data_dir) is not None:
        tokenise_remote(settings, console)
        return settings.data_dir
    clips = load_dataset(settings.data_dir, settings.metadata_file)
    model = BaseModel.load(settings.model_path)
    ids = clip_ids(clips, settings.data_dir)
    n_new = 0
    with progress(console, "clips encoded") as on_step:

        def on_clip(done: float, total: int) -> None:
            nonlocal n_new
            n_new = round(done)
            on_step(done, total)

        try:
            codes = _encoded(settings, clips, ids, model, on_clip)
        except UnencodedClips as error:
            for name, reason in error.reasons.items():
                console.print(f"{name}: {reason}", style="yellow")
            raise
    folder = settings.data_dir / "tokens" / model.codec.fingerprint
    console.print(
        f"{count(n_new, 'clip')} encoded, {len(clips) - n_new} already there; "
        f"{count(len(clips), 'clip')}, {codes.n_frames.sum()} frames: {folder}"
    )
    if parts := parts_sentence(clips):
        console.print(parts)
    if settings.pack is not None:
        packed = pack_clips(clips, codes, model)
        write_packed(settings.pack, packed)
        console.print(
            f"{settings.pack}: {count(len(clips), 'clip')}, {int(packed.held_out.sum())} of them "
            "held out."
        )
    return folder


def _encoded(
    settings: TokeniseSettings, clips: Clips, ids: list[str], model: BaseModel, on_clip: OnStep
) -> TokenStore:
    """The codes of all clips, encoded here or by the workers that the settings name."""
    if settings.ray is None and not settings.num_workers:
        return tokenise_clips(clips, ids, model, settings.data_dir, on_clip)
    with open_engine(settings.ray, settings.num_workers) as engine:
        return tokenise_clips(clips, ids, model, settings.data_dir, on_clip, encode_by(engine))


def pack_clips(clips: Sequence[Clip], codes: TokenStore, model: BaseModel) -> PackedTokens:
    """Packs a dataset's codes, captions and training's default split into one value."""
    columns = Clips.of(clips)
    _, held_out = split_rows(columns, TrainSettings.validation_fraction, seed=0)
    is_held_out = np.zeros(len(columns), bool)
    is_held_out[held_out] = True
    return PackedTokens(
        codes=np.concatenate([codes[row] for row in range(len(columns))]),
        n_frames=np.asarray(codes.n_frames, dtype=np.int64),
        texts=[clip.texts for clip in columns],
        held_out=is_held_out,
        n_entries=model.shape.special,
        frame_rate=model.shape.frame_rate,
        codec=model.codec.fingerprint,
        bars=np.array([bar_lines(clip, model.shape.frame_rate) for clip in columns], np.float32),
    )
