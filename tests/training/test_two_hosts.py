"""Hosts with addresses of their own and a poor network between them: the same training, late."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from two_hosts import Between, lacking, train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _able() -> None:
    if (reason := lacking()) is not None:
        pytest.skip(reason)


def test_delay_and_loss_between_hosts_change_no_bit(
    tmp_path: Path, data: Path, tiny_model_dir: Path
) -> None:
    flags: dict[str, Any] = {
        "model_path": tiny_model_dir,
        "data_dir": data,
        "batch_size": 3,
        "gradient_accumulation_steps": 1,
        "max_steps": 10,
        "validation_fraction": 0.25,
        "previews": "off",
        "precision": "fp32",
        "allow_random_base": True,
    }
    near, far = (
        train(n_hosts, n_processes, between, flags | {"output_dir": tmp_path / str(n_hosts)})
        for n_hosts, n_processes, between in ((1, 2, Between()), (2, 1, Between(0.02, 0.02)))
    )
    assert sum(row["event"] == "train" for row in near.rows) == 10
    assert (far.rows, far.weights) == (near.rows, near.weights)
    # It was such a network: what was lost has been sent again, and a step waits for the other's.
    assert far.n_lost > 0
    assert far.n_sent_again > 0
    assert far.step_s > 0.02
