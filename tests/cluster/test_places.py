"""Commands with URLs: inputs are fetched, and outputs are sent."""

from __future__ import annotations

import json
import os
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from adapters import draw_adapter
from evaluated import settings_for
from made_datasets import RATE, beat, files_below, make_dataset, read_rows, tiny_settings
from stores import Proxy, download, upload
from trainer import train_stepping

from musicgen_lora.atomic import manifest_faults
from musicgen_lora.audio.files import write_wav
from musicgen_lora.cli import main
from musicgen_lora.cluster import copies, places
from musicgen_lora.cluster.engine import Processes
from musicgen_lora.cluster.marks import MARKER
from musicgen_lora.cluster.storage import Remote
from musicgen_lora.config import SETTINGS, MergeSettings
from musicgen_lora.errors import UserError
from musicgen_lora.evaluation.evaluate import evaluate_adapter
from musicgen_lora.export.merge import merge_adapters
from musicgen_lora.generation import generate
from musicgen_lora.prepare import prepare as preparing
from musicgen_lora.training.step import optimise_step
from musicgen_lora.training.train import train_lora

BETWEEN = pytest.mark.parametrize(
    "url", ["memory://studio/beats", "s3://studio/some/beats"], indirect=True
)


@pytest.fixture
def another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretends to be a machine with another cache; each call gives a new one."""
    numbers = iter(range(100))
    return lambda: monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"cache{next(numbers)}"))


def recordings(folder: Path, n: int) -> Path:
    for index in range(n):
        write_wav(folder / f"beat{index}.wav", beat(index, 2.0), RATE)
    (folder / "beat0.txt").write_text("an 808 beat, 140 bpm", encoding="utf-8")
    return folder


@BETWEEN
def test_audio_is_prepared_from_url_to_url_and_a_second_machine_cuts_nothing_again(
    url: str, tmp_path: Path, another_machine: Any, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    source = recordings(tmp_path / "in", 3)
    upload(source, f"{url}-in")
    words = ["--num_workers", "0", "--caption_variants", "1"]
    far = ["prepare", "--input_dir", f"{url}-in", "--output_dir", url, *words]
    assert main(far) == 0
    said = capfd.readouterr().out
    assert f"Preparing the audio in {url}-in as a dataset in {url}" in said
    assert str(tmp_path / "cache") not in said
    near = ["--input_dir", str(source), "--output_dir", str(tmp_path / "near")]
    assert main(["prepare", *near, *words]) == 0
    expected, found = files_below(tmp_path / "near"), download(url, tmp_path / "got")
    assert json.loads(found.pop(MARKER)) == {"status": "finished"}
    # The ledger has the folder that was read.
    assert f"{url}-in".partition("://")[2].encode() in found.pop("metadata.ledger.json")
    del expected["metadata.ledger.json"]
    assert found.keys() == expected.keys()
    same = {name for name in expected if name.startswith("train/")} | {"metadata.json"}
    assert {n: found[n] for n in same} == {n: expected[n] for n in same}
    another_machine()
    write_wav(tmp_path / "more" / "beat9.wav", beat(9, 2.0), RATE)
    upload(tmp_path / "more", f"{url}-in")
    cut: list[str] = []
    original = preparing.cut_file

    def cut_file(task: Any, alive: Any) -> Any:
        cut.append(task.path.name)
        return original(task, alive)

    monkeypatch.setattr(preparing, "cut_file", cut_file)
    assert main(far) == 0
    assert cut == ["beat9.wav"]
    metadata = json.loads(download(url, tmp_path / "again")["metadata.json"])
    assert sorted(entry["source"] for entry in metadata) == [
        f"beat{number}.wav" for number in (0, 1, 2, 9)
    ]
    assert not any(entry.get("skip") for entry in metadata)
    said = capfd.readouterr()
    assert "a-secret" not in said.out + said.err


@BETWEEN
def test_clips_are_played_from_url_to_url_and_kept_by_a_second_machine(
    url: str, tmp_path: Path, tiny_model_dir: Path, another_machine: Any, capfd: Any
) -> None:
    adapter = draw_adapter(tiny_model_dir, tmp_path / "adapter")
    upload(adapter, f"{url}/adapter")
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "p.txt").write_text("808\ntrap\n", encoding="utf-8")
    upload(tmp_path / "prompts", f"{url}/prompts")
    # Two machines may choose two precisions, and then they play two clips.
    words = ["--base_model_path", str(tiny_model_dir), "--duration", "0.3", "--precision", "fp32"]
    far = ["--lora_model_path", f"{url}/adapter", "--prompts_file", f"{url}/prompts/p.txt"]
    assert main(["generate", *words, *far, "--output_dir", f"{url}/out"]) == 0
    said = capfd.readouterr().out
    assert f"with {url}/adapter into {url}/out" in said
    near = ["--lora_model_path", str(adapter), "--prompts_file", str(tmp_path / "prompts/p.txt")]
    assert main(["generate", *words, *near, "--output_dir", str(tmp_path / "near")]) == 0
    capfd.readouterr()
    found = download(f"{url}/out", tmp_path / "got")
    del found[MARKER]
    expected = files_below(tmp_path / "near")
    assert len(found) == len(expected) == 4
    # But for the words of the adapter's place the same clips.
    made = [json.loads(content) for name, content in found.items() if name.endswith(".json")]
    assert {clip["adapters"][0]["path"] for clip in made} == {f"{url}/adapter"}
    another_machine()
    assert main(["generate", *words, *far, "--output_dir", f"{url}/out"]) == 0
    assert "Kept from before: 2 of 2 clips." in capfd.readouterr().out


@pytest.mark.slow
def test_processes_that_play_find_an_adapter_by_its_url(
    memory: str, tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have none of their own to read URLs by: memory is that of one process."""
    upload(draw_adapter(tiny_model_dir, tmp_path / "adapter"), f"{memory}/adapter")
    words = ["generate", "--base_model_path", str(tiny_model_dir), "--duration", "0.3"]
    words += ["--prompts", "808", "trap", "--lora_model_path", f"{memory}/adapter"]
    assert main([*words, "--output_dir", str(tmp_path / "here")]) == 0
    monkeypatch.setattr(generate, "open_engine", lambda _: nullcontext(Processes(1)))
    assert main([*words, "--output_dir", str(tmp_path / "there"), "--ray", "local"]) == 0
    assert files_below(tmp_path / "there") == files_below(tmp_path / "here")


