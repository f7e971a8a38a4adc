"""Whom a question is about, in the words that encoders are stamped with: the domain of their calibration.

An encoder that was trained on an archive was calibrated on people of that archive's films, and says something about
whoever appears in them; one that was trained on the enrolled says something about the enrolled. An archive of the
same name in another installation is another one, so the words name the installation too.
"""

from __future__ import annotations

import uuid
from contextlib import suppress

import sqlalchemy as sql
from sqlalchemy.engine import Engine

from ingest.ledger import Ledger
from ingest.transactions import create_tables, reading, repeatable, writing

_METADATA = sql.MetaData()
# One row: who the records are of.
_INSTALLATION = sql.Table(
    "installation",
    _METADATA,
    sql.Column("number", sql.Integer, primary_key=True, autoincrement=False),
    sql.Column("id", sql.String(12), nullable=False),
)
_ONLY = 1


class Domains:
    """The domains of an installation's own people.

    Args:
        database: of the records.
        ledger: which media are in which archive.
    """

    def __init__(self, database: Engine, ledger: Ledger) -> None:
        self._database = database
        self._ledger = ledger
        create_tables(_METADATA, database)

    def archive(self, name: str) -> str:
        """The domain of an archive's people."""
        return f"archive {name} of installation {self._installation()}"

    def enrolled(self) -> str:
        """The domain of the people who are enrolled."""
        return f"people enrolled in installation {self._installation()}"

    def of(self, media: str) -> set[str]:
        """The domains that a question about a medium is of: the enrolled are always asked about."""
        return {self.enrolled(), *(self.archive(name) for name in self._ledger.archives(media))}

    def _installation(self) -> str:
        """12 hex digits, drawn when first asked for."""
        known = self._read()
        if known is None:
            with suppress(sql.exc.IntegrityError):  # another process was quicker
                self._draw()
            known = self._read()
        return known or ""

    @repeatable
    def _read(self) -> str | None:
        with reading(self._database) as connection:
            return connection.scalar(sql.select(_INSTALLATION.c.id))

    @repeatable
    def _draw(self) -> None:
        with writing(self._database) as connection:
            connection.execute(sql.insert(_INSTALLATION).values(number=_ONLY, id=uuid.uuid4().hex[:12]))
