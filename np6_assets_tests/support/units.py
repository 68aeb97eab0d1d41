"""Read the systemd units in deploy/, and start them without systemd."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from np6_assets_tests.support.dagster_processes import ROOT, DagsterProcesses, wait_until

INSTALLED = "/opt/np6-assets"
"""The project's folder in the units and their READMEs."""


@dataclass(frozen=True)
class Unit:
    """The settings of a unit that apply without systemd."""

    name: str
    command: list[str]
    environment: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> Unit:
        """Read a unit."""
        lines = [line.partition("=") for line in path.read_text().splitlines() if line and line[0] not in "#["]
        [command] = [value for name, _, value in lines if name == "ExecStart"]
        pairs = [value.partition("=") for name, _, value in lines if name == "Environment"]
        return cls(path.stem, shlex.split(command), {name: value for name, _, value in pairs})

    def move(self, folders: dict[str, str]) -> list[str]:
        """Return the command with other folders than those of an installation."""
        words = [_localize(word) for word in self.command]
        for installed, moved in folders.items():
            words = [word.replace(installed, moved) for word in words]
        return words

    @property
    def path(self) -> dict[str, str]:
        """Return the variable PATH of the unit; systemd's default has no virtual environment in it."""
        return {"PATH": _localize(self.environment.get("PATH", "/usr/local/bin:/usr/bin:/bin"))}


def _localize(word: str) -> str:
    return word.replace(f"{INSTALLED}/.venv", sys.prefix).replace(INSTALLED, str(ROOT))


class UnitProcesses(DagsterProcesses):
    """Code server, webserver and daemon, started by the units in deploy/one-machine."""

    def __init__(self, folder: Path, **settings: str) -> None:
        super().__init__(folder, **settings)
        self._socket = folder / "code.sock"
        self._workspace = folder / "workspace.yaml"
        shipped = (ROOT / "deploy" / "one-machine" / "workspace.yaml").read_text()
        self._workspace.write_text(shipped.replace("/run/np6/code.sock", str(self._socket)))

    def start_webserver(self) -> None:
        """Start the code server and the UI."""
        self.start_unit("one-machine/np6-code.service")
        wait_until(self._socket.exists, "the code server", 300)
        self.start_unit("one-machine/np6-webserver.service")

    def start_daemon(self) -> None:
        """Start the daemon."""
        self.start_unit("one-machine/np6-daemon.service")

    def start_unit(self, path: str, name: str | None = None, environment: Mapping[str, str] | None = None) -> None:
        """Start a unit in deploy/ under a name, with more environment variables."""
        unit = Unit.read(ROOT / "deploy" / path)
        name = name or unit.name
        moved = {
            f"{ROOT}/deploy/one-machine/workspace.yaml": str(self._workspace),
            "/run/np6/code.sock": str(self._socket),
            "3000": str(self._port),
        }
        with (self._logs / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                unit.move(moved),
                cwd=self.home,
                env={**self._environment, **unit.path, **(environment or {})},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
