"""Real servers that keep studies: PostgreSQL and Optuna's gRPC proxy, on a loopback port."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

PASSWORD = "se%cret/word"
QUOTED = "se%25cret%2Fword"


@dataclass(frozen=True)
class Postgres:
    """A server that runs."""

    programs: Path
    port: int

    def url(self, database: str, password: str = QUOTED) -> str:
        return f"postgresql://keeper:{password}@127.0.0.1:{self.port}/{database}"

    def make(self, database: str) -> str:
        """The URL of a new database."""
        import psycopg

        with psycopg.connect(
            host="127.0.0.1", port=self.port, user="keeper", password=PASSWORD, dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(f'CREATE DATABASE "{database}"'.encode())
        return self.url(database)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def postgres_programs() -> Path | None:
    """Where Debian's package, or another, put the server."""
    found = shutil.which("postgres")
    places = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((place for place in reversed(places) if (place / "initdb").exists()), None)


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """PostgreSQL with data of its own, run by an unprivileged user; the test is skipped where it is not installed."""
    pytest.importorskip("psycopg", reason="psycopg is not installed (mer-bench[postgresql])")
    programs = postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian's package postgresql)")
    user = None
    if os.geteuid() == 0:  # which PostgreSQL refuses to be run by
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = next((name for name in ("postgres", "nobody") if name in names), None)
        if user is None:
            pytest.skip("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")
    folder = Path(tempfile.mkdtemp(prefix="mer-bench-postgres-"))
    try:
        secret = folder / "password"
        secret.write_text(PASSWORD)
        if user is not None:
            for path in (folder, secret):
                shutil.chown(path, user)
        data, port = folder / "data", free_port()
        initdb = [str(programs / "initdb"), "-D", str(data), "-U", "keeper", "-A", "scram-sha-256"]
        subprocess.run(
            [*initdb, f"--pwfile={secret}", "--no-sync", "--no-instructions", "-E", "UTF8", "--locale=C"],
            user=user,
            cwd=folder,
            check=True,
            capture_output=True,
            timeout=60,
        )
        options = [f"port={port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                [programs / "postgres", "-D", data, *(word for option in options for word in ("-c", option))],
                user=user,
                cwd=folder,
                stdout=log,
                stderr=log,
            )
        try:
            ready = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
            wait_until(lambda: subprocess.run(ready, check=False).returncode == 0, server, folder / "log")
            yield Postgres(programs, port)
        finally:
            server.send_signal(signal.SIGQUIT)  # at once: nothing is kept
            server.wait(timeout=30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wait_until(ready: Callable[[], bool], server: subprocess.Popen[bytes], log: Path, seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not ready():
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < until, f"no server after {seconds} s: {log.read_text()}"
        time.sleep(0.05)


def answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextmanager
def grpc_server(folder: Path) -> Iterator[str]:
    """Optuna's gRPC proxy before a SQLite file, in a process of its own."""
    pytest.importorskip("grpc", reason="grpcio is not installed (mer-bench[grpc])")
    port = free_port()
    code = (
        "import sys; from optuna.storages import get_storage, run_grpc_proxy_server as run; "
        "run(get_storage('sqlite:///' + sys.argv[1]), host='127.0.0.1', port=int(sys.argv[2]))"
    )
    with (folder / "grpc.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code, str(folder / "behind.sqlite3"), str(port)],
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: answers(port), server, folder / "grpc.log")
        yield f"grpc://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()
