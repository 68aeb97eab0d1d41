"""Shared fixtures: Dagster instances and a server."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from np6_assets_tests.support.rude_server import RudeServer


@pytest.fixture(scope="session", autouse=True)
def _cached_migrations() -> Iterator[None]:
    """Read Dagster's migrations once a process: reading them for each instance costs more than all else."""
    read, cache = ScriptDirectory.from_config, dict[str | None, ScriptDirectory]()

    def from_config(config: Config) -> ScriptDirectory:
        place = config.get_main_option("script_location")
        if place not in cache:
            cache[place] = read(config)
        return cache[place]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptDirectory, "from_config", from_config)
        yield


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture(scope="session")
def new_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an instance with empty tables, whose creation takes as long as two runs."""
    home = tmp_path_factory.mktemp("home")
    with dg.DagsterInstance.local_temp(str(home)):
        return home


@pytest.fixture
def home(new_home: Path, tmp_path: Path) -> Path:
    """Folder of an instance, with empty tables."""
    return Path(shutil.copytree(new_home, tmp_path / "home"))


@pytest.fixture
def kept_instance(home: Path) -> Iterator[dg.DagsterInstance]:
    """An instance with all its records in `home`."""
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        yield instance


@pytest.fixture
def server() -> Iterator[RudeServer]:
    with RudeServer(seed=1) as running:
        yield running
