"""Opening the database of the records, SQLite or PostgreSQL, and telling what is wrong with it."""

from __future__ import annotations

import functools
import re
import sqlite3
from collections.abc import Callable
from typing import Any

import sqlalchemy as sql
from sqlalchemy import event
from sqlalchemy.engine import URL, Engine, ExceptionContext, make_url

from ingest.outage import Outage
from ingest.transactions import OUTAGE_OPTION, RecordsAway, RecordsError, connected, prepare_counts

# How long a database that is away is waited for unless the caller says otherwise, in seconds.
PATIENCE_SECONDS = 2.0

# What libpq is told unless the URL says otherwise: a host that is gone is noticed within a minute.
_CONNECTION = {
    "connect_timeout": "10", "keepalives_idle": "30", "keepalives_interval": "10", "keepalives_count": "3",
    "tcp_user_timeout": "60000", "client_encoding": "utf8", "application_name": "visavox",
}  # fmt: skip
# What the server is told: it lets go of what a client holds that is gone, and nobody waits for a lock for ever.
_SESSION = (
    "SET tcp_keepalives_idle = 30", "SET tcp_keepalives_interval = 10", "SET tcp_keepalives_count = 3",
    "SET lock_timeout = '60s'",
)  # fmt: skip
# Reasons why a server does not let us in that waiting does not change.
_REFUSALS = (
    "authentication failed", "does not exist", "no pg_hba.conf entry", "permission denied", "no password supplied",
    "not permitted to log in", "invalid", "certificate",
)  # fmt: skip
# Deadlock, and a transaction that could not be put into an order with others.
_BROKEN_OFF = {"40P01", "40001"}
# What the databases say of the disk and of rights, and what to do about it.
_ADVICE = (
    (("full", "No space left"), "; make room there and do the same again, which goes on where this stopped"),
    (("readonly", "unable to open"), "; check the folder, and that this user may write there"),
    (("permission denied for",), "; let this user make and use tables in that database"),
    (("read-only transaction",), "; this server only follows another: name the one that is written to"),
)


class StorableText(sql.types.TypeDecorator[str]):
    """Text as any database takes it and sorts it alike: by code points.

    What UTF-8 cannot say (bytes of a file's name that are none, as Python has them) and what PostgreSQL refuses
    (U+0000) is kept as an escape: ``\\udcff``, ``\\x00``.
    """

    impl = sql.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: sql.Dialect) -> sql.types.TypeEngine[Any]:
        """Text that is compared byte by byte."""
        return dialect.type_descriptor(sql.Text(collation="C" if dialect.name == "postgresql" else None))

    def process_bind_param(self, value: str | None, dialect: sql.Dialect) -> str | None:
        """The text with escapes."""
        return None if value is None else storable(value)


def storable(text: str) -> str:
    """A text with escapes for what not every database takes."""
    return re.sub("[\0\ud800-\udfff]", lambda met: met[0].encode("unicode_escape").decode(), text)


def open_database(
    url: str, *, patience: float = PATIENCE_SECONDS, notice: Callable[[str], None] | None = None
) -> Engine:
    """Open the records' database.

    SQLite gets write-ahead logging, a patient lock and ``secure_delete``, which overwrites deleted
    rows: forgetting a person must leave nothing in free pages.

    Args:
        url: an SQLAlchemy URL of SQLite or PostgreSQL (``postgresql://`` too).
        patience: seconds from the begin of an outage of a server during which it is waited for.
        notice: told, once per outage, that it is being waited for.

    Raises:
        RecordsError: the URL is none, or its driver is not installed, or the database cannot be reached. Later,
            from any use of the database: it cannot be reached, opened, read or written. No message has a password.
    """
    address = _address(url)
    place = address.set(query={k: v for k, v in address.query.items() if k in ("host", "port")}).render_as_string()
    outage = Outage(RecordsAway, patience, notice)
    server: dict[str, Any] = {}
    if address.get_backend_name() == "postgresql":
        given = {name: value for name, value in _CONNECTION.items() if name not in address.query}
        server = {"connect_args": given, "isolation_level": "READ COMMITTED", "use_native_hstore": False}
    try:
        # hidden parameters: names of people and files must not get into tracebacks and logs
        engine = sql.create_engine(
            address, pool_pre_ping=True, hide_parameters=True, execution_options={OUTAGE_OPTION: outage}, **server
        )
    except (sql.exc.ArgumentError, ImportError) as error:
        raise RecordsError(f"VISAVOX_DATABASE_URL cannot be used: {error}") from error

    @event.listens_for(engine.dialect, "handle_error")
    def _translate(context: ExceptionContext) -> RecordsError | None:
        # a broken rule of the schema is the caller's business, and a lost connection found in time the pool's;
        # everything else is the database's state
        met = context.sqlalchemy_exception
        if met is None or isinstance(met, sql.exc.IntegrityError) or context.is_pre_ping:
            return None
        return _translated(context, place, outage)

    prepare = functools.partial(_prepare_sqlite, place) if engine.dialect.name == "sqlite" else _prepare_postgresql
    event.listen(engine, "connect", prepare)
    try:
        connected(engine).close()  # now, where it can be told apart from the work that follows
    except sql.exc.SQLAlchemyError as error:
        raise RecordsError(f"the records in {place} cannot be opened: {error}") from error
    if engine.dialect.name == "postgresql":
        prepare_counts(engine)
    return engine


def _address(url: str) -> URL:
    try:
        address = make_url(url)
    except (sql.exc.ArgumentError, ValueError):  # whose message may hold the password
        raise RecordsError(
            "VISAVOX_DATABASE_URL is no URL such as postgresql://user:password@host:5432/database"
        ) from None
    if "@" in (address.host or ""):
        raise RecordsError("VISAVOX_DATABASE_URL: write an @ in the password as %40")
    if address.drivername in ("postgresql", "postgres"):
        return address.set(drivername="postgresql+psycopg")
    return address


def _prepare_sqlite(place: str, connection: Any, _record: object) -> None:  # noqa: ANN401 - a driver's own type
    cursor = connection.cursor()
    try:
        for pragma in ("busy_timeout=15000", "journal_mode=WAL", "secure_delete=ON", "synchronous=FULL"):
            cursor.execute(f"PRAGMA {pragma}")
    except sqlite3.Error as error:
        raise RecordsError(_explanation(place, error)) from error
    finally:
        cursor.close()


def _prepare_postgresql(connection: Any, _record: object) -> None:  # noqa: ANN401 - a driver's own type
    try:
        encoding = connection.info.parameter_status("server_encoding")
        if encoding not in ("UTF8", "SQL_ASCII"):
            raise RecordsError(f"the database of the records has the encoding {encoding}: make one in UTF8")
        for statement in _SESSION:
            connection.execute(statement)
        connection.commit()
    except BaseException:
        connection.close()  # nobody else does
        raise


def _translated(context: ExceptionContext, place: str, outage: Outage[RecordsAway]) -> RecordsError:
    cause = context.original_exception
    message = _explanation(place, cause)
    broken_off = getattr(cause, "sqlstate", None) in _BROKEN_OFF
    if not (broken_off or _is_away(context, cause)):
        return RecordsError(message)
    away = RecordsAway(message)
    away.outage, away.broken_off = outage, broken_off
    return away


def _is_away(context: ExceptionContext, cause: BaseException) -> bool:
    if context.dialect.name == "sqlite":
        return False
    if context.connection is None:  # there is none yet
        return not any(sign in str(cause) for sign in _REFUSALS)
    return context.is_disconnect


def _explanation(place: str, cause: BaseException) -> str:
    # of what PostgreSQL tells the first sentence only: details may quote names
    told = getattr(getattr(cause, "diag", None), "message_primary", None) or " ".join(str(cause).split())
    advice = next((advice for signs, advice in _ADVICE if any(sign in told for sign in signs)), "")
    return f"the records in {place} cannot be used: {told}{advice}"
