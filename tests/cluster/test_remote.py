"""Datasets named by a URL: shards are made there, and fetched for training."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from made_datasets import make_dataset, read_metadata, tiny_settings, write_metadata
from stores import upload

from musicgen_lora.cli import main
from musicgen_lora.cluster.storage import Remote, cache_folder
from musicgen_lora.commands.table import COMMANDS
from musicgen_lora.config import EvaluateSettings, TokeniseSettings
from musicgen_lora.dataset import encoding, remote
from musicgen_lora.dataset.encoding import UnencodedClips
from musicgen_lora.dataset.tokenise import tokenise_dataset
from musicgen_lora.errors import UserError
from musicgen_lora.evaluation.evaluate import evaluate_adapter
from musicgen_lora.runtime.locks import locked
from musicgen_lora.training.train import train_lora
from musicgen_lora.urls import url_of


def held_ids(url: str, tmp_path: Path) -> list[str]:
    far, ids = Remote(url), []
    for name in far.states("tokens"):
        if name.endswith(".parquet"):
            far.fetch(name, tmp_path / "index")
            ids += pq.read_table(tmp_path / "index")["id"].to_pylist()
    return ids


def test_shards_are_made_where_the_audio_is_and_trained_from_here(
    url: str, tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    monkeypatch.setattr(encoding, "CLIPS_PER_SHARD", 2)
    monkeypatch.setattr(remote, "CLIPS_PER_SHARD", 2)
    data = make_dataset(tmp_path / "data", [0.5, 0.4, 0.3, 0.6, 0.5])
    upload(data, url)
    settings = TokeniseSettings(data_dir=Path(url), model_path=str(tiny_model_dir))
    tokenise_dataset(settings)
    assert "5 clips encoded, 0 already there" in capfd.readouterr().out
    # The same shards as of a folder, byte for byte.
    tokenise_dataset(TokeniseSettings(data_dir=data, model_path=str(tiny_model_dir)))
    far = Remote(url)
    made = {name for name in far.states("tokens") if name.endswith((".npy", ".parquet"))}
    here = {p.relative_to(data).as_posix() for p in data.glob("tokens/*/*") if p.suffix != ".arrow"}
    assert made == here - {name for name in here if name.endswith(".lock")}
    for name in made:
        far.fetch(name, tmp_path / "fetched")
        assert (tmp_path / "fetched").read_bytes() == (data / name).read_bytes()
    # A second run fetches no audio.
    with monkeypatch.context() as patch:
        patch.setattr(remote, "make_remote_shard", None)
        tokenise_dataset(settings)
    assert "0 clips encoded, 5 already there" in capfd.readouterr().out
    runs = [
        train_lora(tiny_settings(tiny_model_dir, Path(place), tmp_path / name, max_steps=2))
        for name, place in (("far", url), ("near", str(data)))
    ]
    assert runs[0]["base_loss"] == runs[1]["base_loss"]
    assert runs[0]["identity"] == runs[1]["identity"]
    said = capfd.readouterr()
    assert "a-secret" not in said.out + said.err
    for path in (tmp_path / "far").rglob("*.json"):
        assert "a-secret" not in path.read_text()


def test_an_adapter_is_measured_on_a_dataset_wherever_it_is(
    tmp_path: Path, tiny_model_dir: Path
) -> None:
    data = make_dataset(tmp_path / "data", [1.5] * 4)
    far = Path(f"file://{data}")
    tokenise_dataset(TokeniseSettings(data_dir=far, model_path=str(tiny_model_dir)))
    run = {"max_steps": 1, "validation_fraction": 0.5, "max_duration": 1.0}
    train_lora(tiny_settings(tiny_model_dir, data, tmp_path / "run", **run))
    near, remote = (
        evaluate_adapter(
            EvaluateSettings(
                base_model_path=str(tiny_model_dir),
                lora_model_path=tmp_path / "run" / "best_model",
                output_dir=tmp_path / str(number),
                duration=0.4,
                num_prompts=1,
                data_dir=place,
            )
        )
        for number, place in enumerate((data, far))
    )
    assert near["loss"] == remote["loss"]
    assert remote["held_out"]["n_clips"] == 2


def test_a_dead_run_goes_on_and_a_bad_file_is_listed(
    url: str, tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "CLIPS_PER_SHARD", 2)
    data = make_dataset(tmp_path / "data", [0.5, 0.4, 0.3, 0.6, 0.5])
    (data / "train" / "beat3.wav").write_bytes(b"no audio")
    upload(data, url)
    settings = TokeniseSettings(data_dir=Path(url), model_path=str(tiny_model_dir))
    original, calls = remote.make_remote_shard, []

    def dying(task, alive):
        calls.append([clip.audio for clip in task.clips])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(task, alive)

    monkeypatch.setattr(remote, "make_remote_shard", dying)
    with pytest.raises(KeyboardInterrupt):
        tokenise_dataset(settings)
    calls[:] = [[], []]
    with pytest.raises(UnencodedClips, match=r"beats/train/beat3\.wav") as caught:
        tokenise_dataset(settings)
    assert list(caught.value.reasons) == ["train/beat3.wav"]
    assert [name for names in calls for name in names] == [
        f"train/beat{number}.wav" for number in (2, 3, 4)
    ]
    assert len(held_ids(url, tmp_path)) == len(set(held_ids(url, tmp_path))) == 4


def test_what_is_not_there_is_told_with_its_url(
    url: str, tmp_path: Path, tiny_model_dir: Path
) -> None:
    settings = TokeniseSettings(data_dir=Path(url), model_path=str(tiny_model_dir))
    with pytest.raises(UserError, match=rf"{url}/metadata\.json: cannot be read"):
        tokenise_dataset(settings)
    with pytest.raises(UserError, match="is not tokenised"):
        train_lora(tiny_settings(tiny_model_dir, Path(url), tmp_path / "out"))
    data = make_dataset(tmp_path / "data", [0.5, 0.4])
    shutil.rmtree(data / "train")
    upload(data, url)
    with pytest.raises(UserError, match=r"train/beat0\.wav does not exist there \(2 of 2"):
        tokenise_dataset(settings)
    assert cache_folder(url).is_dir()


def test_metadata_leads_to_no_file_outside_its_folder(tmp_path: Path, tiny_model_dir: Path) -> None:
    data = make_dataset(tmp_path / "far" / "data", [0.5])
    (tmp_path / "far" / "secret.wav").write_bytes((data / "train" / "beat0.wav").read_bytes())
    write_metadata(data, [read_metadata(data)[0] | {"audio": "../secret.wav"}])
    settings = TokeniseSettings(data_dir=Path(f"file://{data}"), model_path=str(tiny_model_dir))
    with pytest.raises(UserError, match="does not exist there"):
        tokenise_dataset(settings)
    with pytest.raises(UserError, match="points outside"):
        Remote(f"file://{data}").fetch("../secret.wav", tmp_path / "stolen")


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("s3://bucket/beats", "s3://bucket/beats"),
        ("file:///data/beats", "file:///data/beats"),
        ("abfss://c/beats", "abfss://c/beats"),
        ("C:/Users/me/beats", None),
        ("finetune/data", None),
        ("/data/s3/beats", None),
    ],
)
def test_a_url_is_told_from_a_folder(given: str, url: str | None) -> None:
    assert url_of(Path(given)) == url


@pytest.mark.parametrize(
    "given",
    ["s3://ID:hunter2@bucket/beats", "s3://bucket/beats?secret_key=hunter2&access_key=ID"],
)
def test_a_key_in_a_url_is_refused_and_not_repeated(given: str) -> None:
    settings = TokeniseSettings(data_dir=Path(given))
    for asked in (lambda: tokenise_dataset(settings), lambda: COMMANDS["tokenise"].doing(settings)):
        with pytest.raises(UserError, match="AWS_ACCESS_KEY_ID") as caught:
            asked()
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        ["tokenise", "--pack", "s3://studio/beats"],
        ["evaluate", "--lora_model_path", "here", "--other_data_dir", "s3://studio/beats"],
        ["export", "--format", "peft", "--previews", "s3://studio/beats"],
        ["ui", "--workspace", "s3://studio/beats"],
    ],
)
def test_a_url_where_a_folder_is_asked_for_is_refused(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert "s3://studio/beats: is a URL, and this setting can't be one" in capfd.readouterr().err
    with pytest.raises(UserError, match="is a URL"), locked(Path("s3://studio/beats")):
        pass
    assert not any(tmp_path.iterdir())
