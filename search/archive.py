"""The write side: tracks become evidence, vectors and rows; a person is enrolled and forgotten.

The order of writes, stated here once: evidence → encoding → record (ledger or people) → rows in the
index → "done" in the record. So the index never knows more than the records, the records never more
than the evidence, and :meth:`Archive.mend` can always finish what was interrupted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

from encoders.encoder import Encoder, Sample, Unusable
from encoders.face import FaceCrop
from encoders.space import Modality
from encoders.voice import SAMPLE_RATE
from ingest.jobs import FileReport
from ingest.ledger import Finding, Ledger, MediaRecord
from ingest.media import MediaError
from ingest.track import Extraction, FaceTrack, MediaId, SpeechTurn, media_id
from search.answers import (
    EnrolAnswer,
    ForgetAnswer,
    PeopleAnswer,
    Refusal,
    SpaceStatus,
    StatusAnswer,
)
from search.evidence import Evidence, EvidenceMissing
from search.people import NameTaken, People, check_name
from search.store import SHARED, Filter, Row, Store, keys_digest, named, row_key

_LOG = logging.getLogger("visavox")

# A photo has no place in time; rows and records say so with this span.
NO_SPAN = (-1, -1)
# Encoding reads evidence in batches of this many samples, so that memory stays bounded.
BATCH = 64
# Below these an enrolment still counts, with a warning.
LEAST_ENROLMENT_SPEECH = 2.0
LEAST_FACE_QUALITY = 0.25
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
    """

    def __init__(
        self,
        extract: Callable[[Path], Extraction],
        settings: str,
        encoders: Mapping[str, Encoder],
        store: Store,
        records: Records,
    ) -> None:
        self._extract = extract
        self._settings = settings
        self._encoders = encoders
        self._store = store
        self._ledger = records.ledger
        self._people = records.people
        self._evidence = records.evidence

    # ---- ingest -------------------------------------------------------------------------------

    def ingest_file(self, path: Path, archive: str) -> FileReport:
        """Read one file into the archive; a medium that is in already costs a hash only.

        A file that cannot be used is a failed report, never an exception; StoreError goes through.
        """
        media: MediaId | None = None
        try:
            media = _hash(path)
            known = self._ledger.medium(media)
            if known is not None and known.state == "done" and known.settings == self._settings:
                self._ledger.record_file(path, media, archive)
                return _report(path, "unchanged", known)
            extraction = self._extract(path)
        except MediaError as error:
            self._ledger.record_file(path, media, archive, reason=error.reason)
            return FileReport(
                path=str(path), state="failed", media=media, faces=0, voices=0, seconds_of_media=0.0,
                reason=error.reason, warnings=(),
            )  # fmt: skip
        record = self._write(extraction)
        self._ledger.record_file(path, extraction.media, archive)
        return _report(path, "done", record)

    def _write(self, extraction: Extraction) -> MediaRecord:
        """Evidence, records, rows, done: in this order."""
        findings = self._store_evidence(extraction.media, extraction.faces, extraction.turns)
        rows = self._encode(findings)
        usable = {row.evidence for held in rows.values() for row in held}
        record = MediaRecord(
            id=extraction.media, state="writing", kind=extraction.kind, seconds=extraction.duration,
            faces=len(extraction.faces), voices=len(extraction.turns), settings=self._settings,
            warnings=extraction.warnings,
        )  # fmt: skip
        stale = [finding for finding in self._ledger.findings(extraction.media) if finding not in findings]
        self._ledger.begin(record, [finding for finding in findings if finding.evidence in usable])
        self._upsert(rows)
        self._remove([finding for finding in stale if not self._people.owner(finding)])
        self._discard(findings)
        self._ledger.finish(extraction.media)
        return record

    def flush(self) -> None:
        """Make everything written so far durable and quick to search; call after a batch of files."""
        for encoder in self._encoders.values():
            self._store.flush(encoder.space)

    def mend(self, on_rows: Callable[[int, int], None] | None = None) -> int:
        """Make the index say what the records say: finish what was interrupted, fill an empty index.

        So an encoder that serves since a moment ago gets its rows, from the evidence and without the films, and
        what an encoder that serves no more has left in the index is dropped.

        Args:
            on_rows: told as rows are written how many samples of a space were encoded, and of how many.

        Returns:
            The number of rows that had to be written, renamed or removed, those of dropped spaces not counted.
        """
        self.drop_unused()
        for encoder in self._encoders.values():
            self._store.create(encoder.space)
        for person in self._people.leaving():
            self._finish_forgetting(person)
        changes = sum(self._mend_space(encoder, on_rows) for encoder in self._encoders.values())
        if changes:
            self._evidence.sweep({finding.evidence for finding in self._recorded()})
            self.flush()
        return changes

    def drop_unused(self) -> int:
        """Drop the rows of encoders that serve no more, in which a forgotten person would live on.

        Returns:
            The number of spaces dropped.
        """
        serving = {name: encoder.space for name, encoder in self._encoders.items()}
        return sum(self._store.drop_others(name, serving.get(name)) for name in sorted({SHARED, *serving}))

    def _mend_space(self, encoder: Encoder, on_rows: Callable[[int, int], None] | None = None) -> int:
        # The index is read before the records: what another process writes meanwhile is then in the records
        # at least, and is not taken for a row that nobody knows.
        present = self._store.keys(encoder.space)
        in_index = {row.key: row.person for row in self._store.rows(encoder.space, Filter(enrolled=True))}
        expected = {
            _key(finding, encoder): finding
            for finding in self._recorded()
            if Modality(finding.modality) in encoder.modalities
        }
        owners = {_place(sample): person for sample, person in self._people.samples()}
        missing = [finding for key, finding in expected.items() if key not in present]
        written = seen = 0
        for batch in _batches(missing, BATCH):
            rows = self._encode(batch, only=encoder)
            self._upsert(rows)
            written += len(rows[encoder.space.name])
            seen += len(batch)
            if on_rows:
                on_rows(seen, len(missing))
        surplus = sorted(present - set(expected))
        self._store.erase(encoder.space, surplus)
        in_records = {key: owners[_place(finding)] for key, finding in expected.items() if _place(finding) in owners}
        wrong = [
            key for key in (in_index.keys() | in_records.keys()) & present
            if key in expected and in_index.get(key, "") != in_records.get(key, "")
        ]  # fmt: skip
        renamed = [named(row, in_records.get(row.key, "")) for row in self._store.get(encoder.space, wrong)]
        self._store.upsert(encoder.space, renamed)
        return written + len(surplus) + len(renamed)

    def _recorded(self) -> Iterator[Finding]:
        """Every sample that the records say should have rows."""
        yield from self._ledger.all_findings()
        yield from (sample for sample, _ in self._people.samples())

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
                extraction = self._extract(path)
                self._enrol_extraction(name, known, extraction)
            except MediaError as error:
                refused.append(Refusal(str(path), error.reason))
            except (NameTaken, _NothingUsable) as error:
                refused.append(Refusal(str(path), str(error)))
            else:
                added.append(str(path))
                warnings += [f"{path}: {warning}" for warning in _enrolment_warnings(extraction)]
        if added:
            self.flush()
        return EnrolAnswer(name, added, refused, warnings)

    def _enrol_extraction(self, name: str, known: str, extraction: Extraction) -> None:
        """Evidence, records, rows, for the person of id ``known``, else of that name, entered if need be."""
        face, turns = largest_face(extraction.faces), longest_speaker(extraction.turns)
        findings = self._store_evidence(extraction.media, [face] if face else [], turns)
        rows = self._encode(findings)
        usable = {row.evidence for held in rows.values() for row in held}
        samples = [finding for finding in findings if finding.evidence in usable]
        try:
            if not samples:
                raise _NothingUsable("no usable face and no usable speech found: choose another clip or photo")
            person = self._people.find(known) if known else self._people.named(name)
            if {self._people.owner(sample) for sample in samples} - {"", person.id if person else ""}:
                raise NameTaken("this very sample is enrolled under another name: forget that person first")
            owner = person or self._people.create(name)
            self._people.add(owner, samples)
        finally:
            self._discard(findings)
        self._upsert({space: [named(row, owner.id) for row in held] for space, held in rows.items()})

    def forget(self, name: str) -> ForgetAnswer:
        """Remove a person: samples, rows, evidence. What an archive's own film shows stays, unnamed.

        Raises UnknownPerson, StoreError; interrupted, it is finished by the next ``mend``.
        """
        for leaving in self._people.leaving():
            self._finish_forgetting(leaving)  # one that was interrupted
        person = self._people.find(name)
        self._people.begin_forgetting(person)
        self.drop_unused()
        samples, rows, evidence = self._finish_forgetting(person.id)
        return ForgetAnswer(person.name, samples, rows, evidence)

    def _finish_forgetting(self, person: str) -> tuple[int, int, int]:
        samples = [sample for sample, _ in self._people.samples(person)]
        rows, evidence = self._remove(samples, besides=person)
        self._people.finish_forgetting(person)
        return len(samples), rows, evidence

    def _remove(self, findings: Sequence[Finding], besides: str = "") -> tuple[int, int]:
        """Remove rows and evidence of samples, but for what the archive's own media still show.

        With ``besides``, the id of a person who is being forgotten, the rows' bytes are erased too.
        """
        remove = self._store.erase if besides else self._store.delete
        kept = {_place(f) for media in {f.media for f in findings} for f in self._ledger.findings(media)}
        rows = 0
        for encoder in self._encoders.values():
            mine = [finding for finding in findings if Modality(finding.modality) in encoder.modalities]
            gone = [_key(finding, encoder) for finding in mine if _place(finding) not in kept]
            unnamed = [_key(finding, encoder) for finding in mine if _place(finding) in kept]
            remove(encoder.space, gone)
            self._store.upsert(encoder.space, [named(row, "") for row in self._store.get(encoder.space, unnamed)])
            rows += len(gone)
        return rows, self._discard(findings, besides)

    def _discard(self, findings: Sequence[Finding], besides: str = "") -> int:
        """Delete evidence that no record rests on, but for the records of one person; the number deleted."""
        unused = {
            evidence
            for evidence in {finding.evidence for finding in findings}
            if not self._ledger.uses_evidence(evidence) and not self._people.uses_evidence(evidence, besides=besides)
        }
        return sum(self._evidence.delete(evidence) for evidence in unused)

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

    def _store_evidence(self, media: str, faces: Sequence[FaceTrack], turns: Sequence[SpeechTurn]) -> list[Finding]:
        findings = []
        for face in faces:
            span = face.span.milliseconds() if face.span else NO_SPAN
            for shot in face.shots:
                identity = self._evidence.put_face(FaceCrop(shot.pixels, shot.landmarks))
                findings.append(Finding(media, Modality.FACE, identity, *span, face.index, float(shot.quality)))
        for turn in turns:
            identity = self._evidence.put_voice(turn.waveform)
            quality = min(1.0, len(turn.waveform) / SAMPLE_RATE / FULL_QUALITY_SPEECH)
            findings.append(Finding(media, Modality.VOICE, identity, *turn.span.milliseconds(), turn.speaker, quality))
        return findings

    def _encode(self, findings: Sequence[Finding], only: Encoder | None = None) -> dict[str, list[Row]]:
        """Rows by space, encoded from the stored evidence; what no encoder can use gives no row."""
        rows: dict[str, list[Row]] = {}
        for encoder in [only] if only else self._encoders.values():
            rows[encoder.space.name] = held = []
            for modality in sorted(encoder.modalities):
                mine = [finding for finding in findings if finding.modality == modality]
                for batch in _batches(mine, BATCH):
                    held += self._encode_batch(encoder, modality, batch)
        return rows

    def _encode_batch(self, encoder: Encoder, modality: Modality, batch: Sequence[Finding]) -> list[Row]:
        batch, samples = self._read(modality, batch)
        outcomes = encoder.encode(modality, samples)
        return [
            Row(
                key=_key(finding, encoder), embedding=outcome, media=finding.media, track=finding.track,
                span_ms=(finding.start_ms, finding.end_ms), evidence=finding.evidence,
                person=self._people.owner(finding), quality=finding.quality,
            )
            for finding, outcome in zip(batch, outcomes, strict=True)
            if not isinstance(outcome, Unusable)
        ]  # fmt: skip

    def _read(self, modality: Modality, batch: Sequence[Finding]) -> tuple[list[Finding], list[Sample]]:
        """The samples whose evidence is there; a medium that lost some is read again when its file is met."""
        read = self._evidence.face if modality is Modality.FACE else self._evidence.voice
        held: list[Finding] = []
        samples: list[Sample] = []
        for finding in batch:
            try:
                samples.append(read(finding.evidence))
                held.append(finding)
            except EvidenceMissing as error:
                _LOG.warning("%s; its medium is read again when it is met", error)
                self._ledger.reopen(finding.media)
        return held, samples

    def _upsert(self, rows: Mapping[str, Sequence[Row]]) -> None:
        for space, held in rows.items():
            self._store.create(self._encoders[space].space)
            self._store.upsert(self._encoders[space].space, held)


