"""The write side: tracks become evidence, vectors and rows; a person is enrolled and forgotten.

The order of writes, stated here once. Whoever is killed between two of them leaves what the next run
finishes or removes at once, so that it ends as if nothing had happened:

* ``ingest``, each file: evidence announced → evidence → record of the medium and its tracks (``writing``) → rows →
  rows of an earlier reading removed → evidence without a record removed, announcement struck out → ``done`` →
  record of the file.
* ``enrol``, each file: evidence announced → evidence → (a new person: announced → entered) → record of the samples →
  evidence without a record removed, announcement struck out → rows.
* ``forget``: person marked as leaving → rows → evidence → record of the samples and the person.
* ``merge``: samples given to the other, person marked as merged → rows → record of the person.

Rows are written as the encoders make them that serve at that moment (:mod:`search.serving`): a model can be
exchanged at any time. Encoding reads the evidence, and writes nothing. So the index never knows more than the
records, the records never more than the evidence, and what the evidence knows beyond the records is announced.
:meth:`Archive.mend` finishes the rest: forgettings that were begun, announcements whose writer is no more, rows that
are missing, not named rightly, or that nobody knows. A medium that is not ``done`` is read again when its file is met.
Only when all of a call's writes are flushed does it answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from encoders.encoder import Encoder
from encoders.face import FaceCrop
from encoders.space import Modality
from encoders.voice import SAMPLE_RATE
from ingest.jobs import FileReport
from ingest.ledger import Finding, Ledger, MediaRecord, Pairing
from ingest.media import MediaError
from ingest.track import Extraction, FaceTrack, MediaId, SpeechTurn
from search.announcements import Announcement, Announcements
from search.answers import (
    EnrolAnswer,
    ForgetAnswer,
    PeopleAnswer,
    Refusal,
    SpaceStatus,
    StatusAnswer,
    SweepAnswer,
)
from search.enrolment import enrolment_warnings
from search.enrolment import largest_face as largest_face
from search.enrolment import longest_speaker as longest_speaker
from search.evidence import Evidence, face_id, voice_id
from search.filling import Filler, Known, OnRows, RowEncoder, key_of, place_of
from search.intake import Recogniser, content_hash, read_steadily, report_of
from search.people import NameTaken, People, Person, check_name, learned_identity
from search.serving import FixedModels, ServingModels
from search.store import SHARED, Row, Store, keys_digest, named
from search.sweeping import sweep

_LOG = logging.getLogger("visavox")

# A photo has no place in time; rows and records say so with this span.
NO_SPAN = (-1, -1)
# Three seconds of speech describe a voice about as well as ten.
FULL_QUALITY_SPEECH = 3.0


@dataclass(frozen=True)
class Records:
    """What an installation keeps besides the index: ledger, people and evidence."""

    ledger: Ledger
    people: People
    evidence: Evidence


class Archive:
    """Writes media and people into the records and the index.

    Args:
        extract: reads a file into tracks; raises MediaError.
        settings: digest of how it does so: media read under other settings are read again.
        encoders: serving encoders by the name of their space.
        store: the index.
        records: ledger, people, evidence.
        models: where ``encoders`` may be exchanged while this archive is used; None: they are not.
    """

    def __init__(
        self,
        extract: Callable[[Path], Extraction],
        settings: str,
        encoders: Mapping[str, Encoder],
        store: Store,
        records: Records,
        models: ServingModels | None = None,
    ) -> None:
        self._extract = extract
        self._settings = settings
        self._encoders = encoders
        self._models = models or FixedModels(encoders)
        self._store = store
        self._ledger = records.ledger
        self._people = records.people
        self._evidence = records.evidence
        self._recogniser = Recogniser(records.ledger, settings)
        self._announcements = Announcements(records.ledger, records.people, records.evidence)
        self._filler = Filler(store, records.ledger, records.people, records.evidence, self._models)

    # ---- ingest -------------------------------------------------------------------------------

    def ingest_file(
        self,
        path: Path,
        archive: str,
        check: Callable[[], None] = lambda: None,
        extract: Callable[[Path], Extraction] | None = None,
    ) -> FileReport:
        """Read one file into the archive; a medium that is in already costs a hash only.

        A file that cannot be used is a failed report, never an exception; StoreError goes through.

        Args:
            path: of the file.
            archive: name of the archive it belongs to.
            check: called before each thing that is written; what it raises abandons the file there.
            extract: reads the file, as the archive's own way of reading does.
        """
        media: MediaId | None = None
        try:
            media = content_hash(path)
            if known := self._recogniser.known(path, media, archive):
                return known
            extraction = read_steadily(path, extract or self._extract)
        except MediaError as error:
            check()
            return self._recogniser.refuse(path, media, archive, error)
        return self.enter(path, archive, extraction, check)

    def enter(
        self, path: Path, archive: str, extraction: Extraction, check: Callable[[], None] = lambda: None
    ) -> FileReport:
        """Write down what was found in a file, which may have been done in pieces. Raises StoreError."""
        record = self._write(extraction, check)
        self._ledger.record_file(path, extraction.media, archive)
        return report_of(path, "done", record)

    def _write(self, extraction: Extraction, check: Callable[[], None]) -> MediaRecord:
        """Evidence, records, rows, done: in this order."""
        check()
        found = _findings(extraction.media, extraction.faces, extraction.turns)
        stale = [finding for finding in self._ledger.findings(extraction.media) if finding not in found]
        with self._announcements.of({finding.evidence for finding in (*found, *stale)}):
            self._store_evidence(extraction.faces, extraction.turns)
            encoded = self._encode(found)
            record = MediaRecord(
                id=extraction.media, state="writing", kind=extraction.kind, seconds=extraction.duration,
                faces=len(extraction.faces), voices=len(extraction.turns), settings=self._settings,
                warnings=extraction.warnings,
            )  # fmt: skip
            with self._settled(found, encoded) as rows:
                check()
                usable = {row.evidence for held in rows.values() for row in held}
                kept = [finding for finding in found if finding.evidence in usable]
                self._ledger.begin(record, kept, _pairings(extraction))
                self._upsert(rows)
                check()
                self._remove_rows([finding for finding in stale if not self._people.owner(finding)])
        self._ledger.finish(extraction.media)
        return record

    @contextmanager
    def _settled(self, findings: Sequence[Finding], rows: dict[str, list[Row]]) -> Iterator[dict[str, list[Row]]]:
        """Rows as the encoders make them that serve until the block ends: these, or new ones of new encoders."""
        with self._models.writing() as encoders:
            if encoders is not self._encoders:
                self._encoders = encoders
                rows = self._encode(findings)
            yield rows

    def flush(self) -> None:
        """Make everything written so far durable and quick to search; call after a batch of files."""
        for encoder in self._encoders.values():
            self._store.flush(encoder.space)

    def sweep(self, places: Sequence[Path]) -> SweepAnswer:
        """Remove what is known of files below some places that are gone: see search.sweeping. Raises NothingThere."""

        def remove_rows(findings: Sequence[Finding]) -> int:
            unowned = [finding for finding in findings if not self._people.owner(finding)]
            return self._remove_everywhere(unowned)

        with self._models.erasing():
            swept = sweep(self._ledger, self._announcements, remove_rows, places)
        self.flush()
        return swept

    def _remove_everywhere(self, findings: Sequence[Finding]) -> int:
        """Remove rows out of every collection; the number of those that serve."""
        rows = 0
        serving = {encoder.space: encoder.modalities for encoder in self._encoders.values()}
        others = (space for space in self._store.spaces() if space.name == SHARED)
        for space, modalities in (dict.fromkeys(others, frozenset(Modality)) | serving).items():
            keys = [key_of(finding, space) for finding in findings if Modality(finding.modality) in modalities]
            self._store.erase(space, keys)
            rows += len(keys) if space in serving else 0
        return rows

    def mend(self, on_rows: Callable[[int, int], None] | None = None) -> int:
        """Make the index say what the records say: finish what was interrupted, fill an empty index.

        So an encoder that serves since a moment ago gets its rows, from the evidence and without the films, and
        what an encoder that serves no more has left in the index is dropped.

        Args:
            on_rows: told as rows are written how many samples of a space were encoded, and of how many.

        Returns:
            The number of rows that had to be written, renamed or removed, those of dropped spaces not counted.
        """
        self._announcements.remove_abandoned()
        self.drop_unused()
        for encoder in self._encoders.values():
            self._store.create(encoder.space)
        for person in self._people.leaving():
            self._finish_forgetting(person)
        merged = self._people.merging()
        changes = sum(self._filler.fill(encoder, on_rows) for encoder in self._encoders.values())
        if changes:
            recorded = {finding.evidence for finding in self._filler.recorded()}
            self._evidence.sweep(recorded.union(*self._ledger.announced().values()))
            self.flush()
        for gone, _into in merged:
            self._people.finish_merging(gone)
        return changes

    def drop_unused(self) -> int:
        """Drop the rows of encoders that serve no more and are not kept.

        Returns:
            The number of spaces dropped.
        """
        with self._settled((), {}):  # so that nobody chooses meanwhile what is unused now
            serving = {name: encoder.space for name, encoder in self._encoders.items()}
            kept, names = self._models.kept(), sorted({SHARED, *serving})
            return sum(self._store.drop_others(name, serving.get(name), keep=kept) for name in names)

    def fill(self, encoder: RowEncoder, on_rows: OnRows | None = None, known: Known | None = None) -> int:
        """Make the rows of an encoder that need not serve say what the records say: see Filler.fill.

        Others may write meanwhile: it is done again until it changes nothing.
        """
        self._store.create(encoder.space)
        changes = self._filler.fill(encoder, on_rows, known)
        if changes:
            self._store.flush(encoder.space)
        return changes

    # ---- people -------------------------------------------------------------------------------

    def enrol(self, name: str, paths: Iterable[Path]) -> EnrolAnswer:
        """Enrol the largest face and the longest-speaking voice of each file under a name.

        Quality gates warn; only a file with neither face nor speech, or unreadable, is refused. Nobody is
        entered when every file is refused and the name is new. Raises StoreError, ValueError (bad name).
        """
        check_name(name)
        return self._enrol(name, paths)

    def enrol_known(self, person: str, paths: Iterable[Path]) -> EnrolAnswer:
        """The same for somebody who is enrolled, by id. Raises UnknownPerson if they are not, or no more."""
        return self._enrol(self._people.find(person).name, paths, person)

    def _enrol(self, name: str, paths: Iterable[Path], known: str = "") -> EnrolAnswer:
        added: list[str] = []
        refused: list[Refusal] = []
        warnings: list[str] = []
        for path in paths:
            try:
                extraction = read_steadily(path, self._extract)
                self._enrol_extraction(name, known, extraction)
            except MediaError as error:
                refused.append(Refusal(str(path), error.reason))
            except (NameTaken, _NothingUsable) as error:
                refused.append(Refusal(str(path), str(error)))
            else:
                added.append(str(path))
                warnings += [f"{path}: {warning}" for warning in enrolment_warnings(extraction)]
        if added:
            self.flush()
        return EnrolAnswer(name, added, refused, warnings)

    def _enrol_extraction(self, name: str, known: str, extraction: Extraction) -> None:
        """Evidence, records, rows, for the person of id ``known``, else of that name, entered if need be."""
        face, turns = largest_face(extraction.faces), longest_speaker(extraction.turns)
        faces = [face] if face else []
        found = _findings(extraction.media, faces, turns)
        with ExitStack() as until_written:
            with self._announcements.of({finding.evidence for finding in found}) as announcement:
                self._store_evidence(faces, turns)
                rows = until_written.enter_context(self._settled(found, self._encode(found)))
                owner, samples = self._enter(name, known, found, rows, announcement)
            self._upsert({space: [named(row, owner.id) for row in held] for space, held in rows.items()})
        if self._people.owner(samples[0]) != owner.id:
            self._remove_rows(samples, erase=True)  # forgotten by another process before their rows came

    def _enter(
        self,
        name: str,
        known: str,
        found: Sequence[Finding],
        rows: Mapping[str, Sequence[Row]],
        announcement: Announcement,
    ) -> tuple[Person, list[Finding]]:
        """Record the samples that gave rows; whose they are, and which."""
        usable = {row.evidence for held in rows.values() for row in held}
        samples = [finding for finding in found if finding.evidence in usable]
        if not samples:
            raise _NothingUsable("no usable face and no usable speech found: choose another clip or photo")
        person = self._people.find(known) if known else self._people.named(name)
        if {self._people.owner(sample) for sample in samples} - {"", person.id if person else ""}:
            raise NameTaken("this very sample is enrolled under another name: forget that person first")
        owner = person or announcement.enter(name)
        self._people.add(owner, samples)
        return owner, samples

    def merge(self, name: str, into: str, version: int | None = None) -> Person:
        """Give all samples of one person to another, who is returned, and let the first go.

        ``version``, and what it raises: see :meth:`search.people.People.merge`; StoreError too. Interrupted, it is
        finished when it is asked for again, by id, or by the next ``mend``.
        """
        with self._settled((), {}):
            gone, target = self._people.merge(name, into, version)
            samples = [sample for sample, _ in self._people.samples(target.id)]
            for encoder in self._encoders.values():
                mine = [sample for sample in samples if Modality(sample.modality) in encoder.modalities]
                rows = self._store.get(encoder.space, [key_of(sample, encoder.space) for sample in mine])
                self._store.upsert(encoder.space, [named(row, target.id) for row in rows if row.person != target.id])
        self.flush()
        self._people.finish_merging(gone)
        return target

    def forget(self, name: str, version: int | None = None) -> ForgetAnswer:
        """Remove a person: samples, rows, evidence. What an archive's own film shows stays, unnamed.

        With a ``version``, only while their record is of that one: else PreconditionFailed.
        Raises UnknownPerson, StoreError; interrupted, it is finished by the next ``forget`` or ``mend``.
        """
        self._announcements.remove_abandoned()  # an enrolment that was interrupted may have left evidence of them
        for leaving in self._people.leaving():
            self._finish_forgetting(leaving)  # one that was interrupted
        person = self._people.find(name)
        self._people.begin_forgetting(person, version)
        self.drop_unused()
        samples, rows, evidence = self._finish_forgetting(person.id)
        learned_by = list(self._models.learned_from(learned_identity(person.id)))
        return ForgetAnswer(person.name, samples, rows, evidence, learned_by)

    def _finish_forgetting(self, person: str) -> tuple[int, int, int]:
        """Rows, evidence, record of somebody who leaves; the number of samples, rows and pieces removed."""
        samples = [sample for sample, _ in self._people.samples(person)]
        with self._models.erasing():
            rows = self._remove_rows(samples, erase=True)
            evidence = self._announcements.discard({sample.evidence for sample in samples}, besides=person)
            self._people.finish_forgetting(person)
        return len(samples), rows, evidence

    def _remove_rows(self, findings: Sequence[Finding], *, erase: bool = False) -> int:
        """Remove rows of samples, or their name where the archive's own media still show them; the number removed.

        With ``erase`` their bytes go too, as those of somebody who is being forgotten must, and out of every
        collection: also of one that is being filled, or kept to go back to.
        """
        remove = self._store.erase if erase else self._store.delete
        kept = {place_of(f) for media in {f.media for f in findings} for f in self._ledger.findings(media)}
        rows = 0
        spaces = {encoder.space: encoder.modalities for encoder in self._encoders.values()}
        if erase:
            others = (space for space in self._store.spaces() if space.name == SHARED)
            spaces = dict.fromkeys(others, frozenset(Modality)) | spaces
        for space, modalities in spaces.items():
            mine = [finding for finding in findings if Modality(finding.modality) in modalities]
            gone = [key_of(finding, space) for finding in mine if place_of(finding) not in kept]
            unnamed = [key_of(finding, space) for finding in mine if place_of(finding) in kept]
            remove(space, gone)
            self._store.upsert(space, [named(row, "") for row in self._store.get(space, unnamed)])
            rows += len(gone)
        return rows

    def people(self) -> PeopleAnswer:
        """Everyone enrolled, with the number of their face and voice samples."""
        return self._people.summary()

    def status(self) -> StatusAnswer:
        """What is held; rows and keys are read from the index itself, at Strong consistency."""
        spaces = {}
        for name, encoder in self._encoders.items():
            keys = self._store.keys(encoder.space)
            spaces[name] = SpaceStatus(len(keys), keys_digest(keys))
        media, failed = self._ledger.counts()
        return StatusAnswer(spaces, media, failed, len(self._people.everyone()), len(self._encoders))

    # ---- evidence and rows --------------------------------------------------------------------

    def _store_evidence(self, faces: Sequence[FaceTrack], turns: Sequence[SpeechTurn]) -> None:
        for face in faces:
            for shot in face.shots:
                self._evidence.put_face(FaceCrop(shot.pixels, shot.landmarks))
        for turn in turns:
            self._evidence.put_voice(turn.waveform)

    def _encode(self, findings: Sequence[Finding]) -> dict[str, list[Row]]:
        """Rows by space, encoded from the stored evidence; what no encoder can use gives no row."""
        return {encoder.space.name: self._filler.encode(encoder, findings) for encoder in self._encoders.values()}

    def _upsert(self, rows: Mapping[str, Sequence[Row]]) -> None:
        for space, held in rows.items():
            self._store.create(self._encoders[space].space)
            self._store.upsert(self._encoders[space].space, held)


class _NothingUsable(ValueError):
    """A file to enrol shows no usable face and holds no usable speech."""


def _findings(media: str, faces: Sequence[FaceTrack], turns: Sequence[SpeechTurn]) -> list[Finding]:
    """What the records will say of faces and turns once their evidence is stored."""
    findings = []
    for face in faces:
        span = face.span.milliseconds() if face.span else NO_SPAN
        for shot in face.shots:
            identity = face_id(FaceCrop(shot.pixels, shot.landmarks))
            findings.append(Finding(media, Modality.FACE, identity, *span, face.index, float(shot.quality)))
    for turn in turns:
        quality = min(1.0, len(turn.waveform) / SAMPLE_RATE / FULL_QUALITY_SPEECH)
        identity = voice_id(turn.waveform)
        findings.append(Finding(media, Modality.VOICE, identity, *turn.span.milliseconds(), turn.speaker, quality))
    return findings


def _pairings(extraction: Extraction) -> list[Pairing]:
    """What the records will say of who speaks in each turn; nothing where it was not judged."""
    pairings = []
    for turn, speaking in zip(extraction.turns, extraction.speaking or (), strict=False):
        track = None if speaking.track is None else extraction.faces[speaking.track].index
        overlapped = sum(span.duration for span in turn.overlaps) / max(turn.span.duration, 1e-9)
        place = (extraction.media, voice_id(turn.waveform), *turn.span.milliseconds())
        pairings.append(Pairing(*place, track, speaking.probability, speaking.off_screen, min(1.0, overlapped)))
    return pairings
