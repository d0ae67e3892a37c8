"""`musicgen-lora prefetch`: downloads models into the hub's cache, so that commands then work
without network access. The cache, whose place HF_HOME sets, can be copied to other machines."""

from __future__ import annotations

from musicgen_lora.config import SETTINGS, PrefetchSettings
from musicgen_lora.config_file import read_config
from musicgen_lora.console import plain_console
from musicgen_lora.errors import UserError
from musicgen_lora.given import local_model, models_of
from musicgen_lora.model.base.hub import PARTS, check_weights, hub_folder, listed
from musicgen_lora.plural import count


def prefetch_models(settings: PrefetchSettings) -> list[str]:
    """Downloads models into the hub's cache, and prints the number and size of each one's files.

    A model with pickled weights doesn't keep the others from being fetched, and is an error only if
    it was asked for by name.

    Returns:
        The hub ids that are in the cache afterwards.

    Raises:
        UserError: the settings file is unusable, a hub has no such model, or can't be reached and
            the cache lacks it, or a model asked for has only pickled weights.
    """
    console = plain_console()
    named = _named(settings)
    names = [name for name in named if local_model(name) is None]
    if not names:
        # A settings file names the defaults too.
        where = settings.settings_file or "--models"
        console.print(
            f"{where}: nothing to fetch, as all models named there are in folders here or in the "
            f"package: {', '.join(named)}. Name models of the hub with --models."
        )
        return []
    fetched: list[str] = []
    refused: list[UserError] = []
    for name in names:
        sizes, there = listed(name)
        try:
            check_weights(name, sizes)
        except UserError as error:
            refused.append(error)
            continue
        known = [size for size in sizes.values() if size is not None]
        size = f"{sum(known) / 1e6:,.0f} MB" if known else "size unknown"
        what = f" ({PARTS[name]})" if name in PARTS else ""
        state = f"already cached in {there}" if there else "not cached yet"
        console.print(f"{name}{what}: {count(len(sizes), 'file')}, {size}, {state}.")
        if settings.dry_run:
            for file, own in sizes.items():
                console.print(f"  {file}  {'-' if own is None else f'{own:,}'}")
        elif there is None:
            console.print(f"{name}: now cached in {hub_folder(name)}")
        if there or not settings.dry_run:
            fetched.append(name)
    is_asked_for = bool(settings.models or settings.settings_file)
    for error in refused[:-1] if is_asked_for else refused:
        console.print(str(error), style="yellow")
    if is_asked_for and refused:
        raise refused[-1]
    return fetched


def _named(settings: PrefetchSettings) -> list[str]:
    """The models that the settings name, each once."""
    named = list(settings.models)
    path = settings.settings_file
    if path is not None:
        for command, kind in SETTINGS.items():
            given = read_config(path, command)
            try:
                named += models_of(kind(**given))
            except UserError as error:
                raise UserError(f"{path}: {error}") from error
    elif not named:
        named = list(PARTS)
    return list(dict.fromkeys(named))