def test_a_training_goes_on_from_its_checkpoint_on_another_machine(
    memory: str,
    tmp_path: Path,
    data: Path,
    tiny_model_dir: Path,
    another_machine: Any,
    capfd: Any,
) -> None:
    values = {"num_epochs": 2, "save_every": 1, "validate_every": 2, "keep_checkpoints": 1}
    far = tiny_settings(tiny_model_dir, data, Path(f"{memory}/run"), **values)
    steps: list[str] = []

    def dying(*given: Any) -> Any:
        steps.append(given[3])
        if len(steps) == 3:
            raise KeyboardInterrupt
        return optimise_step(*given)

    with pytest.raises(KeyboardInterrupt):
        train_stepping(far, dying)
    left = download(f"{memory}/run", tmp_path / "left")
    assert json.loads(left[MARKER]) == {"status": "unfinished"}
    # The checkpoint that a newer one replaced is gone there too.
    held = {name.split("/")[1] for name in left if name.startswith("checkpoints/")}
    assert held == {"step-000002"}
    another_machine()
    train_lora(far)
    assert "Resuming after step 2" in capfd.readouterr().out
    train_lora(tiny_settings(tiny_model_dir, data, tmp_path / "near", **values))
    found = download(f"{memory}/run", tmp_path / "got")
    assert json.loads(found[MARKER]) == {"status": "finished"}
    losses = [
        [(row["step"], row["loss"]) for row in read_rows(folder, "train")]
        for folder in (tmp_path / "got", tmp_path / "near")
    ]
    assert losses[0] == losses[1]
    weights = "best_model/adapter_model.safetensors"
    assert found[weights] == (tmp_path / "near" / weights).read_bytes()


@pytest.mark.slow
def test_an_adapter_there_is_measured_and_has_its_figures_in_its_card(
    memory: str, tmp_path: Path, tiny_model_dir: Path
) -> None:
    data = make_dataset(tmp_path / "data", [1.5] * 4)
    run = {"max_steps": 1, "validation_fraction": 0.5, "max_duration": 1.0}
    train_lora(tiny_settings(tiny_model_dir, data, Path(f"{memory}/run"), **run))
    trained = {"base": tiny_model_dir, "data": data, "adapter": Path(f"{memory}/run/best_model")}
    wanted = settings_for(trained, Path(f"{memory}/evaluation"), num_prompts=1, data_dir=data)
    report = evaluate_adapter(wanted)
    assert report["adapter"]["path"] == f"{memory}/run/best_model"
    assert "report.html" in download(f"{memory}/evaluation", tmp_path / "evaluation")
    card = download(f"{memory}/run", tmp_path / "again")["best_model/README.md"]
    assert b"musicgen-lora evaluate: begin" in card
    assert MARKER not in Remote(f"{memory}/run/best_model").states()


