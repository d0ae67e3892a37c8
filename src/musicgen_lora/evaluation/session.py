"""What all variants of an evaluation share: the base, the clips and their analyses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from musicgen_lora.cluster.engine import Engine
from musicgen_lora.config import EvaluateSettings
from musicgen_lora.console import progress, working
from musicgen_lora.dataset.clip_ids import clip_ids
from musicgen_lora.dataset.copies import join_copies
from musicgen_lora.dataset.tokens import TokenStore, open_tokens, tokenise_clips
from musicgen_lora.errors import UserError
from musicgen_lora.evaluation.generations import choose_prompts, describe_texts
from musicgen_lora.evaluation.held_out import HeldOut
from musicgen_lora.evaluation.losses.forgetting import OtherMusic, other_music
from musicgen_lora.evaluation.measures.listeners import Listener
from musicgen_lora.evaluation.off_style import choose_off_style
from musicgen_lora.evaluation.performers import Performer
from musicgen_lora.evaluation.remarks import too_short
from musicgen_lora.evaluation.sound.ear import Ear, Heard, Vectors
from musicgen_lora.evaluation.sound.memorisation import TrainedSounds
from musicgen_lora.evaluation.sound.references import References, hear_references
from musicgen_lora.evaluation.sound.seeds import N_PROMPTS
from musicgen_lora.evaluation.trained_clips import open_trained
from musicgen_lora.generation.decoding.decode import windows_sentence
from musicgen_lora.generation.decoding.sampling import advice_sentence, sampling_of
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.text.reading import TextReader


@dataclass(frozen=True)
class EvaluationSession:
    """Clips and their analyses.

    Args:
        compared: whether the base generates clips too.
        held_out: clips that losses are measured on.
        references: analyses of held-out clips, and the anchors.
        trained: clips that the adapters were trained on.
        prompts: `prompt` and `origin` of each clip to generate.
        off_style: the same for other styles; these are generated after the others.
        why_no_off_style: the reason if there are none.
        engine: generates the clips; None means this process.
    """

    settings: EvaluateSettings
    base: Performer
    compared: bool
    ear: Ear
    listener: Listener | None
    held_out: HeldOut
    codes: TokenStore | None
    others: OtherMusic
    references: References
    trained: TrainedSounds
    prompts: Sequence[Mapping[str, str]]
    off_style: Sequence[Mapping[str, str]]
    why_no_off_style: str
    folder: Path
    console: Console
    engine: Engine | None = None

    @property
    def remarks(self) -> list[str]:
        """Sentences on clips that are unsuitable for measuring."""
        own = [self.others.left_out] if self.others.left_out else []
        return [*own, *self.references.remarks]

    @property
    def again(self) -> Sequence[Mapping[str, str]]:
        """Prompts in the adapter's own style that are also generated with another seed."""
        return self.prompts[:N_PROMPTS]

    @property
    def model(self) -> BaseModel:
        return self.base.model


@dataclass(frozen=True)
class Played:
    """Clips of a performer."""

    codes: Sequence[np.ndarray]
    heard: Sequence[Heard]
    entries: Sequence[Any]
    """The entry of each clip in report.json."""

    def part(self, rows: slice) -> Played:
        return Played(self.codes[rows], self.heard[rows], self.entries[rows])


@dataclass(frozen=True)
class Performance:
    """All clips of a performer.

    Args:
        asked: clips of prompts in the adapter's own style.
        seeds: the first of these prompts with other seeds.
        again: prompts in other styles with other seeds; from the base only.
    """

    asked: Played
    off_style: Played
    seeds: Sequence[Vectors]
    again: Played


