"""MIDI and the large spectrogram of a clip: made on request, and not before."""

from __future__ import annotations

import io
import json
from pathlib import Path

import mido
import pytest

pytest.importorskip("gradio", reason="the page's library is not installed (make ui)")

from fastapi.testclient import TestClient

from musicgen_lora.audio.files import write_wav
from musicgen_lora.beats.beats808 import make_beat, render_beat
from musicgen_lora.webui.safety import id_of
from musicgen_lora.webui.server import make_app
from musicgen_lora.webui.ui import LOCAL_HOSTS
from musicgen_lora.webui.workspace import Workspace


def test_what_is_made_of_a_sound_is_given_by_its_id(tmp_path: Path) -> None:
    work = Workspace(tmp_path)
    client = TestClient(make_app(work, None, LOCAL_HOSTS, ""), base_url="http://127.0.0.1")
    sound = work.generated / "808-C#_seed1.wav"
    write_wav(sound, render_beat(make_beat(24, duration_s=4.0), 32_000, seed=0), 32_000)
    sound.with_suffix(".json").write_text(json.dumps({"prompt": "808", "seed": 1, "bpm": 92.5}))
    address = f"/files/sound/{id_of(sound.name)}/beside"
    midi = client.get(f"{address}/midi?save=1")
    assert (midi.status_code, midi.headers["content-type"]) == (200, "audio/midi")
    tempo = mido.MidiFile(file=io.BytesIO(midi.content)).tracks[0][0].tempo
    assert mido.tempo2bpm(tempo) == pytest.approx(92.5, abs=0.01)
    disposition = midi.headers["content-disposition"]
    assert disposition == "attachment; filename*=utf-8''808-C%23_seed1_92.5bpm.mid"
    drawn = client.get(f"{address}/spectrogram")
    assert (drawn.status_code, drawn.headers["content-type"]) == (200, "image/png")
    assert drawn.headers["content-disposition"].startswith("inline")
    assert sorted(path.suffix for path in sound.parent.glob("808*")) == [".json", ".wav"]
    assert client.get(f"{address}/other").status_code == 422
    # What is no sound, and a link.
    (work.generated / "x.wav").write_bytes(b"x")
    (work.generated / "link.wav").symlink_to(sound)
    for name in ("x.wav", "link.wav"):
        assert client.get(f"/files/sound/{id_of(name)}/beside/midi").status_code == 404
