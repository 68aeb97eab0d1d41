"""What workers share beside a bucket: Postgres behind PgBouncer, and redis, on loopback, in folders of their own."""

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

PASSWORD = "of the test alone"
DEPLOY = ROOT / "deploy" / "workers"


@contextmanager
def process(command: list[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process, with all that it starts; it is killed in the end."""
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


def as_postgres(command: list[str]) -> list[str]:
    """The command as the user postgres, where this is root, who may not run Postgres."""
    return ["runuser", "-u", "postgres", "--", *command] if os.geteuid() == 0 else command


@dataclass(frozen=True)
class Postgres:
    """A server with one database, behind PgBouncer with the settings of deploy/workers."""

    folder: Path
    port: int
    bouncer_port: int

    @property
    def environment(self) -> dict[str, str]:
        """What dagster.yaml reads."""
        return {
            "DAGSTER_PG_HOST": "127.0.0.1",
            "DAGSTER_PG_PORT": str(self.bouncer_port),
            "DAGSTER_PG_DB": "dagster",
            "DAGSTER_PG_USERNAME": "dagster",
            "DAGSTER_PG_PASSWORD": PASSWORD,
        }

    def restart(self) -> None:
        """Cut all connections and start again, as after an update of the package."""
        self._control("restart", "--mode=fast", f"--log={self.folder}/log", options=self._options)

    def records(self) -> str:
        """How much Dagster has recorded."""
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
        subprocess.run(as_postgres(command), check=True, stdout=subprocess.DEVNULL, cwd="/")

    @property
    def _options(self) -> str:
        return f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.folder}"

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Postgres]:
        """Start both."""
        folder = Path(tempfile.mkdtemp(prefix="np6-postgres-"))
        made = cls(folder, find_free_port(), find_free_port())
        try:
            if os.geteuid() == 0:
                shutil.chown(folder, "postgres")
            made._initialize()
            made._control("start", f"--log={folder}/log", options=made._options)
            with made._bouncer():
                yield made
        finally:
            with contextlib.suppress(subprocess.CalledProcessError):
                made._control("stop", "--mode=immediate", options=made._options)
            shutil.rmtree(folder)

    def _initialize(self) -> None:
        password = self._shared("password", PASSWORD)
        options = ["--username=dagster", f"--pwfile={password}", "--auth=scram-sha-256", "--no-sync"]
        self._control("initdb", options=" ".join(options))

    @contextmanager
    def _bouncer(self) -> Iterator[None]:
        settings = (DEPLOY / "pgbouncer.ini").read_text()
        # a cluster that initdb makes has the database postgres alone
        for shipped, here in {
            "port=5432 dbname=dagster": f"port={self.port} dbname=postgres",
            "listen_addr = 10.0.0.10": "listen_addr = 127.0.0.1",
            "listen_port = 6432": f"listen_port = {self.bouncer_port}",
            "/etc/pgbouncer/userlist.txt": str(self._shared("userlist.txt", f'"dagster" "{PASSWORD}"\n')),
        }.items():
            assert shipped in settings
            settings = settings.replace(shipped, here)
        program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
        command = as_postgres([program, str(self._shared("pgbouncer.ini", settings))])
        with process(command, self.folder / "pgbouncer.log"):
            wait_until(lambda: "listening on" in (self.folder / "pgbouncer.log").read_text(), "PgBouncer", 20)
            yield

    def _shared(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o644)
        return path


@contextmanager
def redis(folder: Path) -> Iterator[dict[str, str]]:
    """A redis of its own; what dagster.yaml reads."""
    port = find_free_port()
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)]
    with process([*command, "--maxmemory-policy", "noeviction"], folder / "redis.log"):
        wait_until(lambda: "Ready to accept connections" in (folder / "redis.log").read_text(), "redis", 20)
        yield {"DAGSTER_CELERY_URL": f"redis://127.0.0.1:{port}/0"}
