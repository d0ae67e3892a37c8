"""A Ray cluster on this machine, for the tests of a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cluster_tasks
import pytest
from scale import three_nodes

from musicgen_lora.cluster.engine import Engine

# Ray is not imported here: it reads its environment when it is.


@pytest.fixture(scope="package")
def cluster() -> Iterator[Any]:
    """Three nodes of one CPU."""
    support = str(Path(cluster_tasks.__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([support, os.environ.get("PYTHONPATH", "")])
    cluster = three_nodes()
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="package")
def ray_engine(cluster: Any) -> Iterator[Engine]:
    from musicgen_lora.cluster.ray_engine import joined

    with joined(cluster.address) as engine:
        yield engine
