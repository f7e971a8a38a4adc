"""Rows out of the records: what the ledger and the people's catalogue know, encoded from the stored evidence.

So an index can be made anew without the films, and a model that does not serve yet gets its rows while another
one serves. What the records say changes meanwhile: a row is only made of what they say at that moment, with
nobody being forgotten at the same time, and it is gone through again until nothing is left to do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol, TypeVar

from encoders.encoder import Sample, Unusable
from encoders.space import Embedding, Modality, Space
from ingest.ledger import Finding, Ledger
from search.evidence import Evidence, EvidenceMissing
from search.people import People
from search.serving import ServingModels
from search.store import Filter, Row, Store, named, row_key

_LOG = logging.getLogger("visavox")
# Encoding reads evidence in batches of this many samples, so that memory stays bounded.
BATCH = 64

Item = TypeVar("Item")
OnRows = Callable[[int, int], None]


class RowEncoder(Protocol):
    """What rows are made with: :class:`encoders.encoder.Encoder`."""

    @property
    def space(self) -> Space:
        """Where its vectors live."""

    @property
    def modalities(self) -> frozenset[Modality]:
        """What it encodes."""

    def encode(self, modality: Modality, samples: Sequence[Sample], /) -> list[Embedding | Unusable]:
        """Points of samples, in order."""


@dataclass
class Known:
    """What a pass through the records left in a space, for the next one.

    Args:
        people: whom the rows name, by their keys ("" for nobody); None: the index is to be read.
        unusable: keys of samples that the encoder cannot use, which have no row.
    """

    people: dict[str, str] | None = None
    unusable: set[str] = field(default_factory=set)


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

    def encode(self, encoder: RowEncoder, findings: Sequence[Finding]) -> list[Row]:
        """Rows of samples, from the stored evidence; what the encoder cannot use gives none."""
        rows: list[Row] = []
        for modality in sorted(encoder.modalities):
            mine = [finding for finding in findings if finding.modality == modality]
            for batch in _batches(mine, BATCH):
                rows += self._encode_batch(encoder, modality, batch)
        return rows

    def fill(self, encoder: RowEncoder, on_rows: OnRows | None = None, known: Known | None = None) -> int:
        """Make the rows of an encoder's space, which exists, say what the records say.

        Stopped at any moment, it goes on where it was.

        Args:
            encoder: whose space it is.
            on_rows: told as rows are written how many samples were encoded, and of how many.
            known: what the pass before left, where nobody else writes rows into the space; brought up to date.

        Returns:
            The number of rows written, renamed or removed.
        """
        known = Known() if known is None else known
        # The index is read before the records: what another process writes meanwhile is then in the records
        # at least, and is not taken for a row that nobody knows.
        present = known.people if known.people is not None else self._in_index(encoder.space)
        expected = {
            key_of(finding, encoder.space): finding
            for finding in self.recorded()
            if Modality(finding.modality) in encoder.modalities
        }
        owners = {place_of(sample): person for sample, person in self._people.samples()}
        wrong = [
            finding for key, finding in expected.items()
            if key in present and present[key] != owners.get(place_of(finding), "")
        ]  # fmt: skip
        missing = [finding for key, finding in expected.items() if key not in present and key not in known.unusable]
        written = self._write(encoder, missing, on_rows, known)
        surplus = sorted(present.keys() - expected.keys())
        self._store.erase(encoder.space, surplus)
        renamed: dict[str, str] = {}
        for batch in _batches(wrong, BATCH):
            renamed |= self._rename(encoder.space, batch)
        present |= written | renamed
        for key in surplus:
            del present[key]
        known.people = present
        return len(written) + len(surplus) + len(renamed)

    def _in_index(self, space: Space) -> dict[str, str]:
        """Whom the rows of a space name, by their keys."""
        people = dict.fromkeys(self._store.keys(space), "")
        named_rows = self._store.rows(space, Filter(enrolled=True))
        return people | {row.key: row.person for row in named_rows if row.key in people}

    def _write(
        self, encoder: RowEncoder, missing: Sequence[Finding], on_rows: OnRows | None, known: Known
    ) -> dict[str, str]:
        """Encode samples; whom the rows name that were written, by their keys."""
        written: dict[str, str] = {}
        seen = 0
        for batch in _batches(missing, BATCH):
            with self._models.filling():
                recorded = self._still_recorded(batch)
                rows = self.encode(encoder, recorded)
                self._store.upsert(encoder.space, rows)
            known.unusable |= {key_of(finding, encoder.space) for finding in recorded} - {row.key for row in rows}
            written |= {row.key: row.person for row in rows}
            seen += len(batch)
            if on_rows:
                on_rows(seen, len(missing))
        return written

    def _rename(self, space: Space, findings: Sequence[Finding]) -> dict[str, str]:
        """Let rows say whose the records say their samples are; what those say that were changed."""
        with self._models.filling():
            owners = {key_of(finding, space): self._people.owner(finding) for finding in findings}
            rows = self._store.get(space, list(owners))
            renamed = [named(row, owners[row.key]) for row in rows if row.person != owners[row.key]]
            self._store.upsert(space, renamed)
        return {row.key: row.person for row in renamed}

    def _still_recorded(self, findings: Sequence[Finding]) -> list[Finding]:
        """Those that the records know still: somebody may have been forgotten since they were read."""
        tracks = {place_of(f) for media in {f.media for f in findings} for f in self._ledger.findings(media)}
        return [finding for finding in findings if place_of(finding) in tracks or self._people.owner(finding)]

    def _encode_batch(self, encoder: RowEncoder, modality: Modality, batch: Sequence[Finding]) -> list[Row]:
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
