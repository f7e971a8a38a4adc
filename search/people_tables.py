"""Tables of people, their samples and the audit, and the columns that a database of an earlier version lacks."""

from __future__ import annotations

import sqlalchemy as sql
from sqlalchemy.engine import Engine

from ingest.database import StorableText
from ingest.ledger import finding_columns
from ingest.transactions import RecordsError, create_tables, reading, repeatable, unsampled, writing

_METADATA = sql.MetaData()

# version: raised by every change of name or samples
# merged_into: id of the person who has the samples now, while rows of the index may still say otherwise; else ""
PEOPLE = sql.Table(
    "people",
    _METADATA,
    sql.Column("id", sql.String(32), primary_key=True),
    sql.Column("name", StorableText, nullable=False),
    sql.Column("leaving", sql.Boolean, nullable=False),
    sql.Column("created", sql.DateTime, nullable=False),
    sql.Column("version", sql.Integer, nullable=False, server_default="1"),
    sql.Column("merged_into", sql.String(32), nullable=False, server_default=""),
)
# a name is free again as soon as its bearer is being forgotten
sql.Index(
    "people_name",
    PEOPLE.c.name,
    unique=True,
    sqlite_where=sql.not_(PEOPLE.c.leaving),
    postgresql_where=sql.not_(PEOPLE.c.leaving),
)
SAMPLES = sql.Table(
    "samples",
    _METADATA,
    *finding_columns(),
    sql.Column("person", sql.String(32), nullable=False, index=True),
)
AUDIT = sql.Table(
    "audit",
    _METADATA,
    # SQLite numbers rows by itself only in a column that is INTEGER and nothing else
    sql.Column("id", sql.BigInteger().with_variant(sql.Integer, "sqlite"), primary_key=True),
    sql.Column("moment", sql.DateTime, nullable=False),
    sql.Column("action", sql.String(32), nullable=False),
    sql.Column("person", sql.String(32), nullable=False),
    sql.Column("detail", sql.Text, nullable=False),
)
unsampled(PEOPLE.c.name)
# column of people → its definition; in the order in which versions added them
_ADDED = {"version": "INTEGER NOT NULL DEFAULT 1", "merged_into": "VARCHAR(32) NOT NULL DEFAULT ''"}


def prepare(database: Engine) -> None:
    """Create the tables that are missing, and add the columns that an earlier version did not have.

    Raises:
        RecordsError: the database cannot be changed.
    """
    create_tables(_METADATA, database)
    for column, definition in _ADDED.items():
        if _has(database, column):
            continue
        try:
            with writing(database) as connection:
                connection.execute(sql.text(f"ALTER TABLE people ADD COLUMN {column} {definition}"))
        except RecordsError:
            if not _has(database, column):  # else another process was quicker
                raise


@repeatable
def _has(database: Engine, column: str) -> bool:
    with reading(database) as connection:
        return column in {one["name"] for one in sql.inspect(connection).get_columns(PEOPLE.name)}
