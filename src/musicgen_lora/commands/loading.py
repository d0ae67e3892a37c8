"""What is done before and while a command's libraries load, which takes seconds."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

from musicgen_lora.commands.stops import whole_stops
from musicgen_lora.given import hub_ids
from musicgen_lora.runtime.garbage import no_garbage
from musicgen_lora.urls import url_of

if TYPE_CHECKING:
    from musicgen_lora.config import GenerateSettings, TrainSettings

AT_ONCE_S = 0.5
"""Most faults of a dataset show by then, even on a busy machine, and are reported before the
libraries load. A thousand clips take less; for more, the libraries don't wait longer than this."""


def load(place: str) -> Callable[..., Any]:
    """A command's function, such as "musicgen_lora.training.train:train_lora", imported only now,
    so that --help and doctor do not wait for torch."""
    module, name = place.split(":")
    with no_garbage(), whole_stops():
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        # It logs where it keeps its list of fonts if the home folder isn't writable.
        logging.getLogger("matplotlib").setLevel(logging.ERROR)
        from musicgen_lora.runtime.quiet import silence_libraries

        silence_libraries()
        return getattr(importlib.import_module(module), name)


def fetch_bases(settings: Any) -> None:
    """Downloads a base model that isn't here yet; if that fails, torch need not load."""
    for name in hub_ids(settings):
        with whole_stops():
            from musicgen_lora.model.base.hub import hub_folder

        hub_folder(name)


def check_fitting(settings: GenerateSettings) -> None:
    """Raises a UserError if `generate` can't do what is asked: an unknown key, bars that don't fit,
    a prompt that states another tempo, an adapter of another base."""
    with whole_stops():
        from musicgen_lora.generation.wanted import check_request
        from musicgen_lora.model.lora.fitting import check_fits

    check_request(settings)
    for folder in settings.lora_model_path:
        check_fits(folder, settings.base_model_path)


@contextlib.contextmanager
def dataset_meanwhile(settings: TrainSettings) -> Iterator[dict[str, Any]]:
    """Loads the dataset while the libraries load: with many files both take seconds. Yields what
    `train_lora` takes besides its settings."""
    with whole_stops():
        from musicgen_lora.dataset.metadata import load_dataset
        from musicgen_lora.training.record.run_folder import check_unused

    check_unused(settings.output_dir)
    if url_of(settings.data_dir) is not None:
        # Training fetches it first.
        yield {}
        return
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(
            load_dataset,
            settings.data_dir,
            settings.metadata_file,
            look_at_files=not settings.from_tokens,
        )
        wait([loading], timeout=AT_ONCE_S)
        # With several processes, one reports it once all have started.
        if loading.done() and "RANK" not in os.environ:
            loading.result()
        yield {"loading": loading}
