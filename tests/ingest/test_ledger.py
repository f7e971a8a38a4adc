from __future__ import annotations

from pathlib import Path

import pytest

from ingest.ledger import Finding, Ledger, MediaRecord, RecordsError, open_database
from ingest.track import MediaId

MEDIA = MediaId("a" * 64)


def record(media: str = MEDIA) -> MediaRecord:
    return MediaRecord(media, "writing", "film", 3.5, 1, 2, "s" * 64, ("odd",))


def finding(evidence: str) -> Finding:
    return Finding(MEDIA, "face", evidence * 64, 0, 1000, 0, 0.9)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(open_database(f"sqlite:///{tmp_path / 'records.sqlite'}"))


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


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////nowhere/at/all/records.sqlite", "nosuchdriver://host/db"])
def test_records_that_cannot_be_opened_say_so(url: str) -> None:
    with pytest.raises(RecordsError):
        Ledger(open_database(url))


def test_a_file_that_is_no_database_says_so(tmp_path: Path) -> None:
    (tmp_path / "records.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(RecordsError, match=r"records\.sqlite"):
        Ledger(open_database(f"sqlite:///{tmp_path / 'records.sqlite'}"))