def open_session(
    settings: EvaluateSettings,
    base: Performer,
    held_out: HeldOut,
    listeners: tuple[Listener | None, Ear],
    *,
    compared: bool,
    folder: Path,
    console: Console,
) -> EvaluationSession:
    """Open the clips, and analyse the references.

    Raises:
        UserError: a given dataset cannot be used.
    """
    model, (listener, ear) = base.model, listeners
    if said := advice_sentence(settings, model.facts):
        console.print(said)
    sampling = sampling_of(settings, model.facts)
    # The report states the values that were used, not that none were given.
    settings = dataclasses.replace(
        settings, guidance_scale=sampling.guidance_scale, temperature=sampling.temperature
    )
    captions = held_out.clips
    prompts = choose_prompts(settings.prompts, captions, settings.num_prompts)
    known = [clip.texts[0] for clip in (*captions, *held_out.trained)]
    held_out = _within_trained(settings, held_out, model, console)
    held_out, codes = _open_tokens(settings, held_out, model, console)
    with working(console, "reading other music"):
        others = other_music(settings, model, held_out.max_duration_s)
    if others.left_out:
        console.print(others.left_out, style="yellow")
    off_style, why_no_off_style = _off_style(settings, prompts, known, others, compared)
    for line in describe_texts([*prompts, *off_style], captions, TextReader.of(model.tokenizer)):
        console.print(line, style="yellow")
    references = References()
    if codes is not None:
        with progress(console, "reference clips analysed") as on_clip:
            references = hear_references(
                settings, model, ear, (held_out.clips, codes), others, on_clip
            )
    with working(console, "reading training clips"):
        trained = open_trained(settings, held_out, model)
    return EvaluationSession(
        settings=settings,
        base=base,
        compared=compared,
        ear=ear,
        listener=listener,
        held_out=held_out,
        codes=codes,
        others=others,
        references=references,
        trained=TrainedSounds(trained, model, settings.duration),
        prompts=prompts,
        off_style=off_style,
        why_no_off_style=why_no_off_style,
        folder=folder,
        console=console,
    )


def _off_style(
    settings: EvaluateSettings,
    prompts: Sequence[Mapping[str, str]],
    known: Sequence[str],
    others: OtherMusic,
    compared: bool,
) -> tuple[list[dict[str, str]], str]:
    """Prompts in other styles, or why there are none."""
    if not compared:
        return [], "needs --compare"
    if not settings.num_off_style:
        return [], "--num_off_style 0"
    captions = [window.caption for window in others.windows if window.caption]
    asked = [item["prompt"] for item in prompts]
    return choose_off_style(captions, known, asked, settings.num_off_style), ""


def _within_trained(
    settings: EvaluateSettings,
    held_out: HeldOut,
    model: BaseModel,
    console: Console,
) -> HeldOut:
    """Limit windows to the length that the base was trained on, whatever the adapter's training
    used, and print a warning for anything longer."""
    if said := windows_sentence(model, model.shape.frames(settings.duration)):
        console.print(said, style="yellow")
    longest_s = model.facts.trained_duration_s
    if held_out.max_duration_s <= longest_s:
        return held_out
    if held_out.clips:
        console.print(
            f"Losses are measured on windows of {longest_s:g} s, not {held_out.max_duration_s:g} "
            f"s: {settings.base_model_path} was not trained on longer ones.",
            style="yellow",
        )
    return dataclasses.replace(held_out, max_duration_s=longest_s)


def _open_tokens(
    settings: EvaluateSettings,
    held_out: HeldOut,
    model: BaseModel,
    console: Console,
) -> tuple[HeldOut, TokenStore | None]:
    """Codes of the held-out clips. Unreadable clips are an error if the user named the dataset, and
    a reason to measure nothing if it comes from the adapter's record."""
    if held_out.data_dir is None:
        return held_out, None
    shortest = model.delays.shortest
    try:
        if settings.from_tokens:
            ids, codes = open_tokens(held_out.clips, model, held_out.data_dir)
        else:
            ids = clip_ids(held_out.clips, held_out.data_dir)
            with progress(console, "clips encoded") as on_clip:
                codes = tokenise_clips(held_out.clips, ids, model, held_out.data_dir, on_clip)
    except UserError as error:
        if settings.data_dir is not None:
            raise
        return _without_clips(held_out, str(error).rstrip(".")), None
    except OSError as error:
        raise UserError(
            f"{held_out.data_dir / 'tokens'}: cannot be written ({error.strerror}); make it "
            "writable, or pass a copy of the dataset with --data_dir."
        ) from error
    rows = np.flatnonzero(codes.n_frames >= shortest)
    if not len(rows):
        why = f"every held-out clip is shorter than {shortest} frames"
        return _without_clips(held_out, why), None
    told = [held_out.origin]
    lengths = zip(held_out.clips, codes.n_frames.tolist(), strict=True)
    if short := [clip.name for clip, n_frames in lengths if n_frames < shortest]:
        said = too_short(short, shortest)
        console.print(said, style="yellow")
        told.append(said)
    joined, _ = join_copies(held_out.clips, ids)
    clips = [joined[row] for row in rows.tolist()]
    return dataclasses.replace(held_out, clips=clips, origin=" ".join(told)), codes.take(rows)


def _without_clips(held_out: HeldOut, why: str) -> HeldOut:
    """No clips to measure on after all; other figures still use the windows of training."""
    return HeldOut(
        why_none=why, max_duration_s=held_out.max_duration_s, max_windows=held_out.max_windows
    )
