"""Settings: files, flags, defaults, and what is wrong with them in one line."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from musicgen_lora.cli import main
from musicgen_lora.commands.flags import parse_settings
from musicgen_lora.config import SETTINGS, GenerateSettings, TrainSettings
from musicgen_lora.errors import UserError
from musicgen_lora.generation.decoding.sampling import sampling_of
from musicgen_lora.model.base.facts import BaseFacts

GUIDE_CONFIG = Path(__file__).resolve().parents[2] / "finetune" / "lora" / "config.yaml"


def config_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def no_load(place: str) -> Any:
    return pytest.fail(f"it has loaded {place}")


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The line on stderr of a command that exits with 2, before any library loads."""
    assert main(arguments, load=no_load) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert error.startswith(f"musicgen-lora {arguments[0]}: ")
    return error


def test_flags_win_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    path = config_file(tmp_path, "train: {lora_rank: 5, lora_alpha: 7, data_dir: there}")
    settings = parse_settings("train", ["--lora_rank", "9"], path)
    assert (settings.lora_rank, settings.lora_alpha, settings.batch_size) == (9, 7, 2)
    assert settings.data_dir == Path("there")


@pytest.mark.parametrize("flag", ["--lora_rank", "--lora-rank"])
@pytest.mark.parametrize("form", ["apart", "joined"])
def test_underscores_and_hyphens_are_alike(flag: str, form: str) -> None:
    words = [flag, "3"] if form == "apart" else [f"{flag}=3"]
    assert parse_settings("train", words, None).lora_rank == 3


def test_a_flag_can_take_back_what_the_file_switches_on(tmp_path: Path) -> None:
    path = config_file(tmp_path, "train: {fp16: true}")
    assert parse_settings("train", [], path).fp16
    assert not parse_settings("train", ["--no-fp16"], path).fp16
    assert parse_settings("train", ["--fp16"], None).fp16


def test_an_exponent_is_a_number_in_yaml_too(tmp_path: Path) -> None:
    """YAML 1.1 reads 1e-4, without a point, as text."""
    settings = parse_settings("train", [], config_file(tmp_path, "train: {learning_rate: 1e-4}"))
    assert settings.learning_rate == 1e-4
    assert isinstance(settings.learning_rate, float)


def test_prompts_come_from_flags_or_the_file(tmp_path: Path) -> None:
    path = config_file(tmp_path, "generate: {prompts: [one, two words]}")
    assert parse_settings("generate", [], path).prompts == ["one", "two words"]
    words = ["--prompts", "808", "trap beat", "--duration", "3"]
    settings = parse_settings("generate", words, path)
    assert (settings.prompts, settings.duration) == (["808", "trap beat"], 3.0)


@pytest.mark.parametrize("command", list(SETTINGS))
def test_the_guides_file_sets_what_the_defaults_are(command: str) -> None:
    settings = parse_settings(command, [], GUIDE_CONFIG)
    assert settings == SETTINGS[command]()


