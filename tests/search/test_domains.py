from __future__ import annotations

from pathlib import Path

from sqlalchemy.engine import Engine

from ingest.database import open_database
from ingest.ledger import Ledger
from ingest.track import MediaId
from search.domains import Domains

MEDIA = MediaId("a" * 64)


def test_a_medium_is_of_its_archives_and_everything_is_of_the_enrolled(database: Engine) -> None:
    ledger = Ledger(database)
    ledger.record_file(Path("/a.mp4"), MEDIA, "mine")
    domains = Domains(database, ledger)
    assert domains.of(MEDIA) == {domains.archive("mine"), domains.enrolled()}
    assert domains.of("b" * 64) == {domains.enrolled()}


def test_every_process_of_an_installation_says_the_same(database: Engine) -> None:
    ledger = Ledger(database)
    first, second = (Domains(database, ledger) for _ in range(2))
    assert first.archive("mine") == second.archive("mine") != first.archive("yours")


def test_an_archive_of_the_same_name_elsewhere_is_another(tmp_path: Path) -> None:
    databases = [open_database(f"sqlite:///{tmp_path / name}.sqlite") for name in ("here", "there")]
    said = {Domains(one, Ledger(one)).archive("default") for one in databases}
    assert len(said) == 2
