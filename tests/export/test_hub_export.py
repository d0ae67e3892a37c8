"""An adapter for sharing: what is exported, what stays private, and what the Hub is asked."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from adapters import draw_adapter
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from made_datasets import make_dataset, tiny_settings
from peft import PeftConfig
from safetensors import safe_open
from safetensors.torch import load_file

from musicgen_lora.config import ExportSettings, MergeSettings
from musicgen_lora.errors import RunError, UserError
from musicgen_lora.export import hub
from musicgen_lora.export.export import export_model
from musicgen_lora.export.hub import check_tells_nothing
from musicgen_lora.export.merge import merge_adapters
from musicgen_lora.training.train import train_lora

WEIGHTS = "adapter_model.safetensors"


NO_ANSWER: Any = SimpleNamespace(headers={}, request=None)


@dataclass
class FakeHub:
    """Records what it is asked. The repository exists unless `is_private` is None."""

    is_private: bool | None = None
    fails: bool = False
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def repo_info(self, repository: str, **_: Any) -> Any:
        if self.is_private is None:
            raise RepositoryNotFoundError("no such repository", response=NO_ANSWER)
        return SimpleNamespace(private=self.is_private)

    def create_repo(self, repository: str, **how: Any) -> None:
        self.asked.append(("create", {"repo_id": repository} | how))

    def upload_folder(self, **how: Any) -> None:
        if self.fails:
            raise HfHubHTTPError("502 bad gateway", response=NO_ANSWER)
        files = {
            name: (Path(how["folder_path"]) / name).read_bytes() for name in how["allow_patterns"]
        }
        self.asked.append(("upload", how | {"files": files}))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    """An adapter of a training run whose clips and folders have private names."""
    root = tmp_path_factory.mktemp("secret studio")
    data = make_dataset(root / "unreleased", [0.4, 0.4])
    settings = tiny_settings(
        tiny_model_dir,
        data,
        root / "out",
        max_steps=2,
        previews="auto",
        preview_prompts=["hip hop 808 beat", "dark trap"],
        preview_duration=0.3,
        preview_every=1,
    )
    train_lora(settings)
    return root / "out" / "best_model"


@contextmanager
def at_hub(api: FakeHub | None) -> Iterator[None]:
    """Somebody is logged in at this hub for the duration; None leaves the real one."""
    with pytest.MonkeyPatch.context() as patched:
        if api is not None:
            patched.setattr(hub, "HfApi", lambda: api)
            patched.setattr(hub, "get_token", lambda: "token")
        yield


def export(base: Path, adapter: Path, out: Path, api: Any = None, **more: Any) -> Path:
    settings = ExportSettings(
        format="peft", model_path=str(base), lora_model_path=[adapter], output_dir=out, **more
    )
    with at_hub(api):
        return export_model(settings)


def front_of(folder: Path) -> dict[str, Any]:
    card = (folder / "README.md").read_text(encoding="utf-8")
    front = re.match(r"---\n(.*?)---\n", card, re.DOTALL)
    assert front
    return yaml.safe_load(front[1])


def test_what_tells_of_its_owner_stays_at_home(
    trained: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    out = export(tiny_model_dir, trained, tmp_path / "shared", hub_base="facebook/musicgen-tiny")
    secrets = (b"secret", b"unreleased", b"beat0", bytes(tiny_model_dir.parent), b"train/")
    for path in out.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [secret for secret in secrets if secret in content], path
    facts = json.loads((trained / "musicgen_lora.json").read_text())
    shared = json.loads((out / "musicgen_lora.json").read_text())
    assert shared["base"]["fingerprint"] == facts["base"]["fingerprint"]
    assert shared["base"]["path"] == "facebook/musicgen-tiny"
    assert shared["settings"]["lora_rank"] == facts["settings"]["lora_rank"]
    assert shared["best"] == facts["best"]
    assert shared["data"]["n_train"] == facts["data"]["n_train"]
    with safe_open(out / WEIGHTS, "pt") as file:
        assert json.loads(file.metadata()["musicgen_lora"]) == shared


def test_it_is_the_adapter_to_the_bit_and_peft_reads_it(
    trained: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    out = export(tiny_model_dir, trained, tmp_path / "shared", hub_base="me/base")
    before, after = load_file(trained / WEIGHTS), load_file(out / WEIGHTS)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    config = PeftConfig.from_pretrained(str(out))
    assert config.task_type == "FEATURE_EXTRACTION"
    assert config.base_model_name_or_path == "me/base"


def test_the_card_plays_the_newest_previews(
    trained: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    out = export(tiny_model_dir, trained, tmp_path / "shared", hub_base="facebook/musicgen-tiny")
    front = front_of(out)
    assert front["base_model"] == "facebook/musicgen-tiny"
    assert front["base_model_relation"] == "adapter"
    assert front["library_name"] == "peft"
    assert front["license"] == "cc-by-nc-4.0"
    assert [sample["text"] for sample in front["widget"]] == ["hip hop 808 beat", "dark trap"]
    played = trained.parent / "previews" / "step-000002"
    for sample, path in zip(front["widget"], sorted(played.glob("*.wav")), strict=True):
        assert (out / sample["output"]["url"]).read_bytes() == path.read_bytes()
    assert "held-out clips are in" not in (out / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("musicgen-small", "OWNER/NAME"),
        ("../musicgen-small", "OWNER/NAME"),
        ("a/b/c", "OWNER/NAME"),
        ("me/two--dashes", "OWNER/NAME"),
        ("me/base.git", "OWNER/NAME"),
        ("模型/音乐", "OWNER/NAME"),
        ("facebook/musicgen-small", r"has 24 layers x 1024 \(mono\)"),
        ("facebook/musicgen-stereo-melody-large", r"has 48 layers x 2048 \(stereo, melody\)"),
    ],
)
def test_a_name_that_the_base_cannot_have_is_refused(
    name: str, said: str, trained: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        export(tiny_model_dir, trained, tmp_path / "shared", hub_base=name)
    assert not (tmp_path / "shared").exists()


def test_another_name_than_a_base_of_the_hub_has_is_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="me/base is already a name on the Hub"):
        export(Path("me/base"), trained, tmp_path / "shared", hub_base="me/other")


@pytest.mark.parametrize("is_ours", [False, True])
def test_a_name_is_held_against_the_adapters_own(
    is_ours: bool, trained: Path, tiny_model_dir: Path, tmp_path: Path, capsys
) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(trained, adapter)
    (adapter / "manifest.json").unlink(missing_ok=True)

    def said_of(base: str, number: int) -> str:
        if is_ours:
            facts = json.loads((adapter / "musicgen_lora.json").read_text())
            facts["base"]["path"] = base
            (adapter / "musicgen_lora.json").write_text(json.dumps(facts))
        else:
            (adapter / "musicgen_lora.json").unlink(missing_ok=True)
            config = json.loads((adapter / "adapter_config.json").read_text())
            config["base_model_name_or_path"] = base
            (adapter / "adapter_config.json").write_text(json.dumps(config))
        export(tiny_model_dir, adapter, tmp_path / str(number), hub_base="me/base")
        return " ".join(capsys.readouterr().out.split())

    assert "The card names me/base as the base; its weights on the Hub" in said_of("me/base", 0)
    assert "says it was trained on" not in said_of("/models/base", 1)
    assert "says it was trained on you/other." in said_of("you/other", 2)
    with pytest.raises(UserError, match="says it was trained on facebook/musicgen-small; give"):
        said_of("facebook/musicgen-small", 3)
    assert not (tmp_path / "3").exists()


def test_previews_may_be_what_generate_wrote(
    trained: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "played"
    folder.mkdir()
    (folder / "a.wav").write_bytes(b"sound")
    (folder / "a.json").write_text('{"prompt": "a: \\"beat\\"\\n---"}')
    (folder / "b.wav").write_bytes(b"of an unknown prompt")
    out = export(tiny_model_dir, trained, tmp_path / "shared", previews=folder)
    (sample,) = front_of(out)["widget"]
    assert sample["text"] == 'a: "beat"\n---'
    assert (out / sample["output"]["url"]).read_bytes() == b"sound"
    (folder / "a.json").unlink()
    with pytest.raises(UserError, match="has no WAV file with a known prompt"):
        export(tiny_model_dir, trained, tmp_path / "again", previews=folder)


def test_a_report_that_is_none_is_named_before_anything_is_written(
    trained: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "report.json").write_text('{"adapter": {"fingerprint": 3}}')
    for path, said in ((tmp_path, "report.json"), (tmp_path / "none", "none")):
        with pytest.raises(UserError, match=said):
            export(tiny_model_dir, trained, tmp_path / "out", evaluation=path, hub_base="me/b")
        assert not (tmp_path / "out").exists()


def test_an_adapter_of_another_tool_has_a_card_too(tiny_model_dir: Path, tmp_path: Path) -> None:
    adapter = draw_adapter(tiny_model_dir, tmp_path / "lora")
    (adapter / "musicgen_lora.json").unlink()
    out = export(tiny_model_dir, adapter, tmp_path / "shared")
    front = front_of(out)
    assert "base_model" not in front
    assert "license" not in front
    assert not (out / "musicgen_lora.json").exists()


def test_it_is_private_unless_said_and_all_of_the_folder_goes_up(
    trained: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    for number, public in enumerate((False, True)):
        hub = FakeHub()
        out = export(
            tiny_model_dir, trained, tmp_path / str(number), hub, push_to_hub="me/x", public=public
        )
        (create, made), (upload, sent) = hub.asked
        assert (create, upload) == ("create", "upload")
        assert made["private"] is not public
        assert made["repo_id"] == sent["repo_id"] == "me/x"
        on_disk = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
        assert set(sent["files"]) == on_disk
        assert {"README.md", "adapter_config.json", "samples/00.wav"} <= on_disk


def test_a_dry_run_says_what_would_go_and_asks_nobody(
    trained: Path, tiny_model_dir: Path, tmp_path: Path, capsys
) -> None:
    hub = FakeHub()
    more = {"push_to_hub": "me/x", "dry_run": True}
    out = export(tiny_model_dir, trained, tmp_path / "shared", hub, **more)
    assert not hub.asked
    said = capsys.readouterr().out
    assert "Would upload 7 files" in said
    assert "to private me/x: README.md, adapter_config.json" in said
    assert (out / WEIGHTS).is_file()


def test_a_merged_model_goes_up_too(trained: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    hub = FakeHub()
    settings = MergeSettings(
        model_path=str(tiny_model_dir),
        lora_model_path=[trained],
        output_dir=tmp_path / "merged",
        hub_base="facebook/musicgen-tiny",
        push_to_hub="me/merged",
    )
    with at_hub(hub):
        merge_adapters(settings)
    sent = hub.asked[1][1]["files"]
    assert {"config.json", "model.safetensors", "README.md", "made_of.json"} <= set(sent)
    assert front_of(tmp_path / "merged")["base_model_relation"] == "finetune"
    assert not any(b"secret" in content for content in sent.values())


@pytest.mark.parametrize(("is_private", "public"), [(False, False), (True, True)])
def test_a_repository_of_the_other_visibility_is_left_alone(
    is_private: bool, public: bool, trained: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    hub = FakeHub(is_private)
    with pytest.raises(UserError, match="already exists and is"):
        export(tiny_model_dir, trained, tmp_path / "o", hub, push_to_hub="me/x", public=public)
    assert not hub.asked


def test_an_upload_that_breaks_off_leaves_the_folder(
    trained: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=r"failed \(502 bad gateway\). Everything is in") as said:
        export(tiny_model_dir, trained, tmp_path / "o", FakeHub(fails=True), push_to_hub="me/x")
    assert "\n" not in str(said.value)
    assert (tmp_path / "o" / WEIGHTS).is_file()


def test_a_text_that_names_this_machine_is_not_uploaded(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("finetune/data and /usr are nobody's")
    check_tells_nothing(tmp_path)
    (tmp_path / "notes.md").write_text(f'from "{Path.home()}/loops"')
    with pytest.raises(RunError, match=f"notes.md: contains {Path.home()}, a path on this machine"):
        check_tells_nothing(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"push_to_hub": "beats"}, "give it as USER/NAME"),
        ({"push_to_hub": "me/be ats"}, "--push_to_hub me/be ats: "),
        ({"public": True}, "--public needs --push_to_hub"),
        ({"dry_run": True}, "--dry_run needs --push_to_hub"),
        ({"push_to_hub": "me/x"}, "not logged in; run hf auth login"),
        ({"strength": [0.5]}, "--format peft exports one adapter"),
        (
            {"format": "audiocraft", "previews": Path("x")},
            "--previews only works with --format peft",
        ),
        ({"previews": Path("gone")}, "--previews gone: no such folder"),
    ],
)
def test_what_does_not_go_together_is_refused_before_the_work(
    changes: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("musicgen_lora.export.hub.get_token", lambda: None)
    given: dict[str, Any] = {"format": "peft", "lora_model_path": [tmp_path / "any"]}
    settings = ExportSettings(**given | {"output_dir": tmp_path / "out"} | changes)
    with pytest.raises(UserError, match=said) as raised:
        export_model(settings)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())
