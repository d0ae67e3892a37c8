"""Everything that is measured for one variant, compared with the base."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from musicgen_lora.console import progress, working
from musicgen_lora.dataset.scoring import Windows
from musicgen_lora.evaluation.compared import Compared
from musicgen_lora.evaluation.decisions.protocol import judge_primaries
from musicgen_lora.evaluation.generations import hear_spectra, play_prompts, write_clips
from musicgen_lora.evaluation.losses.captions import measure_captions
from musicgen_lora.evaluation.losses.held_out_loss import compare_losses, windows_to_measure
from musicgen_lora.evaluation.losses.overfitting import measure_overfitting
from musicgen_lora.evaluation.performers import ADAPTER, BASE, Performer, Sides
from musicgen_lora.evaluation.play_tasks import ClipKind
from musicgen_lora.evaluation.report.document import Losses, NoLosses
from musicgen_lora.evaluation.session import EvaluationSession, Performance, Played
from musicgen_lora.evaluation.sound.memorisation import find_nearest, measure_continuations
from musicgen_lora.evaluation.sound.seeds import measure_seeds
from musicgen_lora.evaluation.sound.sounds import compare_sounds
from musicgen_lora.evaluation.sound.unasked import measure_off_style
from musicgen_lora.evaluation.variants import ALONE
from musicgen_lora.formats.documents import plain
from musicgen_lora.generation.decoding.sampling import sampling_of
from musicgen_lora.model.text.wording import english_of
from musicgen_lora.plural import count


def play(session: EvaluationSession, performer: Performer, name: str) -> Performance:
    """Generate the prompts' clips, analyse them and write them to `audio/<name>/`. The first
    prompts are generated again with other seeds; the base does so for those in other styles too."""
    settings = session.settings
    n_asked, n_off_style = len(session.prompts), len(session.off_style)
    again = session.off_style if name == BASE else ()
    n_written = n_asked + n_off_style
    parts = (session.prompts, session.off_style, session.again, again)
    prompts = [item["prompt"] for part in parts for item in part]
    sampling = sampling_of(settings, session.model.facts)
    with progress(session.console, f"frames of {count(len(prompts), 'prompt')}, {name}") as on_step:
        codes = play_prompts(
            performer,
            prompts,
            ClipKind(session.model.shape.frames(settings.duration), sampling),
            seed=settings.seed,
            batch_size=settings.batch_size,
            on_step=on_step,
            engine=session.engine,
        )
    folder = session.folder / "audio" / name
    with working(session.console, f"analysing the clips of {name}"):
        # Clips in other styles are analysed for their spectrum only.
        by_seeds = slice(n_written, n_written + len(session.again))
        seeds = hear_spectra(session.model, session.ear, codes[by_seeds])
        del codes[by_seeds], prompts[by_seeds]
        ears = [session.ear] * n_asked + [session.ear.spectra_alone] * (len(prompts) - n_asked)
        paths, heard = write_clips(session.model, ears, codes, prompts, folder)
    entries = [
        own.played(path.relative_to(session.folder).as_posix())
        for path, own in zip(paths, heard, strict=True)
    ]
    played = Played(codes, heard, entries)
    return Performance(
        asked=played.part(slice(n_asked)),
        off_style=played.part(slice(n_asked, n_written)),
        seeds=seeds,
        again=played.part(slice(n_written, None)),
    )


def measure_variant(
    session: EvaluationSession, performer: Performer, name: str, base: Performance | None
) -> dict[str, Any]:
    """Every part of the report that depends on the variant, by its name, and `played`.

    Args:
        name: name of the variant and of its folder.
        base: clips of the base; None without a comparison.
    """
    sides: Sides = {BASE: session.base, ADAPTER: performer}
    held_out, others = session.held_out, session.others
    windows = ()
    if session.codes is not None:
        windows = windows_to_measure(session.model, held_out.clips, session.codes, held_out)
    loss = _compare(session, sides, windows, held_out.why_none, "held-out loss, windows")
    forgetting = _compare(
        session, sides, others.windows, others.why_none, "loss on other styles, windows"
    )
    performance = play(session, performer, name)
    both = Compared(base, performance)
    asked = both.each(lambda side: side.asked)
    parts = {
        "loss": loss,
        "forgetting": forgetting,
        **_sounds(session, asked),
        "off_style": _off_style(session, base, performance),
        "seeds": measure_seeds(
            asked.each(lambda own: [heard.vectors for heard in own.heard]),
            both.each(lambda side: side.seeds),
            session.references,
            seed=session.settings.seed,
        ),
        **_on_trained(session, sides, loss, asked, name),
    }
    parts = plain(parts)
    parts["primaries"] = plain(judge_primaries(parts, compared=session.compared))
    return parts | {"played": asked.adapter}


def _sounds(session: EvaluationSession, played: Compared[Played]) -> dict[str, Any]:
    with working(session.console, "comparing sounds"):
        return compare_sounds(
            played.each(lambda own: own.heard),
            session.references,
            prompts=[item["prompt"] for item in session.prompts],
            embeddings=session.ear.embeddings,
            listener=session.listener,
            why_none=session.held_out.why_none or session.references.why_none,
            seed=session.settings.seed,
        )


def _off_style(
    session: EvaluationSession, base: Performance | None, own: Performance
) -> dict[str, Any]:
    """The report's `off_style`, a `document.OffStyle` or why there is none."""
    if base is None or not session.off_style:
        return {"computed": False, "why": session.why_no_off_style}
    sides = (base.off_style, base.again, own.off_style)
    before, again, after = (played.heard for played in sides)
    found = measure_off_style(before, again, after, own.asked.heard, seed=session.settings.seed)
    first = session.settings.seed + len(session.prompts)
    clips = []
    for row, (item, measured) in enumerate(
        zip(session.off_style, found.pop("prompts"), strict=True)
    ):
        codes = (base.off_style.codes[row], own.off_style.codes[row])
        entries = (played.entries[row] for played in sides)
        clips.append(
            {
                "prompt": item["prompt"],
                "origin": item["origin"],
                "read_as": english_of(item["prompt"]),
                "seed": first + row,
                "other_seed": first + len(session.off_style) + len(session.again) + row,
                "identical": np.array_equal(*codes),
                **dict(zip(("base", "again", "adapter"), entries, strict=True)),
                "measured": measured,
            }
        )
    return {"computed": True, "why": "", **found, "clips": clips}


