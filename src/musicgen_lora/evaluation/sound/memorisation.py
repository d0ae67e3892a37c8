"""Does the adapter repeat its training clips? It is prompted with them, and its own clips are
compared with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from musicgen_lora.audio.files import write_wav
from musicgen_lora.console import OnStep
from musicgen_lora.dataset.metadata import Clip
from musicgen_lora.evaluation.compared import Compared
from musicgen_lora.evaluation.measures.between import anchor_of, share_between
from musicgen_lora.evaluation.measures.memory import (
    judge_continuations,
    nearest_trained,
    share_given_back,
    share_in_common,
)
from musicgen_lora.evaluation.performers import ADAPTER, BASE, Performer, Sides
from musicgen_lora.evaluation.players import hearers, players, shared_out
from musicgen_lora.evaluation.sound.ear import Heard
from musicgen_lora.evaluation.sound.references import NOISE, OTHER_MUSIC, RECORDED, References
from musicgen_lora.evaluation.trained_clips import TrainedClips
from musicgen_lora.generation.decoding.decode import VERSION, generate_codes
from musicgen_lora.generation.decoding.decoder import is_small
from musicgen_lora.generation.decoding.request import Conditions, Request
from musicgen_lora.generation.decoding.sampling import Sampling
from musicgen_lora.listening.duplicates import THRESHOLD, audio_fingerprint, similarity
from musicgen_lora.model.base_model import BaseModel

MAX_TRAINED, MAX_HELD_OUT = 8, 16
"""Most clips to continue. With 8 vs. 16, one permutation in 735,471 is as extreme as that of an
adapter that memorised all its clips."""
GIVEN_S, MADE_S = 5.0, 1.5
FEWEST_MADE = 8
"""Fewest generated frames; with fewer, equal codes say nothing."""
BATCH = 8
"""Clips to continue in one batch; a small decoder on a CPU continues all of them at once."""
UNGUIDED_GREEDY = Sampling(guidance_scale=1.0, top_k=1)
COPY = THRESHOLD
"""Similarity of fingerprints from which `prepare` treats two clips as duplicates."""
N_HEARD = 3
"""Number of closest training clips that are written for listening."""
HeldOutClips = tuple[Sequence[Clip], Sequence[np.ndarray]]
"""Clips and their codes `[T, K]`."""


def measure_continuations(
    sides: Sides,
    trained: TrainedClips,
    held_out: HeldOutClips,
    *,
    others: Sequence[np.ndarray] = (),
    seed: int,
    on_step: OnStep,
) -> dict[str, Any]:
    """The report's `memorisation.continuations`: how much of training clips and of held-out clips
    greedy continuations reproduce, with the adapter off and on.

    Args:
        others: codes `[T, K]` of other music.
    """
    if trained.codes is None:
        return {"computed": False, "why": trained.why_none}
    ours = _spaced(trained.clips, trained.codes, MAX_TRAINED)
    theirs = _spaced(*held_out, MAX_HELD_OUT)
    rate = sides[BASE].model.shape.frame_rate
    n_given, n_frames = _lengths([len(codes) for _, codes in (*ours, *theirs)], rate)
    if n_frames - n_given < FEWEST_MADE:
        return {"computed": False, "why": "the clips are too short to continue"}
    ours, theirs = ([one for one in side if len(one[1]) >= n_frames] for side in (ours, theirs))
    if not ours or not theirs:
        return {"computed": False, "why": "no training clip or no held-out clip is long enough"}
    total = 2 * (len(ours) + len(theirs))
    shares: dict[str, list[float]] = {}
    for number, side in enumerate((BASE, ADAPTER)):
        done = number * total // 2
        shares[side] = _shares(
            sides[side],
            [*ours, *theirs],
            n_given,
            n_frames,
            lambda n, done=done: on_step(done + n, total),
        )
    found = judge_continuations(
        _by_source(ours, theirs, shares["adapter"]),
        _by_source(ours, theirs, shares["base"]),
        seed=seed,
    )
    anchors = _chance(sides[BASE].model, [own for _, own in theirs], others, n_given, n_frames)
    return {
        "computed": True,
        "why": "",
        **dataclasses.asdict(found),
        "anchors": anchors,
        "position": {
            name: share_between(getattr(found, name), anchors["halves"]["value"], 1.0)
            for name in ("trained", "held_out", "base_trained", "base_held_out")
        },
        "flagged": found.flagged,
        "given_s": n_given / rate,
        "made_s": (n_frames - n_given) / rate,
    }


def _by_source(
    ours: Sequence[tuple[Clip, np.ndarray]],
    theirs: Sequence[tuple[Clip, np.ndarray]],
    shares: Sequence[float],
) -> tuple[list[float], list[float]]:
    """The mean share of each source, for either side: clips of one source are not independent."""
    sides: tuple[dict[str, list[float]], dict[str, list[float]]] = ({}, {})
    for place, ((clip, _), share) in enumerate(zip([*ours, *theirs], shares, strict=True)):
        sides[place >= len(ours)].setdefault(clip.source, []).append(share)
    first, second = ([float(np.mean(own)) for own in side.values()] for side in sides)
    return first, second


def _lengths(lengths: Sequence[int], rate: float) -> tuple[int, int]:
    """The number of given frames and of all frames. All clips get the same length; the shortest
    ones are left out rather than shortening all."""
    whole_s = GIVEN_S + MADE_S
    n_frames = min(round(whole_s * rate), int(np.quantile(lengths, 0.25, method="lower")))
    return round(n_frames * GIVEN_S / whole_s), n_frames


def _chance(
    model: BaseModel,
    held_out: Sequence[np.ndarray],
    others: Sequence[np.ndarray],
    n_given: int,
    n_frames: int,
) -> dict[str, dict[str, Any]]:
    """The share of codes that clips have in common without copying: held-out clips with each other
    and with other music, and random codes."""
    clips = np.array([own[:n_frames].T for own in held_out])
    far = np.array([own[:n_frames].T for own in others[:MAX_HELD_OUT] if len(own) >= n_frames])
    halves = [share_in_common(clips, clips, n_given, same=True)] if len(clips) > 1 else []
    other = [share_in_common(clips, far, n_given, same=False)] if len(far) else []
    return {
        "halves": anchor_of(halves, len(clips), "needs two held-out clips"),
        "other_music": anchor_of(other, len(far), "no other music is long enough"),
        "noise": anchor_of([1.0 / model.shape.special], 0, ""),
    }


def _spaced(
    clips: Sequence[Clip], codes: Sequence[np.ndarray], most: int
) -> list[tuple[Clip, np.ndarray]]:
    places = np.unique(np.linspace(0, len(clips) - 1, min(most, len(clips))).round().astype(int))
    return [(clips[place], codes[place]) for place in places.tolist()]


def _shares(
    performer: Performer,
    clips: Sequence[tuple[Clip, np.ndarray]],
    n_given: int,
    n_frames: int,
    on_clip: Callable[[int], None],
) -> list[float]:
    """The share of each clip's codes that its greedy continuation reproduces."""
    codes = [own[:n_frames].T.astype(np.int64) for _, own in clips]  # [K, T]
    captions = [clip.texts[0] for clip, _ in clips]
    keys = [
        performer.key(
            *("continuation", VERSION, performer.precision),
            *(performer.reads(text), n_frames, own[:, :n_given].tobytes()),
        )
        for text, own in zip(captions, codes, strict=True)
    ]
    found = {key: performer.store.get("continuations", key) for key in keys}
    missing = [index for index, key in enumerate(keys) if found[key] is None]
    if missing:
        with performer.worn(), players(performer.model, performer.precision) as side_by_side:
            n_together = len(missing) if is_small(performer.model) else BATCH
            for start in range(0, len(missing), n_together):
                batch = missing[start : start + n_together]
                made = side_by_side.play(
                    lambda decoder, request: generate_codes(decoder, request).numpy(),
                    [
                        _continued(performer.model, part, codes, captions, n_given, n_frames)
                        for part in shared_out(batch, side_by_side.n)
                    ],
                )
                fresh = {
                    keys[index]: {"codes": own.astype(np.int32)}
                    for index, own in zip(batch, np.concatenate(made), strict=True)
                }
                performer.store.put("continuations", fresh)
                found |= fresh
                on_clip(len(clips) - len(missing) + start + len(batch))
    made_again = [entry["codes"] for key in keys if (entry := found[key]) is not None]
    pairs = zip(codes, made_again, strict=True)
    return [share_given_back(own, its, n_given) for own, its in pairs]


