"""Holding an index against the records: what it should have, what it has, what is wrong and what mends it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from encoders.space import Modality, Space, SpaceMismatch
from ingest.ledger import Finding
from search.capabilities import Capabilities
from search.generations import Holding
from search.store import Filter, Store, row_key

ProblemKind = Literal[
    "missing_rows", "unknown_rows", "misnamed_rows", "other_contents", "unserved_space", "leftover", "too_many_rows"
]  # fmt: skip

_MENDING = "`visavox ingest` of any file mends it, and so does a restart of `visavox serve` on an embedded index"


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with an index.

    Args:
        kind: which of the known troubles.
        space: name of the space, or of the collection where it belongs to none.
        count: rows it concerns; 0 where rows are not what is wrong.
        message: what is wrong, in a sentence.
        remedy: what to do.
    """

    kind: ProblemKind
    space: str
    count: int
    message: str
    remedy: str


@dataclass(frozen=True)
class SpaceInspection:
    """One space of the serving encoders: rows in the index, and rows that the records ask for."""

    name: str
    digest: str
    dimension: int
    rows: int
    expected: int


class Inspector:
    """Compares an index with the records.

    Args:
        store: the index.
        findings: every sample of the archive's media.
        samples: every sample of a person, with the person's id.
    """

    def __init__(self, store: Store, findings: Iterable[Finding], samples: Sequence[tuple[Finding, str]]) -> None:
        self._store = store
        # an enrolled sample that an archive's medium shows too is one row, with the person's id
        self._findings = [*((finding, "") for finding in findings), *samples]

    def space(self, space: Space, modalities: Collection[Modality]) -> tuple[SpaceInspection, list[Problem]]:
        """Compare one space's rows with the samples of the modalities that its encoder encodes. Raises StoreError."""
        expected = {
            _key(finding, space): person
            for finding, person in self._findings
            if Modality(finding.modality) in modalities
        }
        try:
            present = self._store.keys(space)
            named = {row.key: row.person for row in self._store.rows(space, Filter(enrolled=True))}
        except SpaceMismatch as error:
            remedy = "it is not Visavox's, or damaged: remove that collection, then run `visavox ingest`"
            found = Problem("other_contents", space.name, 0, str(error), remedy)
            return SpaceInspection(space.name, space.digest, space.dimension, 0, len(expected)), [found]
        misnamed = sum(1 for key in present & expected.keys() if named.get(key, "") != expected[key])
        counts: Mapping[ProblemKind, tuple[int, str]] = {
            "missing_rows": (len(expected.keys() - present), "samples of the records have no row"),
            "unknown_rows": (len(present - expected.keys()), "rows are of no sample that the records know"),
            "misnamed_rows": (misnamed, "rows name another person than the records, or none"),
        }
        problems = [
            Problem(kind, space.name, count, f"{space.name}: {count} {words}", _MENDING)
            for kind, (count, words) in counts.items()
            if count
        ]
        return SpaceInspection(space.name, space.digest, space.dimension, len(present), len(expected)), problems


def inspect_holdings(held: Sequence[Holding], serving: Collection[Space]) -> list[Problem]:
    """What lies in an index beside the serving encoders' own collections.

    Args:
        held: its collections.
        serving: the spaces of the encoders that serve.
    """
    problems = []
    for holding in held:
        space = holding.to_space()
        if not holding.current:
            message = f"{holding.collection} was left behind by an interrupted rewrite or making of a collection"
            problems.append(Problem("leftover", holding.collection, 0, message, _MENDING))
        elif space is None:
            message = f"{holding.collection} says it holds space {holding.digest[:12]}, which its name contradicts"
            remedy = "it is not Visavox's, or damaged: remove that collection"
            problems.append(Problem("other_contents", holding.collection, 0, message, remedy))
        elif space not in serving:
            message = f"{holding.collection} is of an encoder that serves no more"
            problems.append(Problem("unserved_space", space.name, 0, message, "`visavox ingest` removes it"))
    return problems


def inspect_size(can: Capabilities, spaces: Sequence[SpaceInspection]) -> list[Problem]:
    """Spaces with more rows than an index of this kind searches quickly."""
    return [
        Problem(
            "too_many_rows", space.name, space.rows,
            f"{space.name}: {space.rows} rows, and this kind of index is quick up to {can.most_rows}",
            "move to a Milvus server: `visavox store move --to http://HOST:19530`",
        )
        for space in spaces
        if can.most_rows is not None and space.rows > can.most_rows
    ]  # fmt: skip


def _key(finding: Finding, space: Space) -> str:
    span = (finding.start_ms, finding.end_ms)
    return row_key(finding.media, Modality(finding.modality), span, finding.evidence, space)
