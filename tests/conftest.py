"""Fixtures that every room's tests share."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sql
from sqlalchemy.engine import Engine

from ingest.database import open_database
from tests.real_postgres import RealPostgres, real_postgres, reason_not_to_run

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_media() -> Path:
    """The folder of real media beside the project; tests that need it are skipped where it is absent."""
    folder = SHARED / "data" / "media"
    if not folder.is_dir():
        pytest.skip("the shared real media are not beside this checkout")
    return folder


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Ctrl-C works in tests and in their children, also where the run was begun in the background, which ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgres() -> Iterator[RealPostgres]:
    """A real PostgreSQL server for all tests of this process, who leave it running."""
    if reason := reason_not_to_run():
        pytest.skip(reason)
    with real_postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: RealPostgres) -> Iterator[str]:
    """The URL of a new database of this test's own on a real PostgreSQL server."""
    with postgres.database() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new database of this test's own: the test runs on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'records.sqlite'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Engine]:
    """A new database of this test's own, on SQLite and on PostgreSQL."""
    engine = open_database(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def database_bytes(database: Engine, request: pytest.FixtureRequest) -> Callable[[], bytes]:
    """Gives what lies in the files of ``database``, but for PostgreSQL's log of writes, which it reuses by and by."""

    def read() -> bytes:
        if database.dialect.name == "sqlite":
            with database.connect() as connection:
                connection.execute(sql.text("PRAGMA wal_checkpoint(TRUNCATE)"))
            database.dispose()
            return Path(str(database.url.database)).read_bytes()
        server: RealPostgres = request.getfixturevalue("postgres")
        return server.bytes_of(str(database.url.database))

    return read