def test_the_guides_values_are_the_defaults() -> None:
    settings = TrainSettings()
    # The rate and guidance are the base's to advise, else the guide's: see test_trained_length.py.
    values = (settings.lora_rank, settings.lora_alpha, settings.learning_rate)
    assert values == (12, 24, None)
    values = (settings.batch_size, settings.gradient_accumulation_steps, settings.num_epochs)
    assert values == (2, 4, 5)
    assert sampling_of(GenerateSettings(), BaseFacts()).guidance_scale == 3.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train: {lora_rnk: 3}", "'lora_rnk' is unknown; did you mean lora_rank?"),
        ("train: {quux: 3}", "'quux' is unknown; use one of: model_path"),
        ("trian: {lora_rank: 3}", "'trian' is unknown; did you mean train?"),
        ("train:\n  lora_rank: 3\n  lora_rank: 4", "'lora_rank' is set twice"),
        ("train: {}\ntrain: {}", "'train' is set twice"),
        ("train: [", "not valid YAML"),
        ("train: 3", "section 'train' must be"),
        ("- train", "must have a section for each command"),
        ("train: {lora_rank: 0}", "lora_rank = 0"),
        ("train: {lora_rank: 2.5}", "lora_rank = 2.5"),
        ("train: {seed: -1}", "seed = -1"),
        ("train: {lora_rank: many}", "lora_rank = 'many'"),
        ("train: {learning_rate: -1e-4}", "learning_rate = '-1e-4'"),
        ("train: {learning_rate: .nan}", "learning_rate = nan"),
        ("train: {seed: 12345678901234567890}", "seed = 12345678901234567890"),
        ("train: {weight_decay: .inf}", "weight_decay = inf"),
        ("train: {seed: 2001-99-99}", "not valid YAML"),
        ("train: {seed: !!int x}", "not valid YAML"),
        ("train: {lr_schedule: cosin}", "lr_schedule = 'cosin'"),
        ("train: {lora_targets: [head]}", "lora_targets = 'head'"),
        ("train: {? [a] : 3}", ""),
        ("lora_rank: 8", "'lora_rank' is a setting of train: write train: above it, and indent it"),
        ("train: {lora_rank: yes}", "lora_rank = 'yes'"),
        ("train: {lora_rank: true}", "lora_rank = True: must be a number"),
        ("train: {codebook_weights: [2, true]}", "codebook_weights = [2, True]: must be a number"),
        ("train: {seed: 12:30}", "seed = '12:30'"),
        (
            "train: {output_dir: ''}",
            "output_dir is empty; name a folder or file (. is the current folder)",
        ),
        ("train: {output_dir: 808}", "output_dir = 808: must be text; put it in quotes"),
        ("train: {data_dir: 2024-05-01}", "must be text; put it in quotes"),
        ("train: {lora_modules: 1.10}", "lora_modules = 1.1: must be text; put it in quotes"),
        ("train: {preview_prompts: [808]}", "preview_prompts = 808: must be text; put it in"),
        ("train: {lora_targets: heads}", "must be a list; put it in brackets"),
        ("train: !!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_a_bad_file_is_one_line(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config_file(tmp_path, text)
    error = refused(["train", "--config", str(path)], capsys)
    assert said in error
    assert str(path) in error


def test_a_file_in_another_encoding_is_no_faulty_yaml(tmp_path: Path, capsys) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes("train:\n  output_dir: 你好\n".encode("gbk"))
    assert "config.yaml, line 2: not UTF-8; save it as UTF-8." in refused(
        ["train", "--config", str(path)], capsys
    )


@pytest.mark.parametrize(
    "words",
    [
        ["prepare", "--input_dir", "", "--output_dir", "x"],
        ["prepare", "--create-example", "--output-dir", ""],
        ["train", "--output_dir="],
        ["evaluate", "--lora_model_path", "a", "", "--compare"],
    ],
)
def test_an_empty_path_is_not_this_folder(words: list[str], capsys) -> None:
    """As from an unset shell variable: the current folder would be read and written."""
    assert " is empty; name a folder or file" in refused(words, capsys)


def test_an_empty_path_in_a_list_is_not_this_folder(tmp_path: Path) -> None:
    path = config_file(tmp_path, "evaluate: {lora_model_path: [a, '']}")
    with pytest.raises(UserError, match="lora_model_path is empty; name"):
        parse_settings("evaluate", [], path)


def test_an_empty_text_is_one(tmp_path: Path) -> None:
    words = ["--trigger_word", "", "--input_dir", "a"]
    assert parse_settings("prepare", words, None).trigger_word == ""


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No shell has expanded it in a file, nor after `--flag=`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    path = config_file(tmp_path, "evaluate: {output_dir: ~/out, lora_model_path: [~/a, b]}")
    settings = parse_settings("evaluate", ["--data_dir=~/d", "--base_model_path=~/m"], path)
    assert settings.output_dir == tmp_path / "out"
    assert settings.lora_model_path == [tmp_path / "a", Path("b")]
    assert settings.data_dir == tmp_path / "d"
    assert settings.base_model_path == str(tmp_path / "m")
    prompts = parse_settings("generate", ["--prompts", "~/a"], None).prompts
    assert prompts == ["~/a"]


def test_off_and_no_are_words_where_words_are_meant(tmp_path: Path) -> None:
    """YAML 1.1 reads them as false, which is not one of a setting's words."""
    path = config_file(tmp_path, "train: {previews: off, fp16: no, gradient_checkpointing: yes}")
    settings = parse_settings("train", [], path)
    assert settings.previews == "off"
    assert (settings.fp16, settings.gradient_checkpointing) == (False, True)


def test_a_number_with_a_leading_zero_is_the_one_that_is_written(tmp_path: Path) -> None:
    """YAML 1.1 reads 010 as 8."""
    path = config_file(tmp_path, "train: {seed: 010, max_duration: 010}")
    settings = parse_settings("train", [], path)
    assert (settings.seed, settings.max_duration) == (10, 10.0)


def test_a_zero_byte_in_a_path_is_one_line(tmp_path: Path, capsys) -> None:
    path = config_file(tmp_path, 'train: {output_dir: "a\\0b"}')
    assert "output_dir = a\\x00b: a path can't contain zero bytes" in refused(
        ["train", "--config", str(path)], capsys
    )


def test_a_missing_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "gone.yaml: cannot be read" in refused(
        ["train", "--config", str(tmp_path / "gone.yaml")], capsys
    )
    for words in (["--config"], ["--config", ""], ["--config="]):
        assert "--config needs a file" in refused(["train", *words], capsys)


def test_the_file_can_be_joined_to_its_flag(tmp_path: Path, capsys) -> None:
    path = config_file(tmp_path, "train: {lora_rnk: 3}")
    assert "lora_rnk" in refused(["train", f"--config={path}"], capsys)
    given = f"--config=~/{path.name}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path))
        assert "lora_rnk" in refused(["train", given], capsys)
    assert "--config is given twice" in refused(["train", given, "--config", "x"], capsys)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "--lora_rank", "0"], "lora_rank = 0"),
        (["train", "--learning_rate", "2"], "learning_rate = 2"),
        (["train", "--learning_rate", "nan"], "learning_rate = nan"),
        (["train", "--condition_dropout", "1"], "condition_dropout = 1"),
        (["generate", "--duration", "601"], "duration = 601"),
        (
            ["evaluate", "--duration", "31"],
            "--duration 31: evaluation compares clips of up to 30 s; lower it",
        ),
        (["generate", "--duration", "-1"], "duration = -1"),
        (["prepare", "--num_samples", "0"], "num_samples = 0"),
        (["prepare", "--seed", "-1"], "seed = -1"),
        (["train", "--seed", "-1"], "seed = -1"),
        (["generate", "--seed", str(2**63)], "seed = 9223372036854775808"),
        (["evaluate", "--seed", "-3"], "seed = -3"),
        (["generate", "--guidance_scale", "0.5"], "guidance_scale = 0.5"),
        (["evaluate", "--guidance_scale", "0"], "guidance_scale = 0"),
        (["generate", "--duration", "inf"], "duration = inf"),
        (["generate", "--guidance_scale", "nan"], "guidance_scale = nan"),
        (["generate", "--guidance_scale", "1e39"], "guidance_scale = 1e+39"),
        (["generate", "--temperature", "1e-40"], "temperature = 1e-40"),
        (["generate", "--seed", "12345678901234567890"], "seed = 12345678901234567890"),
        (["evaluate", "--seed", "-1"], "seed = -1"),
        (["prepare", "--max_clip", "inf"], "max_clip = inf"),
        (["train", "--weight_decay", "inf"], "weight_decay = inf"),
        (["train", "--max_grad_norm", "1e39"], "max_grad_norm = 1e+39"),
        (["train", "--lora_rank", "200000"], "lora_rank = 200000"),
        (["train", "--codebook_weights", "1", "inf"], "codebook_weights = inf"),
        (["train", "--output_dir", "a\udcff"], "is not UTF-8"),
        (["generate", "--prompts", "\udcff"], "prompts ="),
        (["fly"], "no such command; use one of: prepare, tokenise, train"),
    ],
)
def test_a_flag_out_of_range_is_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(words, capsys)


