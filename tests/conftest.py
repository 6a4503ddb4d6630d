"""Fixtures that every test file may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# tests run side by side, and more threads than cores only wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest

import warm

if TYPE_CHECKING:
    from project import Project
    from slurm_cluster import Cluster

# a busy machine is no reason to fail, and a failure must come back
hypothesis.settings.register_profile("steady", deadline=None, derandomize=True)
hypothesis.settings.load_profile("steady")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with real volumes and published golden numbers; EMSR_SHARED names it, a stranger does not have it."""
    path = Path(os.environ.get("EMSR_SHARED", Path(__file__).parents[2] / "shared"))
    if not (path / "golden").is_dir():
        pytest.skip(f"no shared data at {path}: set EMSR_SHARED to its folder")
    return path


@pytest.fixture(scope="session", autouse=True)
def cool() -> Iterator[None]:
    """Ends the process that commands are forked from, if any test started it."""
    yield
    warm.stop()


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """What runs on a real Slurm are compared with. Never changed: tests work on copies."""
    from slurm_project import undisturbed

    return undisturbed(tmp_path_factory.mktemp("made") / "project")


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A real Slurm without accounting."""
    yield from _started(tmp_path_factory.mktemp("plain"), accounting=False)


@pytest.fixture(scope="session")
def accounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A real Slurm with slurmdbd and MariaDB."""
    yield from _started(tmp_path_factory.mktemp("accounted"), accounting=True)


def _started(folder: Path, accounting: bool) -> Iterator[Cluster]:
    from slurm_cluster import Cluster, ClusterError

    cluster = Cluster(folder, accounting)
    try:
        cluster.up()
    except ClusterError as error:
        pytest.skip(f"no Slurm could be started: {error}")
    yield cluster
    cluster.down()
