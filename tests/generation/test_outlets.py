"""Sound while it is made: its level, a pipe, and speakers that are or aren't there."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from musicgen_lora.errors import UserError
from musicgen_lora.generation.outlets import CEILING, Level, Live, Pipe, Speakers, open_live

RATE = 32_000


def tone(n_samples: int, peak: float) -> np.ndarray:
    return (peak * np.sin(0.05 * np.arange(n_samples)))[None].astype(np.float32)


def test_a_level_falls_before_a_peak_and_stays() -> None:
    level = Level(RATE)
    quiet = tone(4_000, 0.5)
    np.testing.assert_array_equal(level(quiet), quiet)
    loud = tone(4_000, 0.5)
    loud[0, 3_000] = 2.0
    heard = level(loud)
    assert np.abs(heard).max() <= CEILING + 1e-6
    np.testing.assert_array_equal(heard[:, :2_600], loud[:, :2_600])
    assert np.abs(np.diff(heard[0, 2_600:2_990])).max() < 0.03
    np.testing.assert_allclose(level(quiet), quiet * CEILING / 2.0, rtol=1e-5)
    first = np.full((2, 100), 3.0, dtype=np.float32)
    assert np.abs(Level(RATE)(first)).max() <= CEILING + 1e-6


@pytest.mark.parametrize("n_channels", [1, 2])
def test_a_pipe_has_the_samples(n_channels: int, capfdbinary: Any) -> None:
    sound = np.concatenate([tone(1_000, 0.9)] * n_channels)
    wanted = np.rint(sound.T * 32_768).astype("<i2")
    found = {}
    for kind in ("s16", "f32", "wav"):
        pipe = Pipe(kind, RATE, n_channels)
        pipe.write(sound[:, :300])
        pipe.write(sound[:, 300:])
        pipe.close()
        found[kind] = capfdbinary.readouterr().out
    assert found["s16"] == wanted.tobytes()
    assert found["f32"] == sound.T.astype("<f4").tobytes()
    samples, rate = soundfile.read(io.BytesIO(found["wav"]), dtype="int16", always_2d=True)
    np.testing.assert_array_equal(samples, wanted)
    assert rate == RATE


class Device:
    """The part of sounddevice that is used."""

    def __init__(self, **given: Any) -> None:
        self.given, self.heard, self.done = given, [], False

    def start(self) -> None:
        if self.given["samplerate"] == 1:
            raise ValueError("Invalid sample rate")

    def write(self, samples: np.ndarray) -> None:
        self.heard.append(samples)

    def stop(self) -> None:
        self.done = True

    close = stop


def test_speakers_are_given_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Device] = []
    fake = SimpleNamespace(
        OutputStream=lambda **given: made.append(Device(**given)) or made[-1],
        PortAudioError=type("PortAudioError", (Exception,), {}),
    )
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    sound = tone(1_000, 0.5)
    with open_live(True, None, RATE, 1) as live:
        live.begin_clip()
        live(sound[:, :400])
        live(sound[:, 400:])
    np.testing.assert_array_equal(np.concatenate(made[0].heard), sound.T)
    assert made[0].done
    assert made[0].given["channels"] == 1
    with pytest.raises(UserError, match="--play: no device plays 1 Hz"):
        Speakers(1, 1)


def test_a_missing_portaudio_is_named_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    with pytest.raises(UserError, match="libportaudio2") as caught:
        Speakers(RATE, 1)
    assert "\n" not in str(caught.value)


def test_without_an_outlet_nothing_happens() -> None:
    live = Live([], RATE)
    assert not live
    live(tone(10, 0.5))
