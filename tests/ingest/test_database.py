"""The records' database: its URL, what two writers do to each other, and how it is lived through that it goes away."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sql
from sqlalchemy.engine import Connection, Engine

from ingest import transactions
from ingest.database import open_database
from ingest.ledger import Ledger
from ingest.outage import TRY_EVERY
from ingest.transactions import OutcomeUnknown, RecordsAway, RecordsError, create_tables, reading, repeatable, writing
from search.access import Keys
from search.people import People
from tests.real_postgres import RealPostgres, real_postgres, reason_not_to_run

_TABLES = sql.MetaData()
NOTES = sql.Table("notes", _TABLES, sql.Column("id", sql.Integer, primary_key=True), sql.Column("text", sql.Text))
END_ME = sql.text("SELECT pg_terminate_backend(pg_backend_pid())")


@pytest.fixture
def notes(postgres_url: str) -> Iterator[Engine]:
    """A table on a real PostgreSQL server, waited for 20 s."""
    database = open_database(postgres_url, patience=20.0)
    create_tables(_TABLES, database)
    yield database
    database.dispose()


@pytest.fixture(scope="module")
def own_server() -> Iterator[RealPostgres]:
    """A server that may be ended, and is running after each test."""
    if reason := reason_not_to_run():
        pytest.skip(reason)
    with real_postgres() as server:
        yield server


def add(connection: Connection, number: int, text: str = "") -> None:
    connection.execute(sql.insert(NOTES).values(id=number, text=text))


def end(connection: Connection) -> None:
    """Write something, then end the connection."""
    add(connection, 1)
    connection.execute(END_ME)


def numbers(database: Engine) -> list[int]:
    with reading(database) as connection:
        return sorted(connection.scalars(sql.select(NOTES.c.id)))


# ---- the URL ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_any_usual_scheme_means_the_driver_that_is_installed(postgres_url: str, scheme: str) -> None:
    database = open_database(postgres_url.replace("postgresql+psycopg", scheme))
    assert database.dialect.driver == "psycopg"
    database.dispose()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:pa-sesame-ss@127.0.0.1:1/db",
        "postgresql://ann:pa@sesame@127.0.0.1:1/db",
        "postgresql://ann@127.0.0.1:sesame/db",
        "postgresql://ann@127.0.0.1:1/db?password=sesame",
        "postgresql://ann:pa/sesame@127.0.0.1:1/db",
        "postgresql+nosuchdriver://ann:sesame@127.0.0.1:1/db",
        "sesame",
    ],
)
def test_no_message_has_the_password(url: str) -> None:
    with pytest.raises(RecordsError) as met:
        open_database(url, patience=0.0)
    assert "sesame" not in str(met.value)


def test_who_is_not_let_in_is_told_at_once(postgres: RealPostgres, postgres_url: str) -> None:
    began = time.monotonic()
    with pytest.raises(RecordsError, match="does not exist"):
        open_database(postgres.url("nowhere"), patience=60.0)
    assert time.monotonic() - began < 30


def test_a_database_of_another_encoding_is_refused(postgres: RealPostgres) -> None:
    postgres.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    with pytest.raises(RecordsError, match=r"LATIN1.*UTF8"):
        open_database(postgres.url("latin"))
    postgres.execute("DROP DATABASE latin")


# ---- going away -------------------------------------------------------------------------------------------


def test_a_connection_that_ended_while_idle_is_not_noticed(notes: Engine, postgres: RealPostgres) -> None:
    assert numbers(notes) == []
    postgres.end_connections()
    assert numbers(notes) == []


def test_without_patience_a_lost_connection_is_an_error_and_the_next_use_works(postgres_url: str) -> None:
    database = open_database(postgres_url, patience=0.0)
    create_tables(_TABLES, database)
    with pytest.raises(RecordsAway, match="terminating connection"), writing(database) as connection:
        end(connection)
    assert numbers(database) == []
    with writing(database) as connection:
        add(connection, 1)
    assert numbers(database) == [1]
    database.dispose()


def test_a_transaction_that_is_cut_off_is_done_again_and_once(notes: Engine) -> None:
    cuts = iter([True, True, False])

    @repeatable
    def work() -> str:
        with writing(notes) as connection:
            add(connection, 1)
            if next(cuts):
                connection.execute(END_ME)
        return "done"

    assert work() == "done" and numbers(notes) == [1]


def test_a_transaction_that_always_ends_the_connection_is_given_up(
    notes: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    @repeatable
    def work() -> None:
        tried.append(1)
        with writing(notes) as connection:
            connection.execute(END_ME)

    monkeypatch.setattr(transactions, "_LONGEST_PAUSE", 0.05)
    with pytest.raises(RecordsAway):
        work()
    assert len(tried) == transactions.MOST_ATTEMPTS


class Cut:
    """Ends the next connection that commits, before or after the server hears of it."""

    def __init__(self, database: Engine, server: RealPostgres, *, heard: bool) -> None:
        self._commit, self._server, self._heard = database.dialect.do_commit, server, heard
        database.dialect.do_commit = self  # type: ignore[method-assign]
        self._dialect, self.left = database.dialect, 1

    def __call__(self, connection: object) -> None:
        if self.left:
            self.left -= 1
            if self._heard:
                self._commit(connection)  # type: ignore[arg-type]
            self._server.end_connections()
            connection.execute("SELECT 1")  # type: ignore[attr-defined]
        self._commit(connection)  # type: ignore[arg-type]


@pytest.mark.parametrize("heard", [True, False])
def test_what_is_cut_off_while_it_is_committed_is_done_once(notes: Engine, postgres: RealPostgres, heard: bool) -> None:
    @repeatable
    def work() -> int:
        with writing(notes) as connection:
            count = len(connection.execute(sql.select(NOTES.c.id)).all())
            add(connection, count + 1)
        return count + 1

    assert work() == 1
    cut = Cut(notes, postgres, heard=heard)
    assert work() == 2 and cut.left == 0
    assert numbers(notes) == [1, 2]


def test_what_nobody_can_tell_is_said_to_be_unknown(own_server: RealPostgres) -> None:
    database = open_database(own_server.url(), patience=0.0)
    create_tables(_TABLES, database)
    do_commit = database.dialect.do_commit

    def commit(connection: object) -> None:
        own_server.crash()
        do_commit(connection)  # type: ignore[arg-type]

    database.dialect.do_commit = commit  # type: ignore[method-assign]
    with pytest.raises(OutcomeUnknown, match="cannot be told"), writing(database) as connection:
        add(connection, 1)
    database.dialect.do_commit = do_commit  # type: ignore[method-assign]
    own_server.start()
    time.sleep(TRY_EVERY)  # until then everybody is told what the last one was told
    assert numbers(database) == []
    database.dispose()


def test_work_lives_through_a_crash_and_restarts_of_the_server(own_server: RealPostgres) -> None:
    told: list[str] = []
    database = open_database(own_server.url(), patience=60.0, notice=told.append)
    create_tables(_TABLES, database)
    done, stop = [], threading.Event()

    @repeatable
    def work(number: int) -> None:
        with writing(database) as connection:
            add(connection, number)
            connection.execute(sql.update(NOTES).where(NOTES.c.id == number).values(text="whole"))

    def keep_working(first: int) -> None:
        number = first
        while not stop.is_set():
            work(number)
            done.append(number)
            number += 2

    with ThreadPoolExecutor(2) as pool:
        workers = [pool.submit(keep_working, first) for first in (0, 1)]
        try:
            for end_it in (own_server.crash, own_server.stop, own_server.crash):
                reached = len(done)
                while len(done) < reached + 20 and not any(worker.done() for worker in workers):
                    time.sleep(0.01)
                end_it()
                time.sleep(0.5)
                own_server.start()
        finally:
            stop.set()
        for worker in workers:
            worker.result(timeout=60)
    assert numbers(database) == sorted(done)
    assert told and all("waiting up to 60 s for it" in line for line in told)
    database.dispose()


def test_two_that_wait_for_each_other_are_both_done(notes: Engine) -> None:
    with writing(notes) as connection:
        add(connection, 1, "a")
        add(connection, 2, "b")
    met = threading.Barrier(2, timeout=30)

    def raise_both(order: tuple[int, int]) -> None:
        first = True

        @repeatable
        def work() -> None:
            nonlocal first
            with writing(notes) as connection:
                for number in order:
                    connection.execute(sql.update(NOTES).where(NOTES.c.id == number).values(text=NOTES.c.text + "!"))
                    if first:
                        first = False
                        met.wait()

        work()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(raise_both, [(1, 2), (2, 1)]))
    with reading(notes) as connection:
        assert set(connection.scalars(sql.select(NOTES.c.text))) == {"a!!", "b!!"}


# ---- several at once --------------------------------------------------------------------------------------


def test_many_that_start_at_once_all_find_their_tables(database_url: str) -> None:
    databases = [open_database(database_url) for _ in range(6)]
    start = threading.Barrier(6, timeout=30)

    def enter(database: Engine) -> None:
        start.wait()
        Ledger(database), Keys(database), People(database)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(enter, databases))
    for database in databases:
        database.dispose()