def _compare(
    session: EvaluationSession, sides: Sides, windows: Windows, why_none: str, what: str
) -> Losses | NoLosses:
    if not windows:
        return {"computed": False, "why": why_none}
    settings = session.settings
    with progress(session.console, what) as on_step:
        return compare_losses(
            sides, windows, batch_size=settings.batch_size, seed=settings.seed, on_step=on_step
        )


def _on_trained(
    session: EvaluationSession,
    sides: Sides,
    loss: Mapping[str, Any],
    played: Compared[Played],
    name: str,
) -> dict[str, Any]:
    """The report's `overfitting`, `memorisation` and `captions`: training clips compared with
    held-out ones, for base and adapter."""
    settings, held_out = session.settings, session.held_out
    trained = session.trained.trained
    with progress(session.console, "loss on training clips, windows") as on_step:
        overfitting = measure_overfitting(settings, sides, trained, held_out, loss, on_step)
    with progress(session.console, "continuations of clips") as on_step:
        continuations = measure_continuations(
            sides,
            trained,
            (held_out.clips, session.codes or ()),
            others=[window.codes for window in session.others.windows],
            seed=settings.seed,
            on_step=on_step,
        )
    with progress(session.console, "swapped captions, windows") as on_step:
        captions = measure_captions(
            sides,
            held_out,
            session.codes,
            trained,
            batch_size=settings.batch_size,
            seed=settings.seed,
            on_step=on_step,
        )
    with working(session.console, "looking for the nearest training clips"):
        nearest = find_nearest(
            played.each(lambda own: own.heard),
            session.trained,
            session.references,
            output_dir=session.folder,
            folder="audio/trained" if name == ALONE else f"audio/{name}/trained",
        )
    return {
        "overfitting": overfitting,
        "memorisation": {"continuations": continuations, "nearest": nearest},
        "captions": captions,
    }