PAIRS = [
    ("train --optimizer prodigy --learning_rate 3e-4", "give 1, not 0.0003, or leave it out"),
    (
        "train --optimizer prodigy --text_encoder_learning_rate 1 --lora_targets text_encoder",
        "--optimizer prodigy finds one rate for all",
    ),
    ("train --text_encoder_learning_rate 1e-4", "but the text encoder is not trained"),
    (
        "train --text_encoder_learning_rate 1e-4 --trainable full",
        "but the text encoder is not trained",
    ),
    ("train --frozen_modules fc1", "frozen_modules is for --trainable full"),
    ("train --fsdp", "--fsdp is for --trainable full"),
    ("train --fsdp --trainable full --optimizer muon", "--fsdp needs --optimizer adamw"),
    ("train --fsdp --trainable full --preview_prompts x", "--fsdp makes no previews"),
    ("train --fsdp --trainable full --precision fp16", "--fsdp trains in bf16 or fp32"),
    ("train --fp16 --precision fp32", "--precision fp32 names one: pass only one"),
    ("train --trainable full --quantise 4bit", "quantise 4bit freezes the base"),
    ("train --quantise 4bit --lora_init pissa", "quantise 4bit needs default or gaussian"),
    ("train --lora_init orthogonal --lora_rank 5", "needs an even lora_rank, not 5"),
    (
        "train --trainable full --lora_rank 5 --adapter dora",
        "--trainable full trains no adapter: leave --adapter and --lora_rank out",
    ),
    ("train --lora_modules .*fc1 --lora_layers 0", "lora_modules replaces lora_targets"),
    ("train --lora_targets heads --lora_layers 0", "needs attention or feed_forward"),
    ("train --lora_modules (", "lora_modules: '(' is not a regular expression"),
    (
        "train --trainable full --frozen_modules (",
        "frozen_modules: '(' is not a regular expression",
    ),
    ("train --previews off --preview_every 5", "leave --preview_every out"),
    ("prepare --tagger clap", "--tagger clap needs --clap_path"),
    ("prepare --clap_path x", "--clap_path needs --tagger clap"),
    ("prepare --min_clip 40", "--min_clip 40 is more than --max_clip 30"),
    ("prepare --limit --loudness None", "--limit brings clips to --loudness"),
]