class _NothingUsable(ValueError):
    """A file to enrol shows no usable face and holds no usable speech."""


def largest_face(faces: Sequence[FaceTrack]) -> FaceTrack | None:
    """The face that takes most room, or None."""
    return max(faces, key=lambda face: face.area, default=None)


def longest_speaker(turns: Sequence[SpeechTurn]) -> list[SpeechTurn]:
    """All turns of the speaker who speaks longest in all; empty without speech."""
    ordered = sorted(turns, key=lambda turn: turn.speaker)
    groups = [list(group) for _, group in groupby(ordered, key=lambda turn: turn.speaker)]
    return max(groups, key=lambda group: sum(turn.span.duration for turn in group), default=[])


def _enrolment_warnings(extraction: Extraction) -> list[str]:
    warnings = list(extraction.warnings)
    face, turns = largest_face(extraction.faces), longest_speaker(extraction.turns)
    speech = sum(turn.span.duration for turn in turns)
    if turns and speech < LEAST_ENROLMENT_SPEECH:
        warnings.append(f"only {speech:.1f} s of speech: {LEAST_ENROLMENT_SPEECH:.0f} s or more identify better")
    if face and face.shots[0].quality < LEAST_FACE_QUALITY:
        warnings.append("the face is small, blurred or turned away: a clearer picture identifies better")
    if len(extraction.faces) > 1 and extraction.kind == "photo":
        warnings.append(f"{len(extraction.faces)} faces: the largest was taken")
    return warnings


def _hash(path: Path) -> MediaId:
    try:
        return media_id(path)
    except OSError as error:
        raise MediaError(path, f"cannot be read: {error.strerror or error}") from error


def _key(finding: Finding, encoder: Encoder) -> str:
    span = (finding.start_ms, finding.end_ms)
    return row_key(finding.media, Modality(finding.modality), span, finding.evidence, encoder.space)


def _place(finding: Finding) -> tuple[object, ...]:
    """What identifies a sample, without the space: the same for an archive's track and for an enrolment."""
    return finding.media, finding.modality, finding.evidence, finding.start_ms, finding.end_ms


def _report(path: Path, state: str, record: MediaRecord) -> FileReport:
    return FileReport(
        path=str(path), state="done" if state == "done" else "unchanged", media=record.id, faces=record.faces,
        voices=record.voices, seconds_of_media=record.seconds, reason=None, warnings=record.warnings,
    )  # fmt: skip


def _batches(items: Sequence[Finding], size: int) -> Iterator[list[Finding]]:
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch
