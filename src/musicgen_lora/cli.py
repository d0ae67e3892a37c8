"""The commands. No logic: reads settings, calls the function, turns errors into exit codes.

Exit codes: 0 done; 1 the work went wrong; 2 something given is not usable; 130, 143 and 129
interrupted (work saved); 141 nobody reads the output.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import io
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from musicgen_lora import __version__
from musicgen_lora.errors import DISK_FAULTS, RIGHTS_FAULTS, UserError, printable
from musicgen_lora.formats.kinds import shortened
from musicgen_lora.given import announcement, check_given, hub_ids
from musicgen_lora.runtime.threads import bounded_spinning

if TYPE_CHECKING:
    # What takes longer to load is imported where it is used: Ctrl-C ends a command with a word from
    # `main` on, and not before.
    from pydantic import ValidationError

    from musicgen_lora.config import TrainSettings

USAGE = f"""musicgen-lora {__version__}: LoRA fine-tuning of MusicGen

  musicgen-lora prepare    turn a folder of audio into a dataset
  musicgen-lora tokenise   encode its audio ahead of training
  musicgen-lora train      train an adapter on it
  musicgen-lora generate   play prompts with it
  musicgen-lora evaluate   measure what it changed
  musicgen-lora merge      fold adapters into a base
  musicgen-lora export     write a model for audiocraft
  musicgen-lora import     read one of audiocraft's
  musicgen-lora doctor     check this installation

  Each command: --help lists its flags, --config FILE.yaml reads them from a file (flags win),
  --debug shows tracebacks.
"""


LOADING = "the libraries take some seconds to load ..."
AT_ONCE_S = 0.1
"""What is wrong with a dataset mostly shows by then, and is said before the libraries load."""


def main(arguments: Sequence[str] | None = None, *, config: Path | None = None) -> int:
    """Runs a command and returns its exit code.

    Args:
        arguments: command name and flags; None reads the process's own.
        config: settings file used unless `--config` names another.
    """
    # Before anything loads torch.
    os.environ.update(bounded_spinning())
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    command, *flags = [word for word in words if word != "--debug"] or ["--help"]
    _print_any_text()
    try:
        with _terminable():
            code = _run(command, flags, config)
        sys.stdout.flush()
        return code
    except (
        UserError,
        OSError,
        UnicodeEncodeError,
        RuntimeError,
        KeyboardInterrupt,
        _Terminated,
    ) as error:
        code, said = _end(error)
        if debug and said:
            traceback.print_exc()
        # What help is piped into may have had enough.
        if said and not command.startswith("-"):
            with contextlib.suppress(BrokenPipeError):
                print(printable(f"musicgen-lora {command}: {said}"), file=sys.stderr, flush=True)
        return code


def _print_any_text() -> None:
    """Letters that the terminal's encoding lacks are spelled out, instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class _Terminated(BaseException):
    """SIGTERM has come."""


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM unwinds like Ctrl-C meanwhile, so that what was begun is cleared away."""
    try:
        previous = signal.signal(signal.SIGTERM, _raise_terminated)
    except ValueError:
        # Only the main thread may set handlers.
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _raise_terminated(number: int, frame: FrameType | None) -> None:
    raise _Terminated


def _end(error: BaseException) -> tuple[int, str]:
    """Exit code and last words of a command that an exception has ended.

    Raises:
        The same exception, where it is a bug.
    """
    if isinstance(error, UserError):
        return error.exit_code, str(error)
    if isinstance(error, BrokenPipeError):
        # Whoever read the output (head, less) has gone; python would complain at exit too.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        # As of a process that SIGPIPE has ended.
        return 141, "stopped, since nobody reads its output any more; send it to a file instead."
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        what_to_do = ""
        if error.errno in RIGHTS_FAULTS:
            what_to_do = "; give yourself the right to (chmod u+rwX), or use another folder"
        code = 1 if error.errno in DISK_FAULTS else 2
        return code, f"{where}{error.strerror or error}{what_to_do}."
    if isinstance(error, UnicodeEncodeError) and sys.getfilesystemencoding() != "utf-8":
        # A name that the locale has no letters for; in UTF-8 that would be a bug.
        return 2, (
            f"{error.object[:200]}: the locale's encoding ({error.encoding}) can't write it; set "
            "PYTHONUTF8=1, or a locale such as C.UTF-8."
        )
    if isinstance(error, KeyboardInterrupt):
        return 130, "interrupted."
    if isinstance(error, _Terminated):
        return 143, "terminated."
    # torch is not imported yet where the command fails early, so its classes go by name.
    if type(error).__name__ == "OutOfMemoryError" or "can't allocate" in str(error):
        return 1, (
            "out of memory; lower --batch_size, or the clips' length (--max_duration, --duration)."
        )
    raise error


def _run(command: str, flags: list[str], config: Path | None) -> int:
    if command in ("-h", "--help", "--version"):
        print(__version__ if command == "--version" else USAGE)
        return 0
    if command == "doctor":
        print(f"Checking this installation; {LOADING}", flush=True)
        with _whole_stops():
            from musicgen_lora.doctor import check_installation

        return check_installation()
    with _whole_stops():
        import tyro  # noqa: F401

        from musicgen_lora.config import SETTINGS

    if command not in SETTINGS:
        raise UserError(f"no such command; there are: {', '.join([*SETTINGS, 'doctor'])}.")
    # `--config=FILE` is `--config FILE`.
    flags = [w for word in flags for w in re.split("(?<=^--config)=", word, maxsplit=1)]
    if "--config" in flags:
        at = flags.index("--config")
        if at + 1 == len(flags):
            raise UserError("--config needs a file.")
        config = Path(flags[at + 1])
        del flags[at : at + 2]
    settings = parse_settings(command, flags, config)
    _check_paths(settings)
    # What is wrong, one of several processes says when all have come together.
    is_alone = "RANK" not in os.environ
    if is_alone:
        check_given(settings)
    if is_alone or os.environ["RANK"] == "0":
        print(f"{announcement(command, settings)}; {LOADING}", flush=True)
    if is_alone:
        _fetch_bases(settings)
    if command == "train":
        _train(settings)
    else:
        _load(command)(settings)
    return 0


def _fetch_bases(settings: Any) -> None:
    """Fetches a base model that isn't here yet; where that can't be, torch need not load."""
    for name in hub_ids(settings):
        with _whole_stops():
            from musicgen_lora.model.hub import hub_folder

        hub_folder(name)


def _train(settings: TrainSettings) -> None:
    """Looks at the dataset while the libraries load: with many files both take seconds."""
    with _whole_stops():
        from musicgen_lora.dataset.metadata import load_dataset
        from musicgen_lora.training.run_folder import check_unused

    check_unused(settings.output_dir)
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(
            load_dataset,
            settings.data_dir,
            settings.metadata_file,
            look_at_files=not settings.from_tokens,
        )
        wait([loading], timeout=AT_ONCE_S)
        # Of several processes, one says it when all have come together.
        if loading.done() and "RANK" not in os.environ:
            loading.result()
        _load("train")(settings, loading)


def parse_settings(command: str, flags: Sequence[str], config: Path | None) -> Any:
    """Settings of a command from its flags, a file and the defaults, in this order.

    Raises:
        UserError: a value is of the wrong type or out of range.
        SystemExit: with code 2 and tyro's explanation, where a flag is wrong.
    """
    import tyro
    from pydantic import ValidationError

    from musicgen_lora.config import SETTINGS
    from musicgen_lora.config_file import read_config

    settings = SETTINGS[command]
    try:
        default = settings(**(read_config(config, command) if config else {}))
        flags, texts = _take_dashed_texts(settings, flags)
        default = dataclasses.replace(default, **texts)
    except ValidationError as error:
        raise UserError(f"{config}: {_explain(error)}") from error
    said = io.StringIO()
    try:
        # tyro catches pydantic's errors and prints them in a box of many lines, with a link.
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                settings,
                default=default,
                args=list(flags),
                prog=f"musicgen-lora {command}",
                use_underscores=True,
            )
    except SystemExit as stop:
        if isinstance(stop.__context__, ValidationError):
            raise UserError(_explain(stop.__context__)) from stop
        sys.stderr.write(said.getvalue())
        # Of --help; nobody may be there to read it.
        sys.stdout.flush()
        raise


def _take_dashed_texts(
    settings: Any, flags: Sequence[str]
) -> tuple[list[str], dict[str, list[str]]]:
    """Takes lists of texts out of `flags` where one of the texts begins with a dash, as a prompt
    may: tyro would look for a flag of that name. A word of two dashes and a name is a flag."""
    left, texts = list(flags), {}
    for field in dataclasses.fields(settings):
        if field.type not in ("list[str]", list[str]):
            continue
        at = next((i for i, word in enumerate(left) if _flag_name(word) == field.name), None)
        if at is None or "=" in left[at]:
            continue
        end = next(
            (i for i, word in enumerate(left[at + 1 :], at + 1) if _flag_name(word)), len(left)
        )
        words = left[at + 1 : end]
        if any(word.startswith("-") for word in words):
            texts[field.name] = words
            del left[at:end]
    return left, texts


def _flag_name(word: str) -> str:
    """The setting that a flag names; empty for a word that is none."""
    found = re.fullmatch(r"--([A-Za-z][\w-]*)(=.*)?|(-h)", word, re.DOTALL)
    return (found[1] or found[3]).replace("-", "_") if found else ""


def _explain(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    name = ".".join(str(part)[:60] for part in first["loc"])
    return f"{name} = {shortened(first.get('input'))}: {first['msg'][:200]}."


def _check_paths(settings: Any) -> None:
    """Raises a UserError where a path can't be one, or can't be written into a JSON file."""
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, Path) and "\0" in str(value):
            raise UserError(f"{field.name} = {value}: a path has no zero bytes.")
        if isinstance(value, Path) and not _is_text(str(value)):
            raise UserError(
                f"{field.name} = {value}: is not UTF-8; rename it, or set PYTHONUTF8=1 where the "
                "locale is not UTF-8."
            )


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _load(command: str) -> Callable[..., object]:
    """The function of a command, imported only now, so that --help and doctor do not wait for
    torch. Nearly all that libraries make while they load stays: looking for garbage in it, then and
    later, would take a quarter of the time until the first step."""
    gc.disable()
    try:
        with _whole_stops():
            _quieten_libraries()
            return _function(command)
    finally:
        if not gc.get_freeze_count():
            gc.freeze()
        gc.enable()


@contextlib.contextmanager
def _whole_stops() -> Iterator[None]:
    """Ctrl-C and SIGTERM end what is done meanwhile as what they are. Libraries that load turn an
    exception in their midst into one of their own, or pass over it."""
    stops: list[type[BaseException]] = []

    def stop(number: int, _: FrameType | None) -> None:
        stops.append(KeyboardInterrupt if number == signal.SIGINT else _Terminated)
        raise stops[-1]

    previous = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        # Only the main thread may set handlers.
        with contextlib.suppress(ValueError):
            previous[number] = signal.signal(number, stop)
    try:
        yield
    except BaseException as error:
        if stops and not isinstance(error, stops[-1]):
            raise stops[-1] from error
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if stops:
        raise stops[-1]


def _function(command: str) -> Callable[..., object]:
    if command == "prepare":
        from musicgen_lora.prepare.prepare import prepare_dataset as function
    elif command == "tokenise":
        from musicgen_lora.dataset.tokenise import tokenise_dataset as function
    elif command == "train":
        from musicgen_lora.training.train import train_lora as function
    elif command == "generate":
        from musicgen_lora.generation.generate import generate_audio as function
    elif command == "merge":
        from musicgen_lora.export.merge import merge_adapters as function
    elif command == "export":
        from musicgen_lora.export.export import export_model as function
    elif command == "import":
        from musicgen_lora.export.importing import import_model as function
    else:
        from musicgen_lora.evaluation.evaluate import evaluate_adapter as function
    return function


def _quieten_libraries() -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    # Libraries announce their own future changes to each other; users can't act on it.
    for library in ("torch", "transformers", "peft"):
        warnings.filterwarnings("ignore", category=FutureWarning, module=library)


if __name__ == "__main__":
    sys.exit(main())