def _continued(
    model: BaseModel,
    rows: Sequence[int],
    codes: Sequence[np.ndarray],
    captions: Sequence[str],
    n_given: int,
    n_frames: int,
) -> Request:
    """The request that continues the beginnings of some of the clips."""
    given = torch.from_numpy(np.stack([codes[row][:, :n_given] for row in rows]))
    texts = model.text.each_alone([captions[row] for row in rows])
    return Request(Conditions(texts), n_frames, [0] * len(rows), UNGUIDED_GREEDY, given)


@dataclass(frozen=True)
class TrainedSounds:
    """The audio of training clips, decoded by the codec like all others.

    Args:
        model: its codec decodes.
    """

    trained: TrainedClips
    model: BaseModel
    duration_s: float

    @cached_property
    def prints(self) -> Sequence[np.ndarray]:
        """The clips' fingerprints; empty if there are no clips."""
        with hearers() as pool:
            return [*pool.map(self._print, range(len(self.trained.codes or ())))]

    def _print(self, place: int) -> np.ndarray:
        return audio_fingerprint(self.play(place), self.model.shape.sample_rate)

    def likeness(self, heard: Sequence[Heard]) -> np.ndarray:
        """Similarities `[N, R]` of N clips to the R training clips."""
        rows = [[similarity(own.fingerprint, one) for one in self.prints] for own in heard]
        return np.array(rows).reshape(len(heard), len(self.prints))

    def write(self, place: int, path: Path) -> None:
        """Write the beginning of a clip as a WAV file."""
        write_wav(path, self.play(place), self.model.shape.sample_rate)

    def play(self, place: int) -> np.ndarray:
        """Decode the beginning of a clip: `[C, N]`."""
        assert self.trained.codes is not None
        n_frames = self.model.shape.frames(self.duration_s)
        first = self.trained.codes[place][:n_frames].T.astype(np.int64)
        return self.model.decode(torch.from_numpy(np.ascontiguousarray(first))[None])[0]


