from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sql
from sqlalchemy.engine import Engine

from ingest.ledger import Finding, Ledger, MediaRecord, Pairing, RecordsError, open_database
from ingest.track import MediaId

MEDIA = MediaId("a" * 64)


def record(media: str = MEDIA) -> MediaRecord:
    return MediaRecord(media, "writing", "film", 3.5, 1, 2, "s" * 64, ("odd",))


def finding(evidence: str) -> Finding:
    return Finding(MEDIA, "face", evidence * 64, 0, 1000, 0, 0.9)


@pytest.fixture
def ledger(database: Engine) -> Ledger:
    return Ledger(database)


def test_a_medium_is_done_only_when_finished(ledger: Ledger) -> None:
    ledger.begin(record(), [finding("1")])
    before = ledger.medium(MEDIA)
    ledger.finish(MEDIA)
    after = ledger.medium(MEDIA)
    assert before is not None and after is not None
    assert (before.state, after.state) == ("writing", "done")


def test_reading_a_medium_again_replaces_what_was_found(ledger: Ledger) -> None:
    ledger.begin(record(), [finding("1"), finding("2")])
    ledger.begin(record(), [finding("3")])
    assert ledger.findings(MEDIA) == [finding("3")]
    assert list(ledger.all_findings()) == [finding("3")]


def test_who_speaks_is_kept_in_order_of_time_and_replaced_with_the_rest(ledger: Ledger) -> None:
    unseen, seen = (
        Pairing(MEDIA, "2" * 64, 900, 1500, None, 0.0, 1.0, 0.25),
        Pairing(MEDIA, "1" * 64, 0, 800, 3, 0.9, 0.1, 0.0),
    )
    ledger.begin(record(), [], [unseen, seen])
    assert ledger.pairings(MEDIA) == [seen, unseen]
    ledger.begin(record(), [], [unseen])
    assert ledger.pairings(MEDIA) == [unseen] and ledger.pairings("b" * 64) == []


def test_who_speaks_goes_with_its_medium(ledger: Ledger) -> None:
    ledger.begin(record(), [], [Pairing(MEDIA, "1" * 64, 0, 800, 3, 0.9, 0.1, 0.0)])
    ledger.remove_files([], MEDIA)
    assert ledger.pairings(MEDIA) == []


def test_records_of_an_earlier_version_know_nobody_who_speaks(database: Engine) -> None:
    Ledger(database).begin(record(), [finding("1")])
    with database.begin() as connection:
        connection.execute(sql.text("DROP TABLE pairings"))
    ledger = Ledger(database)
    assert ledger.pairings(MEDIA) == [] and ledger.findings(MEDIA) == [finding("1")]


def test_an_archive_is_its_media_that_are_in_with_their_files(ledger: Ledger) -> None:
    other = MediaId("b" * 64)
    for media, paths, archive in ((MEDIA, ("/a.mp4", "/copy.mp4"), "mine"), (other, ("/b.mp4",), "theirs")):
        ledger.begin(record(media), [])
        for path in paths:
            ledger.record_file(Path(path), media, archive)
    assert ledger.archived("mine") == {}
    ledger.finish(MEDIA)
    assert ledger.archived("mine") == {MEDIA: [Path("/a.mp4"), Path("/copy.mp4")]}
    assert ledger.archives() == {"mine", "theirs"} and ledger.archives(other) == {"theirs"}


def test_evidence_in_use_is_known(ledger: Ledger) -> None:
    ledger.begin(record(), [finding("1")])
    assert ledger.uses_evidence("1" * 64) and not ledger.uses_evidence("2" * 64)


def test_counts_tell_media_done_and_files_failed(ledger: Ledger) -> None:
    ledger.begin(record(), [])
    ledger.finish(MEDIA)
    ledger.record_file(Path("/a.mp4"), MEDIA, "default")
    ledger.record_file(Path("/b.mp4"), None, "default", reason="empty")
    assert ledger.counts() == (1, 1)


def test_a_file_that_succeeds_at_last_is_failed_no_more(ledger: Ledger) -> None:
    ledger.record_file(Path("/b.mp4"), None, "default", reason="empty")
    ledger.record_file(Path("/b.mp4"), MEDIA, "default")
    assert ledger.counts() == (0, 0)


def test_warnings_survive(ledger: Ledger) -> None:
    ledger.begin(record(), [])
    known = ledger.medium(MEDIA)
    assert known is not None and known.warnings == ("odd",)


