"""What is announced before it is written, so that nothing of it is left when its writer is killed.

Evidence is written before the record that rests on it, and a new person is entered before their first sample:
between the two nobody else knows of them. So they are announced in the ledger first, by a writer who holds a
lock file for as long as it works (``writers/<name>`` beside the evidence; the kernel lets go of it when its
process ends, however it ends). At the end, or when the next one finds that the lock has nobody any more, what
was announced and has no record is removed, and the announcement is struck out.

Nobody removes what somebody else has just written: an announcement, and looking whether a record rests on a
piece and deleting it, exclude each other.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from ingest.ledger import Ledger, RecordsError
from search.evidence import Evidence
from search.people import NameTaken, People, Person

_LOG = logging.getLogger("visavox")
# Others wait to announce theirs while a batch is removed, each piece with a few milliseconds of the disk.
_BATCH = 100
_NOBODY = ""
_PERSON = "person:"


class Announcement:
    """What one writer has announced; from :meth:`Announcements.of`."""

    def __init__(self, writer: str, ledger: Ledger, people: People) -> None:
        self.writer = writer
        self._ledger = ledger
        self._people = people

    def enter(self, name: str) -> Person:
        """Enter a new person, who is removed again unless they have a sample when the announcement ends.

        Raises:
            NameTaken, ValueError: see search.people.People.create.
        """
        self._ledger.announce(self.writer, [_mark(name)])
        try:
            return self._people.create(name)
        except NameTaken:
            with self._ledger.striking_out(self.writer, [_mark(name)]):
                pass  # whoever bears that name is not ours to remove
            raise


class Announcements:
    """What writers of evidence and people have announced, over one ledger, catalogue and folder."""

    def __init__(self, ledger: Ledger, people: People, evidence: Evidence) -> None:
        self._ledger = ledger
        self._people = people
        self._evidence = evidence
        self._locks = evidence.folder.with_name("writers")

    @contextmanager
    def of(self, evidence: Collection[str]) -> Iterator[Announcement]:
        """Announce evidence that is about to be written, or to lose its record.

        When the block ends, however it does, those pieces on which no record rests are removed.
        """
        writer = uuid.uuid4().hex
        with self._holding(writer, wait=True):
            self._ledger.announce(writer, evidence)
            try:
                yield Announcement(writer, self._ledger, self._people)
            except BaseException:
                try:
                    self._settle(writer)
                except (RecordsError, OSError):
                    _LOG.warning("what was begun could not be undone; it is when this is tried again")
                raise
            self._settle(writer)

    def remove_abandoned(self) -> int:
        """Remove what writers that are no more have announced and not recorded; the pieces of evidence removed."""
        removed = 0
        for writer in self._ledger.announced().keys() | {path.name for path in self._locks.glob("*")}:
            with contextlib.suppress(BlockingIOError), self._holding(writer, wait=False):
                removed += self._settle(writer)
        return removed

    def discard(self, evidence: Collection[str], *, besides: str = _NOBODY) -> int:
        """Remove evidence that no record rests on, but for the records of one person, and nobody announces.

        Returns:
            The number of pieces removed.
        """
        return self._strike_out(_NOBODY, evidence, besides)

    def _settle(self, writer: str) -> int:
        announced = self._ledger.announced().get(writer, set())
        evidence = {subject for subject in announced if not subject.startswith(_PERSON)}
        self._remove_if_empty(announced - evidence)
        return self._strike_out(writer, evidence) + self._strike_out(writer, announced - evidence)

    def _remove_if_empty(self, marks: Collection[str]) -> None:
        """Remove people who were entered and never given a sample."""
        if not marks:
            return
        for person in self._people.everyone():
            if _mark(person.name) in marks and not self._people.samples(person.id):
                self._people.begin_forgetting(person)
                self._people.finish_forgetting(person.id)

    def _strike_out(self, writer: str, subjects: Collection[str], besides: str = _NOBODY) -> int:
        removed = 0
        ordered = sorted(subjects)
        for start in range(0, len(ordered), _BATCH):
            with self._ledger.striking_out(writer, ordered[start : start + _BATCH]) as struck_out:
                for piece in sorted(struck_out.free):
                    if self._unused(piece, besides):
                        struck_out.confirm()
                        removed += self._evidence.delete(piece)
        return removed

    def _unused(self, evidence: str, besides: str) -> bool:
        return not (self._ledger.uses_evidence(evidence) or self._people.uses_evidence(evidence, besides=besides))

    @contextmanager
    def _holding(self, writer: str, *, wait: bool) -> Iterator[None]:
        """Be that writer. Without ``wait``, raises BlockingIOError while somebody is."""
        self._locks.mkdir(parents=True, exist_ok=True)
        path = self._locks / writer
        descriptor = _locked(path, wait)
        try:
            yield
        finally:
            try:
                path.unlink(missing_ok=True)
            finally:
                os.close(descriptor)


def _locked(path: Path, wait: bool) -> int:
    """A descriptor by which this process holds a lock file, which exists."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        except FileNotFoundError:
            pass  # taken for left behind, and removed, between its making and its locking
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _mark(name: str) -> str:
    """What stands for a person in an announcement: no name, which would outlive their forgetting."""
    return _PERSON + hashlib.sha256(name.encode()).hexdigest()[: 64 - len(_PERSON)]
