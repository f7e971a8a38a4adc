from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sqlalchemy.engine import Engine

from ingest.database import open_database
from ingest.ledger import Finding, Ledger
from ingest.transactions import RecordsAway
from search.announcements import Announcements
from search.evidence import Evidence, EvidenceMissing, voice_id
from search.people import NameTaken, People
from tests.real_postgres import RealPostgres

SOUND = np.linspace(-0.5, 0.5, 1600, dtype=np.float32)
PIECE = voice_id(SOUND)
SAMPLE = Finding("a" * 64, "voice", PIECE, 0, 100, 0, 0.1)


class Home:
    """Ledger, people and evidence of a folder, and who announces there."""

    def __init__(self, folder: Path, database: Engine) -> None:
        self.ledger, self.people, self.evidence = Ledger(database), People(database), Evidence(folder / "evidence")
        self.announcements = Announcements(self.ledger, self.people, self.evidence)
        self.locks = folder / "writers"

    def has_piece(self) -> bool:
        try:
            return self.evidence.file(PIECE).is_file()
        except EvidenceMissing:
            return False


@pytest.fixture
def home(tmp_path: Path, database: Engine) -> Home:
    return Home(tmp_path, database)


@pytest.mark.parametrize("recorded", [True, False])
def test_only_what_a_record_rests_on_stays(home: Home, recorded: bool) -> None:
    with home.announcements.of([PIECE]):
        home.evidence.put_voice(SOUND)
        if recorded:
            home.people.add(home.people.create("Ann"), [SAMPLE])
    assert home.has_piece() is recorded
    assert home.ledger.announced() == {} and not list(home.locks.iterdir())


def test_what_is_being_written_is_left_alone(home: Home, tmp_path: Path, database: Engine) -> None:
    other = Home(tmp_path, database)
    with home.announcements.of([PIECE]):
        home.evidence.put_voice(SOUND)
        assert other.announcements.remove_abandoned() == 0
        assert other.announcements.discard([PIECE]) == 0
        with other.announcements.of([PIECE]):
            other.evidence.put_voice(SOUND)
        assert home.has_piece()
    assert not home.has_piece()


def test_what_nobody_writes_any_more_is_removed(home: Home) -> None:
    home.ledger.announce("w" * 32, [PIECE])
    home.evidence.put_voice(SOUND)
    home.locks.mkdir()
    (home.locks / ("v" * 32)).touch()  # killed before it announced anything
    assert home.announcements.remove_abandoned() == 1
    assert not home.has_piece() and home.ledger.announced() == {} and not list(home.locks.iterdir())


def test_somebody_entered_who_gets_no_sample_is_removed(home: Home) -> None:
    with home.announcements.of([PIECE]) as announcement:
        announcement.enter("Ann")
    assert home.people.everyone() == [] and home.people.leaving() == []


def test_somebody_entered_by_others_at_the_same_moment_stays(home: Home) -> None:
    home.people.create("Ann")
    with pytest.raises(NameTaken), home.announcements.of([PIECE]) as announcement:
        announcement.enter("Ann")
    assert [person.name for person in home.people.everyone()] == ["Ann"]


def test_an_announcement_holds_no_name(home: Home, tmp_path: Path) -> None:
    with home.announcements.of([PIECE]) as announcement:
        announcement.enter("Annabella")
        assert not any("Annabella" in subject for subject in home.ledger.announced()[announcement.writer])


def test_more_pieces_than_a_batch_are_all_removed(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.announcements._BATCH", 2)
    sounds = [np.full(400, number / 10, np.float32) for number in range(5)]
    with home.announcements.of([voice_id(sound) for sound in sounds]):
        for sound in sounds:
            home.evidence.put_voice(sound)
    assert not [path for path in home.evidence.folder.rglob("*") if path.is_file()]


def test_nothing_is_removed_once_a_lost_connection_lets_others_announce(
    tmp_path: Path, postgres: RealPostgres, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = open_database(postgres_url)
    home = Home(tmp_path, database)
    home.evidence.put_voice(SOUND)
    uses_evidence = home.people.uses_evidence

    def cut_off(evidence: str, *, besides: str) -> bool:
        postgres.end_connections()
        return uses_evidence(evidence, besides=besides)

    monkeypatch.setattr(home.people, "uses_evidence", cut_off)
    with pytest.raises(RecordsAway):
        home.announcements.discard([PIECE])
    assert home.has_piece()
    monkeypatch.undo()
    assert home.announcements.discard([PIECE]) == 1 and not home.has_piece()
    database.dispose()
