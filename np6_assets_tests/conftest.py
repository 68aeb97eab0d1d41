"""What most tests start from: an instance of Dagster and a server, each of its own."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from np6_assets_tests.support.rude_server import RudeServer


@pytest.fixture(scope="session", autouse=True)
def _migrations_read_once() -> Iterator[None]:
    """Read Dagster's migrations once a process: for each instance anew, they cost more than all else it does."""
    read, known = ScriptDirectory.from_config, dict[str | None, ScriptDirectory]()

    def from_config(config: Config) -> ScriptDirectory:
        place = config.get_main_option("script_location")
        if place not in known:
            known[place] = read(config)
        return known[place]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptDirectory, "from_config", from_config)
        yield


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture(scope="session")
def new_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of an instance that has made its tables, which takes as long as two runs, and nothing else."""
    home = tmp_path_factory.mktemp("home")
    with dg.DagsterInstance.local_temp(str(home)):
        return home


@pytest.fixture
def home(new_home: Path, tmp_path: Path) -> Path:
    """A folder of an instance's files."""
    return Path(shutil.copytree(new_home, tmp_path / "home"))


@pytest.fixture
def kept_instance(home: Path) -> Iterator[dg.DagsterInstance]:
    """An instance whose records are all in `home`."""
    with dg.DagsterInstance.local_temp(str(home)) as made:
        yield made


@pytest.fixture
def server() -> Iterator[RudeServer]:
    with RudeServer(seed=1) as running:
        yield running
