"""Rows out of the records: what the ledger and the people's catalogue know, encoded from the stored evidence.

So an index can be made anew without the films, and a model that does not serve yet gets its rows while another
one serves. What the records say changes meanwhile: a row is only made of what they say at that moment, with
nobody being forgotten at the same time, and it is gone through again until nothing is left to do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from encoders.encoder import Encoder, Sample, Unusable
from encoders.space import Modality, Space
from ingest.ledger import Finding, Ledger
from search.evidence import Evidence, EvidenceMissing
from search.people import People
from search.serving import ServingModels
from search.store import Filter, Row, Store, named, row_key

_LOG = logging.getLogger("visavox")
# Encoding reads evidence in batches of this many samples, so that memory stays bounded.
BATCH = 64

Item = TypeVar("Item")


class Filler:
    """Makes rows of what the records say.

    Args:
        store: the index.
        ledger: what was found in media.
        people: whose samples there are.
        evidence: what is encoded.
        models: keeps forgetting and filling apart.
    """

    def __init__(self, store: Store, ledger: Ledger, people: People, evidence: Evidence, models: ServingModels) -> None:
        self._store = store
        self._ledger = ledger
        self._people = people
        self._evidence = evidence
        self._models = models

    def recorded(self) -> Iterator[Finding]:
        """Every sample that the records say should have rows."""
        yield from self._ledger.all_findings()
        yield from (sample for sample, _ in self._people.samples())

    def encode(self, encoder: Encoder, findings: Sequence[Finding]) -> list[Row]:
        """Rows of samples, from the stored evidence; what the encoder cannot use gives none."""
        rows: list[Row] = []
        for modality in sorted(encoder.modalities):
            mine = [finding for finding in findings if finding.modality == modality]
            for batch in _batches(mine, BATCH):
                rows += self._encode_batch(encoder, modality, batch)
        return rows

    def fill(
        self,
        encoder: Encoder,
        on_rows: Callable[[int, int], None] | None = None,
        unusable: set[str] | None = None,
    ) -> int:
        """Make the rows of an encoder's space, which exists, say what the records say.

        Stopped at any moment, it goes on where it was.

        Args:
            encoder: whose space it is.
            on_rows: told as rows are written how many samples were encoded, and of how many.
            unusable: keys of samples that are known to give no row; those that are found out are added.

        Returns:
            The number of rows written, renamed or removed.
        """
        # The index is read before the records: what another process writes meanwhile is then in the records
        # at least, and is not taken for a row that nobody knows.
        present = self._store.keys(encoder.space)
        in_index = {row.key: row.person for row in self._store.rows(encoder.space, Filter(enrolled=True))}
        expected = {
            key_of(finding, encoder.space): finding
            for finding in self.recorded()
            if Modality(finding.modality) in encoder.modalities
        }
        owners = {place_of(sample): person for sample, person in self._people.samples()}
        known = present | (unusable or set())
        missing = [finding for key, finding in expected.items() if key not in known]
        written = self._write(encoder, missing, on_rows, unusable)
        surplus = sorted(present - set(expected))
        self._store.erase(encoder.space, surplus)
        in_records = {key: owners.get(place_of(finding), "") for key, finding in expected.items()}
        wrong = [expected[key] for key in present & set(expected) if in_index.get(key, "") != in_records[key]]
        return written + len(surplus) + sum(self._rename(encoder.space, batch) for batch in _batches(wrong, BATCH))

    def _write(
        self,
        encoder: Encoder,
        missing: Sequence[Finding],
        on_rows: Callable[[int, int], None] | None,
        unusable: set[str] | None,
    ) -> int:
        written = seen = 0
        for batch in _batches(missing, BATCH):
            with self._models.filling():
                recorded = self._still_recorded(batch)
                rows = self.encode(encoder, recorded)
                self._store.upsert(encoder.space, rows)
            if unusable is not None:
                unusable |= {key_of(finding, encoder.space) for finding in recorded} - {row.key for row in rows}
            written += len(rows)
            seen += len(batch)
            if on_rows:
                on_rows(seen, len(missing))
        return written

    def _rename(self, space: Space, findings: Sequence[Finding]) -> int:
        """Let rows say whose the records say their samples are; the number of rows changed."""
        with self._models.filling():
            owners = {key_of(finding, space): self._people.owner(finding) for finding in findings}
            rows = self._store.get(space, list(owners))
            renamed = [named(row, owners[row.key]) for row in rows if row.person != owners[row.key]]
            self._store.upsert(space, renamed)
        return len(renamed)

    def _still_recorded(self, findings: Sequence[Finding]) -> list[Finding]:
        """Those that the records know still: somebody may have been forgotten since they were read."""
        tracks = {place_of(f) for media in {f.media for f in findings} for f in self._ledger.findings(media)}
        return [finding for finding in findings if place_of(finding) in tracks or self._people.owner(finding)]

    def _encode_batch(self, encoder: Encoder, modality: Modality, batch: Sequence[Finding]) -> list[Row]:
        batch, samples = self._read(modality, batch)
        outcomes = encoder.encode(modality, samples)
        return [
            Row(
                key=key_of(finding, encoder.space), embedding=outcome, media=finding.media, track=finding.track,
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


def key_of(finding: Finding, space: Space) -> str:
    """The key of a sample's row in a space."""
    span = (finding.start_ms, finding.end_ms)
    return row_key(finding.media, Modality(finding.modality), span, finding.evidence, space)


def place_of(finding: Finding) -> tuple[object, ...]:
    """What identifies a sample, without the space: the same for an archive's track and for an enrolment."""
    return finding.media, finding.modality, finding.evidence, finding.start_ms, finding.end_ms


def _batches(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch
