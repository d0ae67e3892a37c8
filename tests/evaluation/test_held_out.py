"""Which clips count as held out, wherever the dataset is now."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from evaluated import facts_of, held_out_of, settings_for
from made_datasets import make_dataset, read_metadata, write_metadata
from trainer import file_hashes

from musicgen_lora.errors import UserError
from musicgen_lora.evaluation import held_out
from musicgen_lora.evaluation.evaluate import evaluate_adapter
from musicgen_lora.evaluation.generations import DEFAULT_PROMPTS, choose_prompts
from musicgen_lora.evaluation.held_out import HeldOut, find_held_out
from musicgen_lora.evaluation.report.summary import loss_sentences
from musicgen_lora.evaluation.trained_clips import open_trained
from musicgen_lora.evaluation.variants import common_held_out
from musicgen_lora.model.lora.facts import FACTS_FILE, AdapterFacts

LOSS = {
    "computed": True,
    "mean": {"relative": -0.1, "n": 8}
    | dict.fromkeys(("relative_ci_low", "relative_ci_high", "doubt")),
}
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def test_training_clips_lack_for_the_same_reason_as_held_out_ones(
    trained: dict[str, Path], tmp_path: Path
) -> None:
    held_out = held_out_of({**facts_of(trained), "data": {}}, None, "metadata.json")
    assert held_out.why_none
    model: Any = None
    settings = settings_for(trained, tmp_path)
    assert open_trained(settings, held_out, model).why_none == held_out.why_none


def test_a_given_dataset_with_a_broken_clip_is_an_error_a_remembered_one_a_reason(
    trained: dict[str, Path], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(trained["data"], data, ignore=shutil.ignore_patterns("tokens"))
    broken = facts_of(trained)["data"]["validation"][0]["audio"]
    (data / broken).write_bytes(b"not audio")
    # With an id on record it is known to be another file, and left out with a word.
    found = held_out_of(facts_of(trained), data, "metadata.json")
    assert found.missing == [broken]
    adapter = tmp_path / "run" / "adapter"
    shutil.copytree(trained["adapter"], adapter)
    (adapter / "manifest.json").unlink()
    facts = facts_of(trained)
    for entry in facts["data"]["validation"]:
        del entry["id"]
    facts["data"]["data_dir"] = str(data)
    (adapter / FACTS_FILE).write_text(json.dumps(facts))
    run = {name: facts[name] for name in ("identity", "data")}
    content = run | {"status": "finished", "output_dir": str(adapter.parent)}
    (adapter.parent / "run.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="not readable as audio"):
        evaluate_adapter(
            settings_for(trained, tmp_path / "out", lora_model_path=adapter, data_dir=data)
        )
    settings = settings_for(trained, tmp_path / "out", lora_model_path=adapter, num_prompts=1)
    report = evaluate_adapter(settings)
    assert "not readable as audio" in report["loss"]["why"]


def test_captions_that_changed_since_training_are_reported(
    trained: dict[str, Path], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(trained["data"], data)
    facts = facts_of(trained)
    assert "another caption" not in held_out_of(facts, data, "metadata.json").origin
    write_metadata(data, [entry | {"text": "an organ"} for entry in read_metadata(data)])
    found = held_out_of(facts, data, "metadata.json")
    n = len(found.clips)
    assert f"{n} clip" in found.origin
    assert f"such as {found.clips[0].name}, had another caption in training" in found.origin


def test_held_out_clips_are_found_in_a_moved_dataset(
    trained: dict[str, Path], tmp_path: Path
) -> None:
    facts = facts_of(trained)
    moved = tmp_path / "moved"
    shutil.copytree(trained["data"], moved)
    facts["data"]["data_dir"] = str(tmp_path / "gone")
    recorded = [entry["audio"] for entry in facts["data"]["validation"]]
    found = held_out_of(facts, moved, "metadata.json")
    assert sorted(clip.audio for clip in found.clips) == sorted(recorded)
    assert found.is_unseen
    assert (found.max_duration_s, found.n_sources) == (1.0, 4)
    gone = held_out_of(facts, None, "metadata.json", own_run=True)
    assert not gone.clips
    assert "pass its new folder with --data_dir" in gone.why_none
    # One of them deleted: the others are measured, and that is said.
    entries = [entry for entry in read_metadata(moved) if entry["audio"] != recorded[0]]
    write_metadata(moved, entries)
    fewer = held_out_of(facts, moved, "metadata.json")
    assert fewer.missing == [recorded[0]]
    assert fewer.origin.startswith("Measured on 3 of the 4 clips")


def test_clips_added_since_the_training_are_told(trained: dict[str, Path], tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(trained["data"], data)
    assert (
        "may be training clips" not in held_out_of(facts_of(trained), data, "metadata.json").origin
    )
    entries = read_metadata(data)
    shutil.copy(data / entries[0]["audio"], data / "new.wav")
    write_metadata(data, [*entries, {"audio": "new.wav", "text": "a new clip"}])
    found = held_out_of(facts_of(trained), data, "metadata.json")
    assert "5 clips of the dataset may be training clips, but training used only 4" in found.origin


def test_another_dataset_gives_its_validation_split_or_everything(
    trained: dict[str, Path], tmp_path: Path
) -> None:
    facts = facts_of(trained)
    for entry in facts["data"]["validation"]:
        entry["name"] = entry["audio"] = f"elsewhere/{entry['audio']}"
    data = tmp_path / "data"
    shutil.copytree(trained["data"], data)
    everything = held_out_of(facts, data, "metadata.json")
    assert len(everything.clips) == 8
    assert not everything.is_unseen
    assert "The adapter may have been trained on some of them" in everything.origin
    own = held_out_of(facts, trained["data"], "metadata.json")
    assert (len(own.clips), own.n_heard) == (8, 8)
    entries = read_metadata(data)
    entries[0]["split"] = "test"
    write_metadata(data, entries)
    split = held_out_of(facts, data, "metadata.json")
    assert [clip.audio for clip in split.clips] == [entries[0]["audio"]]
    assert "the dataset's validation split (1 clip)" in split.origin
    assert split.n_heard is None


def test_clips_that_training_heard_are_counted_under_any_name(
    trained: dict[str, Path], tmp_path: Path
) -> None:
    """A validation split that was set after a training that held nothing out, or audio of the
    training dataset in another: its loss says nothing, and no figure would show that."""
    facts = facts_of(trained)
    held = {entry["audio"] for entry in facts["data"]["validation"]}
    data = tmp_path / "data"
    data.mkdir()
    entries = read_metadata(trained["data"])
    for number, entry in enumerate(entries):
        shutil.copy(trained["data"] / entry["audio"], data / f"{number}.wav")
    listed = [{"audio": f"{n}.wav", "text": "x"} for n, _ in enumerate(entries)]
    write_metadata(data, [row | {"split": "validation"} for row in listed])
    facts["data"]["data_dir"] = str(trained["data"])
    found = held_out_of(facts, data, "metadata.json", own_run=True)
    assert (len(found.clips), found.n_heard) == (8, 8 - len(held))
    # An adapter from elsewhere may name any folder, and none is read for it.
    assert held_out_of(facts, data, "metadata.json").n_heard is None
    told = {"is_unseen": False, "origin": "x", "n_heard": 4, "n_clips": 8, "chose_best": False}
    assert any(
        said.startswith("Warning: 4 of 8 measured clips") for said in loss_sentences(LOSS, told)
    )


def test_it_is_said_where_the_training_dataset_cannot_be_looked_at(
    trained: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing tells then whether training heard the measured clips: "none" would be a guess."""
    facts = facts_of(trained)
    for entry in facts["data"]["validation"]:
        entry["name"] = entry["audio"] = f"elsewhere/{entry['audio']}"
    data = tmp_path / "data"
    shutil.copytree(trained["data"], data, ignore=shutil.ignore_patterns("tokens"))
    entries = read_metadata(data)
    entries[0]["split"] = "validation"
    write_metadata(data, entries)
    gone, broken = tmp_path / "gone", tmp_path / "broken"
    broken.mkdir()
    (broken / "metadata.json").write_text("{")
    for folder, own_run, why in (
        (gone, True, f"its dataset is no longer in {gone}"),
        (broken, True, str(broken / "metadata.json")),
        (gone, False, f"it names {gone} as its dataset, which is not read"),
        (None, True, "it names no dataset"),
    ):
        facts["data"] |= {"data_dir": str(folder)}
        if folder is None:
            del facts["data"]["data_dir"]
        found = held_out_of(facts, data, "metadata.json", own_run=own_run)
        assert found.n_heard is None
        assert "The adapter may have been trained on some of them: " in found.origin
        assert why in found.origin
        told = {"is_unseen": False, "origin": found.origin, "n_heard": None}
        told |= {"n_clips": 1, "chose_best": False}
        assert found.origin in loss_sentences(LOSS, told)
    assert "names no dataset" in find_held_out(None, data, "metadata.json").origin
    # Another adapter's certainty does not hide it.
    sure = HeldOut(found.clips, data, "Sure.", heard=frozenset())
    common = common_held_out([sure, found], ["a", "b"])
    assert (common.n_heard, common.origin) == (None, found.origin)
    fewer = common_held_out([found, HeldOut((*found.clips, *found.clips), data)], ["a", "b"])
    assert fewer.n_heard is None
    assert found.origin in fewer.origin
    # Without tokens nothing is compared either.
    facts["data"]["data_dir"] = str(data)
    read: list[Path] = []
    load = held_out.load_dataset
    monkeypatch.setattr(
        held_out, "load_dataset", lambda d, *a, **k: (read.append(d), load(d, *a, **k))[1]
    )
    untokenised = held_out_of(facts, data, "metadata.json", from_tokens=True)
    assert untokenised.n_heard is None
    assert "tokens to compare" in untokenised.origin
    assert held_out_of(facts, data, "metadata.json").n_heard == 1
    assert read == [data, data]  # The same folder is read once.


def test_clips_too_short_to_be_measured_are_named(
    trained: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both held-out clips and other music."""
    data = make_dataset(tmp_path / "data", [0.6, 0.02, 0.6])
    settings = settings_for(
        trained, tmp_path / "out", data_dir=data, other_data_dir=data, num_prompts=1
    )
    report = evaluate_adapter(settings)
    said = "Left out, shorter than 4 frames: train/beat1.wav."
    of_others = f"Left out of {data}, shorter than 4 frames: train/beat1.wav."
    out = capsys.readouterr().out
    assert said in out
    assert of_others in out
    assert report["held_out"]["n_clips"] == report["forgetting"]["n_windows"] == 2
    assert report["held_out"]["origin"].endswith(said)
    assert report["remarks"] == [of_others]
    assert of_others in (tmp_path / "out" / "report.html").read_text()


def test_other_audio_under_a_held_out_name_is_not_held_out(
    trained: dict[str, Path], tmp_path: Path
) -> None:
    facts = facts_of(trained)
    data = tmp_path / "data"
    shutil.copytree(trained["data"], data)
    names = [entry["audio"] for entry in facts["data"]["validation"]]
    trained_on = next(e["audio"] for e in read_metadata(data) if e["audio"] not in names)
    for name in names:
        shutil.copy(data / trained_on, data / name)
    found = held_out_of(facts, data, "metadata.json")
    assert not found.is_unseen


def test_reasons_for_having_none(trained: dict[str, Path], tmp_path: Path) -> None:
    assert "musicgen_lora.json" in find_held_out(None, None, "metadata.json").why_none
    facts = facts_of(trained)
    facts["data"]["validation"] = []
    assert "held out no clips" in held_out_of(facts, None, "metadata.json", own_run=True).why_none
    facts = facts_of(trained)
    facts["data"]["metadata_file"] = "gone.json"
    assert "not usable" in held_out_of(facts, None, "metadata.json", own_run=True).why_none


def test_prompts_take_turns_among_the_sources(trained: dict[str, Path]) -> None:
    clips = find_held_out(
        AdapterFacts(facts_of(trained)), None, "metadata.json", own_run=True
    ).clips
    chosen = choose_prompts([], clips, 6)
    assert len({item["prompt"] for item in chosen}) == 6
    assert chosen[-1]["origin"] == "default prompt"
    assert [c["prompt"] for c in choose_prompts(["a", "a"], clips, 1)] == ["a", "a"]
    assert len(choose_prompts([], [], 100)) == len(DEFAULT_PROMPTS)


def test_an_adapter_from_elsewhere_chooses_no_folder(
    trained: dict[str, Path], tmp_path: Path
) -> None:
    """Its record may name any of this user's datasets."""
    data = tmp_path / "data"
    shutil.copytree(trained["data"], data, ignore=shutil.ignore_patterns("tokens"))
    adapter = tmp_path / "downloaded" / "best_model"
    shutil.copytree(trained["adapter"], adapter)
    facts = facts_of(trained)
    facts["data"]["data_dir"] = str(data)
    (adapter / FACTS_FILE).write_text(json.dumps(facts))
    (adapter / "manifest.json").unlink()
    before = file_hashes(data)
    settings = settings_for(trained, tmp_path / "out", lora_model_path=adapter, num_prompts=1)
    report = evaluate_adapter(settings)
    assert f"the adapter names {data} as its dataset" in report["loss"]["why"]
    assert "--data_dir" in report["loss"]["why"]
    assert file_hashes(data) == before


def test_held_out_clips_that_are_silent_or_too_loud_are_told(
    trained: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A silent clip is no example of a style: nothing is compared with it."""
    data = make_dataset(tmp_path / "data", [0.6] * 4)
    names = [entry["audio"] for entry in read_metadata(data)]
    for name, gain in ((names[0], 0.0), (names[2], 40.0)):
        sound, rate = sf.read(data / name, dtype="float32")
        sf.write(data / name, gain * sound, rate, subtype="FLOAT", format="WAV")
    settings = settings_for(trained, tmp_path / "out", data_dir=data, num_prompts=1)
    report = evaluate_adapter(settings)
    silent, loud = report["remarks"]
    assert silent.startswith("Warning: 1 of 4 held-out clips is silent")
    assert silent.endswith(f": {names[0]}.")
    assert loud.startswith("Warning: 1 of 4 held-out clips is at or beyond full scale")
    assert loud.endswith(f": {names[2]}.")
    said = capsys.readouterr().out
    for remark in (silent, loud):
        assert remark in said
        assert remark in (tmp_path / "out" / "report.html").read_text()
        assert remark in report["findings"]
    assert report["reference"]["n_clips"] == 3
    assert report["loss"]["n_windows"] == 4
    for name in names:
        sf.write(data / name, np.zeros((19_200, 1)), 32_000, format="WAV")
    nothing = evaluate_adapter(settings)
    assert nothing["reference"] == {
        "computed": False,
        "why": "every held-out clip is silent",
        "descriptors": [],
    }
    assert nothing["distances"]["why"] == "every held-out clip is silent"