def find_nearest(
    made: Compared[Sequence[Heard]],
    sounds: TrainedSounds,
    references: References,
    *,
    output_dir: Path,
    folder: str = "audio/trained",
) -> dict[str, Any]:
    """The report's `memorisation.nearest`: the training clip most similar to each generated clip,
    by fingerprints, compared with how similar held-out clips are to training clips. The closest
    training clips are written for listening.

    Args:
        made: clips of the adapter, and of the base, which was not trained on the training clips.
        sounds: the training clips.
        references: held-out clips (the null distribution) and anchors.
        folder: folder for the clips in `output_dir`.
    """
    trained = sounds.trained
    if trained.codes is None:
        return {"computed": False, "why": trained.why_none}
    if not references.heard:
        return {"computed": False, "why": "there are no held-out clips to compare with"}
    null, leaked = _null(sounds, references)
    found = nearest_trained(sounds.likeness(made.adapter), null)
    anchors = _likeness_anchors(sounds, references, made.base)
    # The similarity of a copy that went through the codec, like all clips here.
    copy = anchors["recorded"]["median"] or 1.0
    median, highest = float(np.median(null.max(axis=1))), float(null.max())
    clips = [
        {
            "trained": trained.clips[one.place].name,
            "place": one.place,
            "similarity": one.similarity,
            "odds": one.odds,
            "position": share_between(one.similarity, median, copy),
            "copied": one.similarity >= COPY and one.similarity > highest,
            "audio": None,
        }
        for one in found
    ]
    closest = sorted(range(len(found)), key=lambda index: -found[index].similarity)
    for index in closest[:N_HEARD]:
        clips[index]["audio"] = name = f"{folder}/{index + 1:02d}.wav"
        sounds.write(found[index].place, output_dir / name)
    return {
        "computed": True,
        "why": "",
        "n": len(made.adapter),
        "n_trained": len(sounds.prints),
        "n_trained_in_all": trained.n_all,
        "n_held_out": len(references.heard),
        "copy_from": COPY,
        "held_out_median": median,
        "held_out_highest": highest,
        "held_out_copies": leaked,
        "anchors": anchors,
        "clips": clips,
        "flagged": any(clip["copied"] for clip in clips),
    }


def _null(sounds: TrainedSounds, references: References) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Similarities `[H, R]` of held-out clips to training clips, and the held-out clips that repeat
    one. The latter don't show how similar unseen music is, so they are only used if there are no
    others."""
    likeness = sounds.likeness(references.heard)
    nearest = likeness.argmax(axis=1)
    highest = likeness.max(axis=1)
    rows = sorted(np.flatnonzero(highest >= COPY).tolist(), key=lambda row: -highest[row])
    leaked = [
        {
            "held_out": references.clips[row].name,
            "trained": sounds.trained.clips[nearest[row]].name,
            "similarity": float(highest[row]),
        }
        for row in rows
    ]
    unseen = likeness[highest < COPY]
    return (unseen if len(unseen) else likeness), leaked


def _likeness_anchors(
    sounds: TrainedSounds, references: References, base: Sequence[Heard] | None
) -> dict[str, dict[str, Any]]:
    """How similar sounds that can't be copies are to training clips: the base's clips, other music
    and noise; and, in `recorded`, how similar a recording is to its codec reconstruction, the
    similarity that a copy would have."""
    copies = [
        similarity(clip.fingerprint, references.heard[row].fingerprint)
        for row, clip in references.some.get(RECORDED, {}).items()
    ]
    anchors = {RECORDED: _likeness(copies, references.why_no(RECORDED))}
    for name in (OTHER_MUSIC, NOISE):
        heard = [*references.some.get(name, {}).values()]
        nearest = sounds.likeness(heard).max(axis=1)
        anchors[name] = _likeness(nearest, references.why_no(name))
    nearest = sounds.likeness(base or ()).max(axis=1)
    return {BASE: _likeness(nearest, "needs --compare"), **anchors}


def _likeness(values: Sequence[float] | np.ndarray, why: str) -> dict[str, Any]:
    if not len(values):
        return {"median": None, "highest": None, "n": 0, "why": why}
    highest = float(np.max(values))
    return {"median": float(np.median(values)), "highest": highest, "n": len(values), "why": ""}
