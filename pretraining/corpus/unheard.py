"""Beats unlike any that codec or language model have heard, to measure the codec on.

    python -m pretraining.corpus.unheard                # work/codec_unheard: 3 x 16 clips

- `808`: beats for the project's 808, played on another one: Sonic Pi's recorded kick, also tuned
  as the bass, and its own hats and snares;
- `trap`: the same kind of beats with booming kicks, a recorded bass and electronic hits;
- `boom_bap`: the corpus's own style with a soft studio kit and instruments left out of it.

None of their one-shots and presets is in a kit of the corpus.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from musicgen_lora.beats.beats808 import Beat, make_beat
from musicgen_lora.beats.sequencer import Channel, Pattern, one_shot, render
from pretraining.corpus.colour import Colour
from pretraining.corpus.composition import compose
from pretraining.corpus.kits import Preset, melodic_voice, read_one_shot
from pretraining.corpus.mastering import master
from pretraining.corpus.render import write_clip
from pretraining.corpus.soundfont import SAMPLE_RATE
from pretraining.paths import WORK

SEED = 990_000_000
DURATION_S = 8.0
KITS = {
    # track: (one-shot, gain in dB); "sub" has the MIDI note of its recording as well.
    "808": {
        "kick": ("bd_808", -1.0), "kick_long": ("bd_808", -1.0), "sub": ("bd_808", -3.0),
        "snare": ("elec_lo_snare", -6.0), "clap": ("perc_snap2", -6.0),
        "closed_hat": ("hat_cats", -12.0), "open_hat": ("hat_gnu", -14.0),
    },
    "trap": {
        "kick": ("bd_boom", -1.0), "kick_long": ("bd_mehackit", -1.0), "sub": ("bass_hard_c", -4.0),
        "snare": ("drum_snare_soft", -5.0), "clap": ("elec_pop", -6.0),
        "closed_hat": ("hat_tap", -12.0), "open_hat": ("hat_sci", -14.0),
    },
    "boom bap": {
        "kick": ("drum_bass_soft", 0.0), "snare": ("drum_snare_soft", -3.0),
        "hat": ("hat_zap", -11.0), "hat_open": ("drum_cymbal_soft", -13.0),
        "ride": ("elec_cymbal", -12.0), "crash": ("drum_splash_soft", -13.0),
        "clap": ("perc_snap2", -5.0), "rim": ("elec_wood", -7.0), "cowbell": ("perc_bell", -13.0),
    },
}  # fmt: skip
OTHER_TRACKS = ("elec_tick", -14.0)
"""The sound for tracks that a kit doesn't name."""
SUB_ROOTS = {"808": 26.0, "trap": 36.0}
PRESETS = {
    "bass": Preset("contrabass", 0, 43, 28, 55),
    "chords": Preset("electric grand", 0, 2, 46, 85),
    "lead": Preset("clarinet", 0, 71, 52, 88, 0.12),
}


def beat_808(kit_name: str, index: int) -> np.ndarray:
    """A beat `[N]` by the project's composer on another kit."""
    beat: Beat = make_beat((SEED, index, len(kit_name)), duration_s=1.5 * DURATION_S)
    channels = {}
    for track in beat.pattern.tracks:
        name, gain_db = KITS[kit_name].get(track, OTHER_TRACKS)
        is_sub = track == "sub"
        voice = one_shot(_peaked(name), SUB_ROOTS[kit_name] if is_sub else None)
        chokes = ("sub",) if is_sub else ("open_hat",) if "hat" in track else ()
        channels[track] = Channel(
            voice, gain_db, chokes=chokes, ducked_by="kick" if is_sub else None
        )
    drive, humanise_ms = beat.master_drive, beat.humanise_ms
    return render(
        beat.pattern, channels, SAMPLE_RATE, seed=index, humanise_ms=humanise_ms, drive=drive
    )[0, : round(DURATION_S * SAMPLE_RATE)]


def boom_bap(index: int) -> np.ndarray:
    """A boom bap clip `[N]` by the corpus's composer with other sounds."""
    rng = np.random.default_rng((SEED, index))
    clip = compose(rng, DURATION_S, held_out=True, style_name="boom bap")
    channels = {}
    for track, channel in clip.kit.items():
        if track in PRESETS:
            channels[track] = replace(channel, voice=melodic_voice(PRESETS[track], Colour()))
        else:
            name, gain_db = KITS["boom bap"].get(track, OTHER_TRACKS)
            channels[track] = replace(channel, voice=one_shot(_peaked(name)), gain_db=gain_db)
    pattern: Pattern = clip.pattern
    mix = render(pattern, channels, SAMPLE_RATE, seed=index, humanise_ms=clip.timing.humanise_ms)
    start = round(clip.start_s * SAMPLE_RATE)
    cut = mix[0, start : start + round(DURATION_S * SAMPLE_RATE)]
    return master(cut, SAMPLE_RATE, room=clip.room, is_lofi=clip.is_lofi, seed=index)


def _peaked(name: str) -> np.ndarray:
    sound = read_one_shot(name)
    return sound * (0.9 / float(np.abs(sound).max()))


MAKERS: dict[str, Callable[[int], np.ndarray]] = {
    "808": lambda index: beat_808("808", index),
    "trap": lambda index: beat_808("trap", index),
    "boom_bap": boom_bap,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out_dir", type=Path, default=WORK / "codec_unheard")
    parser.add_argument("--n_clips", type=int, default=16, help="clips of each kind")
    options = parser.parse_args()
    for kind, maker in MAKERS.items():
        folder = options.out_dir / kind
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(options.n_clips):
            path = folder / f"{index:03d}.flac"
            if not path.is_file():
                write_clip(path, maker(index))
    print(f"{len(MAKERS)} x {options.n_clips} clips in {options.out_dir}")


if __name__ == "__main__":
    main()
