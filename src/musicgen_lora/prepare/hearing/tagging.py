"""Tags a file with a listening model: genres, moods and instruments for captions.

`musicnn` comes with this package and knows the Million Song Dataset's tags; `clap` is any CLAP in
Hugging Face's format, asked for the words of hip hop. Their full output for a file's bytes is kept
in `output_dir/analysis` beside its record, so that thresholds can change later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from musicgen_lora.audio.ffmpeg import decodable
from musicgen_lora.audio.files import AudioError, read_audio
from musicgen_lora.errors import UserError
from musicgen_lora.formats.documents import read_json
from musicgen_lora.prepare.hearing.records import HeardFile, keep, read_kept
from musicgen_lora.prepare.reading.unchanged import unchanged
from musicgen_lora.prepare.words.facts import GENRES, Facts, find_words, make_facts
from musicgen_lora.runtime.quiet import quiet_libraries
from musicgen_lora.runtime.workers import Failure, SignOfLife

Tagger = Literal["musicnn", "clap"]
LISTEN_S = 30.0
"""Length of the excerpt that is listened to, from the middle of each segment."""
HEARD = 0.75
"""Confidence of words that were heard clearly enough: captions say them, but anything that somebody
stated outweighs them."""
CLAP_RATE, CLAP_WINDOW_S = 48_000, 10.0
"""An unfused CLAP crops longer audio at random."""
CLAP_LEAST = {"genre": 0.5, "mood": 0.5, "instrument": 0.4}
"""Least probability at which a word counts; the probabilities of each kind's words sum to 1."""
COLLAPSED = 0.995
"""Mean cosine between different words above which a model can't tell them apart:
laion/larger_clap_music has 0.999."""

MUSICNN_WORDS: dict[str, tuple[str, str]] = {
    "rock": ("genre", "rock"),
    "alternative rock": ("genre", "rock"),
    "classic rock": ("genre", "rock"),
    "hard rock": ("genre", "rock"),
    "indie rock": ("genre", "rock"),
    "Progressive rock": ("genre", "rock"),
    "pop": ("genre", "pop"),
    "indie pop": ("genre", "pop"),
    "electronic": ("genre", "electronic"),
    "electronica": ("genre", "electronic"),
    "electro": ("genre", "electronic"),
    "dance": ("genre", "dance"),
    "House": ("genre", "house"),
    "jazz": ("genre", "jazz"),
    "metal": ("genre", "metal"),
    "heavy metal": ("genre", "metal"),
    "soul": ("genre", "soul"),
    "folk": ("genre", "folk"),
    "punk": ("genre", "punk"),
    "blues": ("genre", "blues"),
    "Hip-Hop": ("genre", "hip hop"),
    "country": ("genre", "country"),
    "funk": ("genre", "funk"),
    "rnb": ("genre", "r&b"),
    "chillout": ("mood", "chill"),
    "chill": ("mood", "chill"),
    "Mellow": ("mood", "mellow"),
    "ambient": ("mood", "ambient"),
    "sad": ("mood", "sad"),
    "happy": ("mood", "happy"),
    "guitar": ("instrument", "guitar"),
    "female vocalists": ("instrument", "vocal"),
    "female vocalist": ("instrument", "vocal"),
    "male vocalists": ("instrument", "vocal"),
}
"""musicnn's tags in our words; its other tags say nothing about sound."""
MUSICNN_LEAST = {"genre": 0.4, "mood": 0.4, "instrument": 0.4}

CLAP_WORDS = {
    "genre": (
        *("trap", "drill", "boom bap", "phonk", "lo-fi", "g-funk", "plugg", "jersey club"),
        *("reggaeton", "dancehall", "r&b", "house", "techno", "dubstep", "rock", "jazz"),
    ),
    "mood": ("dark", "sad", "melodic", "chill", "aggressive", "dreamy", "epic", "happy"),
    "instrument": (
        *("808", "piano", "guitar", "flute", "strings", "bells", "synth", "choir", "brass"),
        *("vocal", "drums"),
    ),
}
CLAP_PROMPTS = {
    "genre": "This is a {} beat.",
    "mood": "This is {} music.",
    "instrument": "The sound of {}.",
}

HeardWords = dict[str, dict[str, float]]
"""Strength of each word, by its kind: genre, mood, instrument."""


@dataclass(frozen=True)
class TagTask:
    """A file to listen to.

    Args:
        folder: where the result is kept.
        spans_s: start and length of each of its segments.
        n_threads: threads of torch; None leaves the default.
    """

    path: Path
    digest: str
    folder: Path
    spans_s: tuple[tuple[float, float], ...]
    tagger: Tagger
    clap_path: Path | None = None
    n_threads: int | None = None


def check_clap(path: Path | None) -> Path:
    """Checks a CLAP model's folder and returns it.

    Raises:
        UserError: none is given, it isn't one, or it could load code or other files.
    """
    from musicgen_lora.model.base.folder import check_bounds, check_tokenizer_files

    if path is None:
        raise UserError("--tagger clap needs --clap_path, a folder with a CLAP model.")
    for name in ("config.json", "model.safetensors"):
        if not (path / name).is_file():
            raise UserError(
                f"{path}: no {name} in it; --clap_path must be a CLAP in Hugging Face's format, "
                "such as laion/larger_clap_general, with safetensors weights."
            )
    check_bounds(read_json(path / "config.json"), path / "config.json")
    check_tokenizer_files(path)
    return path


def read_heard(folder: Path, digest: str, tagger: Tagger) -> list[HeardWords] | None:
    """What was heard in each segment of a file's bytes, if that is recorded."""
    record = read_kept(_heard_path(folder, digest, tagger), HeardFile, digest)
    return None if record is None else record.segments


