"""The GPU check runs on a CPU at toy sizes, so that it works once there is a GPU."""

from __future__ import annotations

import json
import sys

import gpu
import pytest
import torch
from gpu_sections import SECTIONS, TOY

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "figure", "n_rows"),
    [("training", "clips_s", 12), ("decoding", "ms_step", 8), ("tokenising", "hours_minute", 2),
     ("packed", "audio_s_s", 1)],
)  # fmt: skip
def test_each_section_gives_its_figures(name, figure, n_rows):
    rows = list(SECTIONS[name](TOY, CPU))
    json.dumps(rows)
    values = [row[figure] for row in rows if figure in row]
    assert len(values) == n_rows, rows
    assert min(values) > 0


def test_a_section_out_of_time_or_broken_says_so_and_the_rest_goes_on(
    tmp_path, monkeypatch, capsys
):
    broken = tmp_path / "broken.py"
    broken.write_text("raise SystemExit(3)")
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import sys, time\n"
        "open(sys.argv[-1] + '/slow.jsonl', 'w').write('{\"what\": \"first\"}\\n')\n"
        "time.sleep(60)\n"
    )
    monkeypatch.setattr(gpu, "LIMITS_S", {"broken": 30, "slow": 3, "missing": 30})
    commands = {"broken": [str(broken)], "slow": [str(slow), str(tmp_path)], "missing": ["-c", "1"]}
    monkeypatch.setattr(gpu, "command_of", lambda name, *_: [sys.executable, *commands[name]])
    monkeypatch.setattr(
        sys, "argv", ["gpu.py", "--out_dir", str(tmp_path), "--sections", *commands]
    )
    assert gpu.main() == 1
    found = json.loads((tmp_path / "gpu.json").read_text())["sections"]
    assert "exit code 3" in found["broken"]["ended"]
    assert found["slow"]["ended"] == "out of its 3 s"
    assert found["slow"]["rows"] == [{"what": "first"}]
    assert found["missing"]["ended"] == "done"
    assert "exit code 3" in capsys.readouterr().out


def test_which_batch_fits_which_card():
    rows = [
        {"what": "small", "side": "ours", "clip_s": 30.0, "batch": batch, "peak_gb": peak}
        for batch, peak in [(1, 3.0), (2, 5.5), (4, 10.9), (8, 22.0)]
    ]
    assert gpu.fits(rows)[-1] == "| small | 30 s | ours | 2 | 4 | 4 | 8 |"