def test_any_name_that_a_file_can_have_is_kept(ledger: Ledger) -> None:
    odd = os.fsdecode(b"/caf\xe9/" + b"\xff" * 9) + "/\N{PILE OF POO}/tab\there"
    longest = "/" + "/".join(hashlib.sha256(str(part).encode()).hexdigest() for part in range(63))
    for name in (odd, longest):
        ledger.record_file(Path(name), None, "default", reason="corrupt: \0 where no \0 may be, \ud800")
        ledger.record_file(Path(name), MEDIA, "a" * 300)
    assert ledger.counts() == (0, 0) and len(longest) > 4000


def test_whatever_a_medium_warns_of_is_kept(ledger: Ledger) -> None:
    ledger.begin(replace(record(), warnings=("nothing \0 \udcff",)), [])
    known = ledger.medium(MEDIA)
    assert known is not None and known.warnings == ("nothing \\x00 \\udcff",)


def test_the_same_outcome_again_is_no_attempt_and_another_is(ledger: Ledger, database: Engine) -> None:
    for reason in ("empty", "empty", "corrupt", None, None):
        ledger.record_file(Path("/b.mp4"), None, "default", reason=reason)
    with database.connect() as connection:
        rows = connection.execute(sql.text("SELECT state, reason, attempts FROM files")).all()
    assert [tuple(row) for row in rows] == [("done", None, 3)]


def test_many_who_record_the_same_at_once_agree(ledger: Ledger, database: Engine) -> None:
    def read(number: int) -> None:
        ledger.begin(record(), [finding("1"), finding(str(number % 10))])
        ledger.record_file(Path("/b.mp4"), MEDIA, f"archive {number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read, range(24)))
    found = {one.evidence[0] for one in ledger.findings(MEDIA)}
    assert "1" in found and len(found) <= 2
    with database.connect() as connection:
        assert connection.execute(sql.text("SELECT attempts FROM files")).all() == [(24,)]


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////nowhere/at/all/records.sqlite", "nosuchdriver://host/db"])
def test_records_that_cannot_be_opened_say_so(url: str) -> None:
    with pytest.raises(RecordsError):
        Ledger(open_database(url))


def test_a_file_that_is_no_database_says_so(tmp_path: Path) -> None:
    (tmp_path / "records.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(RecordsError, match=r"records\.sqlite"):
        Ledger(open_database(f"sqlite:///{tmp_path / 'records.sqlite'}"))


def test_what_is_announced_stays_until_it_is_struck_out(ledger: Ledger) -> None:
    ledger.announce("first", ["a", "b"])
    ledger.announce("second", ["b"])
    with ledger.striking_out("first", ["a", "b"]) as struck_out:
        assert struck_out.free == {"a"}
    assert ledger.announced() == {"second": {"b"}}


def test_an_announcement_stays_when_striking_it_out_fails(ledger: Ledger) -> None:
    ledger.announce("first", ["a"])
    with pytest.raises(OSError, match="busy"), ledger.striking_out("first", ["a"]):
        raise OSError("busy")
    assert ledger.announced() == {"first": {"a"}}


def test_nobody_can_announce_while_somebody_looks_what_is_free(database: Engine) -> None:
    one, two = Ledger(database), Ledger(database)
    announced = threading.Event()

    def announce() -> None:
        two.announce("second", ["a"])
        announced.set()

    with one.striking_out("first", ["a"]) as struck_out:
        writer = threading.Thread(target=announce)
        writer.start()
        assert struck_out.free == {"a"} and not announced.wait(0.3)
    writer.join()
    assert announced.is_set()


def test_a_full_disk_says_what_to_do_and_leaves_the_records_whole(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'records.sqlite'}")
    ledger = Ledger(database)
    ledger.begin(record(), [finding("1")])
    with database.connect() as connection:
        pages = connection.scalar(sql.text("PRAGMA page_count"))

    @sql.event.listens_for(database, "checkout")
    def no_room(connection: Any, *_: object) -> None:
        connection.execute(f"PRAGMA max_page_count={pages}")  # as SQLite meets a full disk

    with pytest.raises(RecordsError, match=r"full; make room there"):
        ledger.begin(record(), [Finding(MEDIA, "face", f"{number:064}", 0, 1000, 0, 0.9) for number in range(500)])
    assert ledger.findings(MEDIA) == [finding("1")]


def test_records_that_break_while_they_are_used_say_so(tmp_path: Path) -> None:
    ledger = Ledger(open_database(f"sqlite:///{tmp_path / 'records.sqlite'}"))
    with contextlib.closing(sqlite3.connect(tmp_path / "records.sqlite")) as database:
        database.execute("DROP TABLE media")
    with pytest.raises(RecordsError, match=r"records\.sqlite.*no such table"):
        ledger.medium(MEDIA)
