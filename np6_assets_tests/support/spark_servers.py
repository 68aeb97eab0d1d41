"""Run a Spark Connect server: Sail in this process, or Spark, which needs Java and half a gigabyte."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pysail.spark import SparkConnectServer

from np6_assets_tests.support.dagster_processes import find_free_port

SPARK_HOME = "NP6_TESTS_SPARK_HOME"
"""Environment variable with the folder of Spark, if tests shall use it."""

_STARTS_WITHIN = 300


def format_address(port: int) -> str:
    return f"sc://127.0.0.1:{port}"


@contextmanager
def run_server() -> Iterator[str]:
    """Run a server (Spark, if its folder is set) and yield its address."""
    with _run_spark(Path(os.environ[SPARK_HOME])) if SPARK_HOME in os.environ else _run_sail() as address:
        yield address


@contextmanager
def _run_sail() -> Iterator[str]:
    server = SparkConnectServer("127.0.0.1", 0)
    server.start(background=True)
    assert server.listening_address is not None
    yield format_address(server.listening_address[1])
    server.stop()


@contextmanager
def _run_spark(home: Path) -> Iterator[str]:
    port = find_free_port()
    conf = {
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": port,
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.sql.shuffle.partitions": 2,
        "spark.ui.enabled": "false",
    }
    options = [text for name, value in conf.items() for text in ("--conf", f"{name}={value}")]
    main = ["--class", "org.apache.spark.sql.connect.service.SparkConnectServer", "spark-internal"]
    # the second compiler would cost more than it saves in a few minutes
    java = ["--driver-memory", "1g", "--driver-java-options", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"]
    command = [str(home / "bin" / "spark-submit"), "--master", "local[2]", *java, *options, *main]
    environment = {**os.environ, "SPARK_HOME": str(home), "PYSPARK_PYTHON": sys.executable}
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("w+") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            _wait_for(port, process)
            yield format_address(port)
        finally:
            process.terminate()
            process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _STARTS_WITHIN
    while time.monotonic() < until:
        assert process.poll() is None, "Spark ended while it started"
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError(f"Spark did not start within {_STARTS_WITHIN} seconds")
