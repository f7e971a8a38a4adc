"""Requests over one connection to the index: consistency, paging, ties.

Works with a connected client as it is given, so it knows neither how one connects nor whose errors
come out: both are search/milvus.py's. Every request says how long it may take.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol, cast

from encoders.space import Embedding
from search.capabilities import Capabilities
from search.embedded import EmbeddedIndex
from search.records import ENTRY_FIELDS, FIELDS, cosines, in_order, quoted, to_entry, to_row
from search.store import MOST_HITS, Entry, Hit

BATCH_ROWS = 2_000
SCAN_ROWS = 8_000  # the embedded index goes through everything for each batch it hands out
BATCH_KEYS = 1_000
WIDE = 256  # hits per probe from which on answers carry keys only
LEAST_EF = 192  # candidates kept in an HNSW search: recall against time, see tests/benchmarks
SLOW_SECONDS = 120.0  # building, loading, flushing: slow is not dead
LEAST_FLUSH_ROWS = 5_000  # fewer are compared one by one anyway, and each flush makes a segment
OURS = {"retry_on_rate_limit": False}  # said with a request that the client would else repeat by itself
NOT_FOUND = 100  # the code of an error about a collection that does not exist
_BOUNDED_SECONDS = 6.0  # a little more than the 5 s by which the server's Bounded reads may lag
_ASK_SECONDS = 2.0  # between questions whether the server's index is complete
_HANDOVER_SECONDS = 15.0  # until a finished index is the one that answers
_EVERYTHING_IN_REACH = {"radius": -2.0}  # below any cosine
_TIE = 2e-6  # closer scores may be equal ones, rounded


class RecordIterator(Protocol):
    """Hands out records in batches."""

    def next(self) -> list[dict[str, Any]]:
        """The next batch, empty at the end."""


@dataclass
class Link:
    """A connection, and what is known through it about collections.

    Args:
        client: a connected MilvusClient.
        types: the client's names of field types.
        can: what the index can do.
        timeout: seconds that an ordinary request may take.
        consistency: what reads see, ``Bounded`` or ``Strong``; see MilvusStore.
        index: the embedded index that the client talks to; None for a server.
        ready: alias to space digest, of collections that were compared and loaded.
    """

    client: Any
    types: Any
    can: Capabilities
    timeout: float
    consistency: str
    index: EmbeddedIndex | None = None
    ready: dict[str, str] = field(default_factory=dict)
    _written: dict[str, float] = field(default_factory=dict)
    _deleted: dict[str, float] = field(default_factory=dict)
    _asked: dict[str, float] = field(default_factory=dict)
    _building: dict[str, float] = field(default_factory=dict)

    def write(self, name: str, records: Sequence[dict[str, Any]]) -> None:
        """Write records, not more than BATCH_ROWS."""
        if records:
            self.client.upsert(name, list(records), timeout=self.timeout, **OURS)
        self._written[name] = time.monotonic()

    def delete(self, name: str, keys: Sequence[str]) -> None:
        """Delete by key, not more than BATCH_KEYS."""
        if keys:
            self.client.delete(name, ids=list(keys), timeout=self.timeout, **OURS)
        self._deleted[name] = time.monotonic()

    def flush(self, name: str) -> None:
        """Flush, except where few rows gain by it: a server's acknowledged writes are durable."""
        if self.can.settles:
            growing = self.count(name, self.level(name)) - self._indexing(name)[1]
            if growing < LEAST_FLUSH_ROWS:
                return
        self.client.flush(name, timeout=SLOW_SECONDS, **OURS)

    def level(self, name: str) -> str:
        """What to ask for, so that Bounded reads do not miss this store's own last seconds.

        Session reads wait for exactly the client's own writes, but a server may give a deletion no
        time of its own that they could wait for: those need Strong ones.
        """
        lately = time.monotonic() - _BOUNDED_SECONDS
        if self.consistency == "Strong" or self._deleted.get(name, lately) > lately:
            return "Strong"
        return "Session" if self._written.get(name, lately) > lately else "Bounded"

    def nearest(self, name: str, probes: Sequence[Embedding], limit: int, expression: str) -> list[list[Hit]]:
        """Up to ``limit`` hits per probe, best first, in requests whose answers stay moderate."""
        parameters: dict[str, float] = {"ef": max(LEAST_EF, limit)} if self.can.index_type == "HNSW" else {}
        if self._incomplete(name):
            parameters |= _EVERYTHING_IN_REACH
        # Long answers to many probes hold the same rows again and again: their keys are asked for first.
        wide = limit >= WIDE and len(probes) > 1
        space = probes[0].space
        found: list[list[Hit]] = []
        known: dict[str, Entry] = {}
        step = max(1, MOST_HITS // limit)
        for start in range(0, len(probes), step):
            part = probes[start : start + step]
            answers = self.client.search(
                name,
                [probe.vector for probe in part],
                filter=expression,
                limit=limit,
                output_fields=["key"] if wide else ENTRY_FIELDS,
                search_params={"metric_type": "COSINE", "params": parameters},
                consistency_level=self.level(name),
                timeout=self.timeout,
                **OURS,
            )
            if wide:
                missing = {hit["entity"]["key"] for answer in answers for hit in answer} - known.keys()
                records = self.by_key(name, sorted(missing), ENTRY_FIELDS)
                known |= {record["key"]: to_entry(space, record) for record in records}
            for answer in answers:
                scored = [(hit["entity"], min(1.0, max(-1.0, float(hit["distance"])))) for hit in answer]
                # a row that was deleted between the two requests is no hit any more
                hits = [
                    Hit(known[record["key"]] if wide else to_entry(space, record), score)
                    for record, score in scored
                    if not wide or record["key"] in known
                ]
                found.append(in_order(hits))
        return found

    def best(self, name: str, probes: Sequence[Embedding], top: int, expression: str) -> list[list[Hit]]:
        """The ``top`` hits per probe, best first, equal scores by key also across the last place.

        A tie there is only resolved by fetching all who share it, so those probes ask again for more. Scores that
        may be equal ones, rounded by the index, are computed anew from the rows' vectors.
        """
        found: list[list[Hit]] = [[] for _ in probes]
        left, limit = list(range(len(probes))), min(top + 2, MOST_HITS)
        while left:
            answers = self.nearest(name, [probes[i] for i in left], limit, expression)
            for i, hits in zip(left, answers, strict=True):
                found[i] = hits
            left = [i for i in left if limit < MOST_HITS and _tied(found[i], top, limit)]
            limit = min(limit * 4, MOST_HITS)
        return [hits[:top] for hits in self._settled(name, probes, found)]

    def _settled(self, name: str, probes: Sequence[Embedding], found: Sequence[list[Hit]]) -> list[list[Hit]]:
        """The same hits, with scores computed from the vectors where the index's are too close to tell them apart."""
        close = [_close(hits) for hits in found]
        wanted = sorted({key for keys in close for key in keys})
        if not wanted:
            return list(found)
        rows = {record["key"]: to_row(probes[0].space, record) for record in self.by_key(name, wanted)}
        settled = []
        for probe, hits, keys in zip(probes, found, close, strict=True):
            held = [rows[key] for key in keys if key in rows]
            exact = dict(zip([row.key for row in held], cosines(probe, held), strict=True)) if held else {}
            settled.append(in_order(Hit(hit.row, exact.get(hit.row.key, hit.score)) for hit in hits))
        return settled

    def collections(self) -> list[str]:
        """The names of all collections, also of others."""
        return list(self.client.list_collections(timeout=self.timeout, **OURS))

    def described(self, name: str) -> dict[str, Any] | None:
        """What the index knows of a collection or alias; None if it does not exist."""
        try:
            return dict(self.client.describe_collection(name, timeout=self.timeout))
        except Exception as error:  # of the client's own class, which only search/milvus.py knows
            if getattr(error, "code", None) == NOT_FOUND:
                return None
            raise

    def by_key(self, name: str, keys: Sequence[str], fields: Sequence[str] = FIELDS) -> list[dict[str, Any]]:
        """Records by key."""
        found: list[dict[str, Any]] = []
        for start in range(0, len(keys), BATCH_KEYS):
            found += self.client.query(
                name,
                filter=f"key in {quoted(keys[start : start + BATCH_KEYS])}",
                output_fields=list(fields),
                consistency_level=self.level(name),
                timeout=self.timeout,
                **OURS,
            )
        return found

    def count(self, name: str, level: str = "Strong") -> int:
        """Number of records; every acknowledged write is seen unless another level is asked for."""
        counted = self.client.query(
            name, filter="", output_fields=["count(*)"], consistency_level=level, timeout=self.timeout, **OURS
        )
        return int(counted[0]["count(*)"])

    def _indexing(self, name: str) -> tuple[int, int]:
        """(rows in the finished index, rows in sealed segments) of a server's collection."""
        state = self.client.describe_index(name, "vector", timeout=self.timeout)
        return int(state["indexed_rows"]), int(state["total_rows"])

    def _incomplete(self, name: str) -> bool:
        """Whether a server still answers from a provisional index.

        While the real one is being built (half a minute for 50,000 rows) a stand-in answers that misses
        a third of the right rows. A search by range compares every row instead: slower, and exact.
        """
        if not self.can.settles:
            return False
        now = time.monotonic()
        if now - self._asked.get(name, float("-inf")) >= _ASK_SECONDS:
            self._asked[name] = now
            indexed, sealed = self._indexing(name)
            if indexed < sealed:
                self._building[name] = now
        return now - self._building.get(name, float("-inf")) < _HANDOVER_SECONDS

    def iterator(self, name: str, fields: Sequence[str], expression: str) -> RecordIterator:
        """Hand out the records that pass a filter, as of now, in batches.

        It reads what its node has received so far, whatever level it is given; the strong count before
        it makes the node catch up.
        """
        self.count(name)
        iterator = self.client.query_iterator(
            name,
            batch_size=SCAN_ROWS,
            filter=expression,
            output_fields=list(fields),
            timeout=self.timeout,
            **OURS,
        )
        return cast(RecordIterator, iterator)


def _close(hits: Sequence[Hit]) -> list[str]:
    """Keys of those, ordered by score, whose neighbour has nearly the same."""
    close: dict[str, None] = {}
    for one, other in pairwise(hits):
        if one.score - other.score <= _TIE:
            close |= {one.row.key: None, other.row.key: None}
    return list(close)


def _tied(hits: Sequence[Hit], top: int, limit: int) -> bool:
    """Whether rows beyond those fetched may share the last place's score."""
    return len(hits) >= limit and hits[top - 1].score - hits[-1].score <= _TIE