@pytest.mark.parametrize(
    ("command", "changes", "said"),
    [
        ("prepare", {"input_dir": "xy://a/b", "output_dir": "xy://a/b/data"}, "overlaps with"),
        ("prepare", {"input_dir": "xy://a/b/in", "output_dir": "xy://a/b"}, "overlaps with"),
        ("train", {"output_dir": "xy://a/b"}, "a drive that they share"),
    ],
)
def test_places_that_can_not_be_together_are_refused(
    command: str, changes: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    settings = SETTINGS[command](**{name: Path(place) for name, place in changes.items()})
    with pytest.raises(UserError, match=said), places.at_hand(command, settings):
        pass


def keys_are_looked_at(after: int) -> None:
    """Has the server look at keys after so many requests."""
    request = urllib.request.Request(
        f"{os.environ['AWS_ENDPOINT_URL']}/moto-api/reset-auth",
        data=str(after).encode(),
        headers={"Content-Type": "text/plain"},
    )
    urllib.request.urlopen(request).read()


@pytest.fixture
def keys(s3: None) -> Iterator[None]:
    keys_are_looked_at(0)
    yield
    keys_are_looked_at(10**9)


def refused(words: list[str], capfd: Any) -> str:
    assert main(words) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    return line


def test_a_missing_bucket_is_one_line_before_anything_is_made(
    s3: None, tmp_path: Path, capfd: Any
) -> None:
    source = str(recordings(tmp_path / "in", 1))
    line = refused(["prepare", "--input_dir", "s3://nobody/in"], capfd)
    assert "s3://nobody/in: nothing is there" in line
    line = refused(["prepare", "--input_dir", source, "--output_dir", "s3://nobody/out"], capfd)
    assert "s3://nobody/out" in line
    assert "bucket does not exist" in line
    line = refused(["generate", "--prompts", "808", "--lora_model_path", "s3://nobody/x"], capfd)
    assert "s3://nobody/x: nothing is there" in line


def test_wrong_keys_are_one_line(keys: None, tmp_path: Path, capfd: Any) -> None:
    source = str(recordings(tmp_path / "in", 1))
    for words in (
        ["--input_dir", "s3://studio/in"],
        ["--input_dir", source, "--output_dir", "s3://studio/out"],
    ):
        line = refused(["prepare", *words], capfd)
        assert "Access Key" in line
        assert "a-secret" not in line


def test_a_server_that_goes_midway_costs_only_the_upload(
    s3: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    source = str(recordings(tmp_path / "in", 4))
    words = ["prepare", "--input_dir", source, "--output_dir", "s3://studio/midway"]
    words += ["--num_workers", "0", "--caption_variants", "1"]
    direct = os.environ["AWS_ENDPOINT_URL"]
    monkeypatch.setattr(copies, "AT_ONCE", 1)
    with Proxy(direct, ends_after_bytes=300_000) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        assert main(words) == 1
    assert "run the same command to send it" in capfd.readouterr().err
    monkeypatch.setenv("AWS_ENDPOINT_URL", direct)
    left = download("s3://studio/midway", tmp_path / "left")
    assert "metadata.json" not in left
    assert json.loads(left.pop(MARKER)) == {"status": "unfinished"}
    (folder,) = (tmp_path / "cache/musicgen_lora/copies").glob("*/files/midway")
    here = files_below(folder)
    assert 0 < len(left) < len(here)
    # Whole or not at all.
    assert all(here[name] == content for name, content in left.items())
    monkeypatch.setattr(preparing, "cut_file", None)
    assert main(words) == 0
    assert "left here by an interrupted run" in capfd.readouterr().out
    found = download("s3://studio/midway", tmp_path / "got")
    assert len(json.loads(found["metadata.json"])) == 4
    shutil.rmtree(tmp_path / "cache")


def test_a_merged_model_goes_there_once(memory: str, tmp_path: Path, tiny_model_dir: Path) -> None:
    upload(draw_adapter(tiny_model_dir, tmp_path / "adapter"), f"{memory}/adapter")
    settings = MergeSettings(
        model_path=str(tiny_model_dir),
        lora_model_path=[Path(f"{memory}/adapter")],
        output_dir=Path(f"{memory}/merged"),
    )
    merge_adapters(settings)
    found = download(f"{memory}/merged", tmp_path / "got")
    whole = found.pop(MARKER)
    assert json.loads(whole) == {"status": "finished"}
    assert not manifest_faults(tmp_path / "got")
    assert copies.COPIES not in found["README.md"].decode()
    with pytest.raises(UserError, match=f"^{memory}/merged: is not empty"):
        merge_adapters(settings)
    # A run that is refused leaves it as it was.
    assert download(f"{memory}/merged", tmp_path / "again").pop(MARKER) == whole
