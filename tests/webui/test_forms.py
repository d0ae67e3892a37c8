"""Forms come from the settings: their help, their defaults, and no paths."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from musicgen_lora.config import SETTINGS
from musicgen_lora.errors import UserError
from musicgen_lora.webui.forms import OF_THE_PAGE, changed, check, form_of
from musicgen_lora.webui.work.job import PAGE_COMMANDS


@pytest.mark.parametrize("command", PAGE_COMMANDS)
def test_a_form_has_all_settings_but_paths_and_the_pages_own(command: str) -> None:
    form = {setting.name: setting for setting in form_of(command)}
    for field in dataclasses.fields(SETTINGS[command]):
        is_path = "Place" in str(field.type) or field.name == "lora_model_path"
        assert (field.name in form) == (not is_path and field.name not in OF_THE_PAGE), field.name
    assert all(setting.help.endswith(".") for setting in form.values())


@pytest.mark.parametrize("command", PAGE_COMMANDS)
def test_defaults_as_shown_are_no_change(command: str) -> None:
    form = form_of(command)
    assert changed(form, [setting.shown for setting in form]) == {}


def test_changes_are_values_that_the_command_takes() -> None:
    form = form_of("train")
    typed = {
        "lora_rank": "16",
        "learning_rate": "1e-4",
        "lora_targets": "attention heads",
        "codebook_weights": "[2, 1, 1, 1]",
        "lora_layers": "0-3",
        "gradient_checkpointing": True,
        "adapter": "dora",
        "max_steps": "5",
    }
    values = [typed.get(setting.name, setting.shown) for setting in form]
    found = changed(form, values)
    assert found == {
        "lora_rank": 16,
        "learning_rate": 1e-4,
        "lora_targets": ["attention", "heads"],
        "codebook_weights": [2, 1, 1, 1],
        "lora_layers": "0-3",
        "gradient_checkpointing": True,
        "adapter": "dora",
        "max_steps": 5,
    }
    settings = SETTINGS["train"](**found)
    assert settings.lora_rank == 16


@pytest.mark.parametrize("typed", ["0 0.5 1", "0, 0.5, 1", "0，0.5、1", "[0, 0.5, 1]", " 0  .5 1 "])
def test_several_values_as_people_type_them(typed: str) -> None:
    form = [setting for setting in form_of("evaluate") if setting.name == "strengths"]
    assert SETTINGS["evaluate"](**changed(form, [typed])).strengths == [0.0, 0.5, 1.0]


def test_a_number_is_the_one_that_is_typed_and_a_word_is_none() -> None:
    form = [setting for setting in form_of("train") if setting.name == "lora_rank"]
    assert SETTINGS["train"](**changed(form, ["010"])).lora_rank == 10
    for word in ("yes", "on", "true"):
        with pytest.raises(UserError, match="lora_rank = "):
            check("train", changed(form, [word]))


def test_what_is_wrong_is_told_as_the_command_tells_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lora_rank = 0: Input should be greater than or equal"):
        check("train", {"lora_rank": 0})
    with pytest.raises(UserError, match="Input should be"):
        check("train", {"lora_rank": {"a": [1] * 10_000}})
    with pytest.raises(UserError, match="no such data folder"):
        check("train", {"data_dir": str(tmp_path / "nothing")})
    played = {"prompts": ["808 beat"], "output_dir": str(tmp_path / "made")}
    check("generate", played | {"key": "Fm", "bpm": 90, "bars": 2})
    with pytest.raises(UserError, match='"H minor": no such key'):
        check("generate", played | {"key": "H minor"})
    with pytest.raises(UserError, match="a loop needs its tempo"):
        check("generate", played | {"bars": 2})
    form = [setting for setting in form_of("train") if setting.name == "lora_rank"]
    for text in ("[", "!!python/object/apply:os.system [reboot]", "&a [*a"):
        with pytest.raises(UserError, match="lora_rank"):
            changed(form, [text])
