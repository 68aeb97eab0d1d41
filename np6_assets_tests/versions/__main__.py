"""`make test-versions`: install the wheel with the oldest and the newest versions of its requirements.

In each environment run the demo, and another project with two accounts (`host.py`). Needs PyPI.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOST = Path(__file__).with_name("host.py")
FOLDER = ROOT / ".versions"
"""Where the environments are; `make clean` removes it."""

UV = str(Path(sys.executable).with_name("uv"))
"""It comes with `make install`."""

EXTRAS = "ui,sandbox,report"

TIMEOUT = 3600
"""Seconds that a step may take."""


@dataclass(frozen=True)
class Environment:
    """An environment with direct requirements in their oldest or newest versions, and other requirements."""

    name: str
    python: str
    oldest: bool = False
    others: Sequence[str] = ()


ENVIRONMENTS = (
    Environment("oldest", "3.11", oldest=True),
    Environment("another-pandas", "3.12", others=("pandas<3",)),
    Environment("newest", "3.13"),
    Environment("newest-python", "3.14"),
)


def main() -> int:
    """Try each environment whose Python is installed, and return 1 if one fails."""
    parser = argparse.ArgumentParser(prog="make test-versions", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(one.name for one in ENVIRONMENTS)}; default: all")
    options = parser.parse_args()
    wheel = build_wheel()
    failed = []
    for environment in ENVIRONMENTS:
        if options.names and environment.name not in options.names:
            continue
        if find_python(environment.python) is None:
            print(f"{environment.name}: no Python {environment.python} here")
            continue
        started = time.monotonic()
        print(f"{environment.name}: Python {environment.python}", flush=True)
        try:
            try_environment(environment, wheel)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            print(f"  failed: {error}\n{error.stdout or ''}{error.stderr or ''}")
            failed.append(environment.name)
        print(f"  {time.monotonic() - started:.0f} s", flush=True)
    return 1 if failed else 0


def build_wheel() -> Path:
    """Build the wheel with the build backend of this environment."""
    folder = FOLDER / "wheel"
    shutil.rmtree(folder, ignore_errors=True)
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=ROOT)
    [wheel] = folder.glob("*.whl")
    return wheel


def find_python(version: str) -> str | None:
    """Return the interpreter of a version, if this machine has one."""
    command = [UV, "python", "find", "--no-python-downloads", version]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def compile_oldest_requirements(python: str) -> Path:
    """Compile the oldest versions that pyproject.toml allows, as uv installs the newest for a wheel."""
    file = FOLDER / "oldest.txt"
    extras = [argument for extra in EXTRAS.split(",") for argument in ("--extra", extra)]
    options = ["--quiet", "--resolution", "lowest-direct", "--python-version", python, "--output-file", str(file)]
    run(UV, "pip", "compile", str(ROOT / "pyproject.toml"), *extras, *options)
    return file


def try_environment(environment: Environment, wheel: Path) -> None:
    """Install the wheel in an environment, and use it."""
    place = FOLDER / environment.name
    run(UV, "venv", "--quiet", "--clear", "--no-python-downloads", "--python", environment.python, str(place))
    python = str(place / "bin" / "python")
    demands = [f"{wheel}[{EXTRAS}]", *environment.others]
    if environment.oldest:
        demands += ["--constraints", str(compile_oldest_requirements(environment.python))]
    run(UV, "pip", "install", "--quiet", "--python", python, *demands)
    with tempfile.TemporaryDirectory() as folder:
        run(str(place / "bin" / "np6-assets"), "demo", "--days", "2", cwd=Path(folder))
        print("  the demo", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        print(run(python, "-I", str(HOST), folder, cwd=Path(folder)), end="", flush=True)


def run(*command: str, cwd: Path | None = None) -> str:
    """Run a command, and return its output. Raises CalledProcessError or TimeoutExpired."""
    others = ("NP6_", "DAGSTER_", "PYTHON")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=True
    )
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
