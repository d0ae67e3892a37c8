"""A Ray cluster and a store on this machine, for the tests of a folder."""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cluster_tasks
import fsspec
import pyarrow.fs as pafs
import pytest
from scale import three_nodes

from musicgen_lora.cluster.engine import Engine

MOTO = os.environ.get("MUSICGEN_LORA_MOTO", "moto_server" if find_spec("moto") else "")
"""The program that serves S3's protocol here: pip install "moto[s3,server]", in whichever
environment."""

# Ray is not imported here: it reads its environment when it is.


@pytest.fixture(scope="package")
def workers_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of the cluster's workers, which keep the environment that its nodes started in."""
    return tmp_path_factory.mktemp("workers")


@pytest.fixture(scope="package")
def cluster(workers_cache: Path) -> Iterator[Any]:
    """Three nodes of one CPU."""
    support = str(Path(cluster_tasks.__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([support, os.environ.get("PYTHONPATH", "")])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(workers_cache))
        cluster = three_nodes()
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="package")
def ray_engine(cluster: Any) -> Iterator[Engine]:
    from musicgen_lora.cluster.ray_engine import joined_cluster

    with joined_cluster(cluster.address) as engine:
        yield engine


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="package")
def s3() -> Iterator[None]:
    """A server of S3's protocol on this machine, with a bucket."""
    if not MOTO:
        pytest.skip("needs moto's server: MUSICGEN_LORA_MOTO=/.../bin/moto_server")
    port = 5000 + os.getpid() % 20_000
    server = subprocess.Popen(
        [MOTO, "-H", "127.0.0.1", "-p", str(port)],
        # It looks at keys once a test asks for it, with another number.
        env=os.environ | {"INITIAL_NO_AUTH_ACTION_COUNT": str(10**9)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    names = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "a-key-id",
        "AWS_SECRET_ACCESS_KEY": "a-secret-that-nobody-sees",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in names.items():
            patch.setenv(name, value)
        end = time.monotonic() + 120.0
        while True:
            try:
                system = pafs.S3FileSystem(
                    endpoint_override=f"127.0.0.1:{port}", scheme="http", allow_bucket_creation=True
                )
                system.create_dir("studio")
                break
            except OSError:
                assert time.monotonic() < end, "the server has not come up"
                time.sleep(0.2)
        yield
    server.kill()
    server.wait()


@pytest.fixture(params=["memory://studio/beats", "file", "s3://studio/some/beats"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return f"file://{tmp_path}/far/beats"
    if request.param.startswith("s3"):
        request.getfixturevalue("s3")
    else:
        fsspec.filesystem("memory").store.clear()
    return request.param.replace("some", uuid.uuid4().hex)


@pytest.fixture
def memory() -> str:
    import fsspec

    fsspec.filesystem("memory").store.clear()
    return "memory://studio/beats"