@pytest.mark.parametrize(("words", "said"), PAIRS)
def test_settings_that_do_not_go_together_are_one_line_before_the_libraries_load(
    words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(words.split(), capsys)


def test_from_python_they_are_refused_alike() -> None:
    with pytest.raises(UserError, match="--fsdp is for --trainable full"):
        TrainSettings(fsdp=True)
    with pytest.raises(UserError, match="--fsdp is for --trainable full"):
        dataclasses.replace(TrainSettings(fsdp=True, trainable="full"), trainable="lora")


def test_file_and_flags_are_put_together_before_they_are_compared(tmp_path: Path) -> None:
    path = config_file(tmp_path, "train: {fsdp: true, fp16: true, learning_rate: 1e-4}")
    words = ["--trainable", "full", "--no_fp16", "--precision", "bf16"]
    settings = parse_settings("train", words, path)
    assert (settings.fsdp, settings.trainable, settings.fp16) == (True, "full", False)
    assert settings.learning_rate == 1e-4
    with pytest.raises(UserError, match="--fsdp is for"):
        parse_settings("train", ["--no_fp16"], path)


@pytest.mark.parametrize(("local_rank", "n_lines"), [("0", 1), ("1", 0)])
def test_of_the_processes_of_a_machine_one_says_what_is_wrong(
    local_rank: str,
    n_lines: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    try:
        code = main(["train", "--lora_rank", "0"])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert capsys.readouterr().err.count("\n") == n_lines


def test_doctor_passes_over_no_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--quick: doctor takes no flags" in refused(["doctor", "--quick"], capsys)


@pytest.mark.parametrize("words", [["--lora_rnk", "3"], ["--lora_rank", "many"], ["stray"]])
def test_a_wrong_flag_exits_with_2_and_is_named(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"musicgen-lora train: {words[0]}" in refused(["train", *words], capsys)


def test_debug_shows_where_it_happened(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--lora_rank", "0", "--debug"]) == 2
    error = capsys.readouterr().err
    assert "Traceback (most recent call last)" in error
    assert "parse_settings" in error
    assert error.splitlines()[-1].startswith("musicgen-lora train: lora_rank = 0")


@pytest.mark.parametrize(
    ("words", "prompts"),
    [
        (["trap beat", "-dark", "- 808 -", "-5"], ["trap beat", "-dark", "- 808 -", "-5"]),
        (["--808 and more--"], None),
        (["-dark"], ["-dark"]),
        (["-- a b"], ["-- a b"]),
        (["a=-b", "--no flag"], ["a=-b", "--no flag"]),
        (["beat"], ["beat"]),
    ],
)
def test_a_prompt_may_begin_with_a_dash(words: list[str], prompts: list[str] | None) -> None:
    prompts = prompts or words
    for flags in (["--prompts", *words, "--seed", "3"], ["--seed=3", "--prompts", *words]):
        settings = parse_settings("generate", flags, None)
        assert (settings.prompts, settings.seed) == (prompts, 3)


def test_a_mistyped_flag_is_no_prompt() -> None:
    with pytest.raises(UserError, match=r"--duratoin: no such flag; did you mean --duration\?"):
        parse_settings("generate", ["--prompts", "-dark", "--duratoin", "4"], None)


@pytest.mark.parametrize("text", ["", "train:\n", "prepare:\n  seed: 1\n"])
def test_a_file_that_says_nothing_of_a_command_is_told(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config_file(tmp_path, text)
    parse_settings("train", ["--data_dir", "d", "--output_dir", "o"], path)
    told = capsys.readouterr()
    assert told.err == f"{path}: has no settings for train; flags and defaults apply.\n"
    assert told.out == ""
