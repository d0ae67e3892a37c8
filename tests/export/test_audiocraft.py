"""To audiocraft and back: names and shapes, predictions, and harmful files.

What audiocraft's own code makes of an export is measured by benchmarks/audiocraft_judge.py; here
its language model is written again (`audiocraft_reference`).
"""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from adapters import EVERYWHERE, draw_adapter
from audiocraft_reference import expected_shapes, logits, read_plainly
from harm.pickles import put_pickle
from safetensors.torch import load_file, save_file
from tiny import make_tiny_musicgen

from musicgen_lora.config import ExportSettings, ImportSettings, MergeSettings
from musicgen_lora.errors import UserError
from musicgen_lora.export.export import export_model
from musicgen_lora.export.importing import import_model
from musicgen_lora.export.merge import merge_adapters
from musicgen_lora.given import EMBEDDED
from musicgen_lora.model.base.loading import load_base, load_tokenizer
from musicgen_lora.model.base_model import BaseModel
from musicgen_lora.model.text.states import TextStates

LM, CODEC = "state_dict.bin", "compression_state_dict.bin"
FORMS: dict[str, dict[str, Any]] = {
    "mono": {},
    "stereo": {"stereo": True},
    "melody": {"melody": True, "chroma_length": 160},
    "no projection": {"hidden_size": 24},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """A base of each form, and its export."""
    root = tmp_path_factory.mktemp("audiocraft")
    found = {}
    for form, how in FORMS.items():
        base = make_tiny_musicgen(root / form, **how)
        settings = ExportSettings(model_path=str(base), output_dir=root / f"{form} out")
        found[form] = base, export_model(settings)
    return found


@pytest.fixture
def copied(made: dict[str, tuple[Path, Path]], tmp_path: Path) -> Path:
    """A copy of the mono export."""
    return shutil.copytree(made["mono"][1], tmp_path / "copied")


def bring_back(folder: Path, out: Path, **more: Any) -> Path:
    return import_model(ImportSettings(input_dir=folder, output_dir=out, **more))


def change(path: Path, edit: Any) -> None:
    """Edits the contents of one of the files: `edit(state, config, package)`."""
    package = torch.load(path, weights_only=True)
    config = yaml.safe_load(package["xp.cfg"])
    edit(package["best_state"], config, package)
    package["xp.cfg"] = yaml.safe_dump(config)
    torch.save(package, path)


@pytest.mark.parametrize("form", FORMS)
def test_it_has_the_tensors_that_audiocraft_asks_for_and_no_others(form: str, made) -> None:
    state, config = read_plainly(made[form][1] / LM)
    wanted = expected_shapes(config, text_width=24)
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == wanted
    assert form != "mono" or len(wanted) == 36
    codec, _ = read_plainly(made[form][1] / CODEC)
    n_books = [name for name in codec if name.startswith("quantizer.vq.layers.")]
    assert len(n_books) == 4 * 4
    assert all(codec[name].item() == 1 for name in n_books if name.endswith("inited"))
    assert codec["decoder.model.3.convtr.convtr.weight_g"].ndim == 3
    assert not any("parametrizations" in name or ".layers.3.conv" in name for name in codec)


@pytest.mark.parametrize("form", FORMS)
def test_its_predictions_are_those_of_the_base(form: str, made) -> None:
    base, folder = made[form]
    model: Any = load_base(base)
    state, config = read_plainly(folder / LM)
    draw = torch.Generator().manual_seed(1)
    codes = torch.randint(0, 64, (1, model.config.decoder.num_codebooks, 20), generator=draw)
    text = TextStates(model, load_tokenizer(base)).batch(["hip hop 808 beat"])
    tune, one_hot = None, None
    if form == "melody":
        tune = torch.randint(0, 12, (1, 160), generator=draw)
        one_hot = torch.nn.functional.one_hot(tune, 12).float()
    with torch.no_grad():
        ours = BaseModel(model).logits(codes, text, tune)
        theirs = logits(state, config, codes, text.states, one_hot)
    # The two round the angles of their positions differently, up to 4e-5 at the end of a tune.
    assert torch.allclose(ours, theirs, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("form", FORMS)
def test_there_and_back_is_the_base_to_the_bit(form: str, made, tmp_path: Path) -> None:
    base, folder = made[form]
    back = bring_back(folder, tmp_path / "back")
    before, after = load_base(base), load_base(back)
    expected = before.state_dict()
    assert after.state_dict().keys() == expected.keys()
    assert all(torch.equal(expected[name], t) for name, t in after.state_dict().items())
    for part in ("decoder", "audio_encoder", "text_encoder"):
        was, now = (getattr(model.config, part).to_dict() for model in (before, after))
        changed = {name for name in was if was[name] != now.get(name, was[name])}
        assert changed <= {"dropout", "dtype", "_name_or_path", "architectures"}
    load_tokenizer(back)
    if form == "melody":
        assert after.config.chroma_length == 160
        assert json.loads((back / "preprocessor_config.json").read_text())["n_fft"] == 16384


def test_the_embedded_base_goes_there_and_back_with_its_facts(tmp_path: Path) -> None:
    folder = export_model(ExportSettings(output_dir=tmp_path / "out"))
    card = (folder / "README.md").read_text()
    width = load_base(EMBEDDED).text_encoder.config.d_model
    assert f'T5Conditioner.MODELS_DIMS["t5-base"] = {width}' in card
    assert "windows of 30 s" in card
    _, config = read_plainly(folder / LM)
    assert config["dataset"]["segment_duration"] > 18.0, "audiocraft asserts it"
    back = bring_back(folder, tmp_path / "back")
    before = load_base(EMBEDDED).state_dict()
    assert all(torch.equal(before[name], t) for name, t in load_base(back).state_dict().items())
    assert BaseModel.load(back).facts == BaseModel.load(EMBEDDED).facts


def test_adapters_are_merged_into_it(made, tmp_path: Path) -> None:
    """Including those of the text encoder, which is beside the files."""
    base, _ = made["mono"]
    adapter = draw_adapter(base, tmp_path / "lora", target_modules=EVERYWHERE, use_dora=True)
    given: dict[str, Any] = {
        "model_path": str(base),
        "lora_model_path": [adapter],
        "strength": [0.5],
    }
    merged = merge_adapters(MergeSettings(**given, output_dir=tmp_path / "merged"))
    folder = export_model(ExportSettings(**given, output_dir=tmp_path / "out"))
    back = load_base(bring_back(folder, tmp_path / "back")).state_dict()
    expected = load_base(merged).state_dict()
    assert all(torch.equal(expected[name], tensor) for name, tensor in back.items())
    assert json.loads((folder / "made_of.json").read_text())["adapters"][0]["strength"] == 0.5


def test_what_a_solver_saves_is_read_too(copied: Path, made, tmp_path: Path) -> None:
    """Nested, with the names of torch's own attention, half precision and links in its YAML."""

    def edit(state: Any, config: Any, package: Any) -> None:
        renamed = {n.replace("_attn.in", "_attn.mha.in"): t.half() for n, t in state.items()}
        package["best_state"] = {"model": renamed}
        config["conditioners"]["description"]["t5"]["name"] = "${names.text}"
        config["names"] = {"text": "t5-base"}
        config["other"] = {"nobody": "asks"}

    change(copied / LM, edit)
    back = load_base(bring_back(copied, tmp_path / "back")).state_dict()
    before = load_base(made["mono"][0]).state_dict()
    assert all(torch.allclose(before[name], t, atol=1e-3) for name, t in back.items())


def test_text_encoder_and_codec_come_from_another_model_where_they_are_only_named(
    copied: Path, made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(copied / "t5-base")
    torch.save({"pretrained": "facebook/encodec_32khz"}, copied / CODEC)
    with pytest.raises(
        UserError, match="has no text encoder, as audiocraft downloads t5-base; give"
    ):
        bring_back(copied, tmp_path / "back")
    base = made["mono"][0]
    back = bring_back(copied, tmp_path / "back", model_path=str(base))
    said = capsys.readouterr().out
    assert f"The text encoder (t5-base in the export) is taken from {base}." in said
    assert f"The codec (facebook/encodec_32khz in the export) is taken from {base}." in said
    before = load_base(base).state_dict()
    assert all(torch.equal(before[n], t) for n, t in load_base(back).state_dict().items())


def test_the_text_encoder_may_be_a_whole_t5(copied: Path, made, tmp_path: Path) -> None:
    weights = copied / "t5-base" / "model.safetensors"
    more = {"decoder.block.0.layer.0.SelfAttention.q.weight": torch.ones(16, 24)}
    save_file(load_file(weights) | more, weights, {"format": "pt"})
    back = bring_back(copied, tmp_path / "back")
    written, before = load_file(back / "model.safetensors"), load_base(made["mono"][0]).state_dict()
    assert written.keys() <= before.keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in written.items())


def test_a_text_encoder_that_was_trained_with_it_wins(copied: Path, tmp_path: Path) -> None:
    name = "encoder.block.0.layer.0.SelfAttention.q.weight"

    def edit(state: Any, config: Any, package: Any) -> None:
        state[f"condition_provider.conditioners.description.t5.{name}"] = torch.ones(16, 24)

    change(copied / LM, edit)
    back = load_base(bring_back(copied, tmp_path / "back")).state_dict()
    assert (back[f"text_encoder.{name}"] == 1).all()


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("transformer_lm.num_heads", None, "2 or 8"),
        ("transformer_lm.causal", None, r"causal = False: a MusicGen .* has True"),
        ("transformer_lm.bias_ff", None, r"bias_ff = True: a MusicGen .* has False"),
        ("transformer_lm.positional_embedding", "rope", "positional_embedding = 'rope'"),
        ("transformer_lm.dim", None, r"transformer_lm\.dim is missing"),
        ("transformer_lm.dim", "wide", r"transformer_lm\.dim = 'wide': is not usable"),
        ("transformer_lm.num_layers", 10**9, "layers are too many"),
        ("transformer_lm.num_layers", 3, r"transformer\.layers\.2\.self_attn\S* is missing"),
        ("transformer_lm.num_layers", 1, r"no counterpart of transformer\.layers\.1"),
        ("codebooks_pattern.delay.delays", [0, 0, 0, 0], "delays = "),
        ("lm_model", "transformer_lm_magnet", "lm_model = 'transformer_lm_magnet'"),
        ("conditioners.description.model", "clap", r"description\.model = 'clap'"),
        ("sample_rate", 16_000, "trained on 16000 Hz, and the codec makes 32000 Hz"),
        ("channels", 2, "channels = 2, but its codebooks are those of 1"),
    ],
)
def test_a_config_of_another_model_is_one_line(
    field: str, value: Any, said: str, copied: Path, tmp_path: Path
) -> None:
    def edit(state: Any, config: Any, package: Any) -> None:
        *parts, last = field.split(".")
        for part in parts:
            config = config[part]
        if value is None:
            del config[last]
        else:
            config[last] = value

    change(copied / LM, edit)
    if said == "2 or 8":
        # A field that is missing is what audiocraft takes for it, 8 heads.
        back = bring_back(copied, tmp_path / "back")
        assert load_base(back).config.decoder.num_attention_heads == 8
        return
    with pytest.raises(UserError, match=said) as raised:
        bring_back(copied, tmp_path / "back")
    assert str(copied / LM) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda s: s.pop("emb.2.weight"), r"emb\.2\.weight is missing"),
        (lambda s: s.update(more=torch.zeros(2)), "no counterpart of more"),
        (lambda s: s.update({"emb.2.weight": torch.zeros(65, 31)}), "32 in the former and 65x31"),
        (lambda s: s.update({"emb.2.weight": torch.zeros(1).expand(65, 32)}), "a view of another"),
        (lambda s: s.update({"emb.2.weight": torch.zeros(65, 32).to_sparse()}), "not a float"),
        (lambda s: s.update({"emb.2.weight": torch.zeros(65, 32).long()}), "not a float"),
        (lambda s: s["emb.2.weight"].fill_(torch.nan), "not finite"),
        (lambda s: s.update({"emb.2.weight": "x"}), "is not a tensor"),
        (lambda s: s.clear(), "has no best_state"),
    ],
)
def test_a_state_that_does_not_fit_is_one_line(
    edit: Any, said: str, copied: Path, tmp_path: Path
) -> None:
    change(copied / LM, lambda state, config, package: edit(state))
    with pytest.raises(UserError, match=said) as raised:
        bring_back(copied, tmp_path / "back")
    assert "\n" not in str(raised.value)
    assert ".staging" not in str(raised.value)
    assert not [path for path in tmp_path.iterdir() if path != copied]


@pytest.mark.parametrize("file", [LM, CODEC])
@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_pickles_with_code_in_them_are_refused(
    file: str, how: str, copied: Path, tmp_path: Path
) -> None:
    put_pickle(copied / file, how, tmp_path / "mark")
    with pytest.raises(UserError) as raised:
        bring_back(copied, tmp_path / "back")
    assert str(copied / file) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "mark").exists()


def test_a_file_that_unfolds_is_not_opened(copied: Path, tmp_path: Path) -> None:
    sound = (copied / LM).read_bytes()
    (copied / "sound").write_bytes(sound)
    with (
        zipfile.ZipFile(copied / "sound") as read,
        zipfile.ZipFile(copied / LM, "w", zipfile.ZIP_DEFLATED) as written,
    ):
        for name in read.namelist():
            written.writestr(name, read.read(name))
    with pytest.raises(UserError, match="is compressed"):
        bring_back(copied, tmp_path / "back")
    (copied / LM).write_bytes(sound[: len(sound) // 2])
    with pytest.raises(UserError, match="not in the format of torch"):
        bring_back(copied, tmp_path / "back")


def test_tensors_that_share_their_values_take_no_memory(copied: Path, tmp_path: Path) -> None:
    shared = torch.zeros(300_000)
    change(
        copied / LM,
        lambda state, *_: state.update({f"more.{index}": shared for index in range(100)}),
    )
    with pytest.raises(UserError, match="its tensors share memory"):
        bring_back(copied, tmp_path / "back")


def test_what_audiocraft_does_not_have_is_refused(tmp_path: Path, tiny_melody_dir: Path) -> None:
    settings = ExportSettings(model_path=str(tiny_melody_dir), output_dir=tmp_path / "out")
    with pytest.raises(
        UserError, match="chroma_length = 11: audiocraft needs melodies of more than"
    ):
        export_model(settings)
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_that_is_no_t5s_is_said(made, tmp_path: Path, capsys) -> None:
    settings = ExportSettings(model_path=str(made["mono"][0]), output_dir=tmp_path / "out")
    export_model(settings)
    assert "its tokenizer is not a T5 tokenizer" in " ".join(capsys.readouterr().out.split())


def test_no_export_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gone: no such folder"):
        bring_back(tmp_path / "gone", tmp_path / "back")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"state_dict\.bin: no such file"):
        bring_back(tmp_path / "empty", tmp_path / "back")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("n_q", 2, "has 2 codebooks of 64 entries, and the decoder predicts 4 of 64"),
        ("sample_rate", 24_000, "trained on 32000 Hz, and the codec makes 24000 Hz"),
    ],
)
def test_the_codec_of_another_model_is_one_line(
    field: str, value: int, said: str, copied: Path, tmp_path: Path
) -> None:
    def edit(state: Any, config: Any, package: Any) -> None:
        config["rvq" if field == "n_q" else "encodec"][field] = value

    change(copied / CODEC, edit)
    with pytest.raises(UserError, match=said):
        bring_back(copied, tmp_path / "back")
    assert not (tmp_path / "back").exists()
