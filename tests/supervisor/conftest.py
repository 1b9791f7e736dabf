"""A cluster made once, copied where a test needs one that exists."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from portal.core.supervisor import secrets
from portal.core.supervisor.postgres import EmbeddedPostgres

CopyCluster = Callable[[Path], Path]


@pytest.fixture(scope="session")
def copy_cluster(tmp_path_factory: pytest.TempPathFactory) -> CopyCluster:
    """Makes a data folder that already has secrets and an empty cluster."""
    made = EmbeddedPostgres(tmp_path_factory.mktemp("cluster") / "data")
    made.layout.prepare()
    secrets.ensure(made.layout)
    made.prepare()

    def copy(data_dir: Path) -> Path:
        # cp keeps the owner: as root the cluster is another user's.
        subprocess.run(["cp", "-a", str(made.layout.data_dir), str(data_dir)], check=True)
        return data_dir

    return copy
