"""A Ray cluster on this machine, for the tests of a folder."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cluster_tasks
import pytest

from musicgen_lora.cluster.engine import Engine

# Ray is not imported here: it reads its environment when it is.


@pytest.fixture(scope="package")
def cluster() -> Iterator[Any]:
    """Three nodes of one CPU."""
    environment = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}
    os.environ.update(environment | {"RAY_AUTH_TOKEN": secrets.token_hex(16)})
    support = str(Path(cluster_tasks.__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([support, os.environ.get("PYTHONPATH", "")])
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 100 << 20}
    cluster = Cluster()
    for number in range(3):
        # Ray gives up after half a minute, which a busy machine may need.
        for is_last in (False, False, True):
            try:
                cluster.add_node(**node | ({} if number else {"include_dashboard": False}))
                break
            except Exception:
                if is_last:
                    raise
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="package")
def ray_engine(cluster: Any) -> Iterator[Engine]:
    from musicgen_lora.cluster.ray_engine import joined

    with joined(cluster.address) as engine:
        yield engine