def _heard_path(folder: Path, digest: str, tagger: str) -> Path:
    return folder / f"{digest[:16]}.{tagger}.json"


def tag_file(task: TagTask, alive: SignOfLife) -> list[HeardWords] | Failure:
    """Tags the middle of each segment and records the result."""
    import torch

    if task.n_threads is not None:
        torch.set_num_threads(task.n_threads)
    heard = []
    try:
        with (
            unchanged(task.path, task.digest, alive),
            decodable(task.path, task.folder, alive) as source,
        ):
            for start_s, length_s in task.spans_s:
                listen_s = min(length_s, LISTEN_S)
                heard.append(_listen(task, source, start_s + 0.5 * (length_s - listen_s), listen_s))
                alive(len(heard) / len(task.spans_s))
    except AudioError as error:
        return Failure(str(error).removeprefix(f"{task.path}: "))
    target = _heard_path(task.folder, task.digest, task.tagger)
    keep(target, HeardFile(sha256=task.digest, segments=heard))
    return heard


def _listen(task: TagTask, path: Path, start_s: float, duration_s: float) -> HeardWords:
    if task.tagger == "clap":
        assert task.clap_path is not None
        waveform = read_audio(path, CLAP_RATE, start_s=start_s, duration_s=duration_s)
        return _clap_heard(task.clap_path, waveform)
    from musicgen_lora.listening.musicnn import MUSICNN_RATE, TAGS, tag_waveform

    waveform = read_audio(path, MUSICNN_RATE, start_s=start_s, duration_s=duration_s)
    chances = tag_waveform(waveform, MUSICNN_RATE)[0].mean(axis=0)
    heard: HeardWords = {"genre": {}, "mood": {}, "instrument": {}}
    for tag, chance in zip(TAGS, chances.tolist(), strict=True):
        if tag in MUSICNN_WORDS:
            kind, word = MUSICNN_WORDS[tag]
            heard[kind][word] = max(heard[kind].get(word, 0.0), round(chance, 4))
    return heard


@cache
def _load_clap(path: Path) -> tuple[Any, Any, dict[str, Any]]:
    """A CLAP, its processor, and the embeddings of our words by kind, `[words, D]`."""
    import torch
    from transformers import ClapModel, ClapProcessor

    try:
        clap_class: Any = ClapModel
        with quiet_libraries():
            model, loaded = clap_class.from_pretrained(
                path, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
        processor: Any = ClapProcessor.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path}: not loadable as a CLAP ({reason}); use one such as laion/larger_clap_general."
        ) from error
    model.eval()
    # transformers initialises missing weights at random.
    if lost := sorted({name for name, _ in model.named_parameters()} & set(loaded["missing_keys"])):
        raise UserError(
            f"{path}: {len(lost)} of its weights {'is' if len(lost) == 1 else 'are'} missing, "
            f"such as {lost[0]}; copy it again."
        )
    texts = {}
    with torch.inference_mode():
        for kind, words in CLAP_WORDS.items():
            prompts = [CLAP_PROMPTS[kind].format(word) for word in words]
            inputs = processor(text=prompts, return_tensors="pt", padding=True)
            texts[kind] = _unit(model.get_text_features(**inputs))
            likeness = texts[kind] @ texts[kind].T
            n_words = len(words)
            if float(likeness.sum() - n_words) / (n_words * (n_words - 1)) > COLLAPSED:
                raise UserError(f"{path}: this CLAP can't tell words apart; try another.")
    return model, processor, texts


def _unit(features: Any) -> Any:
    """Features scaled to unit length; transformers 5 wraps them in an output object."""
    features = getattr(features, "pooler_output", features)
    return features / features.norm(dim=-1, keepdim=True)


def _clap_heard(path: Path, waveform: np.ndarray) -> HeardWords:
    """The probability of each word in its kind, averaged over ten-second windows of `[C, N]`."""
    import torch

    model, processor, texts = _load_clap(path)
    mono = waveform.mean(axis=0)
    n_window = round(CLAP_WINDOW_S * CLAP_RATE)
    n_windows = max(1, len(mono) // n_window)
    # Shorter ones are repeated, as CLAP's own processor does.
    windows = np.split(np.resize(mono, n_windows * n_window), n_windows)
    with torch.inference_mode():
        inputs = processor(audio=windows, sampling_rate=CLAP_RATE, return_tensors="pt")
        sounds = _unit(model.get_audio_features(**inputs))
        scale = model.logit_scale_a.exp()
        shares = {
            kind: torch.softmax(scale * sounds @ words.T, dim=-1).mean(dim=0)
            for kind, words in texts.items()
        }
    return {
        kind: dict(zip(CLAP_WORDS[kind], np.round(row.numpy(), 4).tolist(), strict=True))
        for kind, row in shares.items()
    }


def heard_facts(heard: Mapping[str, Mapping[str, float]], tagger: Tagger, said: str) -> Facts:
    """The words that were heard clearly enough for captions.

    Args:
        said: the text that all captions share; if it names a genre, no other is added.
    """
    least = MUSICNN_LEAST if tagger == "musicnn" else CLAP_LEAST
    clear = {
        kind: [
            word
            for word in sorted(words, key=words.__getitem__, reverse=True)
            if words[word] >= least[kind]
        ]
        for kind, words in heard.items()
    }
    known = {*GENRES, *CLAP_WORDS["genre"], *(w for k, w in MUSICNN_WORDS.values() if k == "genre")}
    genres: Sequence[str] = () if find_words(said, sorted(known)) else clear.get("genre", ())
    return make_facts(
        tagger,
        {"genre": HEARD, "tags": HEARD},
        genre=genres[0] if genres else None,
        tags=(*clear.get("mood", ()), *clear.get("instrument", ())),
    )
