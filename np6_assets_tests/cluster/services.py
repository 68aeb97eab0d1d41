"""Run the services that workers share beside a bucket: Postgres behind PgBouncer, and redis."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg2

from np6_assets_tests.support.dagster_processes import ROOT, find_free_port, wait_until

PASSWORD = "a test password"
DEPLOY = ROOT / "deploy" / "workers"


@contextmanager
def run_process(command: list[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process for the length of the block, and kill it with its children."""
    with log.open("ab") as output:
        started = subprocess.Popen(
            command, env=os.environ | environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, 9)
        started.wait(20)


def run_as_postgres(command: list[str]) -> list[str]:
    """Return the command as the user postgres if this is root, who may not run Postgres."""
    return ["runuser", "-u", "postgres", "--", *command] if os.geteuid() == 0 else command


@dataclass(frozen=True)
class Postgres:
    """A server behind PgBouncer with the settings of deploy/workers."""

    folder: Path
    port: int
    bouncer_port: int

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables that dagster.yaml reads."""
        return {
            "DAGSTER_PG_HOST": "127.0.0.1",
            "DAGSTER_PG_PORT": str(self.bouncer_port),
            "DAGSTER_PG_DB": "dagster",
            "DAGSTER_PG_USERNAME": "dagster",
            "DAGSTER_PG_PASSWORD": PASSWORD,
        }

    def restart(self) -> None:
        """Restart the server, as an update of its package does."""
        self._control("restart", "--mode=fast", f"--log={self.folder}/log", options=self._options)

    def describe_size(self) -> str:
        """Describe how much Dagster has recorded."""
        with (
            closing(
                psycopg2.connect(host="127.0.0.1", port=self.port, dbname="postgres", user="dagster", password=PASSWORD)
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(
                "SELECT pg_database_size('postgres'), (SELECT count(*) FROM event_logs),"
                " pg_total_relation_size('asset_check_executions'), (SELECT count(*) FROM asset_check_executions)"
            )
            [(database, events, checks, evaluations)] = cursor.fetchall()
        return (
            f"database: {database / 1e6:.0f} MB, of which {events} events;"
            f" {evaluations} evaluations of checks take {checks / 1e6:.1f} MB"
        )

    def _control(self, *arguments: str, options: str) -> None:
        [programs] = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:]
        command = [f"{programs}/pg_ctl", "-w", "-D", f"{self.folder}/data", "-o", options, *arguments]
        subprocess.run(run_as_postgres(command), check=True, stdout=subprocess.DEVNULL, cwd="/")

    @property
    def _options(self) -> str:
        return f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.folder}"

    @classmethod
    @contextmanager
    def run(cls) -> Iterator[Postgres]:
        """Run both for the length of the block."""
        folder = Path(tempfile.mkdtemp(prefix="np6-postgres-"))
        postgres = cls(folder, find_free_port(), find_free_port())
        try:
            if os.geteuid() == 0:
                shutil.chown(folder, "postgres")
            postgres._initialize()
            postgres._control("start", f"--log={folder}/log", options=postgres._options)
            with postgres._run_bouncer():
                yield postgres
        finally:
            with contextlib.suppress(subprocess.CalledProcessError):
                postgres._control("stop", "--mode=immediate", options=postgres._options)
            shutil.rmtree(folder)

    def _initialize(self) -> None:
        password = self._write_shared("password", PASSWORD)
        options = ["--username=dagster", f"--pwfile={password}", "--auth=scram-sha-256", "--no-sync"]
        self._control("initdb", options=" ".join(options))

    @contextmanager
    def _run_bouncer(self) -> Iterator[None]:
        settings = (DEPLOY / "pgbouncer.ini").read_text()
        # initdb creates only the database postgres
        for shipped, here in {
            "port=5432 dbname=dagster": f"port={self.port} dbname=postgres",
            "listen_addr = 10.0.0.10": "listen_addr = 127.0.0.1",
            "listen_port = 6432": f"listen_port = {self.bouncer_port}",
            "/etc/pgbouncer/userlist.txt": str(self._write_shared("userlist.txt", f'"dagster" "{PASSWORD}"\n')),
        }.items():
            assert shipped in settings
            settings = settings.replace(shipped, here)
        program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
        command = run_as_postgres([program, str(self._write_shared("pgbouncer.ini", settings))])
        with run_process(command, self.folder / "pgbouncer.log"):
            wait_until(lambda: "listening on" in (self.folder / "pgbouncer.log").read_text(), "PgBouncer", 20)
            yield

    def _write_shared(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o644)
        return path


@contextmanager
def run_redis(folder: Path) -> Iterator[dict[str, str]]:
    """Run redis and yield the variables that dagster.yaml reads."""
    port = find_free_port()
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)]
    with run_process([*command, "--maxmemory-policy", "noeviction"], folder / "redis.log"):
        wait_until(lambda: "Ready to accept connections" in (folder / "redis.log").read_text(), "redis", 20)
        yield {"DAGSTER_CELERY_URL": f"redis://127.0.0.1:{port}/0"}
